"""No slice of the test split falls through: each class, or each value of a column, keeps its limit.

The limit is a floor, or a ceiling for a metric of which less is better. Where labels are numbers, each
quarter of them is a slice by label.

Many slices are looked at, and one of them is bad by chance sooner or later: Holm's correction keeps the
chance of one false pass among all of them under the stated error, and likewise that of one false fail.
"""

from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationInfo, field_validator

from src.errors import UserError, nearest
from src.gates import Confidence
from src.judgement.evidence import Evidence, Verdict, say_confidence, say_needed, say_number, worst
from src.judgement.limits import higher_for_each, lower_for_each, same
from src.judgement.measures import Alternative, Measure
from src.params import Section

MOST = 200  # slices; a column with more values is a number or a name, not a way to slice


class Options(Section):
    """`gates.slices:` how good the metric must be in every slice."""

    by: str = "label"  # or any column of the dataset's table
    metric: str = "accuracy"
    limit: Any = {"default": 0.5}  # one floor for all, or {default: 0.8, <slice>: 0.6}
    maximum: Any = None  # instead, where less is better: one ceiling, or {default: 50, <slice>: 60}
    confidence: Confidence = 0.95  # for all slices together

    @field_validator("limit", "maximum")
    @classmethod
    def _table(cls, value: Any, info: ValidationInfo) -> dict[str, float] | None:
        if value is None and info.field_name == "maximum":
            return None
        limits = value if isinstance(value, dict) else {"default": value}
        numbers = all(type(limit) in (int, float) for limit in limits.values())
        if not numbers or "default" not in limits:
            raise ValueError("a number, or {default: a number, <slice>: a number, ...}")
        return {str(name): float(limit) for name, limit in limits.items()}


STRICTER = {
    "by": same,
    "metric": same,
    "limit": higher_for_each,
    "maximum": lower_for_each,
    "confidence": max,
}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the confidence bound of every slice on its bad side against its limit."""
    measure = evidence.metric(options.metric, "slices")
    if measure.less_is_better and options.maximum is None:
        raise UserError(f"gates.slices.maximum: missing; of {options.metric} less is better")
    if not measure.less_is_better and options.maximum is not None:
        raise UserError(f"gates.slices.maximum: of {options.metric} more is better; use limit")
    key = "maximum" if measure.less_is_better else "limit"
    limits: dict[str, float] = getattr(options, key)
    groups = _slices(evidence, options.by)
    named = [name for name in limits if name != "default" and name not in groups]
    if named:
        raise UserError(
            f"gates.slices.{key}: no test example has {options.by} {named[0]!r}{nearest(named[0], groups)}"
        )
    rows = _rows(evidence, options, measure, groups, limits)
    sign = -1 if measure.less_is_better else 1
    rows.sort(key=lambda row: sign * (row["estimate"] - row["limit"]))
    answer = worst(*(row["verdict"] for row in rows))
    first = next(row for row in rows if row["verdict"] == answer)
    return Verdict(
        answer,
        _sentence(options, rows, answer, evidence.widen(options.confidence)),
        metric=options.metric,
        estimate=first["estimate"],
        lower=first["lower"],
        upper=first["upper"],
        confidence=evidence.widen(options.confidence),
        limit=first["limit"],
        examples=first["examples"],
        needed=first["needed"],
        details=rows,
    )


def _slices(evidence: Evidence, by: str) -> dict[str, np.ndarray]:
    """Returns the positions of each slice's examples."""
    table = evidence.test.table
    if by not in table:
        known = [str(name) for name in table.columns]
        raise UserError(
            f"gates.slices.by: the dataset has no column {by!r}, only {', '.join(known)}{nearest(by, known)}"
        )
    if by == "label":
        groups = evidence.objective.groups(evidence.labels, evidence.classes)
        groups = {name: positions for name, positions in groups.items() if len(positions)}
    else:
        values = table[by].astype(object).where(table[by].notna(), "none").astype(str).to_numpy()
        groups = pd.Series(np.arange(len(values))).groupby(values).groups
    if len(groups) > MOST:
        raise UserError(f"gates.slices.by: column {by!r} has {len(groups)} values, expected at most {MOST}")
    return {str(name): np.asarray(positions) for name, positions in groups.items()}


def _rows(
    evidence: Evidence,
    options: Options,
    measure: Measure,
    groups: dict[str, np.ndarray],
    limits: dict[str, float],
) -> list[dict[str, Any]]:
    """Judges every slice; its bounds are shown at the confidence that Holm's correction leaves it."""
    from src.statistics import holm

    confidence = evidence.widen(options.confidence)
    parts = {name: (evidence.labels[rows], evidence.candidate.outputs[rows]) for name, rows in groups.items()}
    held = [limits.get(name, limits["default"]) for name in parts]
    pairs = list(zip(parts.values(), held, strict=True))
    at_most = measure.less_is_better
    better: Alternative = "less" if at_most else "greater"
    worse: Alternative = "greater" if at_most else "less"
    good, sure = holm([measure.p_value(*part, limit, better) for part, limit in pairs], confidence)
    bad, certain = holm([measure.p_value(*part, limit, worse) for part, limit in pairs], confidence)
    rows = []
    for index, (name, part) in enumerate(parts.items()):
        inner = measure.measure(*part, float(sure[index]))
        outer = measure.measure(*part, float(certain[index]))
        limit = held[index]
        below, above = (outer, inner) if at_most else (inner, outer)
        lower, upper = below.interval.lower, above.interval.upper
        answer = "not enough data"
        if good[index] and (upper <= limit if at_most else lower >= limit):
            answer = "pass"
        elif bad[index] and (lower > limit if at_most else upper < limit):
            answer = "fail"
        needed = inner.needed(limit) if answer == "not enough data" else np.inf
        rows.append(
            {
                "slice": name,
                "verdict": answer,
                "estimate": inner.interval.estimate,
                "lower": float(lower) if np.isfinite(lower) else None,
                "upper": float(upper) if np.isfinite(upper) else None,
                "limit": limit,
                "examples": len(part[0]),
                "needed": int(needed) if np.isfinite(needed) else None,
            }
        )
    return rows


def _sentence(options: Options, rows: list[dict[str, Any]], answer: str, confidence: float) -> str:
    alike = [row for row in rows if row["verdict"] == answer]
    first = alike[0]
    sure = f"with {say_confidence(confidence)} confidence for all of them"
    value = (
        f"{options.by} {first['slice']!r} has {options.metric} {say_number(first['estimate'])} on "
        f"{first['examples']:,} examples, its limit is {say_number(first['limit'])}"
    )
    if answer == "pass":
        return f"All {len(rows)} slices by {options.by} keep their limit {sure}; the nearest: {value}."
    if answer == "fail":
        return f"{len(alike)} of {len(rows)} slices by {options.by} break their limit {sure}: {value}."
    return (
        f"{len(alike)} of {len(rows)} slices by {options.by} have too few examples to tell them from their "
        f"limit {sure}: {value}; {say_needed(first['needed'] or np.inf)}"
    )
