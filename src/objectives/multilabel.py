"""Any number of classes for each example, none too: sigmoid outputs, binary cross-entropy.

A label is a list in Parquet, or text with `|` between the names. In text nothing at all is no class; a list
that is null is a missing label. In tables of predictions the names stand sorted, with `|` between them.

scipy, scikit-learn and matplotlib are imported where they are used: `prepare` needs none of them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from src.errors import BadExampleError, UserError
from src.network import Output
from src.objectives import classification, with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "binary_crossentropy"
METRICS = ["binary_accuracy"]
BETWEEN = "|"
THRESHOLD = 0.5  # a class is predicted above it
COLOURS = {"found": "#2b6cb0", "missed": "#dd6b20", "false alarm": "#a0aec0"}


def read(label: Any) -> str:
    """Returns a label cell as text: the names, sorted, each once, with `|` between them.

    Raises:
        BadExampleError: If it is missing, or a name in a list is missing, empty or holds a `|`.
    """
    if label is None:
        raise BadExampleError("no label")
    if pd.api.types.is_scalar(label):
        given = [] if pd.isna(label) else [name.strip() for name in str(label).split(BETWEEN)]
        return BETWEEN.join(sorted({name for name in given if name}))
    for name in label:
        if not pd.api.types.is_scalar(name) or pd.isna(name) or not str(name) or BETWEEN in str(name):
            raise BadExampleError(f"expected class names without {BETWEEN!r} as the label, found {name!r}")
    return BETWEEN.join(sorted({str(name) for name in label}))


def classes(labels: pd.Series) -> list[str]:
    """Returns the class names, sorted.

    Raises:
        UserError: If no example has any.
    """
    found = sorted({name for label in labels.unique() for name in _names(label)})
    if not found:
        raise UserError("data.label: no example has a class; expected some with one or more")
    return found


def encode(labels: pd.Series, classes: list[str]) -> np.ndarray:
    """Returns which classes each example has, (examples, classes) uint8."""
    position = {name: number for number, name in enumerate(classes)}
    encoded = np.zeros((len(labels), len(classes)), np.uint8)
    for row, label in zip(encoded, labels, strict=True):
        row[[position[name] for name in _names(label)]] = 1
    return encoded


def groups(labels: np.ndarray, classes: list[str]) -> dict[str, np.ndarray]:
    """Returns the positions of each class's examples; one of several classes stands in several groups."""
    return {name: np.flatnonzero(column) for name, column in zip(classes, labels.T, strict=True)}


def output(labels: np.ndarray, classes: list[str]) -> Output:
    """Returns one unit for each class, and sigmoid."""
    return Output(len(classes), "sigmoid")


def predict(outputs: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Names the outputs.

    Args:
        outputs: (examples, classes) probabilities.
        classes: The class names.

    Returns:
        `prediction` (the names of the classes above one half, with `|` between them), `confidence` (see
        `stated`) and `probability of <class>` for every class.
    """
    frame = pd.DataFrame(outputs, columns=[f"probability of {name}" for name in classes])
    names = np.asarray(classes)
    frame.insert(0, "prediction", [BETWEEN.join(names[row]) for row in predicted(outputs)])
    frame.insert(1, "confidence", stated(outputs))
    return frame


def score(labels: np.ndarray, outputs: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """Scores predicted probabilities.

    The headline is micro F1: of all that was said and all that is there, how much agrees. Subset accuracy
    calls an example wrong for one class of fifty; Hamming loss praises a model that never says anything.

    Args:
        labels: (examples, classes) of 0 and 1.
        outputs: (examples, classes) probabilities.
        classes: The class names.

    Returns:
        micro F1 with its 95 % bootstrap interval, macro F1 of the classes that are there, subset accuracy
        with its 95 % Wilson interval, Hamming loss, log loss, expected calibration error, the number of
        examples, and precision, recall, F1 and support of each class.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import precision_recall_fscore_support

    hits = right(labels, outputs)
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    per_class = precision_recall_fscore_support(labels, predicted(outputs), average=None, zero_division=0)
    return {
        **with_interval("micro_f1", agreements(labels, outputs), f1),
        "macro_f1": float(mean_f1(agreements_by_class(labels, outputs).mean(axis=0))),
        "subset_accuracy": float(hits.mean()),
        "subset_accuracy_low": float(interval.low),
        "subset_accuracy_high": float(interval.high),
        "hamming_loss": float(hamming_losses(labels, outputs).mean()),
        "log_loss": float(log_losses(labels, outputs).mean()),
        "expected_calibration_error": classification.calibration_error(stated(outputs), hits),
        "examples": len(labels),
        "classes": {
            name: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "support": int(support),
            }
            for name, precision, recall, f1, support in zip(classes, *per_class, strict=True)
        },
    }


def predicted(outputs: np.ndarray) -> np.ndarray:
    """Returns which classes are predicted, (examples, classes) bool."""
    return outputs > THRESHOLD


