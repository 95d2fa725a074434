"""Says that this gateway lives, once a second, to whoever shares its database."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from msgspec.structs import replace

from gateway.errors import StoreError
from gateway.store.records import ANY_VERSION, NodeRecord

BEAT_S: Final = 1.0


class Members(Protocol):
    """Where it is said."""

    async def beat(self, node: NodeRecord) -> None: ...
    async def leave(self, node_id: str) -> None: ...


class Presence:
    """This gateway among those that share its store."""

    def __init__(self, store: Members, node: NodeRecord, *, is_alone: bool = False) -> None:
        """node: what stays the same for as long as this process lives. is_alone: nobody else can look."""
        self._store = store
        self.node = node
        self.is_alone = is_alone
        self.applied: Callable[[], int | None] = lambda: None
        """Which revision it goes by now; None: it is a stand-by."""
        self.isolated_in_s: Callable[[], float | None] = lambda: None
        """How soon it is isolated; None: never."""
        self.draining: Callable[[], tuple[str, ...]] = lambda: ()
        """The versions that drain and where requests may still run here, by id."""
        self._is_stopping = False
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Say it soon: somebody may wait for the revision that it goes by now."""
        self._hurry.set()

    async def say(self) -> None:
        """Say it once; a store that cannot hear it now hears it later."""
        with suppress(StoreError):
            await self._store.beat(self._said())

    def _said(self) -> NodeRecord:
        if self._is_stopping:
            return replace(self.node, draining=(ANY_VERSION,))
        return replace(
            self.node,
            applied_revision=self.applied(),
            isolated_in_s=self.isolated_in_s(),
            draining=self.draining(),
        )

    async def run(self) -> None:
        """Say it for as long as this runs; once, if nobody else can look."""
        await self.say()
        while not self.is_alone:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._hurry.wait()
            self._hurry.clear()
            await self.say()

    async def stopping(self) -> None:
        """Say, from now on, that it ends: its weights are waited for no more, what it still runs is."""
        self._is_stopping = True
        await self.say()

    async def leave(self) -> None:
        """Say that it has ended, and is not to be waited for."""
        with suppress(StoreError):
            await self._store.leave(self.node.id)
