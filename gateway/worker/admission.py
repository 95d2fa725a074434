"""Admission to a service: holds requests while it is paused, and limits how many run at once."""

import asyncio
from collections import OrderedDict
from typing import Final, Protocol

from gateway.core.routing.service import ConcurrencySettings
from gateway.errors import Paused, PoolFull, Refused

HOLD_S: Final = 30.0
"""How long a paused service's requests are held."""
MAX_HELD: Final = 10_000
"""Requests held per worker; more are refused at once."""
WOKEN_AT_ONCE: Final = 100
"""Held requests let in before others get their turn on the loop: about 5 ms."""


class Waiter(Protocol):
    """A request that is held."""

    def on_admitted(self, admission: "Admission") -> None:
        """Your turn."""


class Admission:
    """One service's, in one worker; outlives table swaps.

    `enter` says whether to go on now; whoever entered (at once or by `on_admitted`) must `leave`.
    """

    __slots__ = ("_is_waking", "_running", "_settings", "_waiting", "paused")

    def __init__(self) -> None:
        self.paused = False
        self._settings: ConcurrencySettings | None = None
        self._running = 0
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        """In the order they came; out of turn is as quick as in turn, which a plain dict is not."""
        self._is_waking = False

    @property
    def is_needed(self) -> bool:
        """Whether requests must ask here at all."""
        return self.paused or self._settings is not None or not self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether nobody runs or waits here."""
        return not self._running and not self._waiting

    def configure(self, settings: ConcurrencySettings | None, *, paused: bool) -> None:
        """Take the settings in force; `wake` lets in who may go on by them."""
        self._settings = settings
        self.paused = paused

    def enter(self, waiter: Waiter) -> bool:
        """Return whether `waiter` may go on now; False: it waits. Raises Refused if it may not even wait."""
        if not self.paused and not self._waiting and self._has_room:
            self._running += 1
            return True
        if len(self._waiting) >= self._queue_bound():
            raise self.refusal()
        self._waiting[waiter] = None
        return False

    def leave(self) -> None:
        """Somebody who entered is done."""
        self._running -= 1
        if self._waiting:
            self.wake()

    def give_up(self, waiter: Waiter) -> None:
        """`waiter` no longer waits."""
        self._waiting.pop(waiter, None)

    def wake(self) -> None:
        """Let waiting requests in, in the order they came, some now and the others soon.

        One that is refused leaves from within its `on_admitted`: this loop goes on then, rather than another
        in each that is woken.
        """
        if self._is_waking:
            return
        self._is_waking = True
        try:
            for _ in range(WOKEN_AT_ONCE):
                if not self._waiting or self.paused or not self._has_room:
                    return
                waiter, _ = self._waiting.popitem(last=False)
                self._running += 1
                waiter.on_admitted(self)
        finally:
            self._is_waking = False
        asyncio.get_running_loop().call_soon(self.wake)

    def wait_s(self) -> float:
        """How long to wait at most."""
        if self.paused or self._settings is None:
            return HOLD_S
        return self._settings.queue_timeout / 1000

    def refusal(self) -> Refused:
        """Return why a request is not let in."""
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
