"""Against the baseline, on the same test examples, what was lost is inside the margin (non-inferiority).

Both models are scored on every example, so the comparison is paired: what both have right or wrong cancels.
"""

from typing import Annotated

from pydantic import Field

from src.gates import Confidence
from src.judgement.evidence import Evidence, Verdict, weigh
from src.judgement.limits import same
from src.params import Section


class Options(Section):
    """`gates.no_regression:` which metric, and how much of it may be lost."""

    metric: str = "accuracy"
    margin: Annotated[float, Field(ge=0)] = 0.01
    confidence: Confidence = 0.95


STRICTER = {"metric": same, "margin": min, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the confidence bound of candidate minus baseline against the margin."""
    measure = evidence.metric(options.metric, "no_regression")
    if evidence.baseline is None:
        return evidence.without_baseline()
    if same_model := evidence.unchanged():
        return same_model
    finding = measure.compare(
        evidence.labels,
        evidence.candidate.outputs,
        evidence.baseline.outputs,
        evidence.widen(options.confidence),
    )
    less = measure.less_is_better
    limit = options.margin if less else -options.margin
    subject = f"{options.metric} less the baseline's"
    return weigh(subject, finding, limit, at_most=less, metric=options.metric, signed=True)
