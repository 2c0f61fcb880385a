"""The gates' statistics agree with independent implementations and survive the edges."""

import math
import time

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from sklearn.metrics import f1_score

from src import statistics
from src.statistics import bootstrap, paired, power

# What statsmodels calls alpha is the error of both bounds.
ALPHAS: list[tuple[statistics.Sides, float]] = [(2, 0.05), (1, 0.10)]
COUNTS = [(0, 1), (1, 1), (0, 40), (40, 40), (7, 40), (913, 1000), (9_990, 10_000)]
PAIRS = [(3, 5, 100), (0, 4, 100), (40, 30, 1_000), (0, 0, 50), (310, 290, 10_000), (9, 1, 10)]


# ---------------------------------------------------------------- proportions


@pytest.mark.parametrize(("successes", "examples"), COUNTS)
@pytest.mark.parametrize(("method", "theirs"), [("exact", "beta"), ("wilson", "wilson")])
def test_proportion_intervals_agree_with_statsmodels(successes, examples, method, theirs):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for sides, alpha in ALPHAS:
        ours = statistics.proportion_interval(successes, examples, 0.95, sides, method)
        expected = proportion.proportion_confint(successes, examples, alpha, theirs)
        assert (ours.lower, ours.upper) == pytest.approx(expected, abs=1e-9)


def test_all_right_on_n_examples_gives_the_closed_form_lower_bound():
    interval = statistics.proportion_interval(59, 59, 0.95)
    assert interval.lower == pytest.approx(0.05 ** (1 / 59), abs=1e-9)
    assert interval.upper == 1


def test_all_wrong_mirrors_all_right():
    right = statistics.proportion_interval(30, 30)
    wrong = statistics.proportion_interval(0, 30)
    assert (wrong.lower, wrong.upper) == pytest.approx((0, 1 - right.lower), abs=1e-12)


def test_the_p_value_reaches_the_level_exactly_when_the_bound_reaches_the_limit():
    for successes in range(80, 101):
        bound = statistics.proportion_interval(successes, 100).lower
        for limit in (0.80, 0.85, 0.9):
            p_value = statistics.proportion_p_value(successes, 100, limit, "greater")
            assert (p_value <= 0.05) == (bound >= limit)


@pytest.mark.parametrize(
    ("lower", "upper", "limit", "verdict"),
    [
        (0.80, 0.90, 0.80, "pass"),
        (0.80, 0.90, 0.81, "not enough data"),
        (0.80, 0.90, 0.90, "not enough data"),
        (0.80, 0.90, 0.91, "fail"),
        (-math.inf, math.inf, 0.5, "not enough data"),
    ],
)
def test_the_verdict_has_three_answers(lower, upper, limit, verdict):
    interval = statistics.Interval(0.85, lower, upper, 0.95, 1)
    assert statistics.decide(interval, limit) == verdict


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.proportion_interval(0, 0),
        lambda: statistics.proportion_p_value(0, 0, 0.5, "greater"),
        lambda: paired.paired_interval(0, 0, 0),
        lambda: paired.tango_interval(0, 0, 0),
        lambda: paired.count_discordant([], []),
        lambda: bootstrap.mean_interval([]),
        lambda: bootstrap.macro_f1_interval([], []),
        lambda: bootstrap.metric_interval(np.mean, []),
        lambda: bootstrap.expected_calibration_error([], []),
        lambda: power.proportion_power(0, 0.9, 0.8),
        lambda: statistics.holm([]),
    ],
)
def test_no_examples_is_an_error_that_says_so(call):
    with pytest.raises(ValueError, match=r"one example|non-empty|equal rows|one length"):
        call()


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="between 0 and 10"):
        statistics.proportion_interval(11, 10)
    with pytest.raises(ValueError, match="do not fit"):
        paired.paired_interval(6, 5, 10)
    with pytest.raises(ValueError, match="confidence"):
        statistics.proportion_interval(5, 10, 95.0)


# ---------------------------------------------------------------- two models, same examples


