"""How a metric is measured on the test split: its value, an honest interval, and how many examples it takes.

An objective names its metrics in `MEASURES`, each with one of the `KINDS` below:

- `share`: how many examples are right; exact intervals
- `mean`: a mean over examples, such as log loss or absolute error; bootstrap
- `of_means`: a function of such means, such as root mean squared error, R² or micro F1; bootstrap
- `macro_f1`: from predicted classes; bootstrap
- `calibration`: expected calibration error; bootstrap

It names them in plain data: training must not depend on the statistics, lest a changed interval retrain.

Every kind has `less_is_better`, `measure` for one model, `compare` for candidate minus baseline on the same
examples, and `p_value`. scipy is imported where it is used: whoever only reads parameters does not need it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from src.statistics import Interval, Sides

Array = np.ndarray
Alternative = Literal["greater", "less"]


@dataclass(frozen=True)
class Finding:
    """What was measured.

    Args:
        interval: of the value, in the metric's own unit and direction.
        examples: how many it was measured on.
        needed: number of examples at which the value is told from a limit with a chance of 80 %; `inf`
            where no number is enough.
    """

    interval: "Interval"
    examples: int
    needed: Callable[[float], float]


class Measure(Protocol):
    """What every kind of metric can do."""

    @property
    def less_is_better(self) -> bool:
        """Whether it is a loss."""

    def measure(self, labels: Array, outputs: Array, confidence: float, sides: "Sides" = 1) -> Finding:
        """Measures one model."""

    def compare(
        self, labels: Array, candidate: Array, baseline: Array, confidence: float, sides: "Sides" = 1
    ) -> Finding:
        """Measures candidate minus baseline on the same examples."""

    def p_value(self, labels: Array, outputs: Array, limit: float, alternative: Alternative) -> float:
        """Returns how likely such a value is if the truth were the limit."""


@dataclass(frozen=True)
class Share:
    """The share of examples that are right.

    Args:
        right: of labels and outputs: (examples,) bool.
    """

    right: Callable[[Array, Array], Array]
    less_is_better: bool = False

    def measure(self, labels: Array, outputs: Array, confidence: float, sides: "Sides" = 1) -> Finding:
        """Measures the share; `Finding` says how."""
        right = self.right(labels, outputs)
        return find_share(int(right.sum()), len(right), confidence, sides)

    def compare(
        self, labels: Array, candidate: Array, baseline: Array, confidence: float, sides: "Sides" = 1
    ) -> Finding:
        """Compares two models: the exact paired interval for a verdict, Tango's for display (`sides=2`)."""
        from src.statistics import paired, power

        pair = self.right(labels, candidate), self.right(labels, baseline)
        wins, losses, examples = paired.count_discordant(*pair)
        bounds = paired.paired_interval if sides == 1 else paired.tango_interval
        interval = bounds(wins, losses, examples, confidence, sides)

        def needed(limit: float) -> float:
            difference, discordance = (wins - losses) / examples, (wins + losses) / examples
            # Two models that never differed on these examples may differ on about one in as many more.
            discordance = max(discordance, 1 / examples)
            return power.paired_examples_needed(difference, discordance, limit, confidence)

        return Finding(interval, examples, _when_known(needed, confidence))

    def p_value(self, labels: Array, outputs: Array, limit: float, alternative: Alternative) -> float:
        """Returns the exact binomial p-value."""
        from src.statistics import proportion_p_value

        right = self.right(labels, outputs)
        return proportion_p_value(int(right.sum()), len(right), limit, alternative)


class _Resampled:
    """What the kinds with a bootstrap interval share."""

    def measure(self, labels: Array, outputs: Array, confidence: float, sides: "Sides" = 1) -> Finding:
        """Measures one model."""
        interval = self._interval(labels, outputs, None, confidence, sides)
        return _find_resampled(interval, len(labels))

    def compare(
        self, labels: Array, candidate: Array, baseline: Array, confidence: float, sides: "Sides" = 1
    ) -> Finding:
        """Measures candidate minus baseline, the examples resampled in pairs."""
        interval = self._interval(labels, candidate, baseline, confidence, sides)
        return _find_resampled(interval, len(labels))

    def p_value(self, labels: Array, outputs: Array, limit: float, alternative: Alternative) -> float:
        """Returns Student's p-value with the bootstrap's standard error; 1 where the bootstrap has none."""
        from scipy.stats import t

        interval = self._interval(labels, outputs, None, 0.95, 1)
        gap = interval.estimate - limit if alternative == "greater" else limit - interval.estimate
        if not math.isfinite(interval.lower if alternative == "greater" else interval.upper):
            return 1.0
        if interval.standard_error == 0:
            return float(gap < 0)
        return float(t.sf(gap / interval.standard_error, len(labels) - 1))

    def _interval(
        self, labels: Array, candidate: Array, baseline: Array | None, confidence: float, sides: "Sides"
    ) -> "Interval":
        raise NotImplementedError


