"""A test set wears out: each model that it judged has told whoever made the next one something about it.

The more models it has judged, the more confidence every other gate asks for, and past the limit it takes a
fresh test set. Models are counted from the history of dvc.lock in git (src/judgement/looks.py); nothing
else is kept.
"""

from typing import Annotated, Literal

from pydantic import Field

from src.judgement.evidence import Evidence, Verdict, say_confidence
from src.judgement.limits import last_of
from src.params import Section


class Options(Section):
    """`gates.looks:` how many models one test set may judge, and how the other gates pay for it."""

    limit: Annotated[int, Field(ge=1)] = 100
    method: Literal["bonferroni", "adaptive"] = (
        "bonferroni"  # adaptive: each model may answer the last verdict
    )


STRICTER = {"limit": min, "method": last_of("bonferroni", "adaptive")}


def widen(confidence: float, looks: int, options: Options) -> float:
    """Returns the confidence that a verdict must use after so many looks."""
    from src.statistics import confidence_after_looks

    return confidence_after_looks(confidence, looks, adaptive=options.method == "adaptive")


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Holds the number of models that this test set has judged against the limit."""
    if evidence.looks is None:
        return Verdict("fail", f"The looks at this test set cannot be counted: {evidence.uncounted}")
    count = f"This test set has judged {evidence.looks:,} model{'s' if evidence.looks > 1 else ''}"
    if evidence.looks > options.limit:
        return Verdict(
            "fail",
            f"{count}, the limit is {options.limit:,}: it needs fresh test examples.",
            estimate=evidence.looks,
            limit=options.limit,
        )
    wide = widen(0.95, evidence.looks, options)
    cost = f"where 95 % confidence is written, they ask for {say_confidence(wide)}"
    return Verdict(
        "pass",
        f"{count}, the limit is {options.limit:,}; the other gates "
        f"{'need no more confidence for it yet' if evidence.looks == 1 else f'pay for it: {cost}'}.",
        estimate=evidence.looks,
        limit=options.limit,
    )
