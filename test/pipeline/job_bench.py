"""Job files and workers, for the tests of jobs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.s3.bucket import Bucket

TIME = 240  # seconds for something to come about on a busy machine
ROOT = Path(__file__).parents[2]
# A training of seconds.
MASSES: dict[str, Any] = {
    "task": "tabular",
    "recipe": "breast-cancer",
    "dataset": "data/breast-cancer.csv",
    "params": {
        "model": {"hidden": [4]},
        "fit": {"epochs": 2, "batch_size": 16, "early_stopping": None},
    },
}


def put(bucket: Bucket, id: str, **fields: Any) -> str:
    """Puts a job file, over another one or not; returns its ETag."""
    return bucket.write(f"jobs/{id}.json", json.dumps({"id": id, **fields}).encode(), anyway=True)


def status(bucket: Bucket, id: str) -> dict[str, Any]:
    """Returns what a job's status says; nothing where there is none."""
    there = bucket.read(f"jobs/{id}.status.json")
    return json.loads(there[0]) if there else {}


def names(bucket: Bucket, prefix: str = "jobs/") -> list[str]:
    return [found.key.removeprefix(prefix) for found in bucket.objects(prefix)]


def masses(epochs: int, **fit: Any) -> dict[str, Any]:
    """Returns the fields of a job of so many epochs."""
    params = MASSES["params"]
    return {**MASSES, "params": {**params, "fit": {**params["fit"], "epochs": epochs, **fit}}}


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Starts a worker in a folder, as a user does; the store is that of the environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "src.train.job", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Waits for a worker; returns its exit status and what it said."""
    said = process.communicate()[0]
    return process.returncode, said


def wait(sign: Callable[[], Any], process: "subprocess.Popen[str] | None" = None) -> Any:
    """Waits for a sign, as long as a process lives."""
    until = time.monotonic() + TIME
    while not (seen := sign()):
        assert time.monotonic() < until
        assert process is None or process.poll() is None, finish(process)[1]
        time.sleep(0.1)
    return seen