@dataclass(frozen=True)
class Mean(_Resampled):
    """A mean over examples.

    Args:
        values: of labels and outputs: (examples,) float64, what each example contributes.
        less_is_better: whether it is a loss.
    """

    values: Callable[[Array, Array], Array]
    less_is_better: bool = True

    def _interval(
        self, labels: Array, candidate: Array, baseline: Array | None, confidence: float, sides: "Sides"
    ) -> "Interval":
        from src.statistics.bootstrap import mean_interval

        values = self.values(labels, candidate)
        if baseline is not None:
            values = values - self.values(labels, baseline)
        return mean_interval(values, confidence, sides)


@dataclass(frozen=True)
class OfMeans(_Resampled):
    """A smooth function of means over examples.

    Args:
        values: of labels and outputs: (examples, columns) float64, what each example contributes.
        combine: (…, columns) means → (…,) the metric.
        less_is_better: whether it is a loss.
        rarest: of labels: number of examples of the rarest part that decides by itself, such as a class.
    """

    values: Callable[[Array, Array], Array]
    combine: Callable[[Array], Array]
    less_is_better: bool = True
    rarest: Callable[[Array], int] | None = None

    def _interval(
        self, labels: Array, candidate: Array, baseline: Array | None, confidence: float, sides: "Sides"
    ) -> "Interval":
        from src.statistics.bootstrap import means_interval

        rarest = None if self.rarest is None else self.rarest(labels)
        values = self.values(labels, candidate)
        if baseline is None:
            return means_interval(values, self.combine, confidence, sides, rarest=rarest)
        columns = values.shape[1]

        def difference(means: Array) -> Array:
            return self.combine(means[..., :columns]) - self.combine(means[..., columns:])

        both = np.hstack([values, self.values(labels, baseline)])
        return means_interval(both, difference, confidence, sides, rarest=rarest)


@dataclass(frozen=True)
class MacroF1(_Resampled):
    """The F1 score of each class, averaged.

    Args:
        predicted: of outputs: (examples,) the predicted class.
    """

    predicted: Callable[[Array], Array]
    less_is_better: bool = False

    def _interval(
        self, labels: Array, candidate: Array, baseline: Array | None, confidence: float, sides: "Sides"
    ) -> "Interval":
        from src.statistics.bootstrap import macro_f1_interval

        other = None if baseline is None else self.predicted(baseline)
        return macro_f1_interval(labels, self.predicted(candidate), other, confidence, sides)


@dataclass(frozen=True)
class Calibration(_Resampled):
    """How far stated probabilities are from how often they come true.

    Args:
        stated: of outputs: (examples,) the probability of the prediction.
        right: of labels and outputs: (examples,) bool.
        bins: of the probabilities.
    """

    stated: Callable[[Array], Array]
    right: Callable[[Array, Array], Array]
    bins: int = 15
    less_is_better: bool = True

    def _interval(
        self, labels: Array, candidate: Array, baseline: Array | None, confidence: float, sides: "Sides"
    ) -> "Interval":
        from src.statistics import bootstrap

        stated, right = self.stated(candidate), self.right(labels, candidate)
        if baseline is None:
            return bootstrap.calibration_error_interval(stated, right, self.bins, confidence, sides)

        def difference(mine: Array, hit: Array, other: Array, other_hit: Array) -> float:
            error = bootstrap.expected_calibration_error
            return error(mine, hit, self.bins) - error(other, other_hit, self.bins)

        columns = stated, right, self.stated(baseline), self.right(labels, baseline)
        return bootstrap.metric_interval(difference, *columns, confidence=confidence, sides=sides)


KINDS: dict[str, Callable[..., Measure]] = {
    "share": Share,
    "mean": Mean,
    "of_means": OfMeans,
    "macro_f1": MacroF1,
    "calibration": Calibration,
}


def build(kind: str, **functions: Any) -> Measure:
    """Returns the measure that an entry of an objective's `MEASURES` describes."""
    return KINDS[kind](**functions)


def find_share(count: int, examples: int, confidence: float, sides: "Sides" = 1) -> Finding:
    """Returns a share of the examples with its exact interval; Wilson's for display (`sides=2`)."""
    from src.statistics import power, proportion_interval

    method: Literal["exact", "wilson"] = "exact" if sides == 1 else "wilson"
    interval = proportion_interval(count, examples, confidence, sides, method)

    def needed(limit: float) -> float:
        return power.proportion_examples_needed(count / examples, limit, confidence)

    return Finding(interval, examples, _when_known(needed, confidence))


def _find_resampled(interval: "Interval", examples: int) -> Finding:
    from src.statistics import bootstrap, power

    def needed(limit: float) -> float:
        deviation = interval.standard_error * math.sqrt(examples)
        wanted = power.mean_examples_needed(interval.estimate, deviation, limit, interval.confidence)
        return max(wanted, bootstrap.MIN_EXAMPLES)

    return Finding(interval, examples, _when_known(needed, interval.confidence))


def _when_known(needed: Callable[[float], float], confidence: float) -> Callable[[float], Any]:
    """Guards against a test set that is spent: at a confidence of 1 no number of examples is enough."""
    return needed if confidence < 1 else lambda limit: math.inf
