"""What acts end in, on its way into the store: what comes during a transaction shares the next one.

Many rollouts end an act in the same moment, as when every worker serves by one new table.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.core.rollout.events import Event
from gateway.errors import IllegalTransition
from gateway.store.api import Store, Transaction

Rollout = TypeVar("Rollout")


class _Waiting(Generic[Rollout]):
    """An event that waits to be committed."""

    def __init__(self, rollout: Rollout, event: Event, on_commit: Callable[[], None]) -> None:
        self.rollout = rollout
        self.event = event
        self.on_commit = on_commit
        self.is_over = False
        self.error: Exception | None = None
        """Why the rollout could not move by it."""


class CommitQueue(Generic[Rollout]):
    """The events of all rollouts that acts end in. move: puts what one leads to into a transaction."""

    def __init__(self, store: Store, move: Callable[[Transaction, Rollout, Event], object]) -> None:
        self._store = store
        self._move = move
        self._waiting: list[_Waiting[Rollout]] = []
        self._turn = asyncio.Lock()

    async def commit(
        self, rollout: Rollout, event: Event, on_commit: Callable[[], None] = lambda: None
    ) -> None:
        """Return once `event` is committed. Raises StoreError, or what `move` raises (IllegalTransition).

        on_commit: called as soon as it is in force; that it is on disk, too, may take longer.
        """
        mine = _Waiting(rollout, event, on_commit)
        self._waiting.append(mine)
        try:
            async with self._turn:
                while not mine.is_over:
                    await self._commit_waiting()
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error

    async def _commit_waiting(self) -> None:
        async with self._store.transaction(urgent=True) as tx:
            first: dict[Rollout, _Waiting[Rollout]] = {}  # what follows moves from where this one led to
            for waiting in self._waiting:
                first.setdefault(waiting.rollout, waiting)
            taken = tuple(first.values())
            for each in taken:
                self._take(tx, each)
            tx.on_commit(lambda: self._end(taken))

    def _take(self, tx: Transaction, waiting: _Waiting[Rollout]) -> None:
        """Move by one event; one that has no move keeps no other from being committed."""
        waiting.error = None
        try:
            self._move(tx, waiting.rollout, waiting.event)
        except (IllegalTransition, KeyError) as exc:
            waiting.error = exc

    def _end(self, taken: tuple[_Waiting[Rollout], ...]) -> None:
        for each in taken:
            each.is_over = True
            each.on_commit()
        self._waiting = [each for each in self._waiting if not each.is_over]
