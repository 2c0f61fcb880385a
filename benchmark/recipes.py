"""Every recipe, three seeds, beside a baseline of scikit-learn on the same split.

The pipeline's stages run in a folder of their own; `fit.seed` changes, the split stays. The baselines learn
from the training split and choose their regularisation on the validation split, as the networks choose
their epoch; the column after it has them learn from both with what was chosen, which no network does.

    python -m benchmark.recipes
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from src import params, prepared
from src.dataset import content
from src.files import read_json
from src.plugin import pick

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
COLUMNS = (
    *("recipe", "test examples", "metric", "Sluice, mean", "seeds"),
    *("baseline", "on validation too", "", "guess", "seconds"),
)
PADDING = -1e8  # below it lies no value of a series


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    parser.add_argument("recipes", nargs="*", help=f"which ones (default: all of {', '.join(names)})")
    chosen = parser.parse_args().recipes or names
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    with tqdm(total=len(chosen) * len(SEEDS), unit="training") as bar:
        for name in chosen:
            with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
                os.chdir(folder)
                Path("datasets").symlink_to(ROOT / "datasets")
                print("| " + " | ".join(measure(name, bar)) + " |", flush=True)
                os.chdir(ROOT)


def measure(name: str, bar: Any) -> list[str]:
    """Trains a recipe with every seed in the current folder; returns the row of the table."""
    raw = YAML(typ="safe").load(ROOT / f"recipes/{name}.yaml")
    metrics, seconds = [], []
    for seed in SEEDS:
        raw["fit"]["seed"] = seed
        YAML(typ="safe").dump(raw, Path("params.yaml"))
        started = time.perf_counter()
        for stage in ("src.train.prepare", "src.train.fit", "src.evaluate.score"):
            run(stage)
        seconds.append(time.perf_counter() - started)
        metrics.append(read_json("src/models/metrics.json"))
        bar.update()
    numbers = read_json(prepared.FOLDER / "data.json")["names"] is None
    metric = "root_mean_squared_error" if numbers else "accuracy"
    values = [found[metric] for found in metrics]
    kind, figures = compare(params.load(), numbers)
    return [
        name,
        f"{metrics[0]['examples']:,}",
        metric.replace("_", " "),
        f"**{show(float(np.mean(values)))}**",
        ", ".join(map(show, values)),
        *map(show, figures[:2]),
        kind,
        show(figures[2]),
        f"{np.mean(seconds):.0f}",
    ]


def show(value: float) -> str:
    """Returns a share with three digits, a larger number with one."""
    return f"{value:.3f}" if value <= 1 else f"{value:.1f}"


def run(stage: str) -> None:
    """Runs a stage here.

    Raises:
        SystemExit: If it fails; its message says why.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", stage], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


# ── Baselines ──────────────────────────────────────────────────────────────────────────────────────────


def compare(settings: params.Params, numbers: bool) -> tuple[str, list[float]]:
    """Returns the baseline's name and its figures on the test split.

    They are: learned from the training split, learned from training and validation, and the best guess.
    """
    splits = {name: prepared.Split.open(name) for name in ("train", "validation", "test")}
    labels = {name: np.asarray(split.labels) for name, split in splits.items()}
    look, kind = FEATURES[settings.task]
    features = look(settings, splits)
    model, grid = REGRESSION if numbers else CLASSIFIERS[kind]
    inputs = [row for name in ("train", "validation") for row in features[name]]
    answers = np.concatenate([labels["train"], labels["validation"]])
    count = len(labels["train"])
    fold = np.where(np.arange(len(answers)) < count, -1, 0)
    search = GridSearchCV(model, grid, cv=PredefinedSplit(fold), n_jobs=1).fit(inputs, answers)
    alone = clone(model).set_params(**search.best_params_).fit(inputs[:count], answers[:count])
    guess = (DummyRegressor() if numbers else DummyClassifier()).fit(inputs[:count], answers[:count])
    found = [each.predict(list(features["test"])) for each in (alone, search, guess)]
    if numbers:
        return "ridge regression", [float(root_mean_squared_error(labels["test"], each)) for each in found]
    return kind, [float((labels["test"] == each).mean()) for each in found]


Features = dict[str, Any]
LINEAR = {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]}
REGRESSION = (make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0, 10.0, 100.0]})
CLASSIFIERS: dict[str, tuple[Any, dict[str, list[Any]]]] = {
    "logistic regression": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)), LINEAR),
    "TF-IDF, logistic regression": (
        make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000)
        ),
        {"logisticregression__C": [1.0, 3.0, 10.0, 30.0]},
    ),
    "1-nearest neighbour": (KNeighborsClassifier(1), {"metric": ["euclidean", "manhattan"]}),
    "logistic regression on the mean spectrum": (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        LINEAR,
    ),
}


def flat(settings: params.Params, splits: dict[str, prepared.Split]) -> Features:
    """Returns the encoded inputs as vectors; padding counts as 0."""
    arrays = {name: np.asarray(split.inputs, np.float32) for name, split in splits.items()}
    return {
        name: np.where(array < PADDING, 0, array).reshape(len(array), -1) for name, array in arrays.items()
    }


def spectra(settings: params.Params, splits: dict[str, prepared.Split]) -> Features:
    """Returns the logarithm of each sound's mean power spectrum, (examples, 129)."""
    from scipy.signal import welch

    found = {}
    for name, split in splits.items():
        waves = np.asarray(split.inputs, np.float32).reshape(len(split), -1)
        found[name] = np.log(welch(waves, nperseg=256)[1] + 1e-10)
    return found


def sentences(settings: params.Params, splits: dict[str, prepared.Split]) -> Features:
    """Returns the sentences as they stand in the dataset."""
    with tempfile.TemporaryDirectory() as spool:
        table = pick("tasks", settings.task).read(settings.data, Path(spool)).set_index("id")["input"]
        raw = {name: table.loc[split.table["id"]].map(content) for name, split in splits.items()}
    return {name: [text.decode() if isinstance(text, bytes) else text for text in raw[name]] for name in raw}


FEATURES: dict[str, tuple[Callable[[params.Params, dict[str, prepared.Split]], Features], str]] = {
    "image": (flat, "logistic regression"),
    "tabular": (flat, "logistic regression"),
    "volume": (flat, "logistic regression"),
    "time_series": (flat, "1-nearest neighbour"),
    "audio": (spectra, "logistic regression on the mean spectrum"),
    "text": (sentences, "TF-IDF, logistic regression"),
}


if __name__ == "__main__":
    main()
