"""What the gates promise, checked on simulated test sets whose truth is known.

Each scenario draws 2,000 test sets with a fixed seed. `at_most` and `equal` allow 3.5 standard
errors of such a simulation, so that a right method fails one time in some thousands.
"""

import math
from functools import cache

import numpy as np
import pytest
from scipy.special import log_softmax

from src import statistics
from src.statistics import bootstrap, paired, power

SETS = 2_000
ERROR = 0.05


def at_most(observed, level, sets=SETS):
    return observed <= level + 3.5 * math.sqrt(level * (1 - level) / sets)


def equal(observed, expected):
    return abs(observed - expected) <= 3.5 * math.sqrt(expected * (1 - expected) / SETS)


@cache
def verdict_on_proportion(successes, examples, limit, confidence=1 - ERROR):
    interval = statistics.proportion_interval(successes, examples, confidence)
    return statistics.decide(interval, limit)


def shares_of_verdicts(counts, examples, limit, confidence=1 - ERROR):
    verdicts = [verdict_on_proportion(int(k), examples, limit, confidence) for k in counts]
    return verdicts.count("pass") / len(verdicts), verdicts.count("fail") / len(verdicts)


def share_passing_margin(random, examples, difference, discordance, limit):
    """Share of simulated paired test sets that pass, by the gate's own critical region."""
    totals = random.binomial(examples, discordance, SETS)
    wins = random.binomial(totals, (1 + difference / discordance) / 2)
    row = np.arange(totals.min(), totals.max() + 1)
    needed = paired.fewest_wins_to_reach(row, examples, limit, 1 - ERROR)
    return np.mean(wins >= needed[totals - row[0]])


# ---------------------------------------------------------------- accuracy against a limit


@pytest.mark.parametrize("examples", [100, 1_000, 10_000])
@pytest.mark.parametrize("limit", [0.85, 0.95])
def test_a_candidate_exactly_at_the_limit_rarely_passes_and_rarely_fails(examples, limit):
    counts = np.random.default_rng(examples).binomial(examples, limit, SETS)
    passed, failed = shares_of_verdicts(counts, examples, limit)
    assert at_most(passed, ERROR)
    assert at_most(failed, ERROR)


def test_a_better_candidate_passes_as_often_as_promised():
    limit, truth = 0.90, 0.92
    examples = int(power.proportion_examples_needed(truth, limit))
    promised = power.proportion_power(examples, truth, limit)
    counts = np.random.default_rng(1).binomial(examples, truth, SETS)
    assert 0.8 <= promised < 0.83
    assert equal(shares_of_verdicts(counts, examples, limit)[0], promised)


# ---------------------------------------------------------------- accuracy against a baseline


@pytest.mark.parametrize(
    ("examples", "margin", "discordance"),
    [
        *((n, m, d) for n in (100, 1_000) for m in (0.005, 0.05) for d in (0.05, 0.10, 0.30)),
        (300, 0.02, 0.025),
        (10_000, 0.01, 0.02),
        (10_000, 0.005, 0.10),
    ],
)
def test_a_candidate_worse_by_exactly_the_margin_rarely_passes(examples, margin, discordance):
    random = np.random.default_rng(2)
    assert at_most(share_passing_margin(random, examples, -margin, discordance, -margin), ERROR)


@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.06), (0.01, 0.10)])
def test_an_equal_or_better_candidate_passes_as_often_as_promised(difference, discordance):
    margin = 0.02
    examples = int(power.paired_examples_needed(difference, discordance, -margin))
    promised = power.paired_power(examples, difference, discordance, -margin)
    assert 0.79 <= promised <= 0.84
    random = np.random.default_rng(3)
    passed = share_passing_margin(random, examples, difference, discordance, -margin)
    assert equal(passed, promised)


# ---------------------------------------------------------------- bootstrap


def log_loss_gains(random, sets, examples):
    """Log loss of the baseline minus that of an overconfident candidate, for each example."""
    shared = random.normal(size=(sets, examples, 3)) + np.array([2.0, 0.0, 0.0])
    noise = random.normal(size=(2, sets, examples, 3))
    baseline, candidate = shared + 0.5 * noise[0], 5 * shared + 2 * noise[1]
    return log_softmax(candidate, axis=-1)[..., 0] - log_softmax(baseline, axis=-1)[..., 0]


@pytest.mark.slow
def test_a_candidate_whose_log_loss_is_worse_by_the_margin_rarely_passes():
    random = np.random.default_rng(4)
    true_difference = np.mean([log_loss_gains(random, 20, 20_000).mean() for _ in range(3)])
    assert true_difference < -0.05
    verdicts = [
        statistics.decide(bootstrap.mean_interval(gains), true_difference)
        for gains in log_loss_gains(random, SETS, 250)
    ]
    assert at_most(verdicts.count("pass") / SETS, ERROR)
    assert at_most(verdicts.count("fail") / SETS, ERROR)


PRIOR = np.array([0.60, 0.30, 0.10])
BASELINE = np.array([[0.90, 0.07, 0.03], [0.10, 0.80, 0.10], [0.05, 0.15, 0.80]])
CANDIDATE = np.array([[0.88, 0.08, 0.04], [0.12, 0.76, 0.12], [0.08, 0.14, 0.78]])


