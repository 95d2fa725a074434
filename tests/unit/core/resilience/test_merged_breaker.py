"""Control's breaker: the workers' reports added up, the trial calls shared out."""

import pytest

from gateway.core.resilience.breaker import Breaker, BreakerState, Report
from gateway.core.resilience.merged_breaker import FRESH_S, LOST_AFTER_S, MergedBreaker
from gateway.core.settings.resilience import BreakerSettings

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SETTINGS = BreakerSettings(failure_threshold=5, reset_timeout=10_000, half_open_max_calls=3)
SLOTS = (0, 1, 2, 3)


def merged(state: BreakerState = CLOSED, epoch: int = 0) -> MergedBreaker:
    breaker = MergedBreaker(SETTINGS, state=state, epoch=epoch)
    breaker.tick(0.0, SLOTS)
    return breaker


def grants(breaker: MergedBreaker) -> list[int]:
    return [breaker.word(0.0, slot).grant for slot in SLOTS]


def half_open() -> MergedBreaker:
    """Return one of epoch 2, its three trial calls with slots 0, 1 and 2."""
    breaker = merged()
    breaker.report(0.0, 0, epoch=0, kind="opened", count=5)
    assert breaker.tick(10.0, SLOTS)
    assert breaker.epoch == 2
    return breaker


def test_one_worker_that_opens_opens_all() -> None:
    breaker = merged()
    assert breaker.report(7.0, 2, epoch=0, kind="opened", count=5)
    assert breaker.word(8.0, 0) == (1, OPEN, 0, 9.0)
    assert breaker.failures == 5
    assert breaker.last_failure_at == 7.0
    assert breaker.open_until == 17.0


def test_workers_that_open_at_the_same_time_open_it_once() -> None:
    breaker = merged()
    assert breaker.report(1.0, 0, epoch=0, kind="opened", count=5)
    assert not breaker.report(1.1, 1, epoch=0, kind="opened", count=5)
    assert breaker.epoch == 1


def test_runs_that_no_single_worker_sees_open_it() -> None:
    breaker = merged()
    assert not breaker.report(1.0, 0, epoch=0, kind="failures", count=2)
    assert not breaker.report(1.1, 1, epoch=0, kind="failures", count=2)
    assert breaker.failures == 4
    assert breaker.report(1.2, 0, epoch=0, kind="failures", count=3)
    assert breaker.state is OPEN


def test_a_repeated_report_counts_nothing_twice() -> None:
    breaker = merged()
    for _ in range(10):
        assert not breaker.report(1.0, 0, epoch=0, kind="failures", count=4)
    assert breaker.failures == 4


def test_a_success_anywhere_ends_every_run() -> None:
    breaker = merged()
    breaker.report(1.0, 0, epoch=0, kind="failures", count=4)
    breaker.report(1.0, 1, epoch=0, kind="success", count=1)
    assert breaker.failures == 0
    assert not breaker.report(1.1, 0, epoch=0, kind="failures", count=5)
    assert breaker.failures == 1


def test_a_new_run_of_a_worker_counts_whole() -> None:
    breaker = merged()
    breaker.report(1.0, 0, epoch=0, kind="failures", count=4)
    breaker.report(1.0, 0, epoch=0, kind="success", count=1)
    breaker.report(1.1, 0, epoch=0, kind="failures", count=2)
    assert breaker.failures == 2


def test_an_old_run_of_another_worker_is_no_longer_in_a_row() -> None:
    """Guards a quiet worker's failures of long ago: others' successes since then are not reported."""
    breaker = merged()
    breaker.report(1.0, 0, epoch=0, kind="failures", count=4)
    assert not breaker.report(1.1 + FRESH_S, 1, epoch=0, kind="failures", count=2)
    assert breaker.failures == 2


def test_trial_calls_are_shared_out_in_total() -> None:
    breaker = half_open()
    assert grants(breaker) == [1, 1, 1, 0]
    assert not breaker.tick(10.1, SLOTS)
    assert grants(breaker) == [1, 1, 1, 0]


