"""A trial that runs: the stage `fit` as a process in a folder of its own, watched and ended in time."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from src import params, prepared
from src.errors import UserError
from src.files import read_json
from src.search import edit
from src.search.study import Study

ROOT = Path(__file__).parents[2]
POLL = 0.1  # seconds between two looks
WAIT = 20  # seconds for the trainings of a search that was killed to end
# The training ends when this process does, even if that is killed: its standard input is then closed.
CHILD = """
import os, runpy, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
runpy.run_module("src.train.fit", run_name="__main__", alter_sys=True)
"""


class Training:
    """A trial that runs: the stage `fit` as a process in a folder of its own.

    Args:
        study: Of the trial.
        trial: It draws its parameters now.
        metric: Of history.json.
        parent: Of the trial's folder.
        lock: A file that the process holds open as long as it runs.
        again: Whether the trial was running when an earlier search was ended.
    """

    def __init__(self, study: Study, trial: Trial, metric: str, parent: Path, lock: int, again: bool) -> None:
        self.study, self.trial, self.metric = study, trial, metric
        self.folder = parent / str(trial.number)
        self.values = study.space.draw(trial)
        self.process: subprocess.Popen[bytes] | None = None
        self.reported = study.study.get_trials(deepcopy=False)[trial.number].last_step or 0
        self.judged = self.reported - 1  # it may have been killed between the two
        self.twin = study.twin(trial)
        if again:
            trial.set_user_attr("resumed", True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a study that is no more
        if self.twin is None and not self._trained():
            self._start(lock)

    def _trained(self) -> bool:
        """Whether the training had ended when the search was killed, and only its result was not taken."""
        return (self.folder / "src/models/model.keras").exists() and not (
            self.folder / "build/checkpoint.npz"
        ).exists()

    def _start(self, lock: int) -> None:
        """Starts the training, or goes on with it where the folder has a checkpoint."""
        links = self.folder / prepared.FOLDER
        shutil.rmtree(links, ignore_errors=True)
        links.mkdir(parents=True)
        source = prepared.FOLDER.resolve()
        for path in source.iterdir():
            if path.name != "test":  # what is not there cannot be read
                (links / path.name).symlink_to(path)
        text = edit.rewrite(edit.read_text(), self.values, str(params.PATH))
        edit.write_text(self.folder / params.PATH, text)
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CHILD],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C is for the search, which ends it
            )

    def look(self) -> bool:
        """Takes over the epochs that have ended; whether the trial has."""
        try:
            if not self._look():
                return False
        except UpdateFinishedTrialError:  # another worker has taken it for dead, as after a long sleep
            pass
        self.end()
        for heavy in ("build/checkpoint.npz", "src/models/model.keras"):  # dvc repro makes the same again
            (self.folder / heavy).unlink(missing_ok=True)
        return True

    def _look(self) -> bool:
        if self.twin is not None:
            for step, value in self.twin.intermediate_values.items():
                self.trial.report(value, step)
            pruned = self.twin.state == TrialState.PRUNED
            self._tell(None if pruned else self.twin.value, self.twin.state)
            return True
        code = 0 if self.process is None else self.process.poll()
        path = self.folder / "src/models/history.json"
        history = read_json(path) if path.exists() else []
        if self._report(history):
            self._tell(None, TrialState.PRUNED)
        elif code is None:
            return False
        elif code:
            self.trial.set_user_attr("error", self._reason(code))
            self._tell(None, TrialState.FAIL)
        else:
            self._tell(kept(history, self.metric), TrialState.COMPLETE)
        return True

    def _tell(self, value: float | None, state: TrialState) -> None:
        """Tells the study how the trial has ended; one that has ended by another's hand stays so."""
        self.study.study.tell(self.trial.number, value, state, skip_if_finished=True)

    def _report(self, history: list[dict[str, Any]]) -> bool:
        """Reports epochs that are new; whether the trial is behind after one of them."""
        for count in range(max(self.judged, 0) + 1, len(history) + 1):
            if count > self.reported:
                self.trial.report(kept(history[:count], self.metric), count)
            self.judged = count
            if self.trial.should_prune():
                return True
        return False

    def _reason(self, code: int) -> str:
        lines = (self.folder / "log.txt").read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        said = errors[-1].removeprefix("error: ") if errors else "".join(lines[-1:])
        return said or f"ended with status {code}"

    def end(self) -> None:
        """Ends the process, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


def kept(history: list[dict[str, Any]], metric: str) -> float:
    """Returns the metric at the epoch whose weights a training keeps: the one of the best validation loss."""
    return float(min(history, key=lambda record: record["val_loss"])[metric])


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds a folder for one search, from which the trainings inherit that.

    Raises:
        UserError: If another search, or a training of it, runs there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + WAIT
    with open(folder / "lock", "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise UserError(
                        f"{folder}: another search runs here; `--name NAME` begins one beside it"
                    ) from None
                time.sleep(POLL)
        yield file.fileno()
