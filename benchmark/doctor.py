"""The training doctor itself: planted pathologies and healthy trainings, and what it calls them.

Each pathology is planted in trainings on several kinds of data, with seeds that go round; the recipes' own
networks and settings are the healthy ones, each with three seeds. The rules' thresholds were chosen with
`--seed 10`, 11 and 12, never on the seeds that are reported, 0, 1 and 2.

    python -m benchmark.doctor
"""

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from tqdm import tqdm

from benchmark.recipes import ROOT, run
from src import engine, params, prepared
from src.errors import UserError
from src.files import read_json
from src.network import Frame
from src.plugin import pick
from src.train import compiling, doctor, fit
from src.training import checkpoint

MOST = {
    "fashion": 1500,
    "reviews": 2500,
    "speech": 400,
    "volumes": 300,
}  # examples to train on, of the others all
FEWER = 0.5  # of these, in a planted training
CHECKED = 300  # validation examples, at most
SHORT = 6  # epochs of a planted training, at most
LONG = 25  # of a healthy one
DEEP = ("breast-cancer", "fashion", "vowels")  # whose inputs an mlp takes
TASKS = ("breast-cancer", "diabetes", "fashion", "reviews", "vowels")
SEEDS = 3


@dataclass
class Case:
    """One training, before it begins.

    Args:
        settings: params.yaml, of which `model`, `architecture` and `fit` may be changed.
        train: The training examples.
        validation: The validation examples.
        change: What to do to the network's weights.
    """

    settings: dict[str, Any]
    train: prepared.Split
    validation: prepared.Split
    change: list[Callable[[Any], None]] = field(default_factory=list)

    def model(self, **options: Any) -> None:
        """Sets keys of `model:`."""
        self.settings["model"] = options

    def fit(self, **options: Any) -> None:
        """Sets keys of `fit:`."""
        self.settings["fit"] |= options


@dataclass(frozen=True)
class Pathology:
    """What is planted, in which data, and the verdicts that name it rightly."""

    plant: Callable[[Case, int], None]
    accepted: tuple[str, ...]
    tasks: tuple[str, ...] = TASKS


# ── What is planted ────────────────────────────────────────────────────────────────────────────────────


def high_rate(case: Case, seed: int) -> None:
    """A learning rate of 1000."""
    case.fit(optimizer={"name": "adam", "learning_rate": 1000.0})


def low_rate(case: Case, seed: int) -> None:
    """A learning rate of 0.000001, a thousandth of Keras' own."""
    case.fit(optimizer={"name": "adam", "learning_rate": 1e-6})


def deep_sigmoid(case: Case, seed: int) -> None:
    """Ten hidden layers of sigmoid, trained by plain SGD."""
    case.settings["architecture"] = "mlp"
    case.model(hidden=[32] * 10, activation="sigmoid")
    case.fit(optimizer={"name": "sgd", "learning_rate": 0.01})


def huge_weights(case: Case, seed: int) -> None:
    """Six hidden layers of ReLU whose weights begin ten times too large, trained by plain SGD."""
    case.settings["architecture"] = "mlp"
    case.model(hidden=[64] * 6)
    case.fit(optimizer={"name": "sgd", "learning_rate": 1e-6})
    case.change.append(_each_kernel(lambda kernel: 10 * kernel))


def dead_layer(case: Case, seed: int) -> None:
    """A hidden layer of ReLU of which three quarters begin so far below 0 that nothing reaches them."""
    case.settings["architecture"] = "mlp"
    case.model(hidden=[64, 64])

    def kill(model: Any) -> None:
        dense = [layer for layer in model.layers if type(layer).__name__ == "Dense"][1]
        kernel, bias = dense.get_weights()
        bias[np.random.default_rng(seed).permutation(64)[:48]] = -1000
        dense.set_weights([kernel, bias])

    case.change.append(kill)


def ten_examples(case: Case, seed: int) -> None:
    """Ten training examples, a larger network without dropout, and nothing that stops it."""
    case.train = _some(case.train, np.random.default_rng(seed).permutation(len(case.train))[:10])
    large: dict[str, dict[str, Any]] = {
        "cnn": {"filters": [64, 64], "dropout": 0.0},
        "mlp": {"hidden": [256, 256]},
        "rnn": {"units": 64, "dropout": 0.0, "embedding": {"dimension": 64}},
    }
    case.model(**large[case.settings["architecture"]])
    rate = {"name": "adam", "learning_rate": 0.01}
    case.fit(epochs=60, batch_size=5, optimizer=rate, early_stopping=None)


def too_small(case: Case, seed: int) -> None:
    """A single filter, so that all there is to tell ten classes apart is one number."""
    case.model(filters=[1], dropout=0.0)