def test_with_fewer_workers_one_gets_several() -> None:
    breaker = merged()
    breaker.report(0.0, 0, epoch=0, kind="opened", count=5)
    breaker.tick(10.0, (4, 7))
    assert [breaker.word(10.0, slot).grant for slot in (4, 7)] == [2, 1]


def test_an_unused_call_goes_to_the_next_worker_as_a_larger_total() -> None:
    breaker = half_open()
    assert breaker.report(11.0, 1, epoch=2, kind="unused", count=1)
    assert grants(breaker) == [1, 1, 1, 1]
    assert breaker.report(11.0, 0, epoch=2, kind="unused", count=1)
    assert grants(breaker) == [2, 1, 1, 1]


def test_as_many_successes_as_calls_close_it() -> None:
    breaker = half_open()
    assert not breaker.report(11.0, 0, epoch=2, kind="trial_ok", count=1)
    assert not breaker.report(11.0, 0, epoch=2, kind="trial_ok", count=1)
    assert not breaker.report(11.0, 1, epoch=2, kind="trial_ok", count=1)
    assert not breaker.tick(11.0, SLOTS)
    assert breaker.report(11.0, 2, epoch=2, kind="trial_ok", count=1)
    assert (breaker.state, breaker.epoch, breaker.failures) == (CLOSED, 3, 0)


def test_one_failure_opens_it_again_for_a_whole_timeout() -> None:
    breaker = half_open()
    breaker.report(11.0, 0, epoch=2, kind="trial_ok", count=1)
    assert breaker.report(12.0, 1, epoch=2, kind="trial_failed", count=1)
    assert breaker.word(12.0, 0) == (3, OPEN, 0, 10.0)


def test_a_report_of_an_earlier_epoch_is_dropped() -> None:
    breaker = half_open()
    for kind in ("failures", "opened", "trial_failed", "trial_ok", "unused", "success"):
        assert not breaker.report(11.0, 0, epoch=1, kind=kind, count=9)
    assert (breaker.state, breaker.epoch) == (HALF_OPEN, 2)
    assert grants(breaker) == [1, 1, 1, 0]


def test_a_dead_workers_calls_are_given_to_the_living_and_its_successes_stand() -> None:
    breaker = half_open()
    breaker.report(11.0, 0, epoch=2, kind="trial_ok", count=1)
    assert breaker.tick(11.0, (0, 2, 3))
    assert [breaker.word(11.0, slot).grant for slot in (0, 2, 3)] == [1, 1, 1]
    breaker.gone(0)
    assert not breaker.tick(11.0, (0, 2, 3))
    breaker.report(11.5, 2, epoch=2, kind="trial_ok", count=1)
    assert breaker.report(11.5, 3, epoch=2, kind="trial_ok", count=1)
    assert breaker.state is CLOSED


def test_a_call_whose_report_was_lost_is_made_by_another() -> None:
    breaker = half_open()
    breaker.report(11.0, 0, epoch=2, kind="trial_ok", count=1)
    breaker.report(11.0, 1, epoch=2, kind="trial_ok", count=1)
    assert not breaker.tick(10.0 + LOST_AFTER_S, SLOTS)
    assert breaker.tick(10.1 + LOST_AFTER_S, SLOTS)
    assert grants(breaker) == [1, 1, 1, 1]


def test_a_successor_in_the_slot_is_granted_anew() -> None:
    breaker = half_open()
    breaker.gone(1)
    assert breaker.word(10.0, 1).grant == 0
    assert breaker.tick(10.0, SLOTS)
    assert sum(grants(breaker)) == 3


def test_without_workers_nothing_is_shared_out() -> None:
    breaker = merged()
    breaker.report(0.0, 0, epoch=0, kind="opened", count=5)
    assert breaker.tick(10.0, ())
    assert not breaker.tick(10.1, ())
    assert breaker.tick(10.2, (0,))
    assert breaker.word(10.2, 0).grant == 3


