"""Whose turn it is to write: one at a time, so many wait, and none for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, nullcontext
from typing import Final, TypeVar

from gateway.errors import StoreBusy

T = TypeVar("T")

QUEUE_S: Final = 2.5
"""How long a transaction waits for its turn. With the time one takes at most: five seconds to an answer."""
MAX_WAITING: Final = 128
"""Transactions that may wait for their turn."""


class Turns:
    """The order in which this process's transactions write."""

    def __init__(self, label: str) -> None:
        """label: what messages call the store."""
        self.lock = asyncio.Lock()
        self._line = asyncio.Lock()
        """Where all stand but the first: what is urgent goes before them."""
        self._label = label
        self._waiting = 0

    @asynccontextmanager
    async def next(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Wait for the turn, and have it for the block. Raises StoreBusy: too many wait, or for too long.

        urgent: after whoever has the turn and the first who waits for it, however many do.
        """
        if self._waiting >= MAX_WAITING and not urgent:
            raise StoreBusy(f"{self._label}: {self._waiting} changes wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(QUEUE_S), nullcontext() if urgent else self._line:
                await self.lock.acquire()
        except TimeoutError:
            raise StoreBusy(f"{self._label}: the changes before this one take too long") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self.lock.release()


async def to_the_end(work: Awaitable[T]) -> T:
    """Await `work`; if cancelled meanwhile, finish it first, so that its effect is whole and known."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody else will ask
        raise
