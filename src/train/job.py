"""Trains what a job file in a bucket asks for, with the ordinary stages, and publishes the result there.

in:   jobs/<id>.json, the dataset that it names
out:  jobs/<id>.status.json (queued, running with epoch and metrics, failed with the reason, done),
      jobs/<id>.log, models/<id>/… and the entry <id> in inference.json (src/entries.py)

A job file; what `params` leaves out, the recipe says:

    {
      "id": "fashion-7",                           the file's name without .json
      "task": "image",                             of src/tasks
      "dataset": "s3://team/data/photos.zip",      or a key of the same bucket; a prefix ends with /
      "sha256": "9f86d081…",                       of that file; may be left out
      "recipe": "fashion",                         of recipes/; left out: the first one of the task
      "params": {"fit": {"epochs": 20}}            what differs from the recipe
    }

Any number of workers may watch the same jobs: each is run by one. While it runs, its checkpoint lies beside
it; the job of a worker that died is taken over by the next one and ends with the same model. SIGTERM or
Ctrl-C has the training write a checkpoint and leaves the job to others; a second one ends at once. A job that
is over runs again when its file is another one, or when its status is deleted.

Credentials come as for all AWS tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, the machine's
role. templates/ has service files for systemd and PM2.

python -m src.train.job s3://bucket/jobs/ID.json       # that job; exit status 1 where it fails
python -m src.train.job --watch s3://bucket/jobs/      # one after the other, until it is ended
"""

import argparse
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from src import command, entries
from src.bucket import AwayError, Bucket, Location
from src.errors import UserError
from src.files import alone
from src.jobs import lease as leases
from src.jobs import status as statuses
from src.jobs.order import ID
from src.jobs.stages import Stopped, stoppable
from src.jobs.work import Work, beside

FOLDER = Path("build/jobs")
OTHERS = (".status.json", ".lease.json")  # what lies beside job files
WAIT = 5.0  # seconds, at most, between two looks for jobs


def main() -> None:
    """Runs the command."""
    arguments = parse()
    place = Location.parse(arguments.url)
    bucket = Bucket(place.bucket, arguments.endpoint_url)
    worker = Worker(bucket, arguments.lease, arguments.attempts)
    try:
        with stoppable():
            if arguments.watch:
                worker.watch(place.key, arguments.until_empty)
            else:
                worker.run_one(place)
    except Stopped:
        print("ended as asked; the job, if there was one, is left to other workers")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("url", help="of the job file; with --watch of the folder of job files")
    parser.add_argument("--watch", action="store_true", help="run one job after the other")
    parser.add_argument("--until-empty", action="store_true", help="with --watch: end when all jobs are over")
    parser.add_argument("--endpoint-url", help="of the store (default: AWS_ENDPOINT_URL, else AWS)")
    parser.add_argument(
        "--lease",
        type=_seconds,
        default=60.0,
        help="seconds after which a silent worker is dead (default: 60)",
    )
    parser.add_argument(
        "--attempts", type=int, default=20, help="workers that may die with a job (default: 20)"
    )
    arguments = parser.parse_args()
    wanted = "/" if arguments.watch else ".json"
    if not arguments.url.endswith(wanted):
        parser.error(f"found {arguments.url!r}, expected an address that ends with {wanted}")
    return arguments


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds from 1 up")
    return seconds


