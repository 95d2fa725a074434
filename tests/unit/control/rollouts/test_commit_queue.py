"""Facts share transactions, and stand or fall each for itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.control.rollouts.commit_queue import CommitQueue
from gateway.core.rollout.events import Event, GatePassed, ShutdownDone
from gateway.errors import IllegalTransition, StoreError


class SlowStore:
    """A store whose commits wait until they are let through."""

    def __init__(self) -> None:
        self.committing = asyncio.Semaphore(0)
        self.may_commit = asyncio.Event()
        self.error: StoreError | None = None
        self.opened = 0
        self._callbacks: list[Callable[[], object]] = []

    @asynccontextmanager
    async def transaction(self, *, urgent: bool = False) -> AsyncIterator["SlowStore"]:
        self.opened += 1
        self._callbacks = []
        await asyncio.sleep(0)
        yield self
        self.committing.release()
        await self.may_commit.wait()
        if self.error is not None:
            raise self.error
        for callback in self._callbacks:
            callback()

    def on_commit(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)


class Moves:
    """What was moved: (rollout, event)."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Event]] = []
        self.illegal: set[str] = set()

    def __call__(self, tx: Any, rollout: str, event: Event) -> None:
        if rollout in self.illegal:
            raise IllegalTransition(f"{rollout} cannot")
        self.made.append((rollout, event))


def queue(store: Any, moves: Moves) -> CommitQueue[str]:
    return CommitQueue(store, moves)


async def test_what_comes_together_is_committed_together() -> None:
    store, moves = SlowStore(), Moves()
    store.may_commit.set()
    commits = queue(store, moves)
    await asyncio.gather(*(commits.commit(name, GatePassed()) for name in "abc"))
    assert [name for name, _ in moves.made] == ["a", "b", "c"]
    assert store.opened == 1


async def test_two_facts_of_one_rollout_are_committed_one_after_the_other() -> None:
    """The second moves from where the first one led to, and that is known after its commit."""
    store, moves = SlowStore(), Moves()
    store.may_commit.set()
    commits = queue(store, moves)
    await asyncio.gather(commits.commit("a", GatePassed()), commits.commit("a", ShutdownDone()))
    assert moves.made == [("a", GatePassed()), ("a", ShutdownDone())]
    assert store.opened == 2


async def test_a_fact_without_a_move_keeps_no_other_from_being_committed() -> None:
    store, moves = SlowStore(), Moves()
    store.may_commit.set()
    moves.illegal.add("a")
    commits = queue(store, moves)
    found = await asyncio.gather(
        *(commits.commit(name, GatePassed()) for name in "ab"), return_exceptions=True
    )
    assert isinstance(found[0], IllegalTransition)
    assert found[1] is None
    assert moves.made == [("b", GatePassed())]


async def test_who_gives_up_keeps_no_other_from_being_committed() -> None:
    """An act may be dropped while its event is on its way with others'."""
    store, moves = SlowStore(), Moves()
    commits = queue(store, moves)
    async with commits._turn:
        leader, follower = (asyncio.ensure_future(commits.commit(name, GatePassed())) for name in "ab")
        await asyncio.sleep(0)
    await store.committing.acquire()
    assert [name for name, _ in moves.made] == ["a", "b"]
    follower.cancel()
    store.may_commit.set()
    await leader
    with pytest.raises(asyncio.CancelledError):
        await follower
    await commits.commit("c", GatePassed())
    assert store.opened == 2


async def test_each_learns_that_the_store_fails_and_nothing_is_kept() -> None:
    store, moves = SlowStore(), Moves()
    store.may_commit.set()
    store.error = StoreError("disk full")
    commits = queue(store, moves)
    found = await asyncio.gather(
        *(commits.commit(name, GatePassed()) for name in "ab"), return_exceptions=True
    )
    assert [type(each) for each in found] == [StoreError, StoreError]
    store.error = None
    moves.made.clear()
    await commits.commit("c", GatePassed())
    assert moves.made == [("c", GatePassed())]
