"""A job as the worker that holds its lease runs it: dataset, stages, checkpoints and status."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML

from src import params
from src.errors import UserError
from src.files import read_json
from src.jobs import order as orders
from src.jobs import stages
from src.jobs.checkpoints import Checkpoints
from src.jobs.lease import Lease
from src.jobs.status import Status
from src.s3.bucket import AwayError, Bucket, Location
from src.s3.download import download, download_all

Answer = TypeVar("Answer")

MODELS = Path("src/models")
HISTORY = MODELS / "history.json"
LOG = Path("log.txt")
CHECKPOINT = "checkpoint.npz"  # beside the job file
PAUSE = 2.0  # seconds before a store that is away is asked again
BEAT = 2.0  # seconds between two statuses, and two looks at the job file


@dataclass
class Work:
    """One job.

    Args:
        place: Of the job file.
        job: Its ETag.
        bucket: Where it is.
        lease: On the job.
        status: Of the job.
        folder: The work folder.
    """

    place: Location
    job: str
    bucket: Bucket
    lease: Lease
    status: Status
    folder: Path
    said: dict[str, Any] = field(default_factory=dict)  # in the status

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.lease, self.key(CHECKPOINT), self.folder)
        self.beat = 0.0
        self.epochs = 0

    def key(self, suffix: str) -> str:
        """Returns the name of a file beside the job file."""
        return beside(self.place.key, suffix)

    def run(self, content: bytes) -> Path:
        """Runs the job.

        Args:
            content: Of the job file.

        Returns:
            The folder of its results.

        Raises:
            LostError: If another worker has taken it over.
            UserError: If it fails.
        """
        order = orders.parse(content, self.place)
        raw, settings = orders.compose(order, self.place)
        commands = stages.commands()
        self.epochs = settings.fit.epochs
        self.set_up(raw)
        self.say(stage="download")
        self.patiently(lambda: self.fetch(order))
        self.patiently(self.checkpoints.fetch)
        for name, words in commands.items():
            self.say(stage=name)
            stages.run(name, words, self.folder, self.folder / LOG, self.look)
        self.look(now=True)
        return self.folder / MODELS

    def set_up(self, raw: dict[str, Any]) -> None:
        """Makes the work folder; of what a worker that was killed has left, the dataset is kept."""
        if self.folder.exists():
            for path in self.folder.iterdir():
                if path.name != orders.DATA:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "datasets").symlink_to(orders.ROOT / "datasets")  # what recipes need beside data
        YAML(typ="safe").dump(raw, self.folder / params.PATH)

    def fetch(self, order: orders.Order) -> None:
        """Downloads the dataset, or what is missing of it."""
        source = orders.source(order, self.place)
        bucket = (
            self.bucket if source.bucket == self.bucket.name else Bucket(source.bucket, self.bucket.endpoint)
        )
        path = self.folder / orders.target(source)
        if not source.key.endswith("/"):
            download(bucket, source.key, path, order.sha256)
            return
        download_all(bucket, source.key, path)
        names = {found.key.removeprefix(source.key) for found in bucket.objects(source.key)}
        for file in [file for file in path.rglob("*") if file.is_file()]:
            if file.relative_to(path).as_posix() not in names:  # from when it was downloaded the last time
                file.unlink()

    def look(self, now: bool = False) -> None:
        """Looks after a stage that runs; again and again.

        Raises:
            LostError: If another worker has taken the job over.
            UserError: If the job file was changed.
        """
        self.lease.check()
        self.checkpoints.look()
        if not now and time.monotonic() - self.beat < BEAT:
            return
        history = self.folder / HISTORY
        records = read_json(history) if history.exists() else []
        if records:
            metrics = {name: value for name, value in records[-1].items() if name != "epoch"}
            self.said |= {"epoch": records[-1]["epoch"], "epochs": self.epochs, "metrics": metrics}
        try:
            self.check()
            self.status.write(**self.said)
        except AwayError as error:
            print(f"warning: {error}; the training goes on", flush=True)
        self.beat = time.monotonic()

    def check(self) -> None:
        """Asks whether the job file is still what it was.

        Raises:
            UserError: If it is not.
        """
        there = self.bucket.find(self.place.key)
        if there is None:
            raise UserError(f"{self.place}: was deleted while it ran; nothing is published")
        if there.etag != self.job:
            raise UserError(f"{self.place}: was changed while it ran; nothing is published")

    def say(self, **said: Any) -> None:
        """Says more in the status of the job that runs."""
        self.said |= said
        self.patiently(lambda: self.status.write(**self.said))

    def upload_log(self) -> None:
        """Uploads what the stages have said."""
        log = self.folder / LOG
        self.lease.check()
        if log.exists():
            self.bucket.upload(log, self.key("log"))

    def patiently(self, action: Callable[[], Answer]) -> Answer:
        """Does something, and tries again as long as the store is away and the lease is not lost."""
        while True:
            try:
                return action()
            except AwayError as error:
                print(f"warning: {error}; trying again", flush=True)
                self.lease.check()
                time.sleep(PAUSE)


def beside(key: str, suffix: str) -> str:
    """Returns jobs/<id>.<suffix> for jobs/<id>.json."""
    return f"{key.removesuffix('.json')}.{suffix}"