@dataclass
class Worker:
    """Runs jobs, one at a time.

    Args:
        bucket: Where they are.
        seconds: After which its leases expire.
        attempts: How many workers may die with a job.
    """

    bucket: Bucket
    seconds: float
    attempts: int
    known: dict[str, tuple[str, str]] = field(default_factory=dict)  # jobs that are over: ETags, status's too

    def __post_init__(self) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def run_one(self, place: Location) -> None:
        """Runs one job.

        Raises:
            UserError: If it fails, or another worker has it.
        """
        said = self.run(place)
        if said.get("state") == "failed":
            raise UserError(f"{place}: failed: {said.get('reason')}")
        if not said and self.bucket.find(place.key) is None:
            raise UserError(f"{place}: not found")
        if said.get("state") != "done":
            raise UserError(f"{place}: another worker runs it")
        print(f"{place}: done")

    def watch(self, prefix: str, until_empty: bool = False) -> None:
        """Runs one job after the other, in the order of their names.

        Args:
            prefix: Of their keys.
            until_empty: Whether to end when all are over, here or elsewhere.

        Raises:
            UserError: If the store refuses. One that does not answer is asked again.
        """
        print(f"{self.name} watches {self.bucket.place(prefix)}", flush=True)
        while True:
            try:
                waiting = self.waiting(prefix)
                if until_empty and not waiting:
                    return
                if any(self.run(Location(self.bucket.name, key)) for key in waiting):
                    continue  # there may be new ones, before those that are left
            except AwayError as error:
                print(f"warning: {error}; trying again", flush=True)
            time.sleep(min(WAIT, self.seconds / leases.SHARE))

    def waiting(self, prefix: str) -> list[str]:
        """Returns the keys of the jobs that are not over; those that nobody has are called queued."""
        found = {
            each.key: each.etag for each in self.bucket.objects(prefix) if "/" not in each.key[len(prefix) :]
        }
        keys = []
        for key, job in found.items():
            if not key.endswith(".json") or key.endswith(OTHERS):
                continue
            name = beside(key, "status.json")
            about = (job, found.get(name, ""))
            if self.known.get(key) == about:
                continue
            if statuses.over(statuses.read(self.bucket, name)[0], job):
                self.known[key] = about
            else:
                statuses.queue(self.bucket, name, job)
                keys.append(key)
        return keys

    def run(self, place: Location) -> dict[str, Any]:
        """Runs a job, unless it is over or another worker has it.

        Returns:
            Its status if it is over; else nothing.

        Raises:
            Stopped: If this process is to end; the job is left to others.
            UserError: If there is no such job, or the store refuses.
        """
        said, waits = self._ask(place)
        if not waits:
            return said
        with ExitStack() as stack:
            name = PurePosixPath(place.key).stem
            folder = FOLDER / (name if re.fullmatch(ID, name) else "invalid")  # which is said when it is read
            lock = folder.with_suffix(".lock")
            try:
                stack.enter_context(alone(lock))
            except UserError:  # a worker on this machine has it
                return {}
            stack.callback(lambda: lock.unlink(missing_ok=True))
            key = beside(place.key, "lease.json")
            lease = leases.take(self.bucket, key, self.name, self.seconds)
            if lease is None:
                return {}
            stack.callback(lease.leave)
            lease.keep()
            try:
                return self._run(place, lease, folder)
            except leases.LostError as error:
                print(f"{place}: {error}", flush=True)
                return {}

    def _ask(self, place: Location) -> tuple[dict[str, Any], bool]:
        """Returns the status of a job that is over, and whether there is one to run."""
        there = self.bucket.read(place.key)
        if there is None:
            return {}, False
        said, _ = statuses.read(self.bucket, beside(place.key, "status.json"))
        return (said, False) if statuses.over(said, there[1].etag) else ({}, True)

    def _run(self, place: Location, lease: leases.Lease, folder: Path) -> dict[str, Any]:
        """Runs a job whose lease this worker has."""
        there = self.bucket.read(place.key)
        name = beside(place.key, "status.json")
        said, etag = statuses.read(self.bucket, name)
        if there is None or statuses.over(said, there[1].etag):  # since it was asked the last time
            lease.release()
            return said
        status = statuses.Status(self.bucket, name, lease, there[1].etag, etag)
        work = Work(place, there[1].etag, self.bucket, lease, status, folder)
        print(f"{place}: attempt {lease.attempt} by {self.name}", flush=True)
        try:
            try:
                entry = self._train(work, there[0])
                end = {**work.said, "state": "done", "entry": entry}
            except UserError as error:
                lease.check()
                end = {**work.said, "state": "failed", "reason": str(error)}
            work.checkpoints.stop()
            work.patiently(lambda: self._close(work, end))
            lease.release()
            return end
        except Stopped:
            self._hand_back(work)
            raise
        finally:
            work.checkpoints.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def _train(self, work: Work, content: bytes) -> entries.Entry:
        """Runs the job and publishes its results.

        Raises:
            LostError: If another worker has taken it over.
            UserError: If it fails.
        """
        if work.lease.attempt > self.attempts:
            raise UserError(f"{self.attempts} workers have taken it up and died")
        results = work.run(content)
        work.say(stage="publish")

        def check() -> None:
            work.check()
            work.lease.renew()  # whoever could have taken over cannot any more

        created = datetime.now(UTC).isoformat(timespec="seconds")
        id = PurePosixPath(work.place.key).stem
        return work.patiently(lambda: entries.publish(self.bucket, id, results, created, check))

    def _close(self, work: Work, end: dict[str, Any]) -> None:
        """Says how a job has ended, and removes the checkpoint, which only a job that runs has."""
        work.upload_log()
        work.status.write(**end)
        self.bucket.delete(work.key("checkpoint.npz"))

    def _hand_back(self, work: Work) -> None:
        """Leaves a job to others, with the checkpoint that its training has just written."""
        try:
            work.checkpoints.finish()
            work.upload_log()
            work.status.write("queued", **work.said)
        except UserError as error:
            print(f"warning: {error}", flush=True)
        work.lease.release()


if __name__ == "__main__":
    command.run(main)