def true_macro_f1(confusion):
    joint = PRIOR[:, None] * confusion
    return np.mean(2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1)))


def draw_predictions(random, examples):
    """Labels and two models' predictions, which share most of their randomness."""
    labels = random.choice(3, examples, p=PRIOR)
    luck = random.random(examples)
    other_luck = np.where(random.random(examples) < 0.6, luck, random.random(examples))
    models = ((CANDIDATE, luck), (BASELINE, other_luck))
    predictions = [
        (np.cumsum(confusion, axis=1)[labels, :2] < uniform[:, None]).sum(axis=1)
        for confusion, uniform in models
    ]
    return labels, *predictions


@pytest.mark.slow
def test_a_candidate_whose_macro_f1_is_worse_by_the_margin_rarely_passes():
    random = np.random.default_rng(5)
    margin = true_macro_f1(BASELINE) - true_macro_f1(CANDIDATE)
    assert margin > 0.02
    verdicts = [
        statistics.decide(bootstrap.macro_f1_interval(*draw_predictions(random, 400)), -margin)
        for _ in range(SETS)
    ]
    assert at_most(verdicts.count("pass") / SETS, ERROR)
    assert at_most(verdicts.count("fail") / SETS, ERROR)


@pytest.mark.slow
def test_a_model_miscalibrated_up_to_the_limit_rarely_passes_and_rarely_fails():
    random, examples, overconfidence = np.random.default_rng(6), 400, 0.05
    sets, passed, failed = 800, 0, 0  # Two bootstraps each, so fewer of them.
    for _ in range(sets):
        confidences = random.uniform(0.55, 1.0, examples)
        correct = random.random(examples) < confidences - overconfidence
        interval = bootstrap.calibration_error_interval(confidences, correct)
        passed += interval.upper <= overconfidence
        failed += interval.lower > overconfidence
    assert at_most(passed / sets, ERROR, sets)
    assert at_most(failed / sets, ERROR, sets)


# ---------------------------------------------------------------- many questions, one test set


def test_holm_keeps_the_chance_of_any_wrong_slice_where_ten_plain_intervals_do_not():
    slices, examples, floor = 10, 300, 0.85
    counts = np.random.default_rng(7).binomial(examples, floor, (SETS, slices))
    for alternative in ("greater", "less"):

        @cache
        def p_value(successes, alternative=alternative):
            return statistics.proportion_p_value(successes, examples, floor, alternative)

        p_values = np.array([[p_value(int(k)) for k in row] for row in counts])
        corrected = np.mean([statistics.holm(row)[0].any() for row in p_values])
        uncorrected = np.mean((p_values <= ERROR).any(axis=1))
        assert at_most(corrected, ERROR)
        assert uncorrected > 4 * ERROR


@pytest.mark.parametrize("models", [5, 12, 60])
def test_an_attacker_who_boosts_random_models_fools_a_plain_gate_but_not_the_adaptive_one(models):
    """The boosting attack of Blum and Hardt (2015): the labels are coins, so the truth is chance.

    The attacker submits random models, keeps those that the test set judged better than chance,
    and submits their majority vote. Nothing was learned, yet the vote fits this test set.
    """
    examples, chance = 500, 0.5
    random = np.random.default_rng(8)
    counts = []
    for _ in range(SETS):
        right = random.integers(0, 2, (models, examples), dtype=np.int8)
        kept = right[right.sum(axis=1) > examples * chance]
        votes = 2 * kept.sum(axis=0, dtype=int) - len(kept)
        tied = random.integers(0, 2, examples)
        counts.append(int(np.where(votes == 0, tied, votes > 0).sum()))
    # A majority of right answers is a right answer, because labels have two values.
    plain = np.mean(np.array(counts) >= examples * chance)
    confidence = statistics.confidence_after_looks(1 - ERROR, models + 1, adaptive=True)
    one_look, _ = shares_of_verdicts(counts, examples, chance)
    corrected, _ = shares_of_verdicts(counts, examples, chance, confidence)
    assert plain > 0.9
    assert one_look > 3 * ERROR
    assert at_most(corrected, ERROR)


def test_the_best_of_many_models_fixed_beforehand_rarely_passes_after_bonferroni():
    models, examples, limit = 20, 1_000, 0.9
    best = np.random.default_rng(9).binomial(examples, limit, (SETS, models)).max(axis=1)
    confidence = statistics.confidence_after_looks(1 - ERROR, models)
    assert shares_of_verdicts(best, examples, limit)[0] > 0.5
    assert at_most(shares_of_verdicts(best, examples, limit, confidence)[0], ERROR)


def test_after_five_looks_the_adaptive_gate_still_passes_a_clearly_better_model():
    examples, limit, truth = 1_000, 0.85, 0.92
    confidence = statistics.confidence_after_looks(1 - ERROR, 5, adaptive=True)
    promised = power.proportion_power(examples, truth, limit, confidence)
    counts = np.random.default_rng(10).binomial(examples, truth, SETS)
    passed, _ = shares_of_verdicts(counts, examples, limit, confidence)
    assert promised > 0.95
    assert equal(passed, promised)
