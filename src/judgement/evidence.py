"""What a gate judges, and what it answers.

The evidence is gathered once (src/judgement/gather.py); each file of `src/gates/` looks at it and returns a
`Verdict`.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd

from src.errors import UserError, nearest
from src.judgement.measures import Finding, Measure, build
from src.prepared import Split

Answer = Literal["pass", "fail", "not enough data"]


@dataclass(frozen=True)
class Model:
    """A model, scored on the test split by the gate itself.

    Args:
        outputs: (examples, units), for every example of the test split, in its order.
        size: of the file, in bytes.
        parameters: how many numbers it has learned.
    """

    outputs: np.ndarray
    size: int
    parameters: int


@dataclass(frozen=True)
class Verdict:
    """A gate's answer.

    Args:
        verdict: the answer.
        reason: one sentence for a person.
        warning: whether a pass is one that a person should look at.
        metric: what was measured, where it is a metric.
        estimate, lower, upper, confidence: the value and its interval, in the metric's own unit.
        limit: what it was held against.
        examples: how many it was measured on.
        needed: about how many would decide; None where no number would, or none is missing.
        details: rows of a table: slices, budgets, examples.
        shown: pictures to draw: name → positions in the test split and their titles.
    """

    verdict: Answer
    reason: str
    warning: bool = False
    metric: str | None = None
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    confidence: float | None = None
    limit: float | None = None
    examples: int | None = None
    needed: int | None = None
    details: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[str, pd.DataFrame] = field(default_factory=dict)

    def to_json(self, gate: str) -> dict[str, Any]:
        """Returns the gate's entry in gate.json."""
        content = asdict(replace(self, shown={}))
        del content["shown"]
        return {"gate": gate, **content}


@dataclass(frozen=True)
class Evidence:
    """All that is known of the candidate, the baseline and the data.

    Args:
        objective: the plug-in that says what metrics there are.
        classes: their names, None where labels are numbers.
        splits: `train`, `validation` and `test`, as prepared.
        data: build/prepared/data.json.
        candidate: the model that is judged.
        baseline: the model that it is compared with, or None.
        identical: whether the baseline is the candidate itself, byte for byte.
        missing: why there is no baseline, a sentence; empty if there is one.
        broken: whether there should have been one: what compares with it then fails.
        looks: how many models this test split has judged, the candidate included; None if uncounted.
        uncounted: why the looks could not be counted.
        widen: the confidence that a verdict must use, of the one that was asked for.
        latency: (rounds, 2) seconds for one example, candidate and baseline side by side, or None.
        engine: what the latency was measured with.
        sizes: bytes of what is published of candidate and baseline, model.keras and model.onnx; or None.
        fingerprint: of encoded inputs: (examples,) uint64, few bits different where inputs look alike; None
            for tasks that have none.
    """

    objective: ModuleType
    classes: list[str] | None
    splits: dict[str, Split]
    data: dict[str, Any]
    candidate: Model
    baseline: Model | None = None
    identical: bool = False
    missing: str = "There is no baseline."
    broken: bool = False
    looks: int | None = 1
    uncounted: str = ""
    widen: Callable[[float], float] = lambda confidence: confidence
    latency: np.ndarray | None = None
    engine: str = "ONNX Runtime"
    sizes: tuple[int, int] | None = None
    fingerprint: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def test(self) -> Split:
        """The test split."""
        return self.splits["test"]

    @property
    def labels(self) -> np.ndarray:
        """The encoded labels of the test split."""
        return np.asarray(self.test.labels)

    def metric(self, name: str, gate: str) -> Measure:
        """Returns how the objective measures a metric.

        Raises:
            UserError: If it has no such metric.
        """
        known: dict[str, Any] = self.objective.MEASURES
        if name not in known:
            objective = self.objective.__name__.rpartition(".")[2]
            raise UserError(
                f"gates.{gate}.metric: {objective} has no {name!r}, expected one of {', '.join(known)}"
                f"{nearest(name, known)}"
            )
        return build(**known[name])

    def unchanged(self) -> Verdict | None:
        """Returns what a gate answers that compares a model with itself: no test set is too small for it."""
        return Verdict("pass", "This is the baseline itself, byte for byte.") if self.identical else None

    def without_baseline(self) -> Verdict:
        """Returns what a gate answers that has nothing to compare with: never a silent pass."""
        if self.broken:
            return Verdict("fail", f"There is nothing to compare with: {self.missing.rstrip('.')}.")
        return Verdict("pass", f"Nothing was compared: {self.missing.rstrip('.')}.", warning=True)


