"""A worker: takes the jobs that nobody runs, each under its lease, and publishes what they give."""

import os
import re
import secrets
import shutil
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from src.errors import UserError
from src.files import alone
from src.jobs import lease as leases
from src.jobs import status as statuses
from src.jobs.order import ID
from src.jobs.stages import Stopped
from src.jobs.work import CHECKPOINT, Work, beside
from src.s3 import entries
from src.s3.bucket import AwayError, Bucket, Location

FOLDER = Path("build/jobs")
OTHERS = (".status.json", ".lease.json")  # what lies beside job files and is called as they are
LEASE = "lease.json"
BESIDE = (LEASE, CHECKPOINT)  # of a job that runs
WAIT = 5.0  # seconds, at most, between two looks for jobs


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
                    sweep(set())
                    return
                if any(self.run(Location(self.bucket.name, key)) for key in waiting):
                    continue  # there may be new ones, before those that are left
                sweep({PurePosixPath(key).stem for key in waiting})
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
                if any(beside(key, each) in found for each in BESIDE):
                    self._clear(key)
                else:
                    self.known[key] = about
            else:
                statuses.queue(self.bucket, name, job)
                keys.append(key)
        return keys

    def _clear(self, key: str) -> None:
        """Removes what a worker that died in its last moment has left beside a job that is over."""
        lease = leases.take(self.bucket, beside(key, LEASE), self.name, self.seconds)
        if lease is not None:
            self.bucket.delete(beside(key, CHECKPOINT))
            lease.release()

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
            key = beside(place.key, LEASE)
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
        self.bucket.delete(work.key(CHECKPOINT))

    def _hand_back(self, work: Work) -> None:
        """Leaves a job to others, with the checkpoint that its training has just written."""
        try:
            work.checkpoints.finish()
            work.upload_log()
            work.status.write("queued", **work.said)
        except UserError as error:
            print(f"warning: {error}", flush=True)
        work.lease.release()


def sweep(waiting: set[str]) -> None:
    """Removes what workers that were killed here have left of jobs that others have ended."""
    for folder in FOLDER.glob("*/"):
        lock = folder.with_suffix(".lock")
        if folder.name not in waiting:
            with suppress(UserError), alone(lock):  # unless a worker on this machine has it
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
