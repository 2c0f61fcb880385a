"""What a job's status says, for an application that shows it: jobs/<id>.status.json.

    {"state": "running",          queued, running, failed or done
     "job": "5d41…",               the ETag of the job file that this is about
     "worker": "…", "attempt": 1,  who runs it; how many have taken it up
     "updated": "2026-01-02T03:04:05+00:00",
     "stage": "fit", "epoch": 3, "epochs": 20, "metrics": {"loss": 0.3, …},
     "reason": "…",                where it has failed
     "entry": {…}}                 where it is done: what inference.json has of it

Only who holds the job's lease writes it, by compare-and-swap; but for `queued`, which replaces nothing that
is about the same job file.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from src.jobs.lease import Lease
from src.s3.bucket import Bucket, ChangedError

OVER = ("done", "failed")


def read(bucket: Bucket, key: str) -> tuple[dict[str, Any], str | None]:
    """Returns what a status says and its ETag; nothing and None where there is none."""
    there = bucket.read(key)
    if there is None:
        return {}, None
    try:
        said = json.loads(there[0])
    except ValueError:
        said = {}
    return said if isinstance(said, dict) else {}, there[1].etag


def over(said: dict[str, Any], job: str) -> bool:
    """Whether a status says that this version of the job file has been run to its end."""
    return said.get("state") in OVER and said.get("job") == job


def queue(bucket: Bucket, key: str, job: str) -> None:
    """Says that a job waits, unless there is a status of it already."""
    said, etag = read(bucket, key)
    if etag is None or (said.get("state") in (None, *OVER) and said.get("job") != job):
        with suppress(ChangedError):  # by who runs it now
            bucket.write(key, _content({"state": "queued", "job": job}), over=etag)


@dataclass
class Status:
    """The status of a job, written by the worker that holds its lease.

    Args:
        bucket: Where it is.
        key: Its name there.
        lease: On the job.
        job: The ETag of the job file.
        etag: Of the status that is there now.
    """

    bucket: Bucket
    key: str
    lease: Lease
    job: str
    etag: str | None
    said: dict[str, Any] = field(default_factory=dict)

    def write(self, state: str = "running", **said: Any) -> None:
        """Says more of a job that runs, or how it has ended; what is said already is not written again.

        Raises:
            LostError: If another worker has the lease.
            AwayError: If the store does not answer.
        """
        content = {
            "state": state,
            "job": self.job,
            "worker": self.lease.worker,
            "attempt": self.lease.attempt,
            **said,
        }
        if content == self.said:
            return
        self.lease.check()
        try:
            self.etag = self.bucket.write(self.key, _content(content), over=self.etag)
        except ChangedError:  # by a watcher, a worker that had the lease before, or a write that seemed lost
            self.lease.renew()
            self.etag = read(self.bucket, self.key)[1]
            self.etag = self.bucket.write(self.key, _content(content), over=self.etag)
        self.said = content


def _content(said: dict[str, Any]) -> bytes:
    said = {**said, "updated": datetime.now(UTC).isoformat(timespec="seconds")}
    return (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode()
