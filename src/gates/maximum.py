"""The metric, of which less is better, is at most the limit, with the stated confidence."""

from src.errors import UserError
from src.gates import Confidence
from src.judgement.evidence import Evidence, Verdict, weigh
from src.judgement.limits import same
from src.params import Section


class Options(Section):
    """`gates.maximum:` which loss, and how large it may be."""

    metric: str = "log_loss"
    limit: float = 1.0
    confidence: Confidence = 0.95


STRICTER = {"metric": same, "limit": min, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the upper confidence bound against the limit."""
    measure = evidence.metric(options.metric, "maximum")
    if not measure.less_is_better:
        raise UserError(f"gates.maximum.metric: of {options.metric} more is better; use the gate `minimum`")
    confidence = evidence.widen(options.confidence)
    finding = measure.measure(evidence.labels, evidence.candidate.outputs, confidence)
    return weigh(options.metric, finding, options.limit, at_most=True, metric=options.metric)
