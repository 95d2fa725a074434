"""The breaker of one endpoint: closed, open, half-open.

Each worker guards its own attempts with a `Breaker`; control adds up what the workers report in one
`core.merged_breaker.MergedBreaker` and notifies them all. Both walk the table of moves below, and both count
*epochs*: every move raises the epoch by one, and what began before a move is dropped when it ends.
"""

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.core.settings.resilience import BreakerSettings
from gateway.errors import IllegalTransition

UNUSED_AFTER_S: Final = 1.0
"""A trial call granted to a worker that has no request for it goes back after this long."""
ALONE_AFTER_S: Final = 1.0
"""How long after the reset timeout a worker waits for control before it tries by itself."""
LAST_EVERY_S: Final = 0.1
"""How often an attempt is let through to the last usable endpoint of a service while others still run."""
LAST_PASSES: Final = 3
"""Good ones of those attempts that close the breaker."""
REPORTED_RUN: Final = 2
"""Failures in a row that are worth telling control: single ones are the noise of a working endpoint."""


class BreakerState(enum.StrEnum):
    """What the breaker lets through: everything, nothing, or trial calls."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


_CLOSED: Final = BreakerState.CLOSED  # as a global it is found in a third of the time: each request asks


class BreakerEvent(enum.Enum):
    """What moves a breaker."""

    TRIP = "failures in a row reached the threshold"
    TRY = "the reset timeout is over"
    PASSED = "enough trial calls went well"
    FAILED = "a trial call failed"


MOVES: Final = {
    (BreakerState.CLOSED, BreakerEvent.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.TRY): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.PASSED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerEvent.FAILED): BreakerState.OPEN,
}


def move(state: BreakerState, event: BreakerEvent) -> BreakerState:
    """Return the state `event` leads to. Raises IllegalTransition if MOVES has no such pair."""
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalTransition(f"a breaker that is {state} cannot move because {event.value}") from None


class BreakerWord(NamedTuple):
    """What control says of a breaker to one worker."""

    epoch: int
    state: BreakerState
    grant: int = 0
    """HALF_OPEN: trial calls this worker may make in this epoch, in total: repeating it grants nothing
    new."""
    open_for_s: float = 0.0
    """OPEN: how much longer."""


def compile_breaker(settings: BreakerSettings | bool) -> BreakerSettings | None:
    """Return the settings in force; `true` is the defaults, `false` no breaker (None)."""
    if isinstance(settings, bool):
        return BreakerSettings() if settings else None
    return settings


Report = Callable[[int, str, int], None]
"""(epoch, kind, count) of a `link.messages.BreakerReport`."""


class Breaker:
    """One worker's guard of one endpoint: ask `admit` first, report to `settle` or `release` after.

    slot: the worker's; without control, slots under `half_open_max_calls` make one trial call each.
    on_report: called with what control must know. on_change(now): called when the state or `is_available` has
    changed.
    """

    __slots__ = (
        "_granted",
        "_granted_at",
        "_is_alone",
        "_last_at",
        "_last_passed",
        "_last_runs",
        "_last_since",
        "_last_trial",
        "_on_change",
        "_on_report",
        "_open_until",
        "_passed",
        "_settings",
        "_slot",
        "_spent",
        "_stay",
        "epoch",
        "failures",
        "is_available",
        "state",
    )

    def __init__(
        self,
        settings: BreakerSettings,
        *,
        slot: int,
        on_report: Report,
        on_change: Callable[[float], None],
    ) -> None:
        self.state = BreakerState.CLOSED
        self.epoch = 0
        """Control's count of moves, as far as this worker knows; a move of its own counts too."""
        self.failures = 0
        """CLOSED: failures since the last success."""
        self.is_available = True
        """Whether `admit` would let an attempt through now: the balancer reads it."""
        self._settings = settings
        self._slot = slot
        self._on_report = on_report
        self._on_change = on_change
        self._stay = 1
        """States entered, never 0. `admit` hands it out, for two stays may share one of control's epochs."""
        self._open_until = 0.0
        self._granted = 0
        self._granted_at = 0.0
        self._spent = 0
        """HALF_OPEN: trial calls begun or given back, of those granted."""
        self._passed = 0
        self._is_alone = False
        """HALF_OPEN by its own decision, not control's."""
        self._last_trial = 0
        """Number of the attempt that `admit_last` let through last; it hands them out below zero."""
        self._last_since = 1
        """Number of the first since the breaker was closed."""
        self._last_runs = False
        self._last_at = 0.0
        self._last_passed = 0

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Take new settings; they hold from the next failure on."""
        self._settings = settings

    def admit(self, now: float) -> int | None:
        """Let one attempt through, or refuse it.

        now: monotonic seconds. Returns what to hand to `settle` or `release`; None while the breaker is open.
        """
        if self.state is _CLOSED:
            return self._stay
        if not self.is_available:
            return None
        self._spent += 1
        self._offer(now, self._spent < self._granted)
        return self._stay

    def admit_last(self, now: float) -> int | None:
        """Let an attempt through although `admit` does not: nothing else of the service can be used.

        One at a time, and another every 100 ms while one hangs: an endpoint that has recovered, or fails in
        one place alone, serves again within moments; one that is down gets no storm. It takes no grant.
        """
        if self.state is _CLOSED:
            return self.admit(now)
        if self._last_runs and now < self._last_at + LAST_EVERY_S:
            return None
        self._last_trial += 1
        self._last_runs = True
        self._last_at = now
        return -self._last_trial

    def settle(self, now: float, epoch: int, ok: bool) -> None:
        """Report how an admitted attempt ended. One that began before the last move is dropped."""
        if epoch < 0:
            self._settle_last(now, epoch, ok)
            return
        if epoch != self._stay:
            return
        if self.state is _CLOSED:
            if not ok:
                self._count_failure(now)
            elif self.failures:
                self._end_run()
        elif ok:
            self._trial_passed(now)
        else:
            self._on_report(self.epoch, "trial_failed", 1)
            self._go(BreakerEvent.FAILED, now)

    def release(self, now: float, epoch: int) -> None:
        """Report that an admitted attempt ended without a verdict (its client left): a trial call is free."""
        if epoch < 0:
            self._last_runs = self._last_runs and epoch != -self._last_trial
        elif epoch == self._stay and self.state is BreakerState.HALF_OPEN:
            self._spent -= 1
            self._granted_at = now
            self._offer(now, True)

    def notify(self, now: float, word: BreakerWord) -> None:
        """Take control's word. If control is behind, report again what it has missed."""
        if word.epoch < self.epoch:
            self._repeat()
        elif word.epoch > self.epoch or word.state is not self.state:
            self._adopt(now, word)
        elif word.grant > self._granted:
            self._granted = word.grant
            self._granted_at = now
            self._is_alone = False
            self._offer(now, self._spent < self._granted)

    def tick(self, now: float) -> None:
        """Let time pass: give back trial calls nobody used; after the reset timeout, without control, try."""
        if self.state is BreakerState.OPEN:
            if now >= self._open_until + ALONE_AFTER_S and self._slot < self._settings.half_open_max_calls:
                self._try_alone(now)
        elif self.state is BreakerState.HALF_OPEN and not self._is_alone:
            self._give_back(now)

    def _count_failure(self, now: float) -> None:
        self.failures += 1
        if self.failures >= self._settings.failure_threshold:
            self._on_report(self.epoch, "opened", self.failures)
            self._go(BreakerEvent.TRIP, now)
        elif self.failures >= REPORTED_RUN:
            self._on_report(self.epoch, "failures", self.failures)

    def _end_run(self) -> None:
        if self.failures >= REPORTED_RUN:
            self._on_report(self.epoch, "success", 1)
        self.failures = 0

    def _trial_passed(self, now: float) -> None:
        """Count a good trial call; without control one is enough, and control hears of it as of all."""
        if self._is_alone:
            self._on_report(self.epoch, "trial_ok", self._settings.half_open_max_calls)
            self._go(BreakerEvent.PASSED, now)
            return
        self._passed += 1
        self._on_report(self.epoch, "trial_ok", self._passed)

    def _settle_last(self, now: float, epoch: int, ok: bool) -> None:
        """Count an attempt of `admit_last`; enough good ones close the breaker, and control hears of it."""
        if -epoch < self._last_since:
            return
        self._last_runs = self._last_runs and epoch != -self._last_trial
        self._last_passed += ok  # in all: what hangs in one place must not outweigh what works elsewhere
        if self._last_passed < LAST_PASSES or self.state is _CLOSED:
            return
        if self.state is BreakerState.OPEN:
            self._go(BreakerEvent.TRY, now)
        self._on_report(self.epoch, "trial_ok", self._settings.half_open_max_calls)
        self._go(BreakerEvent.PASSED, now)

    def _try_alone(self, now: float) -> None:
        self._go(BreakerEvent.TRY, now)
        self._is_alone = True
        self._granted = 1
        self._offer(now, True)

    def _give_back(self, now: float) -> None:
        unused = self._granted - self._spent
        if unused > 0 and now >= self._granted_at + UNUSED_AFTER_S:
            self._spent = self._granted
            self._on_report(self.epoch, "unused", unused)
            self._offer(now, False)

    def _go(self, event: BreakerEvent, now: float) -> None:
        self._enter(move(self.state, event), self.epoch + 1)
        self._open_until = now + self._settings.reset_timeout / 1000
        self._on_change(now)

    def _adopt(self, now: float, word: BreakerWord) -> None:
        """Take control's state as it stands: it may be several moves ahead, and is right when epochs tie."""
        before = (self.state, self.is_available)
        self._enter(word.state, word.epoch)
        self._open_until = now + word.open_for_s
        self._granted = word.grant
        self._granted_at = now
        if word.state is BreakerState.HALF_OPEN:
            self.is_available = word.grant > 0
        if (self.state, self.is_available) != before:
            self._on_change(now)

    def _enter(self, state: BreakerState, epoch: int) -> None:
        if self.state is _CLOSED:
            self._last_since = self._last_trial + 1
            self._last_runs = False
            self._last_passed = 0
        self.state = state
        self.epoch = epoch
        self.failures = 0
        self.is_available = state is BreakerState.CLOSED
        self._stay += 1
        self._is_alone = False
        self._granted = self._spent = self._passed = 0

    def _offer(self, now: float, available: bool) -> None:
        if available is not self.is_available:
            self.is_available = available
            self._on_change(now)

    def _repeat(self) -> None:
        """Say again how this breaker got ahead of control; reports are totals, so twice is harmless."""
        if self.state is BreakerState.CLOSED:
            self._on_report(self.epoch - 1, "trial_ok", self._settings.half_open_max_calls)
            return
        was_closed = self.epoch - (1 if self.state is BreakerState.OPEN else 2)
        self._on_report(was_closed, "opened", self._settings.failure_threshold)
