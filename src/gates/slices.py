"""No slice of the test split falls through: each class, or each value of a column, keeps its floor.

Many slices are looked at, and one of them is bad by chance sooner or later: Holm's correction keeps the
chance of one false pass among all of them under the stated error, and likewise that of one false fail.
"""

from typing import Any

import numpy as np
import pandas as pd
from pydantic import field_validator

from src.errors import UserError, nearest
from src.gates import Confidence
from src.judgement.evidence import Evidence, Verdict, say_confidence, say_needed, say_number, worst
from src.judgement.limits import higher_for_each, same
from src.judgement.measures import Measure
from src.params import Section

MOST = 200  # slices; a column with more values is a number or a name, not a way to slice


class Options(Section):
    """`gates.slices:` how good the metric must be in every slice."""

    by: str = "label"  # or any column of the dataset's table
    metric: str = "accuracy"
    limit: Any = {"default": 0.5}  # one floor for all, or {default: 0.8, <slice>: 0.6}
    confidence: Confidence = 0.95  # for all slices together

    @field_validator("limit")
    @classmethod
    def _floors(cls, value: Any) -> dict[str, float]:
        floors = value if isinstance(value, dict) else {"default": value}
        numbers = all(type(floor) in (int, float) for floor in floors.values())
        if not numbers or "default" not in floors:
            raise ValueError("a number, or {default: a number, <slice>: a number, ...}")
        return {str(name): float(floor) for name, floor in floors.items()}

    def floor(self, name: str) -> float:
        """Returns a slice's limit."""
        limits: dict[str, float] = self.limit
        return limits.get(name, limits["default"])


STRICTER = {"by": same, "metric": same, "limit": higher_for_each, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the lower confidence bound of every slice against its floor."""
    measure = evidence.metric(options.metric, "slices")
    if measure.less_is_better:
        raise UserError(
            f"gates.slices.metric: found {options.metric!r}, expected one of which more is better"
        )
    groups = _slices(evidence, options)
    rows = _rows(evidence, options, measure, groups)
    rows.sort(key=lambda row: row["estimate"] - row["limit"])
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


def _slices(evidence: Evidence, options: Options) -> dict[str, np.ndarray]:
    """Returns the positions of each slice's examples."""
    table = evidence.test.table
    if options.by not in table:
        known = [str(name) for name in table.columns]
        raise UserError(
            f"gates.slices.by: the dataset has no column {options.by!r}, only {', '.join(known)}"
            f"{nearest(options.by, known)}"
        )
    values = table[options.by].astype(object).where(table[options.by].notna(), "none").astype(str)
    if values.nunique() > MOST:
        raise UserError(
            f"gates.slices.by: column {options.by!r} has {values.nunique()} values, expected at most {MOST}"
        )
    named = [name for name in options.limit if name != "default" and name not in set(values)]
    if named:
        raise UserError(
            f"gates.slices.limit: no test example has {options.by} {named[0]!r}"
            f"{nearest(named[0], set(values))}"
        )
    groups = pd.Series(np.arange(len(values))).groupby(values.to_numpy())
    return {str(name): positions.to_numpy() for name, positions in groups}


def _rows(
    evidence: Evidence, options: Options, measure: Measure, groups: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Judges every slice; its bounds are shown at the confidence that Holm's correction leaves it."""
    from src.statistics import holm

    confidence = evidence.widen(options.confidence)
    parts = {name: (evidence.labels[rows], evidence.candidate.outputs[rows]) for name, rows in groups.items()}
    floors = [options.floor(name) for name in parts]
    pairs = list(zip(parts.values(), floors, strict=True))
    good, sure = holm([measure.p_value(*part, floor, "greater") for part, floor in pairs], confidence)
    bad, certain = holm([measure.p_value(*part, floor, "less") for part, floor in pairs], confidence)
    rows = []
    for index, (name, part) in enumerate(parts.items()):
        below = measure.measure(*part, float(sure[index]))
        above = measure.measure(*part, float(certain[index]))
        lower, upper, floor = below.interval.lower, above.interval.upper, floors[index]
        answer = "not enough data"
        if good[index] and lower >= floor:
            answer = "pass"
        elif bad[index] and upper < floor:
            answer = "fail"
        needed = below.needed(floor) if answer == "not enough data" else np.inf
        rows.append(
            {
                "slice": name,
                "verdict": answer,
                "estimate": below.interval.estimate,
                "lower": float(lower) if np.isfinite(lower) else None,
                "upper": float(upper) if np.isfinite(upper) else None,
                "limit": floor,
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
        f"{first['examples']:,} examples, its floor is {say_number(first['limit'])}"
    )
    if answer == "pass":
        return f"All {len(rows)} slices by {options.by} keep their floor {sure}; the nearest: {value}."
    if answer == "fail":
        return f"{len(alike)} of {len(rows)} slices by {options.by} are below their floor {sure}: {value}."
    return (
        f"{len(alike)} of {len(rows)} slices by {options.by} have too few examples to tell them from their "
        f"floor {sure}: {value}; {say_needed(first['needed'] or np.inf)}"
    )
