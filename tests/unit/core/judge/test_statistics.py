"""The judge's mathematics, against values that can be worked out otherwise."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.judge.statistics import (
    EPOCH_S,
    FIRST,
    Mixture,
    added,
    beta_cdf,
    comparison_factors,
    rate_factors,
    upper_bound,
    wilson_interval,
)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("errors", [1, 4, 9])
def test_the_comparison_is_worth_one_on_average_if_the_versions_are_alike(share: float, errors: int) -> None:
    mean = sum(
        math.comb(errors, on_new)
        * share**on_new
        * (1 - share) ** (errors - on_new)
        * Mixture().times(comparison_factors(share, on_new, errors - on_new), 1.0).value
        for on_new in range(errors + 1)
    )
    assert mean == pytest.approx(1)


def test_it_stays_so_when_shares_change_and_time_passes() -> None:
    shares = [0.1, 0.1, 0.5, 0.95]
    mean = 0.0
    for falls in itertools.product([0, 1], repeat=len(shares)):
        mixture, chance = Mixture(), 1.0
        for share, on_new in zip(shares, falls, strict=True):
            chance *= share if on_new else 1 - share
            mixture = mixture.times(comparison_factors(share, on_new, 1 - on_new), 0.8 * EPOCH_S)
        mean += chance * mixture.value
    assert mean == pytest.approx(1)


def test_a_mixture_that_begins_again_is_worth_one_and_knows_the_odds() -> None:
    """By Ville's inequality it bounds what comes after, whatever came before."""
    learnt = Mixture().times(comparison_factors(0.1, 4, 1), 1.0).again()
    assert sum(map(math.exp, learnt.logs)) == pytest.approx(FIRST)
    after = [learnt.times(comparison_factors(0.1, on_new, 1 - on_new), 2 * EPOCH_S) for on_new in (0, 1)]
    assert 0.9 * after[0].value + 0.1 * after[1].value == pytest.approx(1)
    assert after[1].value > 1.2 * Mixture().times(comparison_factors(0.1, 1, 0), 2 * EPOCH_S).value


def test_what_is_too_likely_for_numbers_begins_again_as_well() -> None:
    """Guards: at thousands of requests a second the statistic is at its ceiling when the warm-up ends."""
    saturated = Mixture().times(comparison_factors(0.1, 5_000, 0), 10.0).again()
    assert saturated.value == 1
    assert saturated.times(comparison_factors(0.1, 3, 0), 1.0).value > 20


@given(
    st.lists(st.tuples(st.floats(0.001, 0.999), st.floats(0, 3 * EPOCH_S)), min_size=1, max_size=6),
    st.floats(0, 3 * EPOCH_S),
)
def test_whatever_the_shares_and_the_pace_it_is_worth_one_on_average(
    errors: list[tuple[float, float]], rest_s: float
) -> None:
    mean = 0.0
    for falls in itertools.product([0, 1], repeat=len(errors)):
        mixture, chance = Mixture(), 1.0
        for (share, seconds), on_new in zip(errors, falls, strict=True):
            chance *= share if on_new else 1 - share
            mixture = mixture.times(comparison_factors(share, on_new, 1 - on_new), seconds)
        mean += chance * mixture.times(None, rest_s).value
    assert mean == pytest.approx(1)


