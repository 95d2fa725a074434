"""What may be sent again, and how often."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.resilience.retry import IDEMPOTENT, RetryBudget, RetryPolicy, compile_retry
from gateway.core.settings.resilience import RetrySettings

POLICY = RetryPolicy(attempts=3, on=frozenset({"connect", "reset", "503"}), body_bytes=65_536)


def can_retry(
    attempts: int = 1,
    kind: str = "503",
    sent: bool = True,
    method: str = "GET",
    body_at_hand: bool = True,
    response_started: bool = False,
) -> bool:
    return POLICY.can_retry(
        attempts=attempts,
        kind=kind,
        sent=sent,
        method=method,
        body_at_hand=body_at_hand,
        response_started=response_started,
    )


@pytest.mark.parametrize(
    ("sent", "method", "body_at_hand", "response_started"),
    list(itertools.product([True, False], ["GET", "POST"], [True, False], [True, False])),
)
def test_only_what_was_not_sent_or_can_be_repeated_is_sent_again(
    sent: bool, method: str, body_at_hand: bool, response_started: bool
) -> None:
    allowed = not response_started and (not sent or (method == "GET" and body_at_hand))
    assert (
        can_retry(sent=sent, method=method, body_at_hand=body_at_hand, response_started=response_started)
        is allowed
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_idempotent_methods_are_those_of_rfc_9110(method: str) -> None:
    assert method in IDEMPOTENT
    assert can_retry(method=method)


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "get", "PURGE"])
def test_other_methods_are_not_repeated_once_sent(method: str) -> None:
    assert not can_retry(method=method)
    assert can_retry(method=method, sent=False)


def test_attempts_are_counted_with_the_first() -> None:
    assert [can_retry(attempts=made) for made in (1, 2, 3, 4)] == [True, True, False, False]


@pytest.mark.parametrize("kind", ["timeout", "500", "502", "404"])
def test_what_is_not_listed_is_not_worth_another_try(kind: str) -> None:
    assert not can_retry(kind=kind)


def test_a_policy_may_be_off() -> None:
    assert compile_retry(False) is None
    assert compile_retry(True) == compile_retry(RetrySettings())


def test_a_quiet_service_may_retry() -> None:
    budget = RetryBudget(percent=20, min_per_second=1)
    budget.on_request(5.0)
    assert budget.take(5.0)
    assert not budget.take(5.9)
    assert budget.take(6.0)


def test_requests_earn_retries_and_lose_them_after_ten_seconds() -> None:
    budget = RetryBudget(percent=20, min_per_second=0)
    for _ in range(50):
        budget.on_request(100.0)
    assert [budget.take(109.9) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(5):
        budget.on_request(109.9)
    assert budget.take(109.9)
    for _ in range(4):
        budget.on_request(110.0)
    assert not budget.take(110.0)


def test_the_floor_is_shared_out_over_workers() -> None:
    budgets = [RetryBudget(percent=0, min_per_second=10, workers=4) for _ in range(4)]
    taken = sum(budget.take(now / 10) for now in range(1_000) for budget in budgets)
    assert 900 <= taken <= 10 * 100 + 10


def test_more_workers_than_the_floor_still_retry_sometimes() -> None:
    budget = RetryBudget(percent=0, min_per_second=1, workers=8)
    assert sum(budget.take(float(second)) for second in range(80)) == pytest.approx(10, abs=1)


def test_no_budget_is_no_retries() -> None:
    budget = RetryBudget(percent=0, min_per_second=0)
    budget.on_request(1.0)
    assert not budget.take(1.0)


@given(
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 40), st.integers(0, 40)), max_size=60),
    percent=st.sampled_from([0, 5, 20, 33.3, 100]),
    floor=st.integers(0, 5),
    start=st.floats(0, 1e6),
)
def test_a_storm_costs_at_most_its_percentage_and_the_floor(
    steps: list[tuple[float, int, int]], percent: float, floor: int, start: float
) -> None:
    """Attempts <= (1 + percent/100) x requests + floor x seconds begun, whatever the pattern."""
    budget = RetryBudget(percent=percent, min_per_second=floor)
    now, requests, retries = start, 0, 0
    for wait_s, arrive, fail in steps:
        now += wait_s
        for _ in range(arrive):
            budget.on_request(now)
        requests += arrive
        retries += sum(budget.take(now) for _ in range(fail))
        seconds = int(now) - int(start) + 1
        assert retries <= percent / 100 * requests + floor * seconds


def test_a_clock_that_stands_still_or_starts_anywhere_is_fine() -> None:
    for start in (0.0, 0.5, 86_400.0, 1e9):
        budget = RetryBudget(percent=100, min_per_second=0)
        for _ in range(3):
            budget.on_request(start)
        assert [budget.take(start) for _ in range(4)] == [True, True, True, False]