def reference_tango_bound(wins, losses, examples, quantile):
    """Tango's lower bound with the constrained likelihood's maximum found numerically."""
    rest = examples - wins - losses

    def most_likely_loss(difference):
        def slope(loss):
            ties = 2 * rest / (1 - 2 * loss - difference) if rest else 0.0
            lost = losses / loss if losses else 0.0
            won = wins / (loss + difference) if wins else 0.0
            return lost + won - ties

        low, high = max(0.0, -difference) + 1e-15, (1 - difference) / 2 - 1e-15
        # Without a sign change the likelihood is highest at the end towards which it rises.
        if slope(low) <= 0:
            return low
        return high if slope(high) >= 0 else brentq(slope, low, high, xtol=1e-16, rtol=1e-15)

    def score(difference):
        loss = most_likely_loss(difference)
        variance = examples * (2 * loss + difference - difference**2)
        return (wins - losses - examples * difference) / math.sqrt(variance)

    estimate = (wins - losses) / examples
    return brentq(lambda d: score(d) - quantile, -1 + 1e-6, estimate - 1e-9, xtol=1e-13)


@pytest.mark.parametrize(("wins", "losses", "examples"), PAIRS)
def test_tango_agrees_with_a_numerically_constrained_likelihood(wins, losses, examples):
    ours = paired.tango_interval(wins, losses, examples, 0.95, 2)
    quantile = stats.norm.isf(0.025)
    lower = reference_tango_bound(wins, losses, examples, quantile)
    upper = -reference_tango_bound(losses, wins, examples, quantile)
    assert (ours.lower, ours.upper) == pytest.approx((lower, upper), abs=1e-9)


def test_tango_without_discordant_examples_has_its_closed_form():
    # With no discordant examples the constrained estimate is a loss as large as the difference,
    # so n * d / (1 - d) equals the squared quantile.
    squared = stats.norm.isf(0.05) ** 2
    expected = squared / (50 + squared)
    interval = paired.tango_interval(0, 0, 50)
    assert (interval.lower, interval.upper) == pytest.approx((-expected, expected), abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (3, 9), (25, 10), (400, 430)])
def test_mcnemar_agrees_with_statsmodels(wins, losses):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    if wins + losses:
        expected = tables.mcnemar([[100, wins], [losses, 50]], exact=True).pvalue
        assert paired.mcnemar(wins, losses) == pytest.approx(expected, abs=1e-9)
    else:
        assert paired.mcnemar(wins, losses) == 1


def test_discordant_examples_are_counted_from_two_rows_of_right_and_wrong():
    candidate, baseline = [1, 1, 0, 0, 1], [1, 0, 1, 0, 0]
    assert paired.count_discordant(candidate, baseline) == (2, 1, 5)
    with pytest.raises(ValueError, match="equal rows"):
        paired.count_discordant([1, 0], [1])


def exact_error(examples, limit, share, passes):
    """Probability of a pass when the truth is the limit, summed over every outcome."""
    win, loss = (share + limit) / 2, (share - limit) / 2
    cells = [max(win, 0.0), max(loss, 0.0), 1 - share]
    return sum(
        stats.multinomial.pmf([wins, losses, examples - wins - losses], examples, cells)
        for wins, losses in passes
    )


@pytest.mark.parametrize("limit", [-0.05, 0.02])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_exact_bound_keeps_its_level_over_every_outcome_of_a_small_test_set(limit, confidence):
    examples = 40
    passes, fails = [], []
    for total in range(21):
        for wins in range(total + 1):
            outcome = (wins, total - wins)
            interval = paired.paired_interval(*outcome, examples, confidence)
            passes += [outcome] if interval.lower >= limit else []
            fails += [outcome] if interval.upper < limit else []
    assert passes
    assert fails
    for share in (abs(limit), 0.06, 0.10, 0.15, 0.20):
        for decided in (passes, fails):
            # Outcomes with more than twenty discordant examples, left out, are too rare to matter.
            missing = stats.binom.sf(20, examples, share)
            assert exact_error(examples, limit, share, decided) + missing <= 1 - confidence


def test_tango_exceeds_its_level_where_the_exact_bound_does_not():
    """The reason why verdicts do not use Tango's interval: 300 examples, a margin of 2 %."""
    examples, limit = 300, -0.02
    quantile, error = stats.norm.isf(0.05), {"tango": 0.0, "exact": 0.0}
    for share in np.linspace(0.0205, 0.05, 8):
        totals = paired.likely_totals(examples, share)
        losses_by_wins = [(wins, total - wins) for total in totals for wins in range(total + 1)]
        wins, losses = np.array(losses_by_wins).T
        probability = stats.binom.pmf(wins + losses, examples, share)
        probability *= stats.binom.pmf(wins, wins + losses, (1 + limit / share) / 2)
        tango = paired.tango_score(wins, losses, examples, limit) >= quantile
        needed = paired.fewest_wins_to_reach(totals, examples, limit, 0.95)
        exact = wins >= needed[wins + losses - totals[0]]
        error["tango"] = max(error["tango"], probability[tango].sum())
        error["exact"] = max(error["exact"], probability[exact].sum())
    assert error["tango"] > 0.055
    assert error["exact"] <= 0.05