def shuffled_labels(case: Case, seed: int) -> None:
    """Labels in another order."""
    draw = np.random.default_rng(seed)
    for name in ("train", "validation"):
        split = getattr(case, name)
        setattr(case, name, prepared.Split(split.inputs, draw.permutation(split.labels), split.table))


def zeroed_inputs(case: Case, seed: int) -> None:
    """Inputs that are all 0."""
    for name in ("train", "validation"):
        split = getattr(case, name)
        setattr(case, name, prepared.Split(np.zeros_like(split.inputs), split.labels, split.table))


def overflow(case: Case, seed: int) -> None:
    """A learning rate that jumps beyond all numbers in the third epoch."""
    steps = 2 * -(-len(case.train) // case.settings["fit"]["batch_size"]) + seed
    rate = {"name": "PiecewiseConstantDecay", "boundaries": [steps], "values": [1e-3, 3e38]}
    case.fit(optimizer={"name": "sgd", "learning_rate": rate})


HIGH = ("learning_rate_too_high", "nan", "exploding_gradient")
NETS = ("fashion", "speech", "volumes", "vowels")  # whose recipes are of convolutions
PATHOLOGIES = {
    "learning rate too high": Pathology(high_rate, HIGH),
    "learning rate too low": Pathology(low_rate, ("learning_rate_too_low",)),
    "vanishing gradient": Pathology(deep_sigmoid, ("vanishing_gradient",), DEEP),
    "exploding gradient": Pathology(huge_weights, ("exploding_gradient",), DEEP),
    "dead units": Pathology(dead_layer, ("dead_units",), DEEP),
    "overfitting": Pathology(ten_examples, ("overfitting",)),
    "underfitting": Pathology(too_small, ("underfitting",), NETS),
    "shuffled labels": Pathology(shuffled_labels, ("shuffled_labels",)),
    "constant inputs": Pathology(zeroed_inputs, ("constant_inputs",)),
    "not a number": Pathology(overflow, ("nan",)),
}


def _each_kernel(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], None]:
    def apply(model: Any) -> None:
        for weight in model.trainable_variables:
            if weight.name == "kernel":
                weight.assign(change(np.asarray(weight)))

    return apply


def _some(split: prepared.Split, rows: np.ndarray) -> prepared.Split:
    rows = np.sort(rows)
    return prepared.Split(split.inputs[rows], split.labels[rows], split.table.iloc[rows])


# ── Training ───────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help=f"the first of {SEEDS}")
    parser.add_argument("--only", nargs="*", help="what is planted; `healthy` for nothing")
    parser.add_argument("--tasks", nargs="*", help="the recipes whose data it is planted in")
    parser.add_argument("--verbose", action="store_true", help="show each training's losses and verdicts")
    options = parser.parse_args()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a network after the other is meant
    cases = [
        case
        for case in chosen(options.seed)
        if case[0] in (options.only or ["healthy", *PATHOLOGIES]) and case[1] in (options.tasks or recipes())
    ]
    found: dict[str, Counter[str]] = {}
    right = 0
    with tempfile.TemporaryDirectory() as folder, tqdm(cases, unit="training") as bar:
        prepare(Path(folder), {task for _, task, _ in cases})
        for name, task, seed in bar:
            os.chdir(Path(folder, task))
            started = time.perf_counter()
            history, verdicts = train(name, task, seed)
            called = [verdict["name"] for verdict in verdicts] or ["healthy"]
            good = called[0] in (PATHOLOGIES[name].accepted if name in PATHOLOGIES else ("healthy",))
            right += good
            found.setdefault(name, Counter())[called[0]] += 1
            if options.verbose or not good:
                losses = " ".join(f"{each['loss']:.2f}/{each['val_loss']:.2f}" for each in history)
                seconds = time.perf_counter() - started
                text = f"{'ok' if good else 'WRONG'} {name}, {task}, seed {seed}: {called} {seconds:.1f} s"
                bar.write(f"{text}\n  {losses}\n  {verdicts[:1]}", file=sys.stderr)
        os.chdir(ROOT)
        print(table(found))
        print(f"\n{right} of {len(cases)} trainings ({right / len(cases):.0%}) are called what they are.")
        if not (options.only or options.tasks):
            os.chdir(Path(folder, "fashion"))
            print(cost())
            os.chdir(ROOT)


def chosen(first: int) -> list[tuple[str, str, int]]:
    """Returns what is planted, in which recipe's data, with which seed."""
    seeds = range(first, first + SEEDS)
    healthy = [("healthy", task, seed) for task in recipes() for seed in seeds]
    planted = [
        (name, task, seeds[number % SEEDS])
        for name, pathology in PATHOLOGIES.items()
        for number, task in enumerate(pathology.tasks)
    ]
    return healthy + planted


