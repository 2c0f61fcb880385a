"""How often a plain threshold and Sluice's gates err, on the same simulated test sets.

In:  nothing; every scenario draws test sets whose truth is known, with a fixed seed.
Out: a Markdown table on standard output. Run `python -m benchmark.gate_errors`.

`false pass` is the share of test sets on which a candidate exactly at the limit, or worse than the
baseline by exactly the margin, is let through. `power` is the share on which the better candidate
named in the scenario is let through. A plain threshold compares the measured value with the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from src.statistics import (
    confidence_after_looks,
    decide,
    holm,
    proportion_interval,
    proportion_p_value,
)
from src.statistics.bootstrap import macro_f1_interval, mean_interval
from src.statistics.paired import fewest_wins_to_reach

SETS = 2_000
SLOW_SETS = 500
Passes = tuple[float, float]
Counts = NDArray[np.int64]


def main() -> None:
    """Print the table."""
    print("| scenario | threshold: false pass | power | Sluice: false pass | power |")
    print("|---|---|---|---|---|")
    for name, bad, good in scenarios():
        plain_bad, sluice_bad = bad()
        plain_good, sluice_good = good()
        shares = (plain_bad, plain_good, sluice_bad, sluice_good)
        print(f"| {name} | " + " | ".join(f"{share:.1%}" for share in shares) + " |", flush=True)


def scenarios() -> list[tuple[str, Callable[[], Passes], Callable[[], Passes]]]:
    """Name, the draw of candidates that should not pass, and of candidates that should."""
    rows: list[tuple[str, Callable[[], Passes], Callable[[], Passes]]] = []
    for size in (500, 2_000, 10_000):
        rows.append(
            (
                f"accuracy at least 90 %, {size:,} examples; better: 92 %",
                partial(minimum, size, 0.90),
                partial(minimum, size, 0.92),
            )
        )
    for size in (1_000, 5_000):
        rows.append(
            (
                f"at most 1 % worse than the baseline, {size:,} examples, 4 % differ; equal",
                partial(no_regression, size, -0.01),
                partial(no_regression, size, 0.0),
            )
        )
    rows += [
        (
            "best of 20 models, 90 %, 2,000 examples, 20 looks; better: 94 %",
            partial(best_of_many, 0.90),
            partial(best_of_many, 0.94),
        ),
        (
            "any of 10 slices, 85 % each, 300 examples each; better: all 92 %",
            partial(any_slice, 0.85),
            partial(every_slice, 0.92),
        ),
        (
            "vote of 9 random models chosen by the test set, 500 examples, labels are coins; better: 75 %",
            boosted_vote,
            partial(after_adaptive_looks, 0.75),
        ),
        (
            "log loss at most 0.05 worse, 500 examples; better: by 0.05",
            partial(log_loss, -0.05),
            partial(log_loss, 0.05),
        ),
        (
            "macro F1 at most 0.03 worse, 500 examples; better: by 0.03",
            partial(macro_f1, -0.03),
            partial(macro_f1, 0.03),
        ),
    ]
    return rows


def minimum(examples: int, truth: float, limit: float = 0.90) -> Passes:
    """Accuracy against a limit: shares of test sets that pass either gate."""
    right = np.random.default_rng(0).binomial(examples, truth, SETS)
    return float(np.mean(right >= limit * examples)), passing(right, examples, limit)


def no_regression(examples: int, difference: float, margin: float = 0.01) -> Passes:
    """Accuracy against a baseline on the same examples, 4 % of which the models answer apart."""
    random, discordance = np.random.default_rng(1), 0.04
    totals = random.binomial(examples, discordance, SETS)
    wins = random.binomial(totals, (1 + difference / discordance) / 2)
    row = np.arange(totals.min(), totals.max() + 1)
    needed = fewest_wins_to_reach(row, examples, -margin, 0.95)
    threshold = np.mean(2 * wins - totals >= -margin * examples)
    return float(threshold), float(np.mean(wins >= needed[totals - row[0]]))


def best_of_many(truth: float, models: int = 20, examples: int = 2_000) -> Passes:
    """The best of many equally good models, on a test set that has judged them all."""
    best = np.random.default_rng(2).binomial(examples, truth, (SETS, models)).max(axis=1)
    confidence = confidence_after_looks(0.95, models)
    return float(np.mean(best >= 0.90 * examples)), passing(best, examples, 0.90, confidence)


def any_slice(truth: float) -> Passes:
    """Share of test sets on which at least one of ten slices is said to keep its floor."""
    threshold, decided = slice_verdicts(truth)
    return float(threshold.any(axis=1).mean()), float(decided.any(axis=1).mean())


def every_slice(truth: float) -> Passes:
    """Share of test sets on which all ten slices are said to keep their floor."""
    threshold, decided = slice_verdicts(truth)
    return float(threshold.all(axis=1).mean()), float(decided.all(axis=1).mean())


def slice_verdicts(
    truth: float, slices: int = 10, examples: int = 300, floor: float = 0.85
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which slices pass, by threshold and by Holm, both `[sets, slices]`."""
    right = np.random.default_rng(3).binomial(examples, truth, (SETS, slices))

    @cache
    def p_value(successes: int) -> float:
        return proportion_p_value(successes, examples, floor, "greater")

    decided = [holm([p_value(int(count)) for count in row])[0] for row in right]
    return right >= floor * examples, np.array(decided)


