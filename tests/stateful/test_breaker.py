"""One endpoint's breakers in three workers and control: words late or lost, either end killed at any time."""

from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.resilience.breaker import Breaker, BreakerState, BreakerWord
from gateway.core.resilience.merged_breaker import LOST_AFTER_S, MergedBreaker
from gateway.core.settings.resilience import BreakerSettings

pytestmark = pytest.mark.timeout(1_800)
"""Enough for the `deep` profile on a busy machine."""

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SLOTS = (0, 1, 2)
SETTINGS = BreakerSettings(failure_threshold=3, reset_timeout=5_000, half_open_max_calls=2)
slots = st.sampled_from(SLOTS)


class Attempt(NamedTuple):
    """One that runs, and whether it is a trial call."""

    ticket: int
    is_trial: bool


class Worker:
    """A worker: its breaker, the list a balancer would keep, and its two directions of the link."""

    def __init__(self, slot: int, now: float) -> None:
        self.up: deque[tuple[int, str, int]] = deque()
        self.down: deque[BreakerWord] = deque()
        self.running: list[Attempt] = []
        self.run = 0
        """The model of a closed breaker: failures in a row since it was entered."""
        self.stay = (0, CLOSED)
        self.cached = (CLOSED, True)
        self.breaker = Breaker(
            SETTINGS, slot=slot, on_report=lambda *report: self.up.append(report), on_change=self.look
        )

    def look(self, now: float) -> None:
        self.cached = (self.breaker.state, self.breaker.is_available)

    def sync(self) -> None:
        """Begin a new run where the breaker has moved."""
        stay = (self.breaker.epoch, self.breaker.state)
        if stay != self.stay:
            self.stay, self.run = stay, 0


