"""The model stays affordable: size of its files, number of parameters, and latency beside the baseline's.

Seconds depend on the machine, so latency is a ratio: both models answer single examples in turn, on the same
machine, in the same run, as ONNX Runtime runs them. So is the size of what is published, to stop a model that
grows a little with each merge request before it reaches `megabytes`.
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
    size: Positive | None = None  # of model.keras and model.onnx together, as a ratio to the baseline's
    confidence: Confidence = 0.95  # of the ratio


STRICTER = {"megabytes": lower, "parameters": lower, "latency": lower, "size": lower, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds each of the four against its limit; the worst answer is the gate's."""
    rows = []
    if options.megabytes is not None:
        rows.append(_exact("megabytes", evidence.candidate.size / 1e6, options.megabytes))
    if options.parameters is not None:
        rows.append(_exact("parameters", evidence.candidate.parameters, options.parameters))
    if options.latency is not None and evidence.latency is not None:
        rows.append(_latency(evidence.latency, options.latency, options.confidence))
    if options.size is not None and evidence.sizes is not None:
        rows.append(_size(*evidence.sizes, options.size))
    measured = {row["budget"] for row in rows}
    wanted = [name for name in ("latency", "size") if getattr(options, name) is not None]
    missing = [name for name in wanted if name not in measured]
    unmeasured = evidence.without_baseline() if missing else None
    answer = worst(*(row["verdict"] for row in rows), unmeasured.verdict if unmeasured else "pass")
    reason = " ".join(_sentence(row, evidence.engine) for row in rows)
    if unmeasured:
        reason += f"{' ' if reason else ''}{' and '.join(missing).capitalize()}: {unmeasured.reason}"
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


def _size(candidate: int, baseline: int, limit: float) -> dict[str, Any]:
    return {
        **_exact("size", candidate / baseline, limit),
        "megabytes": round(candidate / 1e6, 3),
        "baseline_megabytes": round(baseline / 1e6, 3),
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
    if row["budget"] == "size":
        return (
            f"{row['megabytes']} MB are published, {row['estimate']:.2f} times the baseline's "
            f"{row['baseline_megabytes']} MB, {limit}."
        )
    noisy = ": too noisy to tell" if row["verdict"] == "not enough data" else ""
    return (
        f"{row['milliseconds']} ms for one example by {engine}, {row['estimate']:.2f} times the baseline's "
        f"{row['baseline_milliseconds']} ms, {limit}{noisy}."
    )
