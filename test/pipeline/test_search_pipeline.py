"""A search as it is used: real trainings, killed in their midst, applied, and trained again as they were."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from src.train import fit, prepare, search

TIME = 120  # seconds for a trial to begin on a busy machine
MAIN = Path("build/search/main")


@pytest.fixture
def masses(root, monkeypatch):
    """Makes a folder with a params.yaml of breast masses and a search, prepares the data and goes there."""

    def make(folder: Path, epochs: int, **keys: Any) -> None:
        content = YAML(typ="safe").load(root / "recipes/breast-cancer.yaml")
        content["data"]["path"] = str(root / content["data"]["path"])
        content["model"]["hidden"] = [4]
        content["fit"] |= {"epochs": epochs, "batch_size": 8, "early_stopping": None}
        content["search"] = keys
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        YAML(typ="safe").dump(content, Path("params.yaml"))
        prepare.main()

    return make


@pytest.fixture
def command(root) -> Callable[..., subprocess.Popen[str]]:
    """Starts the search as a user does."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "src.train.search", *arguments],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def run(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate()[0]
    return process.returncode, said


def wait(sign: Callable[[], Any]) -> None:
    until = time.monotonic() + TIME
    while not sign():
        assert time.monotonic() < until
        time.sleep(0.01)


def board() -> pd.DataFrame:
    return pd.read_csv(MAIN / "leaderboard.csv").drop(columns="seconds")


@pytest.mark.slow
def test_a_search_is_applied_and_trains_again_what_its_trial_did(workspace, masses, run_search):
    masses(workspace, 2, parameters={"model.dropout": [0.25], "fit.optimizer.learning_rate": [0.02]})
    before = Path("params.yaml").read_text()
    run_search()
    trial = MAIN / "0"
    prepared = {path.name for path in (trial / "build/prepared").iterdir()}
    assert prepared == {"train", "validation", "data.json", "encoder.json"}
    run_search("--apply")
    expected = before.replace("dropout: 0.3", "dropout: 0.25").replace("_rate: 0.003", "_rate: 0.02")
    assert Path("params.yaml").read_text() == expected
    fit.main()
    history = json.loads(Path("src/models/history.json").read_text())
    assert history == json.loads((trial / "src/models/history.json").read_text())
    assert board()["val_loss"].tolist() == [min(record["val_loss"] for record in history)]
    run_search()  # after --apply it is the same search still
    assert len(board()) == 1


@pytest.fixture
def run_search(monkeypatch) -> Callable[..., None]:
    """Runs the search in this process; its trainings are processes of their own."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["search", *arguments])
        search.main()

    return run


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_ends_as_if_it_never_had_been(workspace, masses, command):
    keys: dict[str, Any] = {
        "trials": 3,
        "sampler": "tpe",
        "parameters": {
            "model.hidden": [[4], [8]],
            "fit.optimizer.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        },
    }
    masses(workspace / "whole", 12, **keys)
    assert run(command())[0] == 0
    whole = board()

    masses(workspace / "killed", 12, **keys)
    process = command()
    wait((MAIN / "1/build/checkpoint.npz").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = (MAIN / "0/log.txt").read_bytes()
    code, said = run(command())  # begins as soon as the training that was killed with its search is gone
    assert code == 0
    assert "trial 0:" not in said
    assert (MAIN / "0/log.txt").read_bytes() == first
    assert "goes on after epoch" in (MAIN / "1/log.txt").read_text()
    pd.testing.assert_frame_equal(board(), whole)
    assert run(command())[0] == 0  # nothing is left to do
    pd.testing.assert_frame_equal(board(), whole)


@pytest.mark.slow
def test_an_interrupt_ends_the_training_and_says_so(workspace, masses, command):
    masses(workspace, 5000, parameters={"model.dropout": [0.1, 0.2]})
    process = command()
    wait((MAIN / "0/build/checkpoint.npz").exists)
    other = command()
    assert "build/search/main: another search runs here" in run(other)[1]
    process.send_signal(signal.SIGTERM)
    code, said = run(process)
    assert (code, said.splitlines()[-1]) == (1, "interrupted")
    size = (MAIN / "0/log.txt").stat().st_size
    time.sleep(1)
    assert (MAIN / "0/log.txt").stat().st_size == size


@pytest.mark.slow
def test_trials_that_all_fail_end_the_search_with_their_reason(workspace, masses, fails, monkeypatch):
    masses(workspace, 1, parameters={"fit.optimizer.learning_rte": [0.1, 0.2, 0.3, 0.4]})
    monkeypatch.setattr(sys, "argv", ["search", "--jobs", "2"])
    code, said = fails(search.main)
    assert code == 1
    assert said.startswith("error: the first 3 trials have all failed: params.yaml: fit.optimizer: ")
    assert "learning_rte" in said
