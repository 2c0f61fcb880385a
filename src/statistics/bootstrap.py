"""Intervals for metrics that are not a count of right answers.

In:  what each test example contributed, or labels and predictions.
Out: an `Interval` of the metric, or of candidate minus baseline on the same examples.

- `mean_interval`: a mean over examples, such as log loss, absolute error, or their difference
- `means_interval`: a smooth function of such means, such as root mean squared error, R², micro F1
- `macro_f1_interval`: macro F1, or the difference of two
- `metric_interval`: any other function of (labels, predictions, ...), more slowly
- `calibration_error_interval`: expected calibration error

All resample examples whole, so that a comparison stays paired, and all use the BCa bounds of Efron
(1987), "Better bootstrap confidence intervals", JASA 82:171-185, with a fixed seed: the same
predictions give the same interval. No bound of this kind is exact; `test_gate_simulation.py`
measures the errors of these, which are the reason for `_widened` and `MIN_EXAMPLES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from scipy.stats import t as student

from src.statistics import Interval, Sides, error_per_bound

Floats = NDArray[np.float64]

# With fewer examples, or a rarer class in macro F1, a bootstrap sees too little of the rare events
# that decide: false passes were 7 to 10 % instead of 5 %. The bounds are then infinite, and the
# verdict is `not enough data`.
MIN_EXAMPLES = 200
MIN_CLASS_EXAMPLES = 10

# A bound rests on the replicates beyond it; twenty of them know it to about a fifth.
REPLICATES_BEYOND = 20
MIN_RESAMPLES, MAX_RESAMPLES = 2_000, 50_000

# Numbers held in memory at a time while resampling.
BATCH = 4_000_000


def mean_interval(values: ArrayLike, confidence: float = 0.95, sides: Sides = 1, seed: int = 0) -> Interval:
    """Interval of a mean over examples.

    For a paired comparison give candidate minus baseline for each example, signed so that more is
    better: `baseline_log_loss - candidate_log_loss`.

    Args:
        values: shape `[examples]`, finite.
        confidence: in (0.5, 1].
        sides: 1 or 2, see `src/statistics/__init__.py`.
        seed: of the resampling.

    Returns:
        The interval, in the unit of the values.

    Raises:
        ValueError: if there are no values or one is not finite.
    """
    row = np.asarray(values, dtype=float)
    if row.ndim != 1:
        raise ValueError(f"expected a row of values, found the shape {row.shape}")
    return means_interval(row[:, None], lambda means: means[..., 0], confidence, sides, seed)


def means_interval(
    values: ArrayLike,
    combine: Callable[[Floats], Floats],
    confidence: float = 0.95,
    sides: Sides = 1,
    seed: int = 0,
    rarest: int | None = None,
) -> Interval:
    """Interval of a smooth function of means over examples.

    A resample is so many copies of each example, so its means are a matrix product; leaving out one
    example changes a mean by what it contributed.

    Where a few examples decide a mean, no bootstrap knows its tail: simulated upper bounds of the root
    mean squared error, stated at 5 %, were wrong in 5 % of the sets of 200 or 1,000 normal errors, in 5
    to 7 % of Laplace's, in 8 % of normal errors in proportion to log-normal labels, in 9 to 10 % of
    Student's with five degrees of freedom; those of the mean absolute error in 4 to 7 % of all these.

    Args:
        values: shape `[examples, columns]`, finite.
        combine: means `[..., columns]` → the metric `[...]`.
        confidence: in (0.5, 1].
        sides: 1 or 2, see `src/statistics/__init__.py`.
        seed: of the resampling.
        rarest: number of examples of the rarest part that decides by itself, such as a class: the
            bounds are infinite below `MIN_CLASS_EXAMPLES`. None if there is no such part.

    Returns:
        The interval, in the unit of the metric.

    Raises:
        ValueError: if there are no values or one is not finite.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or not table.size or not np.all(np.isfinite(table)):
        raise ValueError("expected a non-empty table of finite values")
    size = len(table)
    random = np.random.default_rng(seed)
    resamples = _resamples(error_per_bound(confidence, sides))
    rows = max(1, min(resamples, BATCH // size))

    def draw(count: int) -> Floats:
        drawn = random.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
        copies = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        return combine(copies.astype(float) @ table / size)

    replicates = [draw(min(rows, resamples - start)) for start in range(0, resamples, rows)]
    left_out = combine((table.sum(axis=0) - table) / max(size - 1, 1))
    enough = rarest is None or rarest >= MIN_CLASS_EXAMPLES
    return _bca(
        float(combine(table.mean(axis=0))),
        np.concatenate(replicates),
        left_out,
        np.ones(size),
        confidence,
        sides,
        examples=size if enough else 0,
    )


def macro_f1_interval(
    labels: ArrayLike,
    candidate: ArrayLike,
    baseline: ArrayLike | None = None,
    confidence: float = 0.95,
    sides: Sides = 1,
    seed: int = 0,
) -> Interval:
    """Interval of the macro F1 score, or of the candidate's minus the baseline's.

    Averages over the classes that occur in `labels`, each of which needs `MIN_CLASS_EXAMPLES`
    examples for finite bounds. Resampling examples is the same as drawing
    multinomial counts of the distinct combinations (label, candidate, baseline), of which there
    are few, so the time hardly depends on the number of examples.

    Args:
        labels: shape `[examples]`, true classes.
        candidate: shape `[examples]`, predicted classes.
        baseline: shape `[examples]`, the baseline's predicted classes, or None.
        confidence: in (0.5, 1].
        sides: 1 or 2, see `src/statistics/__init__.py`.
        seed: of the resampling.

    Returns:
        The interval.

    Raises:
        ValueError: if there are no examples or the shapes differ.
    """
    columns = [np.asarray(column) for column in (labels, candidate, baseline) if column is not None]
    if not columns[0].size or len({column.shape for column in columns}) > 1:
        raise ValueError(f"expected equal rows, found {[column.shape for column in columns]}")
    names, codes = np.unique(np.concatenate(columns), return_inverse=True)
    cells, counts = np.unique(codes.reshape(len(columns), -1), axis=1, return_counts=True)
    present, first = np.unique(cells[0], return_index=True)
    rarest = np.add.reduceat(counts, first).min()
    indicator = np.eye(names.size)[:, present]
    actual, *predictions = (indicator[cell] for cell in cells)

    def metric(weights: Floats) -> Floats:
        scores = [_macro_f1(weights, actual, predicted) for predicted in predictions]
        return scores[0] - scores[1] if len(scores) == 2 else scores[0]

    size = columns[0].size
    random = np.random.default_rng(seed)
    resamples = _resamples(error_per_bound(confidence, sides))
    rows = max(1, BATCH // counts.size)
    drawn = [
        metric(random.multinomial(size, counts / size, min(rows, resamples - start)).astype(float))
        for start in range(0, resamples, rows)
    ]
    whole = counts.astype(float)
    left_out = [
        metric(whole - np.eye(counts.size)[start : start + rows]) for start in range(0, counts.size, rows)
    ]
    estimate = float(metric(whole[None])[0])
    enough = rarest >= MIN_CLASS_EXAMPLES
    return _bca(
        estimate,
        np.concatenate(drawn),
        np.concatenate(left_out),
        whole,
        confidence,
        sides,
        examples=size if enough else 0,
    )


def metric_interval(
    metric: Callable[..., float],
    *columns: ArrayLike,
    confidence: float = 0.95,
    sides: Sides = 1,
    seed: int = 0,
    groups: int = 1000,
) -> Interval:
    """Interval of any metric, at the cost of some two thousand evaluations.

    Args:
        metric: called with the resampled columns; for a comparison let it return the candidate's
            value minus the baseline's.
        *columns: each of shape `[examples, ...]`: labels, predictions, probabilities.
        confidence: in (0.5, 1].
        sides: 1 or 2, see `src/statistics/__init__.py`.
        seed: of the resampling.
        groups: BCa's acceleration leaves out one of so many groups of examples at a time, as
            leaving out each example of a large set would take too long.

    Returns:
        The interval.

    Raises:
        ValueError: if there are no examples or the columns differ in length.
    """
    arrays = [np.asarray(column) for column in columns]
    size = len(arrays[0]) if arrays else 0
    if not size or any(len(array) != size for array in arrays):
        raise ValueError(f"expected columns of one length, found {[len(a) for a in arrays]}")
    random = np.random.default_rng(seed)

    def evaluate(rows: NDArray[np.int64]) -> float:
        return float(metric(*(array[rows] for array in arrays)))

    resamples = _resamples(error_per_bound(confidence, sides))
    drawn = [evaluate(random.integers(0, size, size)) for _ in range(resamples)]
    folds = np.array_split(random.permutation(size), min(groups, size))
    every = np.arange(size)
    left_out = [evaluate(np.delete(every, fold)) for fold in folds] if size > 1 else drawn[:1]
    return _bca(
        float(metric(*arrays)),
        np.array(drawn),
        np.array(left_out),
        np.ones(len(left_out)),
        confidence,
        sides,
        size,
    )


def expected_calibration_error(confidences: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error.

    Guo et al. (2017), "On calibration of modern neural networks", equation 3: bins of equal width,
    closed above, weighted by their number of examples.

    Args:
        confidences: shape `[examples]`, probability of the predicted class, in [0, 1].
        correct: shape `[examples]`, whether the prediction is right.
        bins: number of bins.

    Returns:
        The error, a share of 1. It is biased upward: even a calibrated model has some.

    Raises:
        ValueError: if there are no examples, the shapes differ, or a confidence is outside [0, 1].
    """
    bin_of, gaps = _calibration_gaps(confidences, correct, bins)
    return float(np.abs(np.bincount(bin_of, gaps)).sum() / gaps.size)


def calibration_error_interval(
    confidences: ArrayLike,
    correct: ArrayLike,
    bins: int = 15,
    confidence: float = 0.95,
    sides: Sides = 1,
    seed: int = 0,
) -> Interval:
    """Interval of the expected calibration error of these bins.

    The error is the largest mean of `sign of the bin * (confidence - correct)` over all ways to
    give each bin a sign. That turns bounding it into bounding a mean, and the upward bias of the
    estimate into an ally:

    - upper: the estimate is at least the sample's mean under the true signs, so the estimate plus
      what such a mean may fall short by is an upper bound. The bias is left in, it only makes a
      pass harder. (Resampling the error itself would add the bias a second time.)
    - lower: signs read off one half of the examples, fixed by the seed, give on the other half a
      mean whose true value is at most the error. A calibrated model is not failed for the bias.

    Args:
        confidences: shape `[examples]`, probability of the predicted class, in [0, 1].
        correct: shape `[examples]`, whether the prediction is right.
        bins: number of bins.
        confidence: in (0.5, 1].
        sides: 1 or 2, see `src/statistics/__init__.py`.
        seed: of the resampling and of the halves.

    Returns:
        The interval, in shares of 1, around an error: less is better, so negate it for `decide`.

    Raises:
        ValueError: as `expected_calibration_error`.
    """
    bin_of, gaps = _calibration_gaps(confidences, correct, bins)
    sign = np.where(np.bincount(bin_of, gaps, bins) < 0, -1.0, 1.0)
    upper = mean_interval(sign[bin_of] * gaps, confidence, sides, seed)
    half = np.random.default_rng(seed).permutation(gaps.size) < gaps.size // 2
    sign = np.where(np.bincount(bin_of[half], gaps[half], bins) < 0, -1.0, 1.0)
    lower = mean_interval((sign[bin_of] * gaps)[~half], confidence, sides, seed)
    return Interval(
        upper.estimate,
        float(np.clip(lower.lower, 0.0, upper.estimate)),
        min(upper.upper, 1.0),
        confidence,
        sides,
        upper.standard_error,
    )


def _calibration_gaps(
    confidences: ArrayLike, correct: ArrayLike, bins: int
) -> tuple[NDArray[np.int64], Floats]:
    """The bin of each example, and its confidence minus whether it is right."""
    stated, right = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=float)
    if stated.ndim != 1 or not stated.size or stated.shape != right.shape:
        raise ValueError(f"expected two equal non-empty rows, found {stated.shape}, {right.shape}")
    if not np.all((stated >= 0) & (stated <= 1)):
        raise ValueError("confidences must be between 0 and 1")
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, stated, side="left") - 1, 0, bins - 1)
    return bin_of, stated - right


def _macro_f1(weights: Floats, actual: Floats, predicted: Floats) -> Floats:
    """Macro F1 for rows of cell counts `[rows, cells]`, indicators `[cells, classes]`.

    F1 is 2 * hits / (actual + predicted); 0 for a class that a resample lacks altogether.
    """
    hits = weights @ (actual * predicted)
    total = weights @ (actual + predicted)
    return np.asarray(np.mean(2 * hits / np.maximum(total, 1), axis=1))


def _resamples(error: float) -> int:
    """Enough resamples for a bound with this chance of error, as far as time allows."""
    wanted = MAX_RESAMPLES if error == 0 else REPLICATES_BEYOND / error
    return int(min(max(MIN_RESAMPLES, math.ceil(wanted)), MAX_RESAMPLES))


def _widened(error: float, influence: Floats, weights: Floats) -> float:
    """Level at which to read the quantiles, so that few influential examples widen the interval.

    Hesterberg (2015), "What teachers should know about the bootstrap", The American Statistician
    69:371-386: a bootstrap is as narrow as a normal interval where Student's is due; reading
    its quantiles at Student's tail repairs that. The degrees of freedom here are Satterthwaite's,
    twice the squared variance over the variance of the variance, `2 * n / (kurtosis - 1)`: n for
    normal values, few where a metric hangs on a handful of examples, as the F1 of a rare class.
    """
    spread = np.sum(weights * influence**2)
    if spread == 0 or error == 0:
        return error
    kurtosis = weights.sum() * np.sum(weights * influence**4) / spread**2
    freedom = 2 * weights.sum() / max(kurtosis - 1, 1e-9)
    return float(norm.sf(student.isf(error, freedom)))


def _bca(
    estimate: float,
    replicates: Floats,
    left_out: Floats,
    weights: Floats,
    confidence: float,
    sides: Sides,
    examples: int,
) -> Interval:
    """BCa bounds of Efron (1987): bias and acceleration say which quantiles to read.

    Args:
        estimate: the metric on the test set.
        replicates: shape `[resamples]`, the metric on each resample.
        left_out: shape `[k]`, the metric without an example or a group of them.
        weights: shape `[k]`, how many examples each entry of `left_out` stands for.
        confidence: in (0.5, 1].
        sides: 1 or 2.
        examples: number of examples to hold against `MIN_EXAMPLES`.

    Returns:
        The interval. A bound for which there are too few replicates is infinite.
    """
    error = error_per_bound(confidence, sides)
    ordered = np.sort(replicates)
    size = ordered.size
    # Half of the replicates that equal the estimate count as below it.
    below = np.mean([np.searchsorted(ordered, estimate, side) for side in ("left", "right")])
    # Kept inside (0, 1) so that the quantile is finite.
    bias = norm.ppf(np.clip(below, 0.5, size - 0.5) / size)
    influence = np.average(left_out, weights=weights) - left_out
    spread = np.sum(weights * influence**2)
    acceleration = np.sum(weights * influence**3) / (6 * spread**1.5) if spread > 0 else 0.0
    error = _widened(error, influence, weights)

    def rank(share: float) -> float:
        shifted = bias + norm.ppf(share)
        shrink = 1 - acceleration * shifted
        if shrink <= 0:
            # So far out that the correction has no meaning: beyond every replicate.
            return math.copysign(math.inf, shifted)
        return float((size + 1) * norm.cdf(bias + shifted / shrink))

    lower, upper = -math.inf, math.inf
    if error > 0 and examples >= MIN_EXAMPLES:
        # Rounded outward: the k-th of n replicates is a bound with error k / (n + 1).
        lowest, highest = rank(error), rank(1 - error)
        lower = float(ordered[math.floor(lowest) - 1]) if lowest >= 1 else lower
        upper = float(ordered[math.ceil(highest) - 1]) if highest <= size else upper
    return Interval(float(estimate), lower, upper, confidence, sides, float(ordered.std()))