def recipes() -> list[str]:
    """Returns the names of all recipes."""
    return sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def prepare(folder: Path, tasks: set[str]) -> None:
    """Runs the stage `prepare` of each recipe, in a folder of its own."""
    for task in sorted(tasks):
        Path(folder, task).mkdir()
        os.chdir(Path(folder, task))
        Path("datasets").symlink_to(ROOT / "datasets")
        YAML(typ="safe").dump(YAML(typ="safe").load(ROOT / f"recipes/{task}.yaml"), Path("params.yaml"))
        run("src.train.prepare")


def train(name: str, task: str, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Trains with something planted, or nothing.

    Returns:
        The history, and the verdicts at the end.
    """
    raw = YAML(typ="safe").load(ROOT / f"recipes/{task}.yaml")
    split, validation = prepared.Split.open("train"), prepared.Split.open("validation")
    draw = np.random.default_rng(seed)
    most = int(MOST.get(task, len(split)) * (FEWER if name in PATHOLOGIES and task in MOST else 1))
    training = _some(split, draw.permutation(len(split))[:most])
    case = Case(raw, training, _some(validation, draw.permutation(len(validation))[:CHECKED]))
    case.fit(seed=seed, epochs=min(raw["fit"]["epochs"], SHORT if name in PATHOLOGIES else LONG))
    if name in PATHOLOGIES:
        PATHOLOGIES[name].plant(case, seed)
    options = pick("architectures", raw["architecture"]).Options.model_validate(raw["model"])
    chosen = params.Fit.model_validate(raw["fit"])
    data = read_json(prepared.FOLDER / "data.json")

    engine.start(chosen.seed, chosen.deterministic)
    checkpoint.PATH.unlink(missing_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        model = pick("architectures", raw["architecture"]).build(Frame.from_json(data["network"]), options)
        for change in case.change:
            change(model)
        size = int(chosen.batch_size)
        batches = prepared.Batches(case.train, size, seed)
        compiling.compile_model(model, pick("objectives", data["objective"]), chosen, len(batches))
        physician = doctor.Doctor(model, batches, chosen)
        keeper = checkpoint.Keeper(model, chosen, {})
        with contextlib.suppress(UserError):  # no epoch gave a number
            checks = prepared.Batches(case.validation, size)
            fit.train_model(model, batches, checks, chosen, keeper, physician.watch)
        return keeper.progress.history, physician.write(keeper.progress)


def cost() -> str:
    """Trains the recipe for fashion images, with a clock at each look of the doctor and each checkpoint.

    Returns:
        A sentence that says what share of the training's time both take.
    """
    settings = params.load()
    data = read_json(prepared.FOLDER / "data.json")
    split, validation = prepared.Split.open("train"), prepared.Split.open("validation")
    chosen, size = settings.fit, int(settings.fit.batch_size)
    spent: Counter[str] = Counter()

    def timed(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = call(*arguments)
            spent[what] += time.perf_counter() - started  # type: ignore[assignment]  # seconds
            return result

        return clocked

    engine.start(chosen.seed, chosen.deterministic)
    checkpoint.PATH.unlink(missing_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        model = compiling.build(settings, data)
        batches, checks = prepared.Batches(split, size, chosen.seed), prepared.Batches(validation, size)
        compiling.compile_model(model, pick("objectives", data["objective"]), chosen, len(batches))
        physician = timed("doctor", doctor.Doctor)(model, batches, chosen)
        keeper = checkpoint.Keeper(model, chosen, {})
        keeper.write = timed("checkpoints", keeper.write)  # type: ignore[method-assign]
        watch = timed("doctor", physician.watch)
        timed("training", fit.train_model)(model, batches, checks, chosen, keeper, watch)
    shares = {what: spent[what] / spent["training"] for what in ("doctor", "checkpoints")}
    return (
        f"Fashion images, {chosen.epochs} epochs, {spent['training']:.0f} seconds: the doctor takes "
        f"{shares['doctor']:.1%} of the training's time, a checkpoint at the end of each epoch "
        f"{shares['checkpoints']:.2%}."
    )


def table(found: dict[str, Counter[str]]) -> str:
    """Returns what was planted against what it was called, in Markdown; a point where that never happened."""
    columns = list(dict.fromkeys(called for counts in found.values() for called in sorted(counts)))
    lines = [
        f"| planted | {' | '.join(name.replace('_', ' ') for name in columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for name, counts in found.items():
        lines.append(f"| {name} | {' | '.join(str(counts[each] or '·') for each in columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
