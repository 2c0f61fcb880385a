"""Searches the parameters that train best: `search:` in params.yaml says which ones, and over what.

in:   params.yaml (search: and all that a training needs), build/prepared/ without its test split
out:  build/search/<name>/ (leaderboard.csv, index.html, a folder for each trial); the trials in the storage

    search:
      trials: 24                # of a grid: all, unless said
      sampler: tpe              # or random, grid; a grid if all are lists and nothing is said
      pruner: successive_halving  # or hyperband, median, none: ends trainings that are behind
      metric: val_loss          # of history.json, where the epoch is that a training keeps
      direction: null           # minimize or maximize; null: losses and errors down, others up
      storage: null             # an Optuna storage URL, which machines can share; null: build/search/study.db
      parameters:               # keys of params.yaml, below model and fit (or the architecture)
        model.filters: [[16, 32], [32, 64]]
        fit.optimizer.learning_rate: {low: 0.0001, high: 0.03, log: true}
        model.dropout: {low: 0.0, high: 0.5, step: 0.1}

A trial is the stage `fit` as a process in a folder of its own, where the training and the validation split
are and the test split is not. Ended at any moment, the same command goes on: a trial that ran continues from
its checkpoint, one that had ended is not repeated. Trials follow from fit.seed: the same search, run alone,
tries the same. `dvc repro` trains the model that a trial with the same parameters did, byte for byte.

A grid of whole pipelines, scored on the test split too: dvc exp run --queue -S 'model.dropout=0.1,0.2'

python -m src.train.search [--name NAME] [--trials N] [--jobs N] [--storage URL]
python -m src.train.search --apply       # writes the best parameters so far into params.yaml, trains nothing
"""

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src import command, params, prepared
from src.errors import UserError, nearest
from src.files import read_json, replacing, sha256
from src.plugin import pick
from src.search import edit, page
from src.search import space as spaces
from src.search import study as studies
from src.search.training import POLL, Training, locked

FOLDER = Path("build/search")
DATA = prepared.FOLDER / "data.json"
FAILURES = 3  # if the first so many all fail, so will the others


