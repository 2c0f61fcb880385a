"""Intervals, corrections and the three-way verdict that every accuracy gate rests on.

In:  counts of right and wrong answers, or p-values.
Out: an `Interval`, a confidence, or `pass`, `fail`, `not enough data`.

`paired.py` compares two models on the same examples, `bootstrap.py` covers metrics that are not proportions,
`power.py` says how many examples a verdict would take.

Every interval function takes `confidence` and `sides`. With `sides=1`, which verdicts use, each
bound on its own is right with that confidence, so that neither a false pass nor a false fail is
more likely than `1 - confidence`. With `sides=2`, for display, both bounds are right at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

Verdict = Literal["pass", "fail", "not enough data"]
Sides = Literal[1, 2]


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Args:
        estimate: the value measured on the test set.
        lower: lower confidence bound, in the unit of the estimate.
        upper: upper confidence bound.
        confidence: the confidence asked for, in (0, 1].
        sides: 1 when each bound alone has that confidence, 2 when both have it at once.
        standard_error: of the estimate; known for bootstrap intervals only, else nan.
    """

    estimate: float
    lower: float
    upper: float
    confidence: float
    sides: Sides
    standard_error: float = math.nan


def error_per_bound(confidence: float, sides: Sides) -> float:
    """Chance of error that one bound may use.

    Args:
        confidence: in (0.5, 1]. It is 1 when so many looks were taken that the level no longer
            fits a float; every bound is then the trivial one.
        sides: 1 or 2.

    Returns:
        `(1 - confidence) / sides`.

    Raises:
        ValueError: if `confidence` or `sides` is out of range.
    """
    if not 0.5 < confidence <= 1:
        raise ValueError(f"confidence must be above 0.5 and at most 1, found {confidence}")
    if sides not in (1, 2):
        raise ValueError(f"sides must be 1 or 2, found {sides}")
    return (1 - confidence) / sides


def proportion_interval(
    successes: int,
    examples: int,
    confidence: float = 0.95,
    sides: Sides = 1,
    method: Literal["exact", "wilson"] = "exact",
) -> Interval:
    """Interval of a proportion such as accuracy.

    Args:
        successes: number of examples that the model has right.
        examples: number of examples, at least 1.
        confidence: in (0.5, 1].
        sides: see the module docstring.
        method: `exact` is Clopper and Pearson (1934), Biometrika 26:404-413: its confidence is
            never below the one stated, so verdicts use it. `wilson` is Wilson (1927), JASA
            22:209-212: shorter, and closer to the stated confidence on average, but sometimes
            below it; for display.

    Returns:
        The interval, in shares of 1.

    Raises:
        ValueError: if there are no examples or the count does not fit.
    """
    if examples < 1:
        raise ValueError("an interval needs at least one example, found 0")
    if not 0 <= successes <= examples:
        raise ValueError(f"successes must be between 0 and {examples}, found {successes}")
    level = 1 - error_per_bound(confidence, sides)
    greater = binomtest(successes, examples, alternative="greater")
    less = binomtest(successes, examples, alternative="less")
    lower = greater.proportion_ci(level, method=method).low
    upper = less.proportion_ci(level, method=method).high
    return Interval(successes / examples, float(lower), float(upper), confidence, sides)


def decide(interval: Interval, limit: float) -> Verdict:
    """Three-way verdict on "the true value is at least the limit".

    Args:
        interval: of a value where more is better; negate what should be small. For
            non-inferiority, of candidate minus baseline.
        limit: the smallest acceptable value; `-margin` for non-inferiority.

    Returns:
        `pass` when the lower bound reaches the limit, `fail` when the upper bound is below it,
        else `not enough data`.
    """
    if interval.lower >= limit:
        return "pass"
    if interval.upper < limit:
        return "fail"
    return "not enough data"