def test_the_score_grows_with_wins_and_shrinks_with_losses():
    """The exact bound rests on this order."""
    wins, losses = np.meshgrid(np.arange(41), np.arange(41), indexing="ij")
    possible = wins + losses <= 60
    for difference in (-0.3, -0.01, 0.0, 0.01, 0.3):
        score = np.where(possible, paired.tango_score(wins, losses, 60, difference), np.nan)
        with np.errstate(invalid="ignore"):
            assert np.nanmin(np.diff(score, axis=0)) >= -1e-9
            assert np.nanmax(np.diff(score, axis=1)) <= 1e-9


def test_the_critical_region_is_the_region_where_the_exact_bound_reaches_the_limit():
    totals = np.arange(20, 60)
    needed = paired.fewest_wins_to_reach(totals, 400, -0.03, 0.95)
    for total, wins in zip(totals[::5], needed[::5], strict=True):
        # Outcomes within a hundredth of an example of the limit may differ: both grids are finite.
        assert paired.paired_interval(int(wins), int(total - wins), 400).lower >= -0.03 - 1e-2 / 400
        short = paired.paired_interval(int(wins) - 1, int(total - wins) + 1, 400)
        assert short.lower < -0.03 + 1e-2 / 400


@pytest.mark.parametrize("examples", [1, 7, 100, 10_000, 1_000_000])
def test_zero_discordance_is_no_proof_on_few_examples_and_almost_one_on_many(examples):
    interval = paired.paired_interval(0, 0, examples)
    # No loss among n examples bounds the share of losses by 1 - 0.05 ** (1 / n), "three over n".
    rule_of_three = 1 - 0.05 ** (1 / examples)
    assert interval.estimate == 0
    assert -1.02 * rule_of_three <= interval.lower <= -0.98 * rule_of_three
    assert interval.upper == -interval.lower


def test_a_candidate_that_wins_or_loses_everywhere_gets_bounds_at_the_end():
    assert paired.paired_interval(0, 50, 50).lower == -1
    assert paired.paired_interval(50, 0, 50).upper == 1
    assert paired.paired_interval(50, 0, 50).lower > 0.85


def test_one_example_settles_nothing():
    for interval in (
        paired.paired_interval(1, 0, 1),
        statistics.proportion_interval(1, 1),
        bootstrap.mean_interval([0.3]),
        bootstrap.macro_f1_interval([1], [1], [0]),
        bootstrap.metric_interval(np.mean, [0.3]),
        bootstrap.calibration_error_interval([0.9], [True]),
    ):
        limit = interval.estimate - 0.2 if interval.estimate > 0.2 else interval.estimate
        assert statistics.decide(interval, limit) == "not enough data"


# ---------------------------------------------------------------- slices and looks


def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    random = np.random.default_rng(0)
    for _ in range(50):
        p_values = random.uniform(size=8) ** 4
        decided, _ = statistics.holm(p_values, 0.95)
        assert decided.tolist() == multitest.multipletests(p_values, 0.05, "holm")[0].tolist()


def test_the_interval_of_each_slice_says_what_holm_decided():
    random, examples, floor = np.random.default_rng(1), 300, 0.85
    seen = set()
    for _ in range(40):
        successes = random.binomial(examples, random.uniform(0.84, 0.95, 6))
        p_values = [statistics.proportion_p_value(int(k), examples, floor, "greater") for k in successes]
        decided, confidences = statistics.holm(p_values)
        for k, is_decided, confidence in zip(successes, decided, confidences, strict=True):
            interval = statistics.proportion_interval(int(k), examples, confidence)
            assert (interval.lower >= floor) == is_decided
            seen.add(bool(is_decided))
    assert seen == {True, False}


