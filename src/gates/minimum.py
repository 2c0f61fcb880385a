"""The metric is at least the limit, with the stated confidence: the lower bound counts, not the value.

For a metric of which less is better there is `maximum`.
"""

from src.errors import UserError
from src.gates import Confidence
from src.judgement.evidence import Evidence, Verdict, weigh
from src.judgement.limits import same
from src.params import Section


class Options(Section):
    """`gates.minimum:` which metric, and how good it must be."""

    metric: str = "accuracy"
    limit: float = 0.5
    confidence: Confidence = 0.95


STRICTER = {"metric": same, "limit": max, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the lower confidence bound against the limit."""
    measure = evidence.metric(options.metric, "minimum")
    if measure.less_is_better:
        raise UserError(f"gates.minimum.metric: of {options.metric} less is better; use the gate `maximum`")
    confidence = evidence.widen(options.confidence)
    finding = measure.measure(evidence.labels, evidence.candidate.outputs, confidence)
    return weigh(options.metric, finding, options.limit, metric=options.metric)
