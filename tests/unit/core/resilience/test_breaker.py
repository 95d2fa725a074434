"""One worker's breaker: closed, open, half-open, with a hand-moved clock."""

import itertools
from collections.abc import Callable

import pytest

from gateway.core.resilience.breaker import (
    ALONE_AFTER_S,
    MOVES,
    UNUSED_AFTER_S,
    Breaker,
    BreakerEvent,
    BreakerState,
    BreakerWord,
    compile_breaker,
    move,
)
from gateway.core.settings.resilience import BreakerSettings
from gateway.errors import IllegalTransition

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SETTINGS = BreakerSettings(failure_threshold=3, reset_timeout=10_000, half_open_max_calls=2)


class Guarded:
    """A breaker with what it reported and how often it said that it changed."""

    def __init__(self, settings: BreakerSettings = SETTINGS, *, slot: int = 0) -> None:
        self.now = 100.0
        self.reports: list[tuple[int, str, int]] = []
        self.changes: list[float] = []
        self.breaker = Breaker(
            settings,
            slot=slot,
            on_report=lambda *report: self.reports.append(report),
            on_change=self.changes.append,
        )

    def attempt(self, ok: bool) -> None:
        epoch = self.breaker.admit(self.now)
        assert epoch is not None
        self.breaker.settle(self.now, epoch, ok)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.attempt(False)

    def tell(self, epoch: int, state: BreakerState, grant: int = 0, open_for_s: float = 0.0) -> None:
        self.breaker.notify(self.now, BreakerWord(epoch, state, grant, open_for_s))

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.breaker.tick(self.now)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(BreakerState, BreakerEvent)))
def test_every_pair_is_in_the_table_or_refused(state: BreakerState, event: BreakerEvent) -> None:
    if (state, event) in MOVES:
        assert move(state, event) is MOVES[state, event]
        return
    with pytest.raises(IllegalTransition):
        move(state, event)


def test_a_closed_breaker_lets_everything_through_and_says_nothing() -> None:
    guarded = Guarded()
    for _ in range(100):
        guarded.attempt(True)
    assert guarded.breaker.is_available
    assert guarded.reports == []
    assert guarded.changes == []


def test_it_opens_at_the_threshold_of_failures_in_a_row() -> None:
    guarded = Guarded()
    guarded.fail(3)
    assert guarded.breaker.state is OPEN
    assert guarded.breaker.admit(guarded.now) is None
    assert guarded.reports == [(0, "failures", 2), (0, "opened", 3)]
    assert guarded.changes == [guarded.now]


def test_a_success_between_failures_starts_the_run_again() -> None:
    guarded = Guarded()
    for _ in range(5):
        guarded.fail(2)
        guarded.attempt(True)
    assert guarded.breaker.state is CLOSED
    assert guarded.reports == [(0, "failures", 2), (0, "success", 1)] * 5


def test_a_single_failure_is_not_worth_a_report() -> None:
    guarded = Guarded()
    guarded.fail()
    guarded.attempt(True)
    assert guarded.reports == []


def test_a_threshold_of_one_opens_at_once() -> None:
    guarded = Guarded(BreakerSettings(failure_threshold=1))
    guarded.fail()
    assert guarded.breaker.state is OPEN


def test_new_settings_hold_from_the_next_failure() -> None:
    guarded = Guarded()
    guarded.fail(2)
    guarded.breaker.reconfigure(BreakerSettings(failure_threshold=10))
    guarded.fail(7)
    assert guarded.breaker.state is CLOSED
    guarded.fail(1)
    assert guarded.breaker.state is OPEN


def test_a_late_answer_of_an_earlier_epoch_is_dropped() -> None:
    guarded = Guarded()
    early = guarded.breaker.admit(guarded.now)
    assert early is not None
    guarded.fail(3)
    guarded.tell(2, HALF_OPEN, grant=1)
    before = list(guarded.reports)
    guarded.breaker.settle(guarded.now, early, False)
    guarded.breaker.settle(guarded.now, early, True)
    guarded.breaker.release(guarded.now, early)
    assert guarded.breaker.state is HALF_OPEN
    assert guarded.reports == before


def test_control_grants_trial_calls_in_total_not_anew_with_each_word() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.tell(2, HALF_OPEN, grant=1)
    assert guarded.breaker.admit(guarded.now) is not None
    guarded.tell(2, HALF_OPEN, grant=1)
    assert guarded.breaker.admit(guarded.now) is None
    guarded.tell(2, HALF_OPEN, grant=2)
    assert guarded.breaker.admit(guarded.now) is not None
    assert guarded.breaker.admit(guarded.now) is None


def test_good_trial_calls_are_reported_and_control_closes() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.tell(2, HALF_OPEN, grant=2)
    guarded.attempt(True)
    guarded.attempt(True)
    assert guarded.reports[-2:] == [(2, "trial_ok", 1), (2, "trial_ok", 2)]
    assert guarded.breaker.state is HALF_OPEN
    guarded.tell(3, CLOSED)
    assert guarded.breaker.is_available