def boosted_vote(models: int = 9, examples: int = 500) -> Passes:
    """Majority vote of random models that the test set judged better than chance."""
    random, right = np.random.default_rng(4), []
    for _ in range(SETS):
        answers = random.integers(0, 2, (models, examples), dtype=np.int8)
        kept = answers[answers.sum(axis=1) > examples / 2]
        votes = 2 * kept.sum(axis=0, dtype=int) - len(kept)
        ties = random.integers(0, 2, examples)
        right.append(np.where(votes == 0, ties, votes > 0).sum())
    counts = np.array(right)
    confidence = confidence_after_looks(0.95, models + 1, adaptive=True)
    threshold = np.mean(counts > examples / 2)
    return float(threshold), passing(counts, examples, 0.5, confidence)


def after_adaptive_looks(truth: float, models: int = 9, examples: int = 500) -> Passes:
    """A model that did learn, after as many looks."""
    right = np.random.default_rng(5).binomial(examples, truth, SETS)
    confidence = confidence_after_looks(0.95, models + 1, adaptive=True)
    return float(np.mean(right > examples / 2)), passing(right, examples, 0.5, confidence)


def log_loss(difference: float, examples: int = 500, margin: float = 0.05) -> Passes:
    """Log loss of two noisy copies of one model; the candidate's is shifted by the difference."""
    random, threshold, sluice = np.random.default_rng(6), 0, 0
    for _ in range(SLOW_SETS):
        shared = random.normal(size=(examples, 3)) + np.array([2.0, 0.0, 0.0])
        noise = random.normal(size=(2, examples, 3))
        losses = -log_softmax(2 * shared + noise, axis=-1)[..., 0]
        # Both copies have the same expected loss, so the shift is the true difference.
        gains = losses[0] - losses[1] + difference
        threshold += gains.mean() >= -margin
        sluice += decide(mean_interval(gains), -margin) == "pass"
    return threshold / SLOW_SETS, sluice / SLOW_SETS


def macro_f1(difference: float, examples: int = 500, margin: float = 0.03) -> Passes:
    """Macro F1 of two models that err on three equally frequent classes, evenly among them.

    With such errors the true macro F1 equals the accuracy, so the difference is set exactly.
    """
    random, threshold, sluice = np.random.default_rng(7), 0, 0
    for _ in range(SLOW_SETS):
        labels = random.integers(0, 3, examples)
        luck, shift = random.random(examples), random.integers(1, 3, examples)
        other = np.where(random.random(examples) < 0.7, luck, random.random(examples))
        baseline = np.where(luck < 0.80, labels, (labels + shift) % 3)
        candidate = np.where(other < 0.80 + difference, labels, (labels + shift) % 3)
        interval = macro_f1_interval(labels, candidate, baseline)
        threshold += interval.estimate >= -margin
        sluice += decide(interval, -margin) == "pass"
    return threshold / SLOW_SETS, sluice / SLOW_SETS


def passing(right: Counts, examples: int, limit: float, confidence: float = 0.95) -> float:
    """Share of test sets whose exact lower bound reaches the limit."""
    values, inverse = np.unique(right, return_inverse=True)
    verdicts = [decide(proportion_interval(int(count), examples, confidence), limit) for count in values]
    return float(np.mean(np.array(verdicts)[inverse] == "pass"))


if __name__ == "__main__":
    main()