@given(st.floats(0.001, 0.5), st.floats(0, 1), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_no_rate_up_to_its_own_is_worth_more_than_one(rate: float, part: float, windows: list[int]) -> None:
    true, mean = part * rate, 0.0
    for bad in itertools.product(*[range(answers + 1) for answers in windows]):
        mixture, chance = Mixture(), 1.0
        for errors, answers in zip(bad, windows, strict=True):
            chance *= math.comb(answers, errors) * true**errors * (1 - true) ** (answers - errors)
            mixture = mixture.times(rate_factors(rate, errors, answers), 0.7 * EPOCH_S)
        mean += chance * mixture.value
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize(("true", "mean"), [(0.05, pytest.approx(1)), (0.01, None)])
def test_the_rate_test_is_worth_at_most_one_up_to_its_rate(true: float, mean: object) -> None:
    answers = 6
    worth = sum(
        math.comb(answers, bad)
        * true**bad
        * (1 - true) ** (answers - bad)
        * Mixture().times(rate_factors(0.05, bad, answers), 1.0).value
        for bad in range(answers + 1)
    )
    assert worth == mean if mean is not None else worth < 1


def test_an_error_that_could_fall_nowhere_else_says_nothing() -> None:
    assert Mixture().times(comparison_factors(1.0, 50, 0), 1.0).value == pytest.approx(1)
    assert Mixture().times(comparison_factors(0.0, 0, 50), 1.0).value == pytest.approx(1)


def test_a_long_good_past_does_not_hide_a_bad_turn() -> None:
    mixture = Mixture()
    for _ in range(100):
        mixture = mixture.times(comparison_factors(0.1, 10, 90), EPOCH_S)
    assert mixture.value < 1
    for _ in range(20):
        mixture = mixture.times(comparison_factors(0.1, 1, 0), 1.0)
    assert mixture.value > 1000


def test_the_statistic_neither_overflows_nor_vanishes() -> None:
    high = Mixture().times(comparison_factors(0.01, 10_000, 0), 1.0)
    low = Mixture().times(comparison_factors(0.99, 0, 10_000), 1.0)
    assert math.isfinite(high.value) and high.value > 1e100
    assert 0 < low.value < 1


def test_factors_add_up() -> None:
    assert added(comparison_factors(0.3, 1, 0), comparison_factors(0.3, 0, 2)) == pytest.approx(
        comparison_factors(0.3, 1, 2)
    )


def test_the_upper_bound_of_no_errors_is_known_in_closed_form() -> None:
    assert upper_bound(0, 200, 0.99) == pytest.approx(1 - 0.01 ** (1 / 200))


@pytest.mark.parametrize(("bad", "answers"), [(1, 200), (7, 250), (60, 300), (299, 300)])
def test_at_the_upper_bound_so_few_errors_have_a_chance_of_one_in_a_hundred(bad: int, answers: int) -> None:
    rate = upper_bound(bad, answers, 0.99)
    tail = sum(math.comb(answers, k) * rate**k * (1 - rate) ** (answers - k) for k in range(bad + 1))
    assert tail == pytest.approx(0.01, rel=1e-6)


def test_all_errors_bound_nothing() -> None:
    assert upper_bound(5, 5, 0.99) == 1.0


@given(st.floats(0.001, 0.999), st.integers(1, 60), st.integers(1, 60))
def test_the_beta_distribution_of_whole_numbers_is_a_binomial_tail(x: float, a: int, b: int) -> None:
    n = a + b - 1
    tail = sum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert beta_cdf(x, a, b) == pytest.approx(tail, rel=1e-9, abs=1e-12)


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_the_rate(bad: int, answers: int) -> None:
    bad = min(bad, answers)
    low, high = wilson_interval(bad, answers)
    assert 0 <= low <= bad / answers + 1e-12
    assert bad / answers - 1e-12 <= high <= 1


def test_nothing_has_the_widest_interval() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("rate", [0.0, 5e-324, 1 - 2**-53, 1.0])
@pytest.mark.parametrize(("bad", "answers"), [(0, 0), (0, 9), (9, 9), (3, 9)])
def test_rates_without_odds_are_tested_all_the_same(rate: float, bad: int, answers: int) -> None:
    """Guards against a threshold of nearly 0 or 100 %, which ended in a division by zero at each tick."""
    value = Mixture().times(rate_factors(rate, bad, answers), 1.0).value
    assert 0 <= value < math.inf
    assert rate < 0.5 or value < 1.000001, "nothing fails more often than always"
