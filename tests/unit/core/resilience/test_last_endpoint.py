"""The breaker of a service's last usable endpoint never cuts it wholly off."""

import heapq
from collections import Counter

import pytest

from gateway.core.resilience.breaker import LAST_EVERY_S, Breaker, BreakerState
from gateway.core.resilience.merged_breaker import MergedBreaker
from gateway.core.settings.resilience import BreakerSettings
from tests.unit.core.resilience.test_breaker import CLOSED, HALF_OPEN, OPEN, Guarded


def opened() -> Guarded:
    guarded = Guarded()
    guarded.fail(3)
    assert guarded.breaker.state is OPEN
    guarded.reports.clear()
    return guarded


def last(guarded: Guarded) -> int | None:
    return guarded.breaker.admit_last(guarded.now)


def attempt(guarded: Guarded, *, ok: bool) -> None:
    epoch = last(guarded)
    assert epoch is not None
    guarded.breaker.settle(guarded.now, epoch, ok)


def test_one_attempt_at_a_time_and_another_while_it_hangs() -> None:
    guarded = opened()
    assert guarded.breaker.admit(guarded.now) is None
    first = last(guarded)
    assert first is not None
    assert last(guarded) is None
    guarded.now += LAST_EVERY_S / 2
    assert last(guarded) is None
    guarded.now += LAST_EVERY_S / 2
    second = last(guarded)
    assert second is not None
    guarded.breaker.settle(guarded.now, first, False)
    assert last(guarded) is None, "the second still runs"
    guarded.breaker.settle(guarded.now, second, False)
    assert last(guarded) is not None
    assert guarded.breaker.state is OPEN


def test_three_good_ones_close_it_whatever_fails_between() -> None:
    guarded = opened()
    for ok in (False, True, False, True, False):
        attempt(guarded, ok=ok)
        assert guarded.breaker.state is OPEN
    attempt(guarded, ok=True)
    assert guarded.breaker.state is CLOSED
    assert guarded.breaker.is_available


def test_control_believes_it_and_tells_the_others() -> None:
    guarded, control = opened(), MergedBreaker(BreakerSettings(failure_threshold=3, half_open_max_calls=2))
    control.report(0.0, 0, epoch=0, kind="opened", count=3)
    assert control.state is OPEN
    for _ in range(3):
        attempt(guarded, ok=True)
    for epoch, kind, count in guarded.reports:
        assert control.report(0.0, 0, epoch=epoch, kind=kind, count=count)
    assert (control.state, control.epoch) == (CLOSED, guarded.breaker.epoch)


def test_trial_calls_are_control_s_and_these_are_not() -> None:
    """What is let through here spends no grant, and its failure does not open a half-open breaker again."""
    guarded = opened()
    guarded.tell(2, HALF_OPEN, grant=0)
    assert not guarded.breaker.is_available
    attempt(guarded, ok=False)
    assert guarded.breaker.state is HALF_OPEN
    assert guarded.reports == []
    guarded.tell(2, HALF_OPEN, grant=1)
    assert guarded.breaker.is_available
    for _ in range(3):
        attempt(guarded, ok=True)
    assert guarded.breaker.state is CLOSED
    assert guarded.reports == [(2, "trial_ok", 2)]


@pytest.mark.parametrize("way_back", [BreakerState.CLOSED, BreakerState.OPEN])
def test_what_began_before_it_closed_counts_for_nothing_after(way_back: BreakerState) -> None:
    guarded = opened()
    late = last(guarded)
    assert late is not None
    guarded.tell(3, CLOSED)
    if way_back is OPEN:
        guarded.fail(3)
    guarded.breaker.settle(guarded.now, late, True)
    guarded.breaker.release(guarded.now, late)
    assert guarded.breaker.state is way_back
    assert guarded.breaker.failures == 0
    if way_back is OPEN:
        assert last(guarded) is not None
        assert last(guarded) is None, "the late one has freed no place"


def test_client_that_leaves_frees_the_place() -> None:
    guarded = opened()
    epoch = last(guarded)
    assert epoch is not None
    guarded.breaker.release(guarded.now, epoch)
    assert last(guarded) is not None


def test_closed_breaker_is_asked_as_ever() -> None:
    guarded = Guarded()
    assert guarded.breaker.admit_last(0.0) == guarded.breaker.admit(0.0)


HANG_S, PAUSE_S, WORK_S, LASTS_S = 10.0, 0.02, 0.01, 120.0


def outcome_of(breaker: Breaker, *, clients: int, hanging: int) -> Counter[bool]:
    """Play clients at an endpoint with one path that hangs. Returns how often the others were answered.

    A client asks again `PAUSE_S` after an answer; a refusal is an answer.
    """
    answered: Counter[bool] = Counter()
    turns = [(100.0 + number * 0.001, number, 0) for number in range(clients)]
    heapq.heapify(turns)
    while turns:
        now, number, epoch = heapq.heappop(turns)
        is_hanging = number < hanging
        if epoch:
            breaker.settle(now, epoch, not is_hanging)
            heapq.heappush(turns, (now + PAUSE_S, number, 0))
            continue
        if now > 100.0 + LASTS_S:
            continue
        admitted = breaker.admit(now) or breaker.admit_last(now)
        if not is_hanging:
            answered[admitted is not None] += 1
        delay_s = PAUSE_S if admitted is None else HANG_S if is_hanging else WORK_S
        heapq.heappush(turns, (now + delay_s, number, admitted or 0))
    return answered


@pytest.mark.parametrize("hanging", [5, 10, 30])
def test_hanging_path_leaves_nine_of_ten_others_answered(hanging: int) -> None:
    guarded = Guarded(BreakerSettings(failure_threshold=5))
    guarded.fail(5)
    assert guarded.breaker.state is OPEN
    answered = outcome_of(guarded.breaker, clients=100, hanging=hanging)
    assert answered[True] >= 0.9 * answered.total()