def weigh(
    subject: str,
    finding: Finding,
    limit: float,
    at_most: bool = False,
    metric: str | None = None,
    signed: bool = False,
) -> Verdict:
    """Holds what was measured against a limit.

    Args:
        subject: what was measured, for the sentence.
        finding: the measurement, with one-sided bounds.
        limit: the smallest value that is good enough, or the largest with `at_most`.
        at_most: whether less is better.
        metric: its name, for the verdict.
        signed: whether the value is a difference, printed with its sign.

    Returns:
        `pass` when the bound on the bad side keeps the limit, `fail` when the other one breaks it, else
        `not enough data` with the number of examples that would decide.
    """
    from src.statistics import Interval, decide

    found = finding.interval
    negated = Interval(-found.estimate, -found.upper, -found.lower, found.confidence, found.sides)
    answer = decide(negated, -limit) if at_most else decide(found, limit)
    needed = finding.needed(limit) if answer == "not enough data" else math.inf
    if needed <= finding.examples:  # it is not the number that is short, but some class or some bin
        needed = math.nan

    def number(value: float) -> str:
        return say_number(value, signed)

    value = f"{subject} is {number(found.estimate)} on {finding.examples:,} test examples"
    sure = f"with {say_confidence(found.confidence)} confidence"
    good = f"at most {number(found.upper)}" if at_most else f"at least {number(found.lower)}"
    bad = f"at least {number(found.lower)}" if at_most else f"at most {number(found.upper)}"
    side = "above" if at_most else "below"
    reason = {
        "pass": f"{value}, {good} {sure}; the limit is {number(limit)}.",
        "fail": f"{value}, {bad} {sure}: {side} the limit of {number(limit)}.",
        "not enough data": (
            f"{value}, {sure} between {number(found.lower)} and {number(found.upper)}: too few examples to "
            f"tell it from the limit of {number(limit)}; {say_needed(needed)}"
        ),
    }
    return Verdict(
        answer,
        reason[answer],
        metric=metric,
        estimate=_finite(found.estimate),
        lower=_finite(found.lower),
        upper=_finite(found.upper),
        confidence=found.confidence,
        limit=limit,
        examples=finding.examples,
        needed=int(needed) if math.isfinite(needed) else None,
    )


def worst(*answers: Answer) -> Answer:
    """Returns the answer of the whole, by the answers of its parts."""
    order: tuple[Answer, ...] = ("pass", "not enough data", "fail")
    return max(answers, key=order.index)


def say_number(value: float, signed: bool = False) -> str:
    """Returns a value with four digits behind the point, or the infinity that it is.

    Numbers of the data's own unit may be so large or small that as many digits say too much or nothing.
    """
    if not math.isfinite(value):
        return "-∞" if value < 0 else "∞"
    size = abs(value)
    form = ",.1f" if size >= 1000 else ".4f" if size >= 0.001 or not size else ".3g"
    return f"{value:+{form}}" if signed else f"{value:{form}}"


def say_confidence(confidence: float) -> str:
    """Returns a confidence as a percentage with as many digits as it takes to tell it from 100 %."""
    error = 1 - confidence
    if error <= 0:
        return "100 %"
    digits = max(0, math.ceil(-math.log10(error)) - 1)
    return f"{round(100 * confidence, min(digits, 12)):.14g} %"


def say_needed(needed: float) -> str:
    """Returns the end of a sentence: how many examples it would take."""
    if math.isnan(needed):
        return "some part of it, such as a rare class, has too few of them."
    if math.isfinite(needed):
        return f"about {needed:,.0f} would tell."
    return "no number of examples would, so near is it, or so often was this test set used."


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
