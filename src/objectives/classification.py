"""One class for each example: softmax outputs, categorical cross-entropy.

scipy, scikit-learn and matplotlib are imported where they are used: `prepare` needs none of them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from src.errors import BadExampleError
from src.network import Output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "sparse_categorical_crossentropy"
METRICS = ["accuracy"]
BINS = 15  # of the calibration error and the reliability diagram


def read(label: Any) -> Any:
    """Returns a label cell, a class.

    Raises:
        BadExampleError: If it is missing, or is several.
    """
    if not pd.api.types.is_scalar(label):
        raise BadExampleError(f"expected one class as the label, found {label!r}; objective: multilabel?")
    if pd.isna(label):
        raise BadExampleError("no label")
    # Whole numbers become floats where another cell is empty.
    return int(label) if isinstance(label, float) and label.is_integer() else label


def classes(labels: pd.Series) -> list[str]:
    """Returns the class names, sorted."""
    return sorted(labels.astype(str).unique())


def encode(labels: pd.Series, classes: list[str]) -> np.ndarray:
    """Returns each label's position in `classes`, (examples,) int32."""
    return pd.Index(classes).get_indexer(labels.astype(str)).astype(np.int32)


def groups(labels: np.ndarray, classes: list[str]) -> dict[str, np.ndarray]:
    """Returns the positions of each class's examples."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(1, len(classes)))
    return dict(zip(classes, np.split(order, starts), strict=True))


def output(labels: np.ndarray, classes: list[str]) -> Output:
    """Returns one unit for each class, and softmax."""
    return Output(len(classes), "softmax")


def predict(outputs: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Names the outputs.

    Args:
        outputs: (examples, classes) probabilities.
        classes: The class names.

    Returns:
        `prediction`, `confidence` (its probability) and `probability of <class>` for every class.
    """
    best = outputs.argmax(axis=1)
    frame = pd.DataFrame(outputs, columns=[f"probability of {name}" for name in classes])
    frame.insert(0, "prediction", np.asarray(classes)[best])
    frame.insert(1, "confidence", outputs.max(axis=1))
    return frame