def proportion_p_value(
    successes: int, examples: int, limit: float, alternative: Literal["greater", "less"]
) -> float:
    """Exact binomial p-value of "the true proportion is above (below) the limit".

    At most `1 - confidence` exactly when the Clopper-Pearson bound reaches the limit.

    Args:
        successes: number of examples that the model has right.
        examples: number of examples, at least 1.
        limit: the proportion under the null hypothesis.
        alternative: `greater` for evidence of a pass, `less` for evidence of a fail.

    Returns:
        The p-value.

    Raises:
        ValueError: if there are no examples.
    """
    if examples < 1:
        raise ValueError("a p-value needs at least one example, found 0")
    return float(binomtest(successes, examples, limit, alternative).pvalue)


def holm(p_values: ArrayLike, confidence: float = 0.95) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Holm's step-down correction across slices.

    Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6:65-70: the smallest of k p-values is compared with alpha / k, the next
    with alpha / (k - 1), and so on up to the first that is too large. The chance of even one
    false rejection among the k is at most alpha, however the slices depend on each other.

    Args:
        p_values: shape `[k]`, one for each slice, all in the same direction: evidence of a pass,
            or evidence of a fail.
        confidence: `1 - alpha` for all slices together.

    Returns:
        Two arrays of shape `[k]`: which slices are decided, and the confidence at which to show
        each slice's one-sided bound so that the bound says what the decision says. A decided
        slice has the level of its own step, the others that of the step that stopped.

    Raises:
        ValueError: if there are no p-values or one is outside [0, 1].
    """
    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or not values.size or not np.all((values >= 0) & (values <= 1)):
        raise ValueError("p_values must be a non-empty row of numbers between 0 and 1")
    order = np.argsort(values, kind="stable")
    levels = error_per_bound(confidence, 1) / np.arange(values.size, 0, -1)
    rejected = int(np.logical_and.accumulate(values[order] <= levels).sum())
    levels[rejected:] = levels[min(rejected, values.size - 1)]
    decided = np.zeros(values.size, dtype=bool)
    decided[order[:rejected]] = True
    confidences = np.empty(values.size)
    confidences[order] = 1 - levels
    return decided, confidences


def confidence_after_looks(confidence: float, looks: int, adaptive: bool = False, answers: int = 3) -> float:
    """Confidence that a verdict must use when a test set judges its k-th model.

    Bonferroni, the default: alpha / k. Of k models fixed *before* any of them was judged, none
    passes falsely at this level, except with chance alpha; so neither does the best of them.
    Earlier looks had laxer levels: with models fixed beforehand, the chance that any of the k
    verdicts was a false pass is at most alpha * (1 + ln k).

    Adaptive: each model may be chosen after seeing the earlier verdicts. A developer, however
    clever, is then a tree: the transcript of j - 1 verdicts, with three possible answers each,
    determines the j-th model. Depth j holds 3**(j - 1) models, all of them fixed before the test
    set is drawn, whatever path is then taken. Judging each at alpha / (j * (j + 1) * 3**(j - 1))
    leaves depth j a chance of alpha / (j * (j + 1)), and these add up to at most alpha over all
    depths: this test set *ever* passes a bad model with chance alpha at most. The count is that of
    Blum and Hardt (2015), "The Ladder", proof of theorem 3.1; the argument by description length
    is in Dwork et al. (2015), "Generalization in adaptive data analysis and holdout reuse".

    What `adaptive` assumes: that nothing but the verdicts reached whoever chose the models.
    Intervals, per-example errors and labels reveal far more than three answers; with a score
    rounded to 1 % use `answers=101`, and with predictions on view no such correction holds.

    Args:
        confidence: asked for a single look, in (0.5, 1].
        looks: number of models that the test set has judged, the present one included.
        adaptive: use the stricter correction.
        answers: number of possible answers that each earlier look may have revealed.

    Returns:
        The widened confidence. It reaches 1 where the level no longer fits a float: the test set
        is spent, every bound is trivial and every verdict is `not enough data`.

    Raises:
        ValueError: if a number is out of range.
    """
    if looks < 1 or answers < 1:
        raise ValueError(f"looks and answers must be at least 1, found {looks} and {answers}")
    error = error_per_bound(confidence, 1)
    if not adaptive:
        return 1 - error / looks
    # In logarithms, because 3.0 ** 700 overflows.
    transcripts = (looks - 1) * math.log(answers)
    return 1 - error / (looks * (looks + 1)) * math.exp(-transcripts)
