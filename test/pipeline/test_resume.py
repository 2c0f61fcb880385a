"""A training that is killed with SIGKILL goes on exactly: the same bytes as if it never had been.

Trainings that are killed many times are forked from a process that has imported Keras, which saves each of
them seconds; what they end with is compared with the command's own result.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Timer
from typing import IO, Any

import pytest
from ruamel.yaml import YAML

from src import command
from src.files import sha256
from src.train import fit

FILES = ("src/models/model.keras", "src/models/history.json", "build/augmented.npz")
FIT = [sys.executable, "-m", "src.train.fit"]
SETTINGS: dict[str, dict[str, Any]] = {
    "fashion": {
        "data": {"sample": 200},
        "fit": {"epochs": 6, "batch_size": 32, "augment": [{"RandomFlip": {"mode": "horizontal"}}]},
    },
    "reviews": {
        "data": {"sample": 200},
        "model": {"units": 16, "embedding": {"dropout": 0.4}},
        "fit": {"epochs": 4, "batch_size": 32, "augment": [{"WordDropout": {"rate": 0.1}}]},
    },
}


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["keras"])


def start(words: list[str], folder: Path, root: Path) -> "subprocess.Popen[str]":
    """Starts a command in a group of processes of its own."""
    own = Path(sys.executable).parent
    environment = {**os.environ, "PYTHONPATH": str(root), "PATH": f"{own}:{os.environ['PATH']}"}
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def train(process: "subprocess.Popen[str]", seconds: float = 3600) -> tuple[str, float]:
    """Waits for a training; see `follow`."""
    assert process.stdout is not None
    said, lasted = follow(process.stdout, lambda: os.killpg(process.pid, signal.SIGKILL), seconds)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), said
    return said, seconds if code else lasted


def train_forked(folder: Path, seconds: float = 3600) -> tuple[str, float]:
    """Trains in a process that has imported Keras already; see `follow`."""
    reader, writer = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=fit_in, args=(folder, writer))
    process.start()
    writer.close()
    said, lasted = follow(os.fdopen(os.dup(reader.fileno())), process.kill, seconds)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), said
    return said, seconds if process.exitcode else lasted


def fit_in(folder: Path, output: Connection) -> None:
    """Runs `python -m src.train.fit` in a folder."""
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    command.run(fit.main)


def follow(lines: IO[str], kill: Callable[[], None], seconds: float) -> tuple[str, float]:
    """Reads what a training says, and kills it so many seconds after it began or went on.

    Returns:
        What it said, and for how many seconds it ran from then on if it came to its end.
    """
    said, timer, begun = [], None, time.monotonic()
    with lines:
        for line in lines:
            said.append(line)
            if timer is None and line.startswith(("Epoch ", "build/checkpoint.npz: goes on")):
                timer, begun = Timer(seconds, kill), time.monotonic()
                timer.start()
    if timer is not None:
        timer.cancel()
    return "".join(said), time.monotonic() - begun


def digests(folder: Path) -> list[str]:
    return [sha256(folder / name) for name in FILES]


@pytest.fixture
def prepared(request, root, tmp_path) -> Path:
    """A folder with the data of a recipe prepared, smaller and with dropout, checkpoints at every moment."""
    settings = YAML(typ="safe").load(root / f"recipes/{request.param}.yaml")
    for section, values in SETTINGS[request.param].items():
        settings[section] = {**settings[section], **values}
    settings["fit"] |= {"steps_per_execution": 1, "checkpoint_every": {"minutes": 0.001}}
    YAML(typ="safe").dump(settings, tmp_path / "params.yaml")
    (tmp_path / "datasets").symlink_to(root / "datasets")
    process = start([sys.executable, "-m", "src.train.prepare"], tmp_path, root)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("prepared", "times"), [("fashion", 12), ("reviews", 8)], indirect=["prepared"])
def test_a_training_that_is_killed_at_random_moments_ends_with_the_same_bytes(root, prepared, times):
    _, whole = train(start(FIT, prepared, root))
    expected = digests(prepared)
    for name in FILES:
        (prepared / name).unlink()
    draw = random.Random(20)
    kills = went_on = 0
    while kills < times:
        # Within steps, between epochs, as checkpoints are written.
        moment = draw.uniform(0, whole)
        said, lasted = train_forked(prepared, moment)
        kills += lasted == moment
        went_on += "goes on after epoch" in said
        if lasted < moment:  # it came to its end
            assert digests(prepared) == expected, said
    said, _ = train_forked(prepared)
    assert digests(prepared) == expected, said
    assert went_on >= times / 3
    left = [path for folder in ("build", "src/models") for path in (prepared / folder).glob(".*")]
    assert left == []
    assert not (prepared / "build/checkpoint.npz").exists()


@pytest.fixture
def repository(root, tmp_path, write_photos) -> Path:
    """A repository of DVC with the code, small pictures, and a training of a few seconds."""
    folder = tmp_path / "sluice"
    for name in ("src", "dvc.yaml", ".dvc/config", ".dvcignore"):
        source = root / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            (folder / name).write_bytes(source.read_bytes())
    for source in (root / "src").rglob("*"):
        if source.suffix in (".py", ".html"):
            target = folder / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    write_photos(folder / "datasets/photos", 16)
    settings = {
        "task": "image",
        "architecture": "cnn",
        "objective": "classification",
        "data": {"path": "datasets/photos", "validation": 0.25, "test": 0.25},
        "encode": {"size": [24, 24]},
        "model": {"filters": [8, 16]},
        "fit": {"epochs": 60, "batch_size": 8, "early_stopping": None},
        "report": {},
    }
    YAML(typ="safe").dump(settings, folder / "params.yaml")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_dvc_repro_that_is_killed_goes_on(root, repository):
    repro = ["dvc", "repro", "fit"]
    _, whole = train(start(repro, repository, repository))
    expected = digests(repository)
    force = [*repro, "--force", "--single-item"]
    killed = 0
    for share in (0.4, 0.25, 0.2):  # less than a whole training together: each goes on where the last one was
        killed += train(start(force, repository, repository), share * whole)[1] == share * whole
    assert killed == 3
    said, _ = train(start(force, repository, repository))
    assert "goes on after epoch" in said
    assert digests(repository) == expected


@pytest.mark.slow
@pytest.mark.parametrize("prepared", ["fashion"], indirect=True)
def test_two_trainings_in_one_folder_do_not_disturb_each_other(root, prepared):
    first = start(FIT, prepared, root)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("Epoch "):
            break
    second = start(FIT, prepared, root)
    said = second.communicate()[0]
    assert second.returncode == 1
    assert said == f"error: build/fit.lock: process {first.pid} works here already; wait for it, or end it\n"
    said = first.communicate()[0]
    assert first.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("prepared", ["fashion"], indirect=True)
@pytest.mark.parametrize("together", [1, 7])
def test_a_training_that_gets_sigterm_writes_a_checkpoint_and_ends(root, prepared, together):
    settings = YAML(typ="safe").load(prepared / "params.yaml")
    settings["fit"] |= {"steps_per_execution": together, "checkpoint_every": {"minutes": 60}}
    YAML(typ="safe").dump(settings, prepared / "params.yaml")
    train(start(FIT, prepared, root))
    expected = digests(prepared)
    process = start(FIT, prepared, root)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch 2"):
            process.terminate()
            process.terminate()  # as from who ends a process with all its children
            break
    said = process.communicate()[0]
    assert process.returncode == 143, said
    assert "ended by SIGTERM after epoch" in said
    assert (prepared / "build/checkpoint.npz").exists()
    said, _ = train(start(FIT, prepared, root))
    assert "build/checkpoint.npz: goes on after epoch" in said
    assert digests(prepared) == expected
