"""The event stream: what the store has, from where a client left off, then what happens next, in one order.

Each stream reads the store by event id and waits to be woken when something has been committed. So a client
sees every event once and in order, whether it was there when the event happened or not, and a slow one costs
no memory.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from gateway.admin.schemas import EventView, view
from gateway.store.api import Store
from gateway.store.records import EventRecord

HEARTBEAT_S: Final = 15.0
"""A comment this often keeps proxies from closing a quiet stream, and finds a client that has gone."""
RETRY_MS: Final = 2_000
"""How long a browser waits before it comes back."""
BATCH: Final = 100
STREAMS: Final = 100
"""Streams open at once; more are refused."""


class EventFeed:
    """Wakes the streams when events have been committed, and ends them at shutdown."""

    def __init__(self, store: Store, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.open = 0
        self.is_closed = False
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._waiting: set[asyncio.Event] = set()

    @property
    def is_full(self) -> bool:
        """Return whether one more stream would be too many."""
        return self.open >= STREAMS

    def wake(self) -> None:
        """Notify every stream: it looks again."""
        for event in self._waiting:
            event.set()

    def close(self) -> None:
        """End every stream in order."""
        self.is_closed = True
        self.wake()

    async def newest(self) -> int:
        """Return the id of the newest event: where a client that has seen nothing begins."""
        return await self._store.last_event_id()

    async def stream(
        self, after: int, service: str | None, is_valid: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """Yield the stream's bytes from the event after id `after` on.

        is_valid: asked at every heartbeat, however much happens, whether the client's token still holds;
        the stream ends when not.
        """
        woken, clock = asyncio.Event(), asyncio.get_running_loop().time
        next_beat = clock() + self._heartbeat_s
        self._waiting.add(woken)
        self.open += 1
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while not self.is_closed:
                if clock() >= next_beat:
                    if not await is_valid():
                        return
                    next_beat = clock() + self._heartbeat_s
                    yield b": still here\n\n"
                woken.clear()
                events = await self._store.events(after=after, limit=BATCH, service=service)
                if events:
                    after = events[-1].id
                    yield b"".join(encode_event(event) for event in events)
                else:
                    await self._rest(woken, next_beat)
        finally:
            self._waiting.discard(woken)
            self.open -= 1

    async def _rest(self, woken: asyncio.Event, until: float) -> None:
        """Wait to be woken. until: loop time; no longer than that."""
        try:
            async with asyncio.timeout_at(until):
                await woken.wait()
        except TimeoutError:
            return


def encode_event(record: EventRecord) -> bytes:
    """Return one event of text/event-stream. JSON has no raw line breaks, so it is one data line."""
    data = msgspec.json.encode(view(EventView, record))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (record.id, record.kind.encode(), data)