def test_a_first_look_by_bonferroni_costs_nothing_and_each_further_one_divides_the_error():
    assert statistics.confidence_after_looks(0.95, 1) == pytest.approx(0.95, abs=1e-15)
    assert statistics.confidence_after_looks(0.95, 10) == pytest.approx(0.995, abs=1e-15)


def test_adaptive_levels_over_all_transcripts_add_up_to_less_than_the_error():
    total = sum(
        3.0 ** (look - 1) * (1 - statistics.confidence_after_looks(0.95, look, adaptive=True))
        for look in range(1, 25)
    )
    assert 0.045 < total <= 0.05


def test_a_spent_test_set_decides_nothing():
    confidence = statistics.confidence_after_looks(0.95, 1_000, adaptive=True)
    assert confidence == 1
    proportion = statistics.proportion_interval(10_000, 10_000, confidence)
    assert statistics.decide(proportion, 0.5) == "not enough data"
    assert statistics.decide(paired.paired_interval(500, 0, 1_000, confidence), -0.01) == ("not enough data")
    mean = bootstrap.mean_interval(np.arange(300.0), confidence)
    assert (mean.lower, mean.upper) == (-math.inf, math.inf)


# ---------------------------------------------------------------- bootstrap


def test_bca_bounds_of_a_mean_agree_with_scipy():
    values = np.random.default_rng(2).gamma(2.0, size=400)
    ours = bootstrap.mean_interval(values, 0.95, 2)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(3)
    )
    # Monte Carlo error of a 2.5 % quantile from 2,000 resamples, four standard errors.
    tolerance = 4 * math.sqrt(0.025 * 0.975 / 2_000) / stats.norm.pdf(1.96) * values.std() / 20
    expected = theirs.confidence_interval
    assert (ours.lower, ours.upper) == pytest.approx((expected.low, expected.high), abs=tolerance)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.06)


def test_the_three_bootstraps_agree_where_they_overlap():
    random = np.random.default_rng(4)
    labels = random.integers(0, 3, 600)
    candidate = np.where(random.random(600) < 0.85, labels, random.integers(0, 3, 600))
    baseline = np.where(random.random(600) < 0.80, labels, random.integers(0, 3, 600))

    def macro_f1_gain(labels, candidate, baseline):
        scores = []
        for predicted in (candidate, baseline):
            table = np.bincount(3 * labels + predicted, minlength=9).reshape(3, 3)
            scores.append(np.mean(2 * np.diag(table) / (table.sum(0) + table.sum(1))))
        return scores[0] - scores[1]

    quick = bootstrap.macro_f1_interval(labels, candidate, baseline)
    slow = bootstrap.metric_interval(macro_f1_gain, labels, candidate, baseline)
    assert quick.estimate == pytest.approx(slow.estimate, abs=1e-12)
    assert quick.lower == pytest.approx(slow.lower, abs=0.25 * quick.standard_error)
    assert quick.upper == pytest.approx(slow.upper, abs=0.25 * quick.standard_error)
    values = (candidate == labels).astype(float) - (baseline == labels)
    quick, slow = bootstrap.mean_interval(values), bootstrap.metric_interval(np.mean, values)
    assert quick.lower == pytest.approx(slow.lower, abs=0.25 * quick.standard_error)


def test_macro_f1_agrees_with_scikit_learn_for_names_and_numbers():
    random = np.random.default_rng(5)
    labels = random.choice(["cat", "dog", "owl"], 300, p=[0.6, 0.3, 0.1])
    predicted = random.choice(["cat", "dog", "owl"], 300)
    expected = f1_score(labels, predicted, average="macro")
    assert bootstrap.macro_f1_interval(labels, predicted).estimate == pytest.approx(expected)


def test_the_same_predictions_give_the_same_interval_and_another_seed_another_one():
    values = np.random.default_rng(6).normal(size=300)
    first = bootstrap.mean_interval(values)
    assert first == bootstrap.mean_interval(values)
    assert first.lower != bootstrap.mean_interval(values, seed=1).lower


def test_a_one_sided_bound_is_the_two_sided_one_at_half_the_error():
    values = np.random.default_rng(7).normal(size=500)
    one, two = bootstrap.mean_interval(values, 0.95), bootstrap.mean_interval(values, 0.90, 2)
    assert (one.lower, one.upper) == (two.lower, two.upper)