def test_a_worker_that_is_ahead_is_believed() -> None:
    breaker = MergedBreaker(SETTINGS, epoch=3)
    assert breaker.report(1.0, 0, epoch=8, kind="opened", count=5)
    assert (breaker.state, breaker.epoch) == (OPEN, 9)


def test_a_worker_that_closed_it_while_control_was_away_is_believed() -> None:
    breaker = MergedBreaker(SETTINGS, state=OPEN, epoch=1, open_until=30.0, failures=5)
    assert breaker.failures == 5
    assert breaker.report(1.0, 0, epoch=2, kind="trial_ok", count=3)
    assert (breaker.state, breaker.epoch) == (CLOSED, 3)


@pytest.mark.parametrize(("kind", "count"), [("failures", 2), ("success", 1), ("unused", 1), ("trial_ok", 1)])
def test_a_worker_in_another_state_of_the_same_epoch_is_told_again(kind: str, count: int) -> None:
    breaker = MergedBreaker(SETTINGS, state=OPEN, epoch=3, open_until=30.0)
    assert breaker.report(1.0, 0, epoch=3, kind=kind, count=count)
    assert (breaker.state, breaker.epoch) == (OPEN, 3)


@pytest.mark.parametrize(
    ("kind", "count", "state"), [("opened", 5, OPEN), ("trial_failed", 1, OPEN), ("trial_ok", 3, CLOSED)]
)
@pytest.mark.parametrize("control", [CLOSED, OPEN])
def test_a_worker_that_moved_on_from_another_state_is_believed(
    control: BreakerState, kind: str, count: int, state: BreakerState
) -> None:
    """Guards against talk without end: each telling the other, again and again, what it does not hold."""
    breaker = MergedBreaker(SETTINGS, state=control, epoch=3, open_until=30.0)
    assert breaker.report(1.0, 0, epoch=3, kind=kind, count=count)
    assert (breaker.state, breaker.epoch) == (state, 4)


@pytest.mark.parametrize(("state", "epoch"), [(CLOSED, 4), (OPEN, 4), (HALF_OPEN, 5)])
def test_a_restart_keeps_the_state_and_begins_trials_anew(state: BreakerState, epoch: int) -> None:
    breaker = MergedBreaker(SETTINGS, state=state, epoch=4, open_until=6.0)
    assert breaker.word(2.0, 0)[:2] == (epoch, state)
    assert breaker.word(2.0, 0).open_for_s == (4.0 if state is OPEN else 0.0)


def test_new_settings_hold_from_the_next_report() -> None:
    breaker = merged()
    breaker.reconfigure(BreakerSettings(failure_threshold=2))
    assert breaker.report(1.0, 0, epoch=0, kind="failures", count=2)


@pytest.mark.parametrize("delay", [0, 3, 1_000], ids=["at once", "late", "never"])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_what_gets_through_to_a_dead_endpoint_is_bounded(workers: int, delay: int) -> None:
    """At most the threshold per worker, however late the words; if quick, about one in all."""
    control = MergedBreaker(SETTINGS)
    control.tick(0.0, range(workers))
    up: list[tuple[int, int, int, str, int]] = []
    breakers: list[Breaker] = []
    failed = 0

    def listen(slot: int) -> Report:
        return lambda epoch, kind, count: up.append((failed + delay, slot, epoch, kind, count))

    for slot in range(workers):
        breakers.append(Breaker(SETTINGS, slot=slot, on_report=listen(slot), on_change=lambda now: None))
    while any(each.is_available for each in breakers):
        for breaker in breakers:
            ticket = breaker.admit(0.0)
            if ticket is not None:
                failed += 1
                breaker.settle(0.0, ticket, False)
        while up and up[0][0] <= failed:
            _, slot, epoch, kind, count = up.pop(0)
            if control.report(0.0, slot, epoch=epoch, kind=kind, count=count):
                for other, breaker in enumerate(breakers):
                    breaker.notify(0.0, control.word(0.0, other))
    assert failed <= SETTINGS.failure_threshold * workers
    if delay == 0:
        assert failed <= 2 * workers + SETTINGS.failure_threshold
