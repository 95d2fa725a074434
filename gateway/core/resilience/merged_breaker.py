"""One endpoint's breaker as control sees it: every worker's reports added up, and trial calls shared out.

The workers' own breakers (`core.breaker`) act at once and alone; this one makes them agree. It sees runs of
failures no single worker sees, owns the epochs, and decides who makes the trial calls. Reports carry totals,
not differences, so a repeated one changes nothing; what is lost with a worker or with control is made good by
the next word either way.
"""

from collections.abc import Collection, Iterable
from typing import Final

from gateway.core.resilience.breaker import BreakerEvent, BreakerState, BreakerWord, move
from gateway.core.settings.resilience import BreakerSettings

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

_SPEAKS_IN = {
    "failures": CLOSED,
    "success": CLOSED,
    "opened": CLOSED,
    "trial_ok": HALF_OPEN,
    "trial_failed": HALF_OPEN,
    "unused": HALF_OPEN,
}
"""The state a worker's breaker was in when it made a report of this kind."""

FRESH_S: Final = 10.0
"""How long a worker's run of failures counts without a new one."""
LOST_AFTER_S: Final = 60.0
"""A trial call nobody has accounted for is made by somebody else after this long: its report was lost."""


class MergedBreaker:
    """Control's breaker of one endpoint.

    Workers are named by numbers ("slots") that no two of them share, nor any has had before: a successor
    counts from nothing. All times are monotonic seconds. state, epoch, open_until, failures, last_failure_at:
    as stored, after a restart of control. A stored HALF_OPEN begins a new epoch, because nobody knows which
    of its trial calls were made.
    """

    __slots__ = (
        "_before",
        "_given",
        "_given_at",
        "_heard_at",
        "_last",
        "_passed",
        "_passed_by_gone",
        "_returned",
        "_runs",
        "_settings",
        "_slots",
        "_tripped_by",
        "epoch",
        "last_failure_at",
        "open_until",
        "state",
    )

    def __init__(
        self,
        settings: BreakerSettings,
        *,
        state: BreakerState = CLOSED,
        epoch: int = 0,
        open_until: float = 0.0,
        failures: int = 0,
        last_failure_at: float | None = None,
    ) -> None:
        self.state = state
        self.epoch = epoch + 1 if state is HALF_OPEN else epoch
        self.open_until = open_until
        """OPEN: when trial calls begin."""
        self.last_failure_at = last_failure_at
        self._settings = settings
        self._slots: tuple[int, ...] = ()
        """Workers that trial calls may be given to."""
        self._last = -1
        """The slot that was given a trial call last."""
        self._runs: dict[int, tuple[int, int]] = {}
        """CLOSED: slot -> (its failures since its last success, of those before another worker's success)."""
        self._heard_at: dict[int, float] = {}
        self._tripped_by = failures
        self._before = failures if state is CLOSED else 0
        """CLOSED: failures in a row before a restart; shown, but the workers that live say theirs again."""
        self._given: dict[int, int] = {}
        """HALF_OPEN: slot -> trial calls given to it in this epoch, in total."""
        self._given_at: dict[int, float] = {}
        self._returned: dict[int, int] = {}
        self._passed: dict[int, int] = {}
        self._passed_by_gone = 0

    @property
    def failures(self) -> int:
        """Failures in a row, over all workers; while not CLOSED, those that opened it."""
        if self.state is not CLOSED:
            return self._tripped_by
        return max(self._in_a_row(), self._before)

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Take new settings; they hold from the next report on."""
        self._settings = settings

    def word(self, now: float, slot: int) -> BreakerWord:
        """Return what to send the worker of `slot`."""
        open_for_s = max(self.open_until - now, 0.0) if self.state is OPEN else 0.0
        return BreakerWord(self.epoch, self.state, self._given.get(slot, 0), open_for_s)

    def report(self, now: float, slot: int, *, epoch: int, kind: str, count: int) -> bool:
        """Take what a worker reports. Returns whether the workers must be notified (and the state stored)."""
        said_in = _SPEAKS_IN[kind]
        if kind in ("failures", "opened", "trial_failed"):
            self.last_failure_at = now
        if epoch < self.epoch:
            return False
        is_other = said_in is not self.state
        is_news = epoch > self.epoch or (is_other and self._has_moved(kind, count))
        if is_news:
            self._enter(said_in, epoch)
        elif is_other:
            return True
        hear = self._heard_closed if said_in is CLOSED else self._heard_trial
        return hear(now, slot, kind, count) or is_news

    def tick(self, now: float, slots: Iterable[int], leaving: Iterable[int] = ()) -> bool:
        """Let time pass. Returns whether the workers must be notified.

        slots: the workers that live, and get trial calls. leaving: those that only finish what they have.
        """
        self._slots = tuple(sorted(slots))
        self._forget_all_but({*self._slots, *leaving})
        self._forget_stale(now)
        if self.state is OPEN and now >= self.open_until:
            self._go(BreakerEvent.TRY, now)
            self._share_out(now)
            return True
        return self.state is HALF_OPEN and self._share_out(now)

    def gone(self, slot: int) -> None:
        """Forget a worker that has died: its trial calls are free, and its successor starts from nothing."""
        self._passed_by_gone += self._passed.pop(slot, 0)
        for each in (self._runs, self._heard_at, self._given, self._given_at, self._returned):
            each.pop(slot, None)

    def _in_a_row(self) -> int:
        return sum(run - before for run, before in self._runs.values())

    def _has_moved(self, kind: str, count: int) -> bool:
        """Return whether a worker moves on after such a report: it is a move ahead then, and is believed."""
        closed_alone = kind == "trial_ok" and count >= self._settings.half_open_max_calls
        return closed_alone or kind in ("opened", "trial_failed")

    def _heard_closed(self, now: float, slot: int, kind: str, count: int) -> bool:
        if kind == "success":
            self._runs = {other: (run, run) for other, (run, _) in self._runs.items() if other != slot}
            self._before = 0
            return False
        self._forget_stale(now)
        run, before = self._runs.get(slot, (0, 0))
        self._runs[slot] = (count, before if count >= run else 0)
        self._heard_at[slot] = now
        if kind == "failures" and self._in_a_row() < self._settings.failure_threshold:
            return False
        self._tripped_by = max(self._in_a_row(), count)
        self._go(BreakerEvent.TRIP, now)
        return True

    def _heard_trial(self, now: float, slot: int, kind: str, count: int) -> bool:
        if kind == "trial_failed":
            self._go(BreakerEvent.FAILED, now)
            return True
        if kind == "unused":
            self._returned[slot] = self._returned.get(slot, 0) + count
            return self._share_out(now)
        self._passed[slot] = max(self._passed.get(slot, 0), count)
        if self._good_calls() < self._settings.half_open_max_calls:
            return False
        self._go(BreakerEvent.PASSED, now)
        return True

    def _share_out(self, now: float) -> bool:
        """Give the trial calls that are with nobody to the workers in turn. Returns whether any were."""
        if not self._slots:
            return False
        free = self._settings.half_open_max_calls - self._good_calls()
        free -= sum(self._outstanding(now, slot) for slot in self._given)
        for _ in range(free):
            slot = next((each for each in self._slots if each > self._last), self._slots[0])
            self._last = slot
            self._given[slot] = self._given.get(slot, 0) + 1
            self._given_at[slot] = now
        return free > 0

    def _outstanding(self, now: float, slot: int) -> int:
        """Return how many trial calls are with a worker; those it has kept too long are taken from it."""
        accounted = self._returned.get(slot, 0) + self._passed.get(slot, 0)
        out = max(self._given[slot] - accounted, 0)
        if out and now - self._given_at[slot] > LOST_AFTER_S:
            self._returned[slot] = self._returned.get(slot, 0) + out
            return 0
        return out

    def _good_calls(self) -> int:
        return sum(self._passed.values()) + self._passed_by_gone

    def _forget_all_but(self, slots: Collection[int]) -> None:
        for slot in {*self._runs, *self._given, *self._passed} - set(slots):
            self.gone(slot)

    def _forget_stale(self, now: float) -> None:
        """Drop runs so old that other workers' successes, which nobody reports, have surely come between."""
        for slot in [each for each, heard_at in self._heard_at.items() if now - heard_at > FRESH_S]:
            self._runs.pop(slot, None)
            del self._heard_at[slot]
        if self._before and (self.last_failure_at is None or now - self.last_failure_at > FRESH_S):
            self._before = 0

    def _go(self, event: BreakerEvent, now: float) -> None:
        self._enter(move(self.state, event), self.epoch + 1)
        self.open_until = now + self._settings.reset_timeout / 1000

    def _enter(self, state: BreakerState, epoch: int) -> None:
        self.state = state
        self.epoch = epoch
        self._before = 0
        self._runs.clear()
        self._heard_at.clear()
        self._given.clear()
        self._given_at.clear()
        self._returned.clear()
        self._passed.clear()
        self._passed_by_gone = 0
