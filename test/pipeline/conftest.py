"""A repository whose model the gate has just let through, a stand-in for GitLab, and a real S3 server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gitlab_stand_in import TOKEN, StandIn, serving  # type: ignore[import-not-found]
from PIL import Image
from s3_server import BUCKET, S3Server  # type: ignore[import-not-found]

from src import gitlab_api
from src.files import sha256
from src.publish import bundle
from src.s3.bucket import Bucket

GATE: dict[str, Any] = {
    "verdict": "pass",
    "gates": [
        {
            "gate": "minimum",
            "verdict": "pass",
            "warning": False,
            "metric": "accuracy",
            "estimate": 0.9,
            "lower": 0.886,
            "upper": 0.912,
            "confidence": 0.95,
            "limit": 0.85,
            "examples": 2000,
            "needed": None,
            "reason": "0.886 is above 0.85",
            "details": [],
        },
        {
            "gate": "data",
            "verdict": "pass",
            "warning": False,
            "metric": None,
            "estimate": None,
            "lower": None,
            "upper": None,
            "confidence": None,
            "limit": None,
            "examples": None,
            "needed": None,
            "reason": "no example is in two splits",
            "details": [],
        },
    ],
    "baseline": {"source": "merge base", "revision": "a" * 40, "reason": "the merge base has a model"},
    "limits": {"loosened": [], "override": None},
    "looks": 3,
    "metrics": [
        {
            "metric": "accuracy",
            "candidate": 0.9,
            "baseline": 0.88,
            "difference": 0.02,
            "lower": 0.004,
            "upper": 0.036,
            "candidate_lower": 0.886,
            "candidate_upper": 0.912,
        },
        {
            "metric": "log_loss",
            "candidate": 0.31,
            "baseline": 0.35,
            "difference": -0.04,
            "lower": -0.07,
            "upper": -0.01,
        },
    ],
    "parameters": [{"key": "fit.epochs", "baseline": 1, "candidate": 2}],
    "test": {"examples": 2000, "hash": "e" * 64, "changed": False},
}
INFERENCE: dict[str, Any] = {
    "format": 1,
    "task_type": "image",
    "objective": "classification",
    "classes": ["daisy", "iris", "rose", "tulip"],
    "accuracy": 0.9,
    "architecture": {"name": "cnn", "filters": [8]},
    "input": {"shape": [8, 8, 1], "dtype": "uint8"},
    "encoder": {"size": [8, 8]},
    "model_path": "model.keras",
    "plot_path": "report/curves.png",
    "correct_prediction": "report/correct_predictions.png",
    "incorrect_prediction": "report/incorrect_predictions.png",
    "data": {
        "path": "datasets/flowers",
        "hash": "c" * 64,
        "test_hash": "e" * 64,
        "examples": {"train": 8000},
    },
    "fit": {"epochs": 2},
    "parameters": 1234,
}
RECALL = {"daisy": 0.9, "iris": 0.95, "rose": 0.7, "tulip": 0.99}
HISTORY = [{"epoch": 1, "val_loss": 0.4}, {"epoch": 2, "val_loss": 0.3}]
FILES: dict[str, str] = {
    "src/models/model.keras": "the weights",
    "src/models/model.onnx": "the weights, for ONNX",
    "src/models/inference.json": json.dumps(INFERENCE),
    "src/models/history.json": json.dumps(HISTORY),
    "src/models/metrics.json": json.dumps(
        {"accuracy": 0.9, "classes": {name: {"recall": recall} for name, recall in RECALL.items()}}
    ),
    "src/models/report/index.html": "<title>Report</title>",
    "build/gate/gate.md": "## The gate: pass\n\n![broken](newly_broken.png)\n",
    "build/run.json": json.dumps({"fit": {"finished": "2026-01-02T04:04:05+01:00"}}),
    "params.yaml": "fit: {epochs: 2}\n",
    "dvc.lock": "stages:\n  fit:\n    cmd: x\n    deps: [{path: build/prepared, md5: " + "d" * 32 + "}]\n",
    "datasets/flowers/README.md": "# Flowers\n\n- **Licence**: MIT\n",
    "LICENSE": "MIT License\n",
    ".gitignore": "/build/\n/src/models/\n",
}


@pytest.fixture
def published(workspace, monkeypatch) -> Path:
    """The repository, and the current folder; CI's variables are those of no CI."""
    for name in [name for name in os.environ if name.startswith(("CI_", "GITLAB_", "PUBLISH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.example/group/project/-/jobs/5")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Image.new("L", (8, 8), 200).save("build/gate/newly_broken.png")
    judge()
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "--all"], check=True)
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *author, "commit", "--quiet", "--message=Start"], check=True)
    return workspace


def judge() -> None:
    """Writes gate.json of what is in src/models now."""
    judged = {name: sha256(name) for name in FILES if name.startswith("src/models/")}
    Path("build/gate/gate.json").write_text(json.dumps({**GATE, "files": judged}))


@pytest.fixture
def run_command(fails, monkeypatch) -> Callable[..., tuple[int, str]]:
    """Runs a command with arguments; returns its exit code and its error."""

    def run(main: Callable[[], None], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        return fails(main)

    return run


@pytest.fixture
def change_gate() -> Callable[[Callable[[dict[str, Any]], Any]], None]:
    """Changes gate.json."""

    def change(alter: Callable[[dict[str, Any]], Any]) -> None:
        path = Path("build/gate/gate.json")
        gate = json.loads(path.read_text())
        alter(gate)
        path.write_text(json.dumps(gate))

    return change


@pytest.fixture
def bundled(published, run_command) -> Path:
    """The bundle of that repository."""
    assert run_command(bundle.main) == (0, "")
    return published / "build/bundle"


@pytest.fixture
def retrain(published, run_command) -> Callable[[str], Path]:
    """Makes another model, has it judged and bundled."""

    def train(weights: str) -> Path:
        Path("src/models/model.keras").write_text(weights)
        judge()
        assert run_command(bundle.main) == (0, "")
        return published / "build/bundle"

    return train


@pytest.fixture
def server(monkeypatch) -> Iterator[StandIn]:
    """GitLab, and the variables of a job there on merge request 3; pauses are short."""
    monkeypatch.setattr(gitlab_api, "PAUSE", 0.01)
    monkeypatch.setattr(gitlab_api, "TIMEOUT", 0.5)
    with serving() as stand_in:
        variables = {
            "CI_API_V4_URL": f"{stand_in.url}/api/v4",
            "CI_PROJECT_ID": "42",
            "CI_PROJECT_NAME": "shoes",
            "CI_JOB_ID": "5",
            "CI_MERGE_REQUEST_IID": "3",
            "GITLAB_TOKEN": TOKEN,
            "NO_PROXY": "127.0.0.1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield stand_in


@pytest.fixture(scope="session")
def s3(tmp_path_factory) -> Iterator[S3Server]:
    """A real S3 server, for all tests of this process."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "server")
    server.start()
    server.make_bucket()
    yield server
    server.kill()


@pytest.fixture
def bucket(s3, monkeypatch) -> Bucket:
    """An empty bucket on it, and the environment of who may do everything there."""
    for name, value in s3.environment("writer").items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(BUCKET)
    for found in bucket.objects():
        bucket.delete(found.key)
    return bucket


@pytest.fixture
def own_s3(tmp_path, monkeypatch) -> Iterator[S3Server]:
    """A server with an empty bucket that the test may kill, and the environment of who may do everything."""
    server = S3Server(tmp_path / "server")
    server.start()
    server.make_bucket()
    for name, value in server.environment("writer").items():
        monkeypatch.setenv(name, value)
    yield server
    server.kill()
