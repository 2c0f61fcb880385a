"""What must hold before a model is let through.

The promise of every file here, none of which imports Keras or reads a file:

    Options                     a pydantic model: what `gates.<name>:` in params.yaml takes, with defaults
    STRICTER                    key → which of two values is the stricter, f(target, candidate), of
                                src.judgement.limits; keys that are not in it decide nothing
    judge(evidence, options)    looks at an `Evidence` (src.judgement.evidence) and returns a `Verdict`: pass,
                                fail or not enough data, with the numbers and a sentence

A gate that knows how often the test set was used also exports `widen(confidence, looks, options)`, the
confidence that all gates then use instead of the one asked for.

The target branch's value of a key holds wherever it is the stricter one, so no merge request lowers its bar.
What a metric is, and how it is measured, is said by the objective's `MEASURES`: a new objective needs no new
gate. scipy is imported where it is used, since every stage checks the gates' options when it starts.
"""

from typing import Annotated

from pydantic import Field

Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Portion = Annotated[float, Field(ge=0, le=1)]
