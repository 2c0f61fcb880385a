"""What is predicted.

The promise of every file here, none of which imports Keras:

    LOSS, METRICS           Keras names, for `compile`
    MEASURES                name → how the gate measures a metric on the test split: one of `KINDS` in
                            src/judgement/measures.py, and the functions that it takes
    read(label)             one cell of the label column as all that follows takes it, text or a number;
                            raises BadExampleError with the reason
    classes(labels)         the sorted class names, or None where labels are numbers
    encode(labels, classes) the labels as the array that the loss takes
    groups(labels, classes) encoded labels → name → positions of the examples that belong together: those of
                            each class, or of each quarter where labels are numbers
    output(labels, classes) what the network ends with (src.network.Output), of the encoded training labels
    predict(outputs, classes)        the network's outputs as columns: `prediction`, and what it rests on
    score(labels, outputs, classes)  the metrics, as JSON; the first one is the headline
    pictures(predictions, classes)   name → (caption, matplotlib figure), for the report; the first one
                                     shows predictions beside the truth
    showcase(predictions, count)     correct_predictions and incorrect_predictions: which ones to show, under
                                     which titles, heading and caption
"""

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pandas as pd

MOST_CLASSES = 20  # different whole numbers, unless they are plainly the classes' positions
RESAMPLES = 2000  # of an interval


def infer(labels: pd.Series) -> str:
    """Returns the objective that a label column suggests.

    Lists are several classes for each example. Fractions are numbers, even where text stands among them.
    Whole numbers are numbers too if there are many different ones that neither count from 0 nor from 1 on.
    All else is one class for each example.
    """
    known = labels.dropna()
    if known.map(pd.api.types.is_list_like).any():
        return "multilabel"
    if pd.api.types.is_float_dtype(labels):
        # Whole numbers become floats where a cell is empty.
        whole = len(known) < len(labels) and (known % 1 == 0).all()
        return _infer_whole(known) if whole else "regression"
    if pd.api.types.is_integer_dtype(labels):
        return _infer_whole(known)
    if known.map(lambda label: isinstance(label, float | Decimal)).any():
        return "regression"
    numbers = pd.to_numeric(known.astype(str), errors="coerce")
    mixed = numbers.isna().any() and (numbers.dropna() % 1 != 0).sum() > len(known) / 2
    return "regression" if mixed else "classification"


def _infer_whole(numbers: pd.Series) -> str:
    different = numbers.unique()
    positions = numbers.min() in (0, 1) and numbers.max() - numbers.min() + 1 == len(different)
    return "classification" if positions or len(different) <= MOST_CLASSES else "regression"


def with_interval(
    name: str, values: np.ndarray, combine: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """Returns a metric that is a function of means over examples, with its 95 % interval, for display.

    The percentile bootstrap, with a fixed seed: scoring must not depend on the gate's statistics.

    Args:
        name: Of the metric.
        values: (examples, columns) what each example contributes.
        combine: (…, columns) means → (…,) the metric.

    Returns:
        `<name>`, `<name>_low` and `<name>_high`.
    """
    random = np.random.default_rng(0)
    size = len(values)
    means = np.stack([values[random.integers(0, size, size)].mean(axis=0) for _ in range(RESAMPLES)])
    low, high = np.quantile(combine(means), [0.025, 0.975])
    return {name: float(combine(values.mean(axis=0))), f"{name}_low": float(low), f"{name}_high": float(high)}
