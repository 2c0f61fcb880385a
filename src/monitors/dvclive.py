"""DVC's live curves: one for each metric, drawn by `dvc plots show` and the VS Code extension.

Files as DVCLive lays them out (https://dvc.org/doc/dvclive/how-it-works), written without it, in dvclive/:
plots/metrics/{train,val}/*.tsv, metrics.json, and a dvc.yaml that names both. DVC reads no dvc.yaml that git
ignores, so the folder must not be. Without this monitor DVC draws the losses, from src/models/history.json.
"""

import shutil
from pathlib import Path
from typing import Any

from src.files import replacing, write_json
from src.params import Section
from src.training.watching import Run

FOLDER = Path("dvclive")
CURVES = FOLDER / "plots/metrics"
NAMED = """\
metrics:
  - metrics.json
plots:
  - plots/metrics:
      x: step
"""


class Options(Section):
    """`monitors: [dvclive]` takes no options."""


def looks(options: Options) -> bool:
    """No: DVC draws tables."""
    return False


def start(options: Options, run: Run) -> "Curves":
    """Begins the files, or goes on with those there."""
    if run.previous is None:
        shutil.rmtree(CURVES, ignore_errors=True)
    with replacing(FOLDER / "dvc.yaml") as temporary:
        temporary.write_text(NAMED)
    return Curves(run.previous or run.name)


class Curves:
    """The files of the latest training; git and `dvc exp` keep those of others."""

    def __init__(self, name: str) -> None:
        self.id = name

    def log(self, record: dict[str, Any]) -> None:
        """Adds a row to each table."""
        latest: dict[str, Any] = {"step": record["epoch"]}
        for key, value in record.items():
            if key == "epoch":
                continue
            split, name = ("val", key.removeprefix("val_")) if key.startswith("val_") else ("train", key)
            path = CURVES / split / f"{name}.tsv"
            rows = path.read_text().splitlines()[1:] if path.exists() else []
            rows = [row for row in rows if int(row.split("\t")[0]) < record["epoch"]]  # none twice
            with replacing(path) as temporary:
                lines = [f"step\t{name}", *rows, f"{record['epoch']}\t{value}"]
                temporary.write_text("\n".join(lines) + "\n")
            latest.setdefault(split, {})[name] = value
        write_json(FOLDER / "metrics.json", latest)

    def end(self, status: str) -> None:
        """Nothing is left to do."""
