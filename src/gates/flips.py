"""Few examples that the baseline had right are wrong now, even where the metric has not changed.

They are shown as `newly_broken`: whoever relied on the old answers will meet these first.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from src.errors import UserError
from src.gates import Confidence, Portion
from src.judgement.evidence import Evidence, Verdict, weigh
from src.judgement.limits import same
from src.judgement.measures import Share, find_share
from src.params import Section

SHOWN = 25


class Options(Section):
    """`gates.flips:` which share of the test examples may be newly wrong."""

    metric: str = "accuracy"  # what right means: a metric that is a share of right examples
    limit: Portion = 0.05
    confidence: Confidence = 0.95


STRICTER = {"metric": same, "limit": min, "confidence": max}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the upper confidence bound of the share of newly broken examples against the limit."""
    measure = evidence.metric(options.metric, "flips")
    if not isinstance(measure, Share):
        shares = [name for name, entry in evidence.objective.MEASURES.items() if entry["kind"] == "share"]
        raise UserError(
            f"gates.flips.metric: found {options.metric!r}, expected a share of right examples: "
            f"{', '.join(shares) or 'this objective has none, so take the gate out'}"
        )
    if evidence.baseline is None:
        return evidence.without_baseline()
    if same_model := evidence.unchanged():
        return same_model
    was = measure.right(evidence.labels, evidence.baseline.outputs)
    now = measure.right(evidence.labels, evidence.candidate.outputs)
    broken = np.flatnonzero(was & ~now)
    finding = find_share(len(broken), len(now), evidence.widen(options.confidence))
    verdict = weigh(
        "The share that the baseline had right and this model has wrong",
        finding,
        options.limit,
        at_most=True,
        metric=options.metric,
    )
    if not len(broken):
        return verdict
    rows = _name(evidence, broken)
    other = np.where(rows["was"] == rows["label"], "", "\nis " + rows["label"])  # right need not mean equal
    titles = pd.DataFrame({"title": rows["now"] + "\nwas " + rows["was"] + other})
    titles.attrs["caption"] = "what it says now, and what the baseline rightly said; the most confident first"
    shown = titles.iloc[:SHOWN]
    details = rows.iloc[:SHOWN].to_dict("records")
    return replace(verdict, details=details, shown={"newly_broken": shown})


def _name(evidence: Evidence, positions: np.ndarray) -> pd.DataFrame:
    """Returns the id, the label and both answers of some test examples, the most confident mistakes first."""
    assert evidence.baseline is not None
    objective, classes = evidence.objective, evidence.classes
    now = objective.predict(evidence.candidate.outputs[positions], classes)
    was = objective.predict(evidence.baseline.outputs[positions], classes)
    table = evidence.test.table.iloc[positions]
    rows = pd.DataFrame(
        {
            "id": table["id"].astype(str).to_numpy(),
            "label": table["label"].astype(str).to_numpy(),
            "was": was["prediction"].astype(str).to_numpy(),
            "now": now["prediction"].astype(str).to_numpy(),
        },
        index=positions,
    )
    if "confidence" not in now:
        return rows
    return rows.iloc[np.argsort(-now["confidence"].to_numpy(), kind="stable")]