class BreakerMachine(RuleBasedStateMachine):
    """Messages are queues that rules deliver from, or that die with an end of the link."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.workers = {slot: Worker(slot, self.now) for slot in SLOTS}
        self.stored = [(CLOSED, 0, 0.0)]
        self.control = MergedBreaker(SETTINGS)
        self.control.tick(self.now, SLOTS)

    # -- requests

    @rule(slot=slots)
    def begin(self, slot: int) -> None:
        worker = self.workers[slot]
        was_available, state = worker.breaker.is_available, worker.breaker.state
        ticket = worker.breaker.admit(self.now)
        assert (ticket is not None) == was_available
        if ticket is not None:
            assert state is not OPEN
            worker.running.append(Attempt(ticket, state is HALF_OPEN))

    @rule(slot=slots, times=st.integers(1, 4))
    def fail_at_once(self, slot: int, times: int) -> None:
        for _ in range(times):
            self.begin(slot)
            self.finish(slot, -1, ok=False)

    @precondition(lambda self: any(worker.running for worker in self.workers.values()))
    @rule(data=st.data(), ok=st.booleans())
    def end_any(self, data: st.DataObject, ok: bool) -> None:
        slot = data.draw(st.sampled_from([slot for slot, worker in self.workers.items() if worker.running]))
        self.finish(slot, data.draw(st.integers(0, len(self.workers[slot].running) - 1)), ok=ok)

    def finish(self, slot: int, index: int, *, ok: bool) -> None:
        worker = self.workers[slot]
        if not worker.running:
            return
        attempt = worker.running.pop(index)
        worker.sync()
        before, said = worker.stay, len(worker.up)
        is_current = attempt.ticket == worker.breaker._stay
        worker.breaker.settle(self.now, attempt.ticket, ok)
        if not is_current:
            assert (worker.breaker.epoch, worker.breaker.state) == before
            assert len(worker.up) == said
        elif before[1] is CLOSED:
            worker.run = 0 if ok else worker.run + 1
            assert worker.breaker.state is (OPEN if worker.run >= SETTINGS.failure_threshold else CLOSED)
        elif not ok:
            assert worker.breaker.state is OPEN

    @rule(slot=slots)
    def release(self, slot: int) -> None:
        worker = self.workers[slot]
        if worker.running:
            worker.breaker.release(self.now, worker.running.pop().ticket)

    # -- the link

    @rule(slot=slots)
    def hear_one(self, slot: int) -> None:
        if self.workers[slot].up:
            epoch, kind, count = self.workers[slot].up.popleft()
            changed = self.control.report(self.now, slot, epoch=epoch, kind=kind, count=count)
            self.spread(changed)

    @rule(slot=slots, only_the_newest=st.booleans())
    def tell_one(self, slot: int, only_the_newest: bool) -> None:
        worker = self.workers[slot]
        if worker.down:
            word = worker.down.pop() if only_the_newest else worker.down.popleft()
            if only_the_newest:
                worker.down.clear()
            worker.breaker.notify(self.now, word)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0, 6.1]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for worker in self.workers.values():
            worker.breaker.tick(self.now)
        self.spread(self.control.tick(self.now, SLOTS))

    @rule(slot=slots)
    def kill_worker(self, slot: int) -> None:
        self.workers[slot] = Worker(slot, self.now)
        self.control.gone(slot)
        self.spread(self.control.tick(self.now, SLOTS))
        self.workers[slot].down.append(self.control.word(self.now, slot))

    @rule(before_the_last_save=st.booleans())
    def kill_control(self, before_the_last_save: bool) -> None:
        """What was on its way either way is lost; the next control reads the store and tells everybody."""
        state, epoch, open_until = self.stored[0 if before_the_last_save else -1]
        self.control = MergedBreaker(SETTINGS, state=state, epoch=epoch, open_until=open_until)
        for worker in self.workers.values():
            worker.up.clear()
            worker.down.clear()
        self.control.tick(self.now, SLOTS)
        self.spread(True)

    def spread(self, changed: bool) -> None:
        """Save first, then tell."""
        if not changed:
            return
        self.stored = [self.stored[-1], (self.control.state, self.control.epoch, self.control.open_until)]
        for slot, worker in self.workers.items():
            worker.down.append(self.control.word(self.now, slot))

    # -- what always holds

    @invariant()
    def a_balancers_list_is_never_behind(self) -> None:
        for worker in self.workers.values():
            assert worker.cached == (worker.breaker.state, worker.breaker.is_available)
            assert worker.breaker.is_available or worker.breaker.state is not CLOSED
            assert not (worker.breaker.is_available and worker.breaker.state is OPEN)

    @invariant()
    def trial_calls_of_an_epoch_are_not_more_than_allowed(self) -> None:
        """Granted by control: in total. Without control: one each. Dead workers' are made again."""
        if self.control.state is not HALF_OPEN:
            return
        trying = [
            worker.breaker
            for worker in self.workers.values()
            if worker.breaker.state is HALF_OPEN and worker.breaker.epoch == self.control.epoch
        ]
        granted = sum(self.control.word(self.now, slot).grant for slot in SLOTS)
        returned = sum(self.control._returned.values())
        assert granted - returned <= SETTINGS.half_open_max_calls
        for breaker in trying:
            assert breaker._spent <= max(breaker._granted, 1)

    def teardown(self) -> None:
        """Once everything is delivered all agree; and with good answers it closes again."""
        self.deliver_all()
        self.agree()
        for _ in range(3 * int(LOST_AFTER_S)):
            if self.control.state is CLOSED:
                break
            for slot, worker in self.workers.items():
                while worker.running:
                    self.finish(slot, 0, ok=True)
                if worker.breaker.is_available:
                    self.begin(slot)
                    self.finish(slot, -1, ok=True)
            self.deliver_all()
            self.pass_time(1.0)
            self.deliver_all()
            self.agree()
        assert self.control.state is CLOSED

    def deliver_all(self) -> None:
        for _ in range(1_000):
            for slot in SLOTS:
                self.hear_one(slot)
                self.tell_one(slot, False)
            if not any(worker.up or worker.down for worker in self.workers.values()):
                return
        raise AssertionError("control and workers talk without end")

    def agree(self) -> None:
        for slot, worker in self.workers.items():
            told = self.control.word(self.now, slot)
            if worker.breaker.epoch == told.epoch:
                assert worker.breaker.state is told.state
            else:  # ahead, trying by itself: its trial call will tell
                assert worker.breaker.state is HALF_OPEN
                assert worker.breaker.epoch > told.epoch


TestBreaker = BreakerMachine.TestCase
