"""Follows the store: hears of commits at once where it can, looks every two seconds anyway."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from gateway.cluster.unread import Unread, unread
from gateway.core.rollout.isolation import Lease
from gateway.errors import GatewayError, StoreUnreachable
from gateway.log import get_logger
from gateway.store.records import Changes, Position

log = get_logger(component="cluster")

LOOK_S: Final = 2.0
"""How often it looks unasked: a notification may be lost with the session that it came on."""


class Changing(Protocol):
    """What is followed."""

    def on_change(self, callback: Callable[[], object]) -> None: ...
    async def changes(self, since: int) -> Changes: ...


class Feed:
    """How far one gateway has followed."""

    def __init__(
        self,
        store: Changing,
        read: Callable[[Unread], Awaitable[None]],
        on_applied: Callable[[], object] = lambda: None,
        caught_up: Callable[[Lease], object] = lambda lease: None,
    ) -> None:
        """read: reads again what it is told; what it raises leaves the gateway where it was, and it is
        told anew. on_applied: called when it has read something. caught_up: told, each time, who was in
        charge when the store was as it has been read.
        """
        self._on_applied = on_applied
        self._store = store
        self._read = read
        self._caught_up = caught_up
        self._wake = asyncio.Event()
        self.applied: Position | None = None
        """Where memory is; None: nowhere yet."""
        store.on_change(self._wake.set)

    async def run(self) -> None:
        """Follow for as long as this runs. A store that is away is asked again, and what cannot be followed
        is tried again.
        """
        while True:
            self._wake.clear()
            try:
                await self.look()
            except StoreUnreachable:
                pass
            except GatewayError as exc:
                log.error("not_followed", error=str(exc), consequence="what was followed last stays in force")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def look(self) -> None:
        """Catch up once. Raises StoreError, and what reading raises."""
        found = await self._store.changes(self.applied.revision if self.applied is not None else 0)
        changed = unread(self.applied, found)
        if changed:
            if changed.everything and self.applied is not None:
                log.warning("reading_everything", was=self.applied.revision, found=found.at.revision)
            await self._read(changed)
        was, self.applied = self.applied, found.at
        if was != self.applied:
            self._on_applied()
        self._caught_up(found.lease)