def test_a_bad_trial_call_opens_it_at_once() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.tell(2, HALF_OPEN, grant=2)
    guarded.attempt(False)
    assert guarded.breaker.state is OPEN
    assert guarded.reports[-1] == (2, "trial_failed", 1)
    assert guarded.breaker.epoch == 3


def test_a_released_trial_call_may_be_made_again() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.tell(2, HALF_OPEN, grant=1)
    epoch = guarded.breaker.admit(guarded.now)
    assert epoch is not None
    assert not guarded.breaker.is_available
    guarded.breaker.release(guarded.now, epoch)
    assert guarded.breaker.is_available
    assert guarded.breaker.admit(guarded.now) is not None


def test_an_unused_trial_call_goes_back_after_a_second() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.tell(2, HALF_OPEN, grant=2)
    guarded.attempt(True)
    guarded.later(UNUSED_AFTER_S)
    assert guarded.reports[-1] == (2, "unused", 1)
    assert guarded.breaker.admit(guarded.now) is None
    guarded.tell(2, HALF_OPEN, grant=2)
    assert guarded.breaker.admit(guarded.now) is None
    guarded.tell(2, HALF_OPEN, grant=3)
    assert guarded.breaker.admit(guarded.now) is not None


@pytest.mark.parametrize(("slot", "tries"), [(0, True), (1, True), (2, False), (9, False)])
def test_without_control_the_first_slots_make_one_trial_call_each(slot: int, tries: bool) -> None:
    guarded = Guarded(slot=slot)
    guarded.fail(3)
    guarded.later(10 + ALONE_AFTER_S - 0.01)
    assert not guarded.breaker.is_available
    guarded.later(0.02)
    assert guarded.breaker.is_available is tries
    assert (guarded.breaker.admit(guarded.now) is not None) is tries
    assert guarded.breaker.admit(guarded.now) is None


def test_without_control_one_good_call_closes_and_control_is_told_so() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.later(11)
    guarded.attempt(True)
    assert guarded.breaker.state is CLOSED
    assert guarded.reports[-1] == (2, "trial_ok", SETTINGS.half_open_max_calls)


def test_without_control_a_bad_call_opens_for_another_timeout() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.later(11)
    guarded.attempt(False)
    guarded.later(10.9)
    assert guarded.breaker.state is OPEN
    guarded.later(0.2)
    assert guarded.breaker.state is HALF_OPEN


def test_a_trial_call_of_its_own_is_not_given_back() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.later(11)
    guarded.later(5)
    assert guarded.breaker.is_available


def test_an_outdated_word_closes_nothing_and_is_answered() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.tell(0, CLOSED)
    assert guarded.breaker.state is OPEN
    assert guarded.reports[-1] == (0, "opened", 3)


def test_control_hears_again_of_a_breaker_that_closed_while_it_was_away() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.later(11)
    guarded.attempt(True)
    guarded.reports.clear()
    guarded.tell(1, OPEN, open_for_s=5)
    assert guarded.breaker.state is CLOSED
    assert guarded.reports == [(2, "trial_ok", 2)]


def test_control_opens_and_closes_over_a_workers_head() -> None:
    guarded = Guarded()
    guarded.tell(1, OPEN, open_for_s=4)
    assert not guarded.breaker.is_available
    guarded.tell(7, CLOSED)
    assert guarded.breaker.is_available
    assert len(guarded.changes) == 2


def test_control_is_right_when_epochs_tie_and_what_ran_is_dropped() -> None:
    guarded = Guarded()
    guarded.fail(3)
    guarded.later(11)
    guarded.attempt(True)
    running = guarded.breaker.admit(guarded.now)
    assert running is not None
    guarded.tell(3, OPEN, open_for_s=4)
    assert guarded.breaker.state is OPEN
    guarded.breaker.settle(guarded.now, running, False)
    assert guarded.breaker.state is OPEN


Change = Callable[[Guarded], None]


@pytest.mark.parametrize(
    "change",
    [
        lambda guarded: guarded.tell(3, HALF_OPEN, grant=0),
        lambda guarded: guarded.tell(3, OPEN),
        lambda guarded: guarded.attempt(True),
    ],
    ids=["no grant", "open", "last call taken"],
)
def test_who_asks_is_told_when_a_half_open_breaker_stops_letting_through(change: Change) -> None:
    """Guards the cached list of endpoints, which only learns of it here."""
    guarded = Guarded()
    guarded.tell(2, HALF_OPEN, grant=1)
    guarded.changes.clear()
    change(guarded)
    assert not guarded.breaker.is_available
    assert guarded.changes


def test_a_breaker_may_be_off() -> None:
    assert compile_breaker(False) is None
    assert compile_breaker(True) == BreakerSettings()
    assert compile_breaker(SETTINGS) is SETTINGS
