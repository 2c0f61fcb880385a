"""The model stays affordable: size of its file, number of parameters, and latency beside the baseline's.

Seconds depend on the machine, so latency is a ratio: both models answer single examples in turn, on the same
machine, in the same run.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from src.gates import Confidence
from src.judgement.evidence import Evidence, Verdict, worst
from src.judgement.limits import lower
from src.params import Section

Positive = Annotated[float, Field(gt=0)]


class Options(Section):
    """`gates.budget:` upper limits; None is no limit."""

    megabytes: Positive | None = None  # of src/models/model.keras, in millions of bytes
    parameters: Annotated[int, Field(ge=1)] | None = None
    latency: Positive | None = 2.0  # as a ratio to the baseline's
    confidence: Confidence = 0.95  # of the ratio


STRICTER = {"megabytes": lower, "parameters": lower, "latency": lower, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds each of the three against its limit; the worst answer is the gate's."""
    rows = []
    if options.megabytes is not None:
        rows.append(_exact("megabytes", evidence.candidate.size / 1e6, options.megabytes))
    if options.parameters is not None:
        rows.append(_exact("parameters", evidence.candidate.parameters, options.parameters))
    unmeasured = None
    if options.latency is not None:
        if evidence.latency is None:
            unmeasured = evidence.without_baseline()
        else:
            rows.append(_latency(evidence.latency, options.latency, options.confidence))
    answer = worst(*(row["verdict"] for row in rows), unmeasured.verdict if unmeasured else "pass")
    reason = " ".join(_sentence(row, evidence.engine) for row in rows)
    if unmeasured:
        reason += f"{' ' if reason else ''}Latency: {unmeasured.reason}"
    told: dict[str, Any] = next((row for row in reversed(rows) if row["verdict"] == answer), {})
    return Verdict(
        answer,
        reason or "No limit is set.",
        warning=bool(unmeasured and unmeasured.warning) or not (rows or unmeasured),
        estimate=told.get("estimate"),
        lower=told.get("lower"),
        upper=told.get("upper"),
        confidence=options.confidence if "lower" in told else None,
        limit=told.get("limit"),
        details=rows,
    )


def _exact(name: str, value: float, limit: float) -> dict[str, Any]:
    return {
        "budget": name,
        "verdict": "pass" if value <= limit else "fail",
        "estimate": value,
        "limit": limit,
    }


def _latency(seconds: np.ndarray, limit: float, confidence: float) -> dict[str, Any]:
    """Judges the median ratio, with the bounds that order statistics give whatever the distribution.

    Conover (1999), "Practical nonparametric statistics", section 3.2: the number of ratios below their true
    median is binomial with chance one half.

    Args:
        seconds: (rounds, 2) candidate and baseline.
        limit: of the ratio.
        confidence: of each bound.
    """
    from scipy.stats import binom

    ratios = np.sort(seconds[:, 0] / seconds[:, 1])
    rank = int(binom.ppf(1 - confidence, len(ratios), 0.5))  # the rank-th smallest is a lower bound
    low, high = (ratios[rank - 1], ratios[len(ratios) - rank]) if rank else (0.0, np.inf)
    answer = "pass" if high <= limit else "fail" if low > limit else "not enough data"
    return {
        "budget": "latency",
        "verdict": answer,
        "estimate": float(np.median(ratios)),
        "lower": float(low),
        "upper": float(high) if np.isfinite(high) else None,
        "limit": limit,
        "milliseconds": round(1000 * float(np.median(seconds[:, 0])), 3),
        "baseline_milliseconds": round(1000 * float(np.median(seconds[:, 1])), 3),
    }


def _sentence(row: dict[str, Any], engine: str) -> str:
    limit = f"the limit is {row['limit']:,}"
    if row["budget"] == "parameters":
        return f"{row['estimate']:,} parameters, {limit}."
    if row["budget"] == "megabytes":
        return f"{row['estimate']:.2f} MB, {limit}."
    noisy = ": too noisy to tell" if row["verdict"] == "not enough data" else ""
    return (
        f"{row['milliseconds']} ms for one example by {engine}, {row['estimate']:.2f} times the baseline's "
        f"{row['baseline_milliseconds']} ms, {limit}{noisy}."
    )
