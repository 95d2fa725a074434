"""The gate of a service: holds requests while it is paused, and limits how many run at once."""

from collections import deque
from typing import Final, Protocol

from gateway.core.routing.service import ConcurrencySettings
from gateway.errors import Paused, PoolFull, Refused

HOLD_S: Final = 30.0
"""How long a paused service's requests are held."""
MAX_HELD: Final = 10_000
"""Requests held per worker; more are refused at once."""


class Guest(Protocol):
    """Who waits at the gate."""

    def on_admitted(self, gate: "Gate") -> None:
        """Your turn."""


class Gate:
    """One service's, in one worker; outlives table swaps.

    `enter` says whether to go on now; whoever entered (at once or by `on_admitted`) must `leave`.
    """

    __slots__ = ("_running", "_settings", "_waiting", "paused")

    def __init__(self) -> None:
        self.paused = False
        self._settings: ConcurrencySettings | None = None
        self._running = 0
        self._waiting: deque[Guest] = deque()

    @property
    def is_needed(self) -> bool:
        """Whether requests must pass here at all."""
        return self.paused or self._settings is not None or bool(self._waiting) or bool(self._running)

    def configure(self, settings: ConcurrencySettings | None, *, paused: bool) -> None:
        """Take the settings in force, and let in who may now go on."""
        self._settings = settings
        self.paused = paused
        self._let_in()

    def enter(self, guest: Guest) -> bool:
        """Return whether `guest` may go on now; False: it waits. Raises PoolFull if it may not even wait."""
        if not self.paused and not self._waiting and self._has_room:
            self._running += 1
            return True
        if len(self._waiting) >= self._queue_bound():
            raise self.refusal()
        self._waiting.append(guest)
        return False

    def leave(self) -> None:
        """Somebody who entered is done."""
        self._running -= 1
        if self._waiting:
            self._let_in()

    def give_up(self, guest: object) -> None:
        """`guest` no longer waits."""
        self._waiting = deque(each for each in self._waiting if each is not guest)

    def wait_s(self) -> float:
        """How long to wait at most."""
        if self.paused or self._settings is None:
            return HOLD_S
        return self._settings.queue_timeout / 1000

    def refusal(self) -> Refused:
        """Return why a guest is sent away."""
        if self.paused:
            return Paused("the service is paused for maintenance")
        return PoolFull("the service has as many requests as it may")

    @property
    def _has_room(self) -> bool:
        return self._settings is None or self._running < self._settings.limit

    def _queue_bound(self) -> int:
        if self.paused or self._settings is None:
            return MAX_HELD
        return self._settings.queue

    def _let_in(self) -> None:
        """Let waiting guests in, in the order they came."""
        while self._waiting and not self.paused and self._has_room:
            self._running += 1
            self._waiting.popleft().on_admitted(self)