def test_too_few_examples_or_too_rare_a_class_give_infinite_bounds():
    assert bootstrap.mean_interval(np.arange(bootstrap.MIN_EXAMPLES - 1.0)).lower == -math.inf
    labels = np.repeat([0, 1], [500, bootstrap.MIN_CLASS_EXAMPLES - 1])
    assert bootstrap.macro_f1_interval(labels, labels, labels).lower == -math.inf
    labels = np.repeat([0, 1], [500, bootstrap.MIN_CLASS_EXAMPLES])
    assert bootstrap.macro_f1_interval(labels, labels, labels).lower == 0


def test_ten_thousand_examples_take_less_than_three_seconds():
    random = np.random.default_rng(8)
    labels = random.integers(0, 10, 10_000)
    candidate, baseline = random.integers(0, 10, (2, 10_000))
    started = time.process_time()
    bootstrap.mean_interval(random.lognormal(size=10_000))
    bootstrap.macro_f1_interval(labels, candidate, baseline)
    bootstrap.calibration_error_interval(random.uniform(0.5, 1, 10_000), labels == candidate)
    assert time.process_time() - started < 3


def test_calibration_error_is_the_weighted_gap_of_the_bins():
    # Two bins of ten: one says 0.95 and is right half of the time, one says 0.55 and is exact.
    confidences = np.array([0.95] * 10 + [0.55] * 20)
    correct = np.array([1, 0] * 5 + [1] * 11 + [0] * 9)
    expected = (10 * 0.45 + 20 * 0.0) / 30
    error = bootstrap.expected_calibration_error(confidences, correct, bins=10)
    assert error == pytest.approx(expected, abs=1e-12)


def test_confidences_on_the_edge_of_a_bin_belong_to_the_bin_below_as_in_guo_et_al():
    # 0.5 closes the first of two bins: gaps of -0.1 and 0.1 cancel there, and would not otherwise.
    assert bootstrap.expected_calibration_error([0.5, 0.1], [1, 0], 2) == pytest.approx(0.2)
    assert bootstrap.expected_calibration_error([0.5, 0.6], [1, 0], 2) == pytest.approx(0.55)
    assert bootstrap.expected_calibration_error([0.0, 1.0], [0, 1], 15) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap.expected_calibration_error([1.2], [1])


# ---------------------------------------------------------------- power and examples


@pytest.mark.parametrize(("truth", "limit"), [(0.93, 0.9), (0.85, 0.9), (1.0, 0.95), (0.2, 0.5)])
def test_the_number_of_examples_for_a_proportion_is_the_least_that_has_the_power(truth, limit):
    examples = int(power.proportion_examples_needed(truth, limit, 0.95, 0.8))
    assert power.proportion_power(examples, truth, limit) >= 0.8
    assert power.proportion_power(examples - 1, truth, limit) < 0.8


def test_power_of_a_proportion_is_the_sum_over_the_counts_that_would_pass():
    examples, truth, limit = 120, 0.95, 0.9
    verdicts = {
        k: statistics.decide(statistics.proportion_interval(k, examples), limit) for k in range(examples + 1)
    }
    for supposed, wanted in ((truth, "pass"), (0.8, "fail")):
        expected = sum(stats.binom.pmf(k, examples, supposed) for k, v in verdicts.items() if v == wanted)
        assert power.proportion_power(examples, supposed, limit) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("difference", "discordance", "limit"),
    [(0.0, 0.05, -0.03), (0.01, 0.08, -0.02), (-0.06, 0.15, -0.02), (0.0, 0.2, -0.05)],
)
def test_the_number_of_examples_for_a_difference_has_about_the_power(difference, discordance, limit):
    examples = int(power.paired_examples_needed(difference, discordance, limit, 0.95, 0.8))
    assert 0.78 <= power.paired_power(examples, difference, discordance, limit) <= 0.87


def test_an_estimate_equal_to_the_limit_would_take_forever():
    assert power.proportion_examples_needed(0.9, 0.9) == math.inf
    assert power.paired_examples_needed(-0.01, 0.05, -0.01) == math.inf
    assert power.mean_examples_needed(0.3, 1.0, 0.3) == math.inf


def test_the_number_of_examples_for_a_mean_has_the_power():
    examples = int(power.mean_examples_needed(0.05, 1.2, -0.05))
    assert power.mean_power(examples, 0.05, 1.2, -0.05) >= 0.8
    assert power.mean_power(examples - 1, 0.05, 1.2, -0.05) < 0.8