def right(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns whether all classes are right, (examples,) bool: its mean is subset accuracy."""
    return (predicted(outputs) == labels).all(axis=1)


def stated(outputs: np.ndarray) -> np.ndarray:
    """Returns the probability that all classes are right, (examples,) float64.

    Binary cross-entropy takes the classes of an example for independent, so theirs are multiplied.
    """
    return np.maximum(outputs, 1 - outputs).prod(axis=1, dtype=np.float64)


def hamming_losses(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the share of classes that are wrong, (examples,) float64."""
    return (predicted(outputs) != labels).mean(axis=1)


def log_losses(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the log loss, the mean over the classes, (examples,) float64; 0 counts as 2e-16."""
    probability = np.where(labels == 1, outputs, 1 - outputs.astype(np.float64))
    return -np.log(np.clip(probability, np.finfo(np.float64).eps, 1.0)).mean(axis=1)


def agreements(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns what micro F1 is made of: classes found, and classes said plus there, (examples, 2) float64."""
    by_class = agreements_by_class(labels, outputs)
    return by_class.reshape(len(labels), 2, -1).sum(axis=2)


def agreements_by_class(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns what macro F1 is made of, for the classes that are there, (examples, 2 × classes) float64.

    First whether a class was found, then how often it was said or there: 0, 1 or 2.
    """
    there = labels.any(axis=0)
    there |= not there.any()
    said, actual = predicted(outputs)[:, there], labels[:, there] == 1
    return np.hstack([said & actual, said.astype(np.float64) + actual])


def f1(means: np.ndarray) -> np.ndarray:
    """Returns F1, (…,), of the means of `agreements`, (…, 2); 0 where nothing was said or there."""
    found, both = np.moveaxis(means, -1, 0)
    return 2 * found / np.where(both > 0, both, 1)


def mean_f1(means: np.ndarray) -> np.ndarray:
    """Returns the mean of the classes' F1, (…,), of the means of `agreements_by_class`, (…, 2 × classes)."""
    return f1(means.reshape(*means.shape[:-1], 2, -1).swapaxes(-1, -2)).mean(axis=-1)


def labelled(labels: np.ndarray) -> int:
    """Returns how many examples have a class at all."""
    return int(labels.any(axis=1).sum())


def rarest(labels: np.ndarray) -> int:
    """Returns how many examples the rarest class has, of those that are there."""
    counts = labels.sum(axis=0, dtype=np.int64)
    return int(counts[counts > 0].min()) if counts.any() else 0


MEASURES: dict[str, dict[str, Any]] = {
    "micro_f1": {
        "kind": "of_means",
        "values": agreements,
        "combine": f1,
        "rarest": labelled,
        "less_is_better": False,
    },
    "macro_f1": {
        "kind": "of_means",
        "values": agreements_by_class,
        "combine": mean_f1,
        "rarest": rarest,
        "less_is_better": False,
    },
    "subset_accuracy": {"kind": "share", "right": right},
    "hamming_loss": {"kind": "mean", "values": hamming_losses},
    "log_loss": {"kind": "mean", "values": log_losses},
    "expected_calibration_error": {
        "kind": "calibration",
        "stated": stated,
        "right": right,
        "bins": classification.BINS,
    },
}


def pictures(predictions: pd.DataFrame, classes: list[str]) -> dict[str, tuple[str, "Figure"]]:
    """Draws what was found and missed of each class, and the reliability diagram, of the test split."""
    return {
        "found_and_missed": (
            "Test examples of each class that were found or missed, and examples taken for it by mistake",
            _found(predictions, classes),
        ),
        "reliability": (
            "How often all classes of an example are right, by how sure the model is of them together",
            classification.draw_reliability(predictions),
        ),
    }


def showcase(predictions: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Chooses test examples worth looking at: all classes right, or not, in which case the surest first.

    Returns:
        `correct_predictions` and `incorrect_predictions`: up to `count` rows with a `title`, indexed by
        position, the heading and the caption in `attrs`.
    """
    said = {name: predictions[name].map(_say) for name in ("label", "prediction")}
    shown = classification.showcase(predictions.assign(**said), count)
    shown["correct_predictions"].attrs |= {
        "heading": "All classes right",
        "caption": "The classes, and how sure the model was of all of them together",
    }
    shown["incorrect_predictions"].attrs |= {
        "heading": "Some class wrong, the most confident first",
        "caption": "The prediction, how sure the model was of all of it together, and what it is",
    }
    return shown


def _names(label: str) -> list[str]:
    return label.split(BETWEEN) if label else []


def _say(label: str) -> str:
    return ", ".join(_names(label)) or "none"


def _found(predictions: pd.DataFrame, classes: list[str]) -> "Figure":
    from matplotlib.figure import Figure

    true, said = (encode(predictions[name], classes) == 1 for name in ("label", "prediction"))
    counts = {
        "found": (true & said).sum(axis=0),
        "missed": (true & ~said).sum(axis=0),
        "false alarm": (~true & said).sum(axis=0),
    }
    figure = Figure(figsize=(6.5, min(14, 1.5 + 0.3 * len(classes))), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(classes), int)
    for name, width in counts.items():
        axes.barh(range(len(classes)), width, left=left, color=COLOURS[name], label=name)
        left += width
    axes.set_yticks(range(len(classes)), classes)
    axes.invert_yaxis()
    axes.set(xlabel="test examples")
    figure.legend(loc="outside upper center", ncols=len(counts), frameon=False)
    return figure
