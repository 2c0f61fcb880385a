"""The checkpoint of a training that runs, uploaded as it changes, for whoever has to go on with it."""

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from src.errors import UserError
from src.jobs.lease import Lease
from src.s3.bucket import AwayError, ChangedError
from src.s3.download import download
from src.training import checkpoint

TRIES = 3


class Checkpoints:
    """Uploads checkpoints in a thread of its own, one at a time, and no faster than the store takes them.

    Args:
        lease: On the job; who has lost it uploads nothing more.
        key: The checkpoint's name in the bucket.
        folder: The work folder.
    """

    def __init__(self, lease: Lease, key: str, folder: Path) -> None:
        self.lease, self.key, self.path = lease, key, folder / checkpoint.PATH
        self.every = lease.seconds / 3
        self.sent: tuple[int, int] | None = None  # what says which checkpoint it was
        self.last = 0.0
        self.pool = ThreadPoolExecutor(1, "checkpoint")
        self.running: Future[None] | None = None

    def fetch(self) -> None:
        """Brings the last one of a worker that could not end, where there is one.

        Raises:
            AwayError: If the store does not answer.
        """
        for _ in range(TRIES):
            try:
                if self.lease.bucket.find(self.key) is not None:
                    download(self.lease.bucket, self.key, self.path)
            except ChangedError:  # the worker before lives still, and was uploading it
                continue
            except AwayError:
                raise
            except UserError as error:
                print(f"warning: {error}; the training starts afresh", flush=True)
            return

    def look(self) -> None:
        """Begins to upload the checkpoint if it is another one than before, and it is time."""
        if time.monotonic() - self.last >= self.every and (self.running is None or self.running.done()):
            self._begin()

    def finish(self) -> None:
        """Uploads the last one, and waits until that is done."""
        self.stop()
        self.pool = ThreadPoolExecutor(1, "checkpoint")
        self._begin()
        self.stop()

    def stop(self) -> None:
        """Uploads no more; waits for one that is on its way."""
        self.pool.shutdown(wait=True)

    def _begin(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return
        about = (status.st_ino, status.st_mtime_ns)
        if about == self.sent:
            return
        # The stage puts each checkpoint in the place of the last one: this name keeps the one that it is now.
        snapshot = self.path.with_name("checkpoint-upload.npz")
        snapshot.unlink(missing_ok=True)
        try:
            os.link(self.path, snapshot)
        except FileNotFoundError:  # the training has just ended
            return
        self.sent, self.last = about, time.monotonic()
        self.running = self.pool.submit(self._upload, snapshot)

    def _upload(self, snapshot: Path) -> None:
        try:
            self.lease.renew()
            self.lease.bucket.upload(snapshot, self.key, lambda count: self.lease.check())
        except UserError as error:
            self.sent = None
            print(f"warning: no checkpoint uploaded: {error}", flush=True)
