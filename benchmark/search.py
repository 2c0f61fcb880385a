"""A search of 24 trials that ends what is behind, beside the full grid of 24 trained to its end.

Both search the same space of a recipe, the grid on lists and the search with TPE on ranges of the same
extent; both run as `python -m src.train.search`, one after the other. What they find is then trained with
other seeds: the spread of these is the noise in which a difference of two searches may lie.

    python -m benchmark.search
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from src.files import read_json
from src.search import edit

ROOT = Path(__file__).parents[1]
RECIPE = "vowels"
RATE = "fit.optimizer.learning_rate.initial_learning_rate"
GRID = {
    "model.filters": [[32, 32], [64, 64]],
    RATE: [0.0003, 0.001, 0.003, 0.01],
    "model.dropout": [0.1, 0.3, 0.5],
}
RANGES = {
    "model.filters": [[32, 32], [64, 64]],
    RATE: {"low": 0.0003, "high": 0.01, "log": True},
    "model.dropout": {"low": 0.1, "high": 0.5},
}
SEARCHES: dict[str, dict[str, Any]] = {
    "grid": {"pruner": "none", "parameters": GRID},
    "search": {"trials": 24, "parameters": RANGES},
}
SEEDS = (1, 2, 3)


def main() -> None:
    """Runs the command."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory(prefix="search-") as folder:
        os.chdir(folder)
        Path("datasets").symlink_to(ROOT / "datasets")
        recipe = (ROOT / f"recipes/{RECIPE}.yaml").read_text()
        Path("params.yaml").write_text(recipe)
        run("src.train.prepare")
        rows = {name: measure(name, recipe) for name in SEARCHES}
        os.chdir(ROOT)
    print(pd.DataFrame(rows).T.to_string())
    grid, search = rows["grid"], rows["search"]
    for what in ("seconds", "CPU seconds", "epochs"):
        print(f"{what}: {search[what] / grid[what]:.2f} of the grid's")
    apart = search["mean of other seeds"] - grid["mean of other seeds"]
    noise = max(search["their spread"], grid["their spread"])
    within = "within the noise" if apart <= noise else "worse than the noise explains"
    print(
        f"best of the search minus best of the grid, mean of {len(SEEDS)} other seeds: {apart:+.4f}; {within}"
    )


def measure(name: str, recipe: str) -> dict[str, Any]:
    """Searches, and trains the best with other seeds; returns the row of the table."""
    with open("params.yaml", "w") as file:
        file.write(recipe + "\n")
        YAML(typ="safe").dump({"search": SEARCHES[name]}, file)
    started, used = time.perf_counter(), cpu()
    run("src.train.search", "--name", name)
    seconds, used = time.perf_counter() - started, cpu() - used
    board = pd.read_csv(f"build/search/{name}/leaderboard.csv")
    run("src.train.search", "--name", name, "--apply")
    text = edit.read_text()
    losses = []
    for seed in SEEDS:
        edit.write_text(Path("params.yaml"), edit.rewrite(text, {"fit.seed": seed}, "params.yaml"))
        run("src.train.fit")
        losses.append(min(record["val_loss"] for record in read_json("src/models/history.json")))
    row = {
        "seconds": round(seconds),
        "CPU seconds": round(used),
        "epochs": int(board["epochs"].sum()),
        "trained": int((board["state"] == "trained").sum()),
        "pruned": int((board["state"] == "pruned").sum()),
        "best val_loss": round(float(board["val_loss"].iloc[0]), 4),
        "mean of other seeds": round(statistics.mean(losses), 4),
        "their spread": round(statistics.stdev(losses), 4),
    }
    row |= {key.split(".")[-1]: board[key].iloc[0] for key in GRID}
    print(name, row, flush=True)
    return row


def cpu() -> float:
    """Returns the processor seconds of all processes that were run, which other work hardly changes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(module: str, *arguments: str) -> None:
    """Runs a module here.

    Raises:
        SystemExit: If it fails; its message says why.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout)


if __name__ == "__main__":
    main()
