"""The lease on a job: an object that one worker at a time holds, by conditional writes, and renews.

It expires by the store's own clock, so that the workers' clocks need not agree. Whoever takes over one that
has expired replaces it, and from then on nobody can renew it who held it before.
"""

import json
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from src.errors import UserError
from src.s3.bucket import Bucket, ChangedError, Object

SHARE = 3  # renewals in the time after which it expires
TRIES = 3  # of a renewal that the store calls a conflict though nobody else has written
CLOCK = 1.0  # seconds: stores say when an object was written in whole ones


class LostError(UserError):
    """Another worker has taken the lease over."""


@dataclass
class Lease:
    """A lease that is held. Threads may share it.

    Args:
        bucket: Where it is.
        key: Its name there.
        worker: Who holds it.
        seconds: After which it expires where it is not renewed.
        attempt: 1 for the first worker, one more for each that takes over.
    """

    bucket: Bucket
    key: str
    worker: str
    seconds: float
    attempt: int = 1
    lost: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.beats = 0
        self.token = secrets.token_hex(8)  # no two workers must take each other's content for their own
        self.content, self.etag = b"", ""
        self.lock = threading.RLock()
        self.over = threading.Event()

    def write(self, over: str | None) -> None:
        """Writes it, in the place of what has this ETag; None: of nothing.

        Raises:
            ChangedError: If something else is there.
        """
        said: dict[str, Any] = {"worker": self.worker, "attempt": self.attempt, "seconds": self.seconds}
        content = json.dumps({**said, "beat": self.beats + 1, "token": self.token}).encode()
        self.etag = self.bucket.write(self.key, content, over=over)
        self.content, self.beats = content, self.beats + 1

    def renew(self) -> None:
        """Renews it.

        Raises:
            LostError: If another worker has it, now and for good.
            AwayError: If the store does not answer; the lease may be held still.
        """
        with self.lock:
            for _ in range(TRIES):
                self.check()
                try:
                    return self.write(self.etag)
                except ChangedError:
                    there = self.bucket.read(self.key)
                    if there is None or there[0] != self.content:
                        self.lost.set()
                    else:
                        self.etag = there[1].etag
            return self.check()

    def check(self) -> None:
        """Asks nobody.

        Raises:
            LostError: If the lease is known to be lost.
        """
        if self.lost.is_set():
            raise LostError(f"{self.bucket.place(self.key)}: another worker has taken over")

    def keep(self) -> None:
        """Renews it from now on, in a thread of its own."""
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def _keep(self) -> None:
        while not self.over.wait(self.seconds / SHARE):
            try:
                self.renew()
            except LostError:
                return
            except UserError as error:
                print(f"warning: {error}; the training goes on", flush=True)

    def release(self) -> None:
        """Gives it back; where that cannot be said to the store, it expires."""
        self.leave()
        with self.lock, suppress(UserError):
            self.renew()
            self.bucket.delete(self.key, over=self.etag)

    def leave(self) -> None:
        """Renews it no longer; it expires."""
        self.over.set()


def take(bucket: Bucket, key: str, worker: str, seconds: float) -> Lease | None:
    """Takes a lease that nobody has, or that has expired; None where another worker has it."""
    there = bucket.read(key)
    lease = Lease(bucket, key, worker, seconds)
    if there is not None:
        attempt, lasts = _read(*there, seconds)
        if there[1].age < lasts + CLOCK:
            return None
        lease.attempt = attempt + 1
    try:
        lease.write(None if there is None else there[1].etag)
    except ChangedError:
        return None
    return lease


def _read(content: bytes, found: Object, seconds: float) -> tuple[int, float]:
    """Returns the attempt and the duration of a lease; of one that is damaged, 1 and the usual duration."""
    try:
        said = json.loads(content)
        return int(said["attempt"]), float(said["seconds"])
    except (ValueError, KeyError, TypeError):
        return 1, seconds
