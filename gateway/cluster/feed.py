"""Follows the store: hears of commits at once where it can, looks every two seconds anyway.

Memory is caught up in the writer's turn, and as each transaction of this gateway begins: what somebody orders
here is decided by what is stored. That the workers go by it comes after, and is waited for by no writer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Final, Protocol

from gateway.cluster.unread import Unread, unread
from gateway.core.rollout.isolation import Lease
from gateway.errors import GatewayError, NotFollowed, StoreError
from gateway.log import get_logger
from gateway.store.records import Changes, Position

log = get_logger(component="cluster")

LOOK_S: Final = 2.0
"""How often it looks unasked: a notification may be lost with the session that it came on."""


class Changing(Protocol):
    """What is followed."""

    known: Position | None
    catch_up: Callable[[], Awaitable[object]] | None

    def on_change(self, callback: Callable[[int], object]) -> None: ...
    async def changes(self, since: int) -> Changes: ...
    async def refresh(self) -> None: ...
    def turn(self) -> AbstractAsyncContextManager[None]: ...


class Feed:
    """How far one gateway has followed."""

    def __init__(
        self,
        store: Changing,
        read: Callable[[Unread], Awaitable[None]],
        apply: Callable[[], Awaitable[None]],
        on_applied: Callable[[], object] = lambda: None,
        caught_up: Callable[[Lease], object] = lambda lease: None,
    ) -> None:
        """read: takes into memory what it is told; what it raises leaves the gateway where it was, and it is
        told anew. apply: returns when the workers go by what is in memory. on_applied: called then.
        caught_up: told, each time, who was in charge when the store was as it has been read.
        """
        self._on_applied = on_applied
        self._store = store
        self._read = read
        self._caught_up = caught_up
        self._apply = apply
        self._wake = asyncio.Event()
        self._heard = inf
        """The newest revision that commits have said since the last look; inf: there may be another."""
        self._is_further = asyncio.Event()
        self.applied: Position | None = None
        """What the workers go by; None: nothing yet."""
        store.catch_up = self._catch_up
        store.on_change(self._hear)

    def _hear(self, revision: int) -> None:
        self._heard = max(self._heard, revision or inf)
        self._wake.set()

    async def run(self) -> None:
        """Follow for as long as this runs. A store that is away is asked again, and what cannot be followed
        is tried again.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_on(), name="feed")
            tasks.create_task(self._apply_on(), name="feed's tables")

    async def _look_on(self) -> None:
        while True:
            self._wake.clear()
            heard, self._heard = self._heard, 0
            try:
                if not await self._is_known(heard):
                    await self._store.refresh()
            except StoreError as exc:
                self._heard = inf
                if isinstance(exc, NotFollowed):
                    log.error("not_followed", error=str(exc), consequence="what was known stays in force")
            self._is_further.set()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                self._heard = inf

    async def _is_known(self, heard: float) -> bool:
        """Return whether a revision is in memory: our own commits are, once their turn has ended."""
        async with self._store.turn():
            return self._store.known is not None and heard <= self._store.known.revision

    async def _apply_on(self) -> None:
        while True:
            await self._is_further.wait()
            self._is_further.clear()
            await self.apply()

    def applied_revision(self) -> int | None:
        """Return which revision the workers go by; None: none yet."""
        return self.applied.revision if self.applied is not None else None

    async def look(self) -> None:
        """Catch up once, workers included. Raises StoreError."""
        await self._store.refresh()
        await self.apply()

    async def apply(self) -> None:
        """Have the workers go by what is in memory."""
        known = self._store.known
        if known != self.applied:
            await self._apply()
            self.applied = known
            self._on_applied()

    async def _catch_up(self) -> None:
        """Take memory to where the store is. Called in the writer's turn. Raises StoreError."""
        known = self._store.known
        found = await self._store.changes(known.revision if known is not None else 0)
        changed = unread(known, found)
        if changed:
            if changed.everything and known is not None:
                log.warning("reading_everything", was=known.revision, found=found.at.revision)
            try:
                await self._read(changed)
            except StoreError:
                raise
            except GatewayError as exc:
                raise NotFollowed(f"what another gateway has stored cannot be used here: {exc}") from exc
        self._store.known = found.at
        self._caught_up(found.lease)
