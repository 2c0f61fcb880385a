"""A number for each example: one linear output in the labels' own unit, mean squared error.

scipy, scikit-learn and matplotlib are imported where they are used: `prepare` needs none of them.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from src.errors import BadExampleError, UserError
from src.network import Output
from src.objectives import with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "mean_squared_error"
METRICS = ["mean_absolute_error"]

QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
INK, BLUE = "#999", "#2b6cb0"


def read(label: Any) -> float:
    """Returns a label cell as a number; text that reads as one is one.

    Raises:
        BadExampleError: If it is missing, no number, or no finite one in float32.
    """
    if not pd.api.types.is_scalar(label):
        raise BadExampleError(f"expected one number as the label, found {label!r}")
    if pd.isna(label):
        raise BadExampleError("no label")
    try:
        number = float(label)
    except (TypeError, ValueError):
        raise BadExampleError(f"expected a number as the label, found {label!r}") from None
    if not abs(number) <= float(np.finfo(np.float32).max):
        raise BadExampleError(f"expected a finite number as the label, found {label}")
    return number


def classes(labels: pd.Series) -> None:
    """Returns None: labels are numbers."""


def encode(labels: pd.Series, classes: None) -> np.ndarray:
    """Returns the numbers, (examples,) float32."""
    return labels.to_numpy(np.float32)


def groups(labels: np.ndarray, classes: None) -> dict[str, np.ndarray]:
    """Returns the positions of the examples in each quarter of these labels, equal ones in the same."""
    quarter = np.searchsorted(np.quantile(labels, [0.25, 0.5, 0.75]), labels)
    return {name: np.flatnonzero(quarter == number) for number, name in enumerate(QUARTERS)}


def output(labels: np.ndarray, classes: None) -> Output:
    """Returns one linear unit, rescaled to the unit of the labels, of which the network need know nothing.

    Raises:
        UserError: If all labels are the same.
    """
    mean, deviation = float(labels.mean(dtype=np.float64)), float(labels.std(dtype=np.float64))
    if labels.min() == labels.max():
        raise UserError(f"data.label: each training example has {labels[0]:g}; expected different numbers")
    return Output(1, "linear", [{"Rescaling": {"scale": deviation, "offset": mean}}])


def predict(outputs: np.ndarray, classes: None) -> pd.DataFrame:
    """Returns `prediction`, (examples,) in the unit of the labels, of outputs (examples, 1)."""
    return pd.DataFrame({"prediction": outputs[:, 0]})


def score(labels: np.ndarray, outputs: np.ndarray, classes: None) -> dict[str, Any]:
    """Scores predicted numbers.

    The headline is the mean absolute error: how far off a prediction is on average, in the labels' unit,
    whereas a few large errors decide the root mean squared error.

    Args:
        labels: (examples,) true numbers.
        outputs: (examples, 1) predicted numbers.
        classes: None.

    Returns:
        mean absolute error, root mean squared error and R² with their 95 % bootstrap intervals, median
        absolute error, the number of examples, and the same errors of a predictor that always gives the
        mean of these labels: what a model has to beat.
    """
    absolute = absolute_errors(labels, outputs)
    constant = np.full_like(outputs, labels.mean(dtype=np.float64))
    return {
        **with_interval("mean_absolute_error", absolute[:, None], lambda means: means[..., 0]),
        **with_interval("root_mean_squared_error", squared_errors(labels, outputs), root),
        **with_interval("r2", errors_and_deviations(labels, outputs), explained),
        "median_absolute_error": float(np.median(absolute)),
        "mean_predictor_mean_absolute_error": float(absolute_errors(labels, constant).mean()),
        "mean_predictor_root_mean_squared_error": float(root(squared_errors(labels, constant).mean(axis=0))),
        "examples": len(labels),
    }


def absolute_errors(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns how far off each prediction is, (examples,) float64."""
    return np.abs(outputs[:, 0].astype(np.float64) - labels)


