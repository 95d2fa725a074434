"""May this attempt be sent again, and is there budget for it?"""

from typing import Final

from gateway.core.settings.resilience import RetrySettings
from gateway.structs import Value

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods whose effect is the same once or twice (RFC 9110 §9.2.2)."""

WINDOW_S: Final = 10
"""Over how many seconds requests earn retries."""
WHOLE: Final = 100
"""One retry in the budget's units, so that a percentage of a request is an integer."""


class RetryPolicy(Value, frozen=True):
    """`RetrySettings`, ready to ask."""

    attempts: int
    on: frozenset[str]
    body_bytes: int

    def can_retry(
        self,
        *,
        attempts: int,
        kind: str,
        sent: bool,
        method: str,
        body_at_hand: bool,
        response_started: bool,
    ) -> bool:
        """Return whether a failed attempt may be made again; the budget is asked separately, last.

        attempts: made so far, the failed one included. kind: `connect`, `reset`, `timeout`, or the status
        (`503`). sent: whether any byte of the request reached an upstream. response_started: whether any
        reached the client.
        """
        if response_started or attempts >= self.attempts or kind not in self.on:
            return False
        if not sent:
            return True
        return body_at_hand and method in IDEMPOTENT


def compile_retry(settings: RetrySettings | bool) -> RetryPolicy | None:
    """Return the policy of `settings`; `true` is the defaults, `false` no retries (None)."""
    if isinstance(settings, bool):
        return compile_retry(RetrySettings()) if settings else None
    return RetryPolicy(settings.attempts, frozenset(settings.on), settings.body_bytes)


class RetryBudget:
    """How many retries one service may make in one worker, so that a storm is not made worse by us.

    At any moment the retries of the last ten seconds are at most `percent` of the requests of those seconds,
    plus, per second, this worker's part of `min_per_second`. Under a storm: attempts <= (1 + percent/100) x
    requests + min_per_second x seconds.
    """

    __slots__ = (
        "_floor",
        "_floor_per_s",
        "_next_at",
        "_now",
        "_percent",
        "_requests",
        "_retries",
        "_second",
        "_spent",
        "_window",
    )

    def __init__(self, *, percent: float, min_per_second: int, workers: int = 1) -> None:
        self._percent = percent
        self._floor_per_s = min_per_second * WHOLE // max(workers, 1)
        self._floor = max(self._floor_per_s, WHOLE if min_per_second else 0)
        self._second = 0
        self._next_at = 1.0
        """When that second is over."""
        self._now = 0
        """Requests of that second, not in the ring yet."""
        self._requests = [0] * WINDOW_S
        self._retries = [0] * WINDOW_S
        self._window = 0
        """Requests in the ring."""
        self._spent = 0
        """Retries in the ring that the percentage paid for."""

    def on_request(self, now: float) -> None:
        """Earn: a client's request has come in."""
        if now >= self._next_at:
            self._roll(int(now))
        self._now += 1

    def has_one(self, now: float) -> bool:
        """Return whether `take` would give one now."""
        if now >= self._next_at:
            self._roll(int(now))
        return self._is_earned or self._floor >= WHOLE

    @property
    def _is_earned(self) -> bool:
        """Whether the percentage pays for one more."""
        return (self._spent + 1) * WHOLE <= self._percent * (self._window + self._now)

    def take(self, now: float) -> bool:
        """Spend one retry if there is one."""
        if now >= self._next_at:
            self._roll(int(now))
        if self._is_earned:
            self._spent += 1
            self._retries[self._second % WINDOW_S] += 1
            return True
        if self._floor >= WHOLE:
            self._floor -= WHOLE
            return True
        return False

    def _roll(self, second: int) -> None:
        """Forget the seconds that have left the window, and earn the floor of those that came."""
        passed = second - self._second
        self._requests[self._second % WINDOW_S] += self._now
        self._window += self._now
        self._now = 0
        for stale in range(self._second + 1, self._second + 1 + min(passed, WINDOW_S)):
            index = stale % WINDOW_S
            self._window -= self._requests[index]
            self._spent -= self._retries[index]
            self._requests[index] = self._retries[index] = 0
        self._second = second
        self._next_at = second + 1.0
        # Whole retries of earlier seconds are lost, what is left of one is kept: 2.5 a second is five in two.
        self._floor = min(self._floor + passed * self._floor_per_s, self._floor_per_s + WHOLE - 1)
