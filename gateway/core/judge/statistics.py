"""The mathematics of the judge: tails, intervals, and tests that may be looked at as often as one likes.

The tests are *test martingales* (Ville 1939; Robbins 1970, "Statistical methods related to the law of the
iterated logarithm"; Wald 1945 for the likelihood ratio): a product of factors whose expectation under the
null hypothesis is at most one. Ville's inequality bounds the chance that such a product *ever* reaches 1/α by
α, so it may be watched every second, under changing weights, and acted upon the moment it gets there.
"""

import math
from functools import lru_cache
from operator import add
from typing import Final

import msgspec

ODDS: Final[tuple[float, ...]] = (1.5, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 100.0)
"""How many times worse the new version may be: the alternatives mixed over. One that fails half of its
requests beside one in 200 is nearly 200 times worse."""
WEIGHTS: Final[tuple[float, ...]] = (0.02, 0.04, 0.07, 0.14, 0.19, 0.22, 0.18, 0.14)
"""Their prior: what a release breaks it seldom makes a little worse."""
FIRST: Final = 0.9
"""Prior mass of "it is worse from the start"; the rest is shared out over later beginnings."""
EPOCH_S: Final = 60.0
"""Observed seconds between two possible beginnings."""
_SURELY: Final = 1e-9
"""Rates are kept this far from zero and one, which have no odds: a threshold of nearly 100 % is legal."""
_LIMIT: Final = 600.0
"""Logarithms are kept below 600, where `exp` does not overflow."""


Factors = tuple[float, ...]
"""Per odds: a log likelihood ratio."""


class Mixture(msgspec.Struct, frozen=True, array_like=True):
    """A test martingale: the prior-weighted mean of likelihood ratios over `ODDS` and over times of
    beginning.

    With beginnings τ_0 = 0, τ_1, τ_2 … (one each `EPOCH_S`) of prior mass π_0 = FIRST, π_n = (1 - FIRST) / (n
    (n + 1)), and L_θ(s, t) the likelihood ratio of odds θ over (s, t]:

        M_t = Σ_n π_n Σ_θ w_θ L_θ(τ_n, t),   where L_θ(τ, t) = 1 for t ≤ τ.

    Each summand is a martingale that starts at one, hence M is. The later beginnings let a version that was
    good for an hour and then turns bad be caught as if the hour had been a few minutes.
    """

    logs: tuple[float, ...] = tuple(math.log(FIRST * weight) for weight in WEIGHTS)
    """Per odds: log of Σ over the beginnings so far of π w L."""
    value: float = 1.0
    """M_t: how many times likelier the data are if the new version is worse."""
    epochs: int = 0
    """Beginnings after the first so far."""
    clock_s: float = 0.0
    """Observed seconds since the last beginning."""

    def times(self, factors: tuple[float, ...] | None, seconds: float) -> "Mixture":
        """Return the mixture after one window.

        factors: per odds, the log likelihood ratio of the window (None: nothing informative). seconds: its
        length.
        """
        logs = self.logs
        if factors is not None:
            logs = tuple(map(add, logs, factors))
            if max(logs) > _LIMIT:
                logs = tuple([min(log, _LIMIT) for log in logs])
        clock_s = self.clock_s + seconds
        epochs = self.epochs
        while clock_s >= EPOCH_S:
            clock_s -= EPOCH_S
            epochs += 1
            mass = (1 - FIRST) / (epochs * (epochs + 1))
            logs = tuple(
                [log_sum(log, math.log(mass * weight)) for log, weight in zip(logs, WEIGHTS, strict=True)]
            )
        if logs is self.logs:
            return Mixture(logs, self.value, epochs, clock_s)
        return Mixture(logs, sum(map(math.exp, logs)) + (1 - FIRST) / (epochs + 1), epochs, clock_s)

    def again(self) -> "Mixture":
        """Return a mixture that begins now, at one, with the prior that the data so far make of `WEIGHTS`."""
        top = max(self.logs)
        weights = [math.exp(log - top) for log in self.logs]
        total = math.log(sum(weights)) + top
        return Mixture(tuple([math.log(FIRST) + log - total for log in self.logs]))


def log_sum(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high))


def added(one: Factors | None, other: Factors) -> Factors:
    """Return the sum of two tuples of log factors."""
    return other if one is None else tuple(map(add, one, other))


@lru_cache(maxsize=4096)
def _sides(share: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    on_new = tuple(math.log(odds / (odds * share + 1 - share)) for odds in ODDS)
    on_old = tuple(-math.log(odds * share + 1 - share) for odds in ODDS)
    return on_new, on_old


@lru_cache(maxsize=4096)
def comparison_factors(share: float, on_new: int, on_old: int) -> tuple[float, ...]:
    """Return, per odds, the log likelihood ratio of errors that fell on the two versions.

    Given that a request failed while the new version had `share` of the traffic (0–1), it was the new
    version's with probability `share` if the two are alike, and θ share / (θ share + 1 - share) if the new
    one fails θ times as often. Conditioning on the error makes the common error rate, known or not, steady or
    not, drop out.
    """
    new_side, old_side = _sides(share)
    return tuple([on_new * a + on_old * b for a, b in zip(new_side, old_side, strict=True)])


@lru_cache(maxsize=4096)
def _outcomes(rate: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    worse = tuple(odds * rate / (1 - rate + odds * rate) for odds in ODDS)
    bad = tuple(math.log(q / rate) for q in worse)
    good = tuple(math.log((1 - q) / (1 - rate)) for q in worse)
    return bad, good


@lru_cache(maxsize=4096)
def rate_factors(rate: float, bad: int, answers: int) -> tuple[float, ...]:
    """Return, per odds, the log likelihood ratio of `bad` in `answers` if at most `rate` (0–1) are bad.

    The alternatives have odds θ rate / (1 - rate). Under any true rate below `rate` the expected ratio is
    below one, so the composite null "at most `rate`" is tested.
    """
    bad_side, good_side = _outcomes(min(max(rate, _SURELY), 1 - _SURELY))
    good = answers - bad
    if not bad:
        return tuple([good * b for b in good_side])
    return tuple([bad * a + good * b for a, b in zip(bad_side, good_side, strict=True)])


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def wilson_interval(bad: int, answers: int) -> tuple[float, float]:
    """Return the 95 % interval (Wilson 1927) of a rate, as fractions; (0, 1) without answers."""
    if answers <= 0:
        return 0.0, 1.0
    z2 = 1.959964**2
    rate = min(bad / answers, 1.0)
    middle = rate + z2 / (2 * answers)
    half = math.sqrt(z2 * (rate * (1 - rate) + z2 / (4 * answers)) / answers)
    scale = 1 + z2 / answers
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def upper_bound(bad: int, answers: int, confidence: float) -> float:
    """Return the one-sided upper confidence bound of a rate (Clopper & Pearson 1934), as a fraction.

    It is the rate at which `bad` or fewer errors in `answers` have a chance of 1 - confidence.
    """
    if bad >= answers:
        return 1.0
    low, high = bad / answers, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if beta_cdf(middle, bad + 1, answers - bad) < confidence:
            low = middle
        else:
            high = middle
    return high


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) for a, b > 0 (continued fraction, Lentz
    1976).
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            change = c * d
            fraction *= change
        if abs(change - 1) < 1e-13:
            break
    return min(front * fraction, 1.0)


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
