"""How likely a verdict is, and how many test examples it would take.

In:  what is supposed to be true of the candidate (often: what was measured), and the limit.
Out: the chance of a verdict, or a number of test examples, for the message of a gate, such as
     "with 2,000 examples, a candidate with 92 % would pass with probability 0.87".

Powers are exact, for the very tests that `proportion_interval` and `paired_interval` make.
"""

from __future__ import annotations

import math

from scipy.stats import binom, norm

from src.statistics import error_per_bound
from src.statistics.paired import fewest_wins_to_reach, likely_totals, share_with, tango_score


def proportion_power(examples: int, truth: float, limit: float, confidence: float = 0.95) -> float:
    """Chance that a proportion gets the verdict that it deserves.

    Args:
        examples: number of test examples, at least 1.
        truth: supposed true proportion.
        limit: smallest acceptable proportion.
        confidence: of either bound, in (0.5, 1].

    Returns:
        The chance of `pass` if `truth` is at least `limit`, else that of `fail`. For a truth equal
        to the limit it is the chance of a false pass.

    Raises:
        ValueError: if there are no examples or a share is outside [0, 1].
    """
    _check(examples, truth, limit)
    if truth < limit:
        return proportion_power(examples, 1 - truth, 1 - limit, confidence)
    error = error_per_bound(confidence, 1)
    if error == 0 or limit == 1:
        # No bound reaches such a limit, however many answers are right.
        return 0.0
    # The Clopper-Pearson bound of k reaches the limit when k or more has at most the error there.
    most_by_chance = binom.isf(error, examples, limit)
    return float(binom.sf(most_by_chance, examples, truth))


def proportion_examples_needed(
    truth: float, limit: float, confidence: float = 0.95, power: float = 0.8
) -> float:
    """Test examples at which the verdict on a proportion is reached with the stated power.

    Args:
        truth: supposed true proportion.
        limit: smallest acceptable proportion.
        confidence: of either bound, in (0.5, 1).
        power: wanted chance of the verdict, in (0, 1).

    Returns:
        The number of examples. Counts being whole, power is a saw: a slightly larger test set may
        again have slightly less. `inf` when the truth equals the limit, when more than 10**12
        examples would be needed, or when the verdict cannot be had.
    """
    _check(1, truth, limit)
    if truth == limit or limit in (0, 1):
        return math.inf
    enough = 1
    while proportion_power(enough, truth, limit, confidence) < power:
        enough *= 2
        if enough > 10**12:
            return math.inf
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if proportion_power(middle, truth, limit, confidence) >= power:
            enough = middle
        else:
            too_few = middle
    return enough


def paired_power(
    examples: int, difference: float, discordance: float, limit: float, confidence: float = 0.95
) -> float:
    """Chance that a paired comparison gets the verdict that it deserves.

    Args:
        examples: number of test examples, at least 1. Quick up to some 10,000.
        difference: supposed true accuracy of the candidate minus that of the baseline.
        discordance: supposed share of examples that only one of the two has right.
        limit: smallest acceptable difference, `-margin` for non-inferiority.
        confidence: of either bound, in (0.5, 1].

    Returns:
        The chance of `pass` if `difference` is at least `limit`, else that of `fail`.

    Raises:
        ValueError: if the discordance is smaller than the difference, or a number out of range.
    """
    _check(examples, discordance, abs(limit))
    if abs(difference) > discordance:
        raise ValueError(f"a difference of {difference} needs a discordance of as much at least")
    if difference < limit:
        return paired_power(examples, -difference, discordance, -limit, confidence)
    totals = likely_totals(examples, discordance)
    wins = fewest_wins_to_reach(totals, examples, limit, confidence)
    return float(share_with(wins, totals, examples, difference, discordance)[0])


def mean_power(
    examples: int, difference: float, deviation: float, limit: float, confidence: float = 0.95
) -> float:
    """Chance of the deserved verdict for a metric with a bootstrap interval, approximately.

    Args:
        examples: number of test examples, at least 1.
        difference: supposed true value, or true difference to the baseline.
        deviation: standard deviation of one example's share in it: `Interval.standard_error` times
            the square root of its number of examples.
        limit: smallest acceptable value.
        confidence: of either bound, in (0.5, 1].

    Returns:
        The chance, from the normal distribution.
    """
    if deviation == 0:
        return float(difference != limit)
    gap = abs(difference - limit) * math.sqrt(examples) / deviation
    return float(norm.sf(norm.isf(error_per_bound(confidence, 1)) - gap))


def mean_examples_needed(
    difference: float,
    deviation: float,
    limit: float,
    confidence: float = 0.95,
    power: float = 0.8,
) -> float:
    """Test examples at which `mean_power` reaches the stated power.

    Args:
        difference: supposed true value, or true difference to the baseline.
        deviation: standard deviation of one example's share in it.
        limit: smallest acceptable value.
        confidence: of either bound, in (0.5, 1).
        power: wanted chance of the verdict, in (0, 1).

    Returns:
        The number of examples, `inf` when the value equals the limit.
    """
    if difference == limit:
        return math.inf
    quantiles = norm.isf(error_per_bound(confidence, 1)) + norm.ppf(power)
    return float(max(1, math.ceil((quantiles * deviation / (difference - limit)) ** 2)))


def paired_examples_needed(
    difference: float,
    discordance: float,
    limit: float,
    confidence: float = 0.95,
    power: float = 0.8,
) -> float:
    """Test examples at which the verdict on a paired difference is reached with the stated power.

    Liu, Hsueh, Hsieh and Chen (2002), "Tests for equivalence or non-inferiority for paired binary
    data", Statistics in Medicine 21:231-245: the normal approximation, with the variance at the
    limit taken at the expected constrained likelihood estimate, plus half an example's worth of
    continuity correction. The exact `paired_power` would take many evaluations here. For a
    stated power of 0.8 the number returned has 0.78 to 0.86, and more than that when the
    discordance is hardly larger than the difference.

    Args:
        difference: supposed true accuracy of the candidate minus that of the baseline.
        discordance: supposed share of examples that only one of the two has right.
        limit: smallest acceptable difference, `-margin` for non-inferiority.
        confidence: of either bound, in (0.5, 1).
        power: wanted chance of the verdict, in (0, 1).

    Returns:
        The number of examples, `inf` when the difference equals the limit.

    Raises:
        ValueError: if the discordance is smaller than the difference, or a number out of range.
    """
    _check(1, discordance, abs(limit))
    if abs(difference) > discordance:
        raise ValueError(f"a difference of {difference} needs a discordance of as much at least")
    gap = abs(difference - limit)
    if gap == 0:
        return math.inf
    standard_error = gap / _score_of_shares(difference, discordance, limit)
    variance = max(discordance - difference**2, 0.0)
    quantile = norm.isf(error_per_bound(confidence, 1))
    root = quantile * standard_error + norm.ppf(power) * math.sqrt(variance)
    return float(math.ceil((root / gap) ** 2 + 0.5 / gap))


def _score_of_shares(difference: float, discordance: float, limit: float) -> float:
    """Size of Tango's score when one example has the expected shares of wins and losses."""
    win, loss = (discordance + difference) / 2, (discordance - difference) / 2
    return abs(float(tango_score(win, loss, 1, limit)))


def _check(examples: int, *shares: float) -> None:
    """Refuse an empty test set and shares outside [0, 1]."""
    if examples < 1:
        raise ValueError(f"power needs at least one example, found {examples}")
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share between 0 and 1, found {share}")
