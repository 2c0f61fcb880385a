"""What the model says of its own certainty is true: the expected calibration error is under its limit.

Guo et al. (2017), "On calibration of modern neural networks". How it is bounded is said by
`src.statistics.bootstrap`.
"""

from src.gates import Confidence, Portion, maximum
from src.judgement.evidence import Evidence, Verdict
from src.judgement.limits import same
from src.params import Section


class Options(Section):
    """`gates.calibration:` how far stated probabilities may be from how often they come true."""

    metric: str = "expected_calibration_error"
    limit: Portion = 0.1
    confidence: Confidence = 0.95


STRICTER = {"metric": same, "limit": min, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the upper confidence bound of the calibration error against the limit."""
    evidence.metric(options.metric, "calibration")
    return maximum.judge(evidence, maximum.Options(**options.model_dump()))