def main() -> None:
    """Runs the command."""
    arguments = parse()
    search = params.load().search
    if search is None:
        raise UserError(f"{params.PATH}: search: missing; `python -m src.train.search --help` shows one")
    raw = params.parse(params.PATH.read_bytes(), params.PATH)
    changes = {name: getattr(arguments, name) for name in ("trials", "storage")}
    search = search.model_copy(update={name: value for name, value in changes.items() if value is not None})
    check_metric(search.metric)
    space = spaces.read(raw, search)
    # The parameters that are searched count as they stand in the space, so that --apply changes nothing.
    settings = spaces.check_values(raw, {each.key: each.first for each in space.parameters})
    folder = FOLDER / arguments.name
    with studies.saying(search.storage or studies.DEFAULT), ExitStack() as stack:
        lock = None if arguments.apply else stack.enter_context(locked(folder))
        over = about(search, settings)
        study = studies.open_study(arguments.name, space, search, settings, over, folder)
        if lock is None:
            apply(study, search.metric)
            return
        try:
            Search(study, search.metric, folder, lock).run(arguments.jobs)
        finally:
            show(study, search.metric, f"Search: {settings.report.title}", folder)
    print("python -m src.train.search --apply  writes the best into params.yaml")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("--name", default="main", help="of the study (default: main)")
    parser.add_argument("--trials", type=_count, help="instead of search.trials")
    parser.add_argument("--jobs", type=_count, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--storage", help="instead of search.storage: a URL with a password is not for git")
    parser.add_argument("--apply", action="store_true", help="write the best parameters into params.yaml")
    arguments = parser.parse_args()
    if not arguments.name.replace("-", "").replace("_", "").isalnum():
        parser.error(f"--name: found {arguments.name!r}, expected letters, digits, - and _")
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 up")
    return int(text)


def check_metric(metric: str) -> None:
    """Checks that a training writes the metric, of the validation split.

    Raises:
        UserError: If it does not.
    """
    objective = pick("objectives", read_json(DATA)["objective"])
    known = ["val_loss", *(f"val_{name}" for name in objective.METRICS)]
    if metric not in known:
        expected = f"expected one of {', '.join(known)}{nearest(metric, known)}"
        raise UserError(f"{params.PATH}: search.metric: found {metric!r}, {expected}")


def about(search: params.Search, settings: params.Params) -> dict[str, Any]:
    """Returns what a study is over, as JSON: what makes its trials comparable."""
    return {
        "metric": search.metric,
        "direction": studies.direction(search),
        "data": sha256(DATA),
        "parameters": search.parameters,
        "architecture": settings.architecture,
        "model": settings.model.model_dump(mode="json"),
        "fit": settings.fit.model_dump(mode="json", exclude={"checkpoint_every"}),
    }


class Search:
    """A search that runs.

    Args:
        study: Whose trials are run.
        metric: Of history.json.
        folder: Of the trials' folders.
        lock: A file that its trainings hold open, so that nobody takes them up while they run.
    """

    def __init__(self, study: studies.Study, metric: str, folder: Path, lock: int) -> None:
        self.study, self.metric, self.folder, self.lock = study, metric, folder, lock
        self.data = sha256(DATA)
        self.running: list[Training] = []
        self.failed: list[str] = []

    def run(self, jobs: int) -> None:
        """Runs trials until there are as many as wanted.

        Raises:
            UserError: If every trial fails.
        """
        done = len(self.study.finished())
        bar = tqdm(desc="search", total=self.study.wanted, initial=done, unit="trial")
        beat = time.monotonic()
        with bar, interruptible():
            self._tell(bar)
            try:
                while self._fill(jobs, bar) or self.running:
                    time.sleep(POLL)
                    if time.monotonic() - beat > studies.BEAT:
                        beat = time.monotonic()
                        for training in self.running:
                            self.study.alive(training.trial)
                    for training in [each for each in self.running if each.look()]:
                        self.running.remove(training)
                        self._ended(training, bar)
            finally:
                for training in self.running:
                    training.end()

    def _fill(self, jobs: int, bar: Any) -> bool:
        """Starts trials; whether any was."""
        started = False
        while len(self.running) < jobs:
            if sha256(DATA) != self.data:
                raise UserError(
                    f"{prepared.FOLDER}: has changed since the search began; expected the same data"
                )
            taken = self.study.next()
            if taken is None:
                break
            trial, again = taken
            self.study.alive(trial)
            self.running.append(Training(self.study, trial, self.metric, self.folder, self.lock, again))
            started = True
        return started

    def _ended(self, training: Training, bar: Any) -> None:
        """Says how a trial has ended."""
        ended = (each for each in self.study.finished() if each.number == training.trial.number)
        trial = next(ended, None)
        if trial is None:
            bar.write(f"trial {training.trial.number}: another worker has taken it over")
            return
        values = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in training.values.items())
        error = trial.user_attrs.get("error")
        result = error or f"{self.metric} {trial.value:.4f} after epoch {trial.last_step}"
        bar.write(f"trial {trial.number}: {page.STATES[trial.state]}, {result} ({values})")
        bar.update()
        self._tell(bar)
        if error:
            self.failed.append(error)
        if len(self.failed) >= FAILURES and all("error" in each.user_attrs for each in self.study.finished()):
            raise UserError(f"the first {FAILURES} trials have all failed: {self.failed[0]}")

    def _tell(self, bar: Any) -> None:
        best = self.study.best()
        if best is not None:
            bar.set_postfix_str(f"best {self.metric} {best.value:.4f}, trial {best.number}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Takes SIGTERM as Ctrl-C, so that trainings are ended first."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show(study: studies.Study, metric: str, title: str, folder: Path) -> None:
    """Writes the leaderboard and the page, and prints the best ten."""
    board = page.leaderboard(study, metric)
    with replacing(folder / "leaderboard.csv") as temporary:
        board.to_csv(temporary, index=False)
    if len(board):
        page.write(study, metric, title, folder)
        best = board.head(10).replace("", None).dropna(axis="columns", how="all")
        print(best.to_string(index=False, na_rep=""))
        print(f"{folder}/index.html, leaderboard.csv: {len(board)} trials")


def apply(study: studies.Study, metric: str) -> None:
    """Writes the best parameters so far into params.yaml.

    Raises:
        UserError: If no trial has been trained to its end.
    """
    best = study.best()
    if best is None:
        raise UserError("the search has trained nothing yet; run `python -m src.train.search`")
    values = study.space.values(best.params)
    before = edit.read_text()
    after = edit.rewrite(before, values, str(params.PATH))
    print(f"{params.PATH}: trial {best.number}, {metric} {best.value:.4f}: " + edit.flow(values))
    if after == before:
        print(f"{params.PATH}: has them already")
        return
    edit.write_text(params.PATH, after)
    params.load()


if __name__ == "__main__":
    command.run(main)