def score(labels: np.ndarray, outputs: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """Scores predicted probabilities.

    Args:
        labels: (examples,) positions in `classes`.
        outputs: (examples, classes) probabilities.
        classes: The class names.

    Returns:
        accuracy with its 95 % Wilson interval, log loss, top-3 accuracy, macro F1, expected calibration
        error, the number of examples, and precision, recall, F1 and support of each class.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import log_loss, precision_recall_fscore_support

    positions = np.arange(len(classes))
    outputs = _probabilities(outputs)
    predicted = outputs.argmax(axis=1)
    correct = int((predicted == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    # How many classes are as probable as the right one or more: rank 1 is a hit of top-1.
    rank = (outputs >= outputs[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    per_class = precision_recall_fscore_support(labels, predicted, labels=positions, zero_division=0)
    return {
        "accuracy": correct / len(labels),
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
        "log_loss": float(log_loss(labels, outputs, labels=positions)),
        "top_3_accuracy": float((rank <= 3).mean()),
        "macro_f1": float(per_class[2][per_class[3] > 0].mean()),  # of the classes that are there
        "expected_calibration_error": calibration_error(outputs.max(axis=1), predicted == labels),
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


def reliability(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Compares confidence with accuracy in `BINS` bins of equal width.

    Args:
        confidence: (examples,) probability of the predicted class.
        correct: (examples,) whether it was right.

    Returns:
        `confidence`, `accuracy` and `examples` of each bin that has any.
    """
    frame = pd.DataFrame({"confidence": confidence, "accuracy": correct})
    # Bins are closed on the right, as in Guo et al. (2017), section 2.
    bins = np.clip(np.ceil(confidence * BINS).astype(int), 1, BINS)
    grouped = frame.groupby(bins)
    return grouped.mean().assign(examples=grouped.size())


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Returns the expected calibration error: Guo et al. (2017), On Calibration, equation 3."""
    bins = reliability(confidence, correct)
    gaps = (bins["accuracy"] - bins["confidence"]).abs()
    return float(np.average(gaps, weights=bins["examples"]))


def right(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns whether the most probable class is the label, (examples,) bool."""
    return predicted(outputs) == labels


def predicted(outputs: np.ndarray) -> np.ndarray:
    """Returns the position of the most probable class, (examples,) int64."""
    return outputs.argmax(axis=1)


def stated(outputs: np.ndarray) -> np.ndarray:
    """Returns the probability of the most probable class, (examples,) float64."""
    return np.minimum(_probabilities(outputs).max(axis=1), 1.0)


def log_losses(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns each example's log loss, (examples,) float64; a probability of 0 counts as 2e-16."""
    probability = _probabilities(outputs)[np.arange(len(labels)), labels]
    return -np.log(np.clip(probability, np.finfo(np.float64).eps, 1.0))


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """Rescales outputs to sum to one: softmax in float32 does so only to 1e-7."""
    return outputs / outputs.sum(axis=1, keepdims=True, dtype=np.float64)


MEASURES: dict[str, dict[str, Any]] = {
    "accuracy": {"kind": "share", "right": right},
    "macro_f1": {"kind": "macro_f1", "predicted": predicted},
    "log_loss": {"kind": "mean", "values": log_losses},
    "expected_calibration_error": {"kind": "calibration", "stated": stated, "right": right, "bins": BINS},
}


def pictures(predictions: pd.DataFrame, classes: list[str]) -> dict[str, tuple[str, "Figure"]]:
    """Draws the confusion matrix and the reliability diagram of the test split."""
    return {
        "confusion_matrix": (
            "Rows: the true class; columns: the prediction",
            _confusion(predictions, classes),
        ),
        "reliability": ("How often a prediction is right, by how sure it is", draw_reliability(predictions)),
    }


def showcase(predictions: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Chooses test examples worth looking at.

    Returns:
        `correct_predictions`, from all classes in turn, and `incorrect_predictions`, the most confident
        first: up to `count` rows with a `title`, indexed by position, the heading and the caption in `attrs`.
    """
    labels = predictions["label"].astype(str)
    right = labels == predictions["prediction"]
    sure = predictions["confidence"].map("{:.0%}".format)
    titles = pd.DataFrame({"title": labels + "\n" + sure})
    in_turn = predictions[right].groupby("label").cumcount().sort_values(kind="stable").index[:count]
    correct = titles.loc[in_turn]
    correct.attrs |= {"heading": "Right", "caption": "The class, and how sure the model was of it"}

    titles = pd.DataFrame({"title": predictions["prediction"] + " " + sure + "\nis " + labels})
    worst = predictions[~right].sort_values("confidence", ascending=False, kind="stable").index[:count]
    incorrect = titles.loc[worst]
    incorrect.attrs |= {
        "heading": "Wrong, the most confident first",
        "caption": "The prediction, how sure the model was of it, and what it is",
    }
    return {"correct_predictions": correct, "incorrect_predictions": incorrect}


def _confusion(predictions: pd.DataFrame, classes: list[str]) -> "Figure":
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(predictions["label"].astype(str), predictions["prediction"], labels=classes)
    side = min(14, 2.5 + 0.5 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="prediction", ylabel="label")
    if len(classes) <= 25:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if share[row, column] > 0.5 else "#334"
                axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=8)
    return figure


def draw_reliability(predictions: pd.DataFrame) -> "Figure":
    """Draws how often predictions are right by their confidence, and how many there are."""
    from matplotlib.figure import Figure

    correct = predictions["label"].astype(str) == predictions["prediction"]
    bins = reliability(predictions["confidence"].to_numpy(), correct.to_numpy())
    figure = Figure(figsize=(5, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--", label="perfectly calibrated")
    upper.plot(bins["confidence"], bins["accuracy"], marker="o", color="#2b6cb0", label="this model")
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(frameon=False)
    lower.bar((bins.index - 0.5) / BINS, bins["examples"], width=0.9 / BINS, color="#2b6cb0")
    lower.set(xlabel="confidence", ylabel="examples")
    return figure