def squared_errors(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns the squared error of each prediction, (examples, 1) float64."""
    return absolute_errors(labels, outputs)[:, None] ** 2


def root(means: np.ndarray) -> np.ndarray:
    """Returns the root mean squared error, (…,), of the means of `squared_errors`, (…, 1)."""
    return np.sqrt(means[..., 0])


def errors_and_deviations(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Returns what R² is made of: squared error, and the label's deviation with its square, (examples, 3)."""
    deviation = labels - labels.mean(dtype=np.float64)
    return np.column_stack([squared_errors(labels, outputs), deviation, deviation**2])


def explained(means: np.ndarray) -> np.ndarray:
    """Returns R², (…,), of the means of `errors_and_deviations`, (…, 3).

    Where all labels are the same it is not defined; it is then 0, or 1 if all errors are 0.
    """
    error, deviation, square = np.moveaxis(means, -1, 0)
    variance = square - deviation**2
    known = variance > 1e-12 * square
    return np.where(known, 1 - error / np.where(known, variance, 1), np.where(error == 0, 1.0, 0.0))


MEASURES: dict[str, dict[str, Any]] = {
    "mean_absolute_error": {"kind": "mean", "values": absolute_errors},
    "root_mean_squared_error": {"kind": "of_means", "values": squared_errors, "combine": root},
    "r2": {
        "kind": "of_means",
        "values": errors_and_deviations,
        "combine": explained,
        "less_is_better": False,
    },
}


def pictures(predictions: pd.DataFrame, classes: None) -> dict[str, tuple[str, "Figure"]]:
    """Draws predicted against true numbers, and the residuals, of the test split."""
    return {
        "predicted_against_true": (
            "A point for each test example; on the dashed line a prediction is exact",
            _against(predictions),
        ),
        "residuals": (
            "True less predicted: how the errors spread, and whether they depend on the prediction",
            _residuals(predictions),
        ),
    }


def showcase(predictions: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Chooses test examples worth looking at.

    Returns:
        `correct_predictions`, the nearest ones, and `incorrect_predictions`, the worst errors: up to `count`
        rows with a `title`, indexed by position, the heading and the caption in `attrs`.
    """
    error = (predictions["prediction"] - predictions["label"]).abs()
    order = error.sort_values(kind="stable").index
    count = min(count, max(1, len(order) // 2))
    spread = predictions["label"].std(ddof=0)
    digits = max(0, 1 - math.floor(math.log10(spread))) if spread > 0 else 2  # a hundredth of the spread
    titles = pd.DataFrame(
        {
            "title": predictions["label"].map(f"true {{:.{digits}f}}".format)
            + predictions["prediction"].map(f"\npredicted {{:.{digits}f}}".format)
        }
    )
    nearest, worst = titles.loc[order[:count]], titles.loc[order[::-1][:count]]
    nearest.attrs |= {"heading": "The nearest predictions", "caption": "The nearest first"}
    worst.attrs |= {"heading": "The largest errors", "caption": "The farthest first"}
    return {"correct_predictions": nearest, "incorrect_predictions": worst}


def _against(predictions: pd.DataFrame) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    both = predictions[["label", "prediction"]]
    low, high = float(both.min().min()), float(both.max().max())
    margin = 0.04 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color=INK, linewidth=1, linestyle="--")
    axes.scatter(predictions["label"], predictions["prediction"], **_points(len(predictions)))
    axes.set(xlabel="true", ylabel="predicted", xlim=ends, ylim=ends, aspect="equal")
    axes.grid(alpha=0.2)
    return figure


def _residuals(predictions: pd.DataFrame) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    residuals = predictions["label"] - predictions["prediction"]
    left.axhline(0, color=INK, linewidth=1, linestyle="--")
    left.scatter(predictions["prediction"], residuals, **_points(len(predictions)))
    left.set(xlabel="predicted", ylabel="true less predicted")
    left.grid(alpha=0.2)
    right.hist(residuals, bins=30, orientation="horizontal", color=BLUE)
    right.axhline(0, color=INK, linewidth=1, linestyle="--")
    right.set(xlabel="examples")
    return figure


def _points(count: int) -> dict[str, Any]:
    """Returns how points are drawn: the more there are, the fainter, so that dense places show."""
    return {"s": 14, "color": BLUE, "linewidths": 0, "alpha": min(0.7, max(0.05, 10 / math.sqrt(count)))}
