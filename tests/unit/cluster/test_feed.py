"""A feed catches up, and is never further than what was read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.cluster.feed import Feed
from gateway.cluster.presence import Presence
from gateway.cluster.unread import ALL, Unread
from gateway.core.rollout.isolation import Lease
from gateway.errors import ConfigError, StoreUnreachable
from gateway.store.records import OF_SERVICE, Change, Changes, NodeRecord, Position


class Source:
    """A store that has what a test says."""

    def __init__(self) -> None:
        self.log = [Change(0, "", "", ())]
        self.is_away = False
        self.tell: Callable[[int], object] = lambda revision: None
        self.known: Position | None = None
        self.catch_up: Callable[[], Awaitable[object]] | None = None
        self.lock = asyncio.Lock()
        self.asked = 0
        self.beats: list[NodeRecord] = []

    def on_change(self, callback: Callable[[int], object]) -> None:
        self.tell = callback

    async def refresh(self) -> None:
        assert self.catch_up is not None
        async with self.turn():
            await self.catch_up()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self.lock:
            yield

    def commit(self, *topics: str) -> None:
        last = self.log[-1]
        self.log.append(Change(last.revision + 1, last.commit, f"c{last.revision + 1}", topics))

    async def changes(self, since: int) -> Changes:
        self.asked += 1
        if self.is_away:
            raise StoreUnreachable("away")
        newest = self.log[-1]
        log = tuple(each for each in self.log if each.revision >= since)
        return Changes(Position(1, newest.revision, newest.commit), log)

    async def beat(self, node: NodeRecord) -> None:
        if self.is_away:
            raise StoreUnreachable("away")
        self.beats.append(node)

    async def leave(self, node_id: str) -> None:
        if self.is_away:
            raise StoreUnreachable("away")
        self.beats = [each for each in self.beats if each.id != node_id]


async def applying() -> None:
    await asyncio.sleep(0)


async def test_what_could_not_be_read_is_read_again() -> None:
    source, read = Source(), list[Unread]()
    is_broken = True

    async def reading(what: Unread) -> None:
        read.append(what)
        if is_broken:
            raise StoreUnreachable("away")

    leases = list[Lease]()
    feed = Feed(source, reading, applying, caught_up=leases.append)
    with pytest.raises(StoreUnreachable):
        await feed.look()
    assert feed.applied is None
    assert leases == [], "it does not go by what is stored"
    is_broken = False
    await feed.look()
    assert leases == [Lease(0.0)]
    source.commit(OF_SERVICE + "auth")
    source.commit()
    await feed.look()
    await feed.look()
    assert read == [ALL, ALL, Unread(services=frozenset({"auth"}))]
    assert feed.applied == Position(1, 2, "c2")


async def test_what_cannot_be_followed_ends_nothing() -> None:
    source, tried = Source(), asyncio.Queue[Unread]()

    async def reading(what: Unread) -> None:
        await tried.put(what)
        if tried.qsize() == 1:
            raise ConfigError("service 'a': tls", "no such file")

    feed = Feed(source, reading, applying)
    running = asyncio.ensure_future(feed.run())
    async with asyncio.timeout(30):
        while tried.qsize() < 2:
            source.tell(0)
            await asyncio.sleep(0.01)
        while feed.applied != Position(1, 0, ""):
            await asyncio.sleep(0.01)
    running.cancel()


async def test_a_feed_hears_of_a_commit_and_lives_through_a_store_that_is_away() -> None:
    source, read = Source(), asyncio.Queue[Unread]()
    feed = Feed(source, read.put, applying)
    running = asyncio.ensure_future(feed.run())
    async with asyncio.timeout(30):
        assert await read.get() == ALL
        source.is_away = True
        source.commit(OF_SERVICE + "auth")
        asked = source.asked
        while source.asked == asked:
            source.tell(0)
            await asyncio.sleep(0)
        source.is_away = False
        source.tell(0)
        assert await read.get() == Unread(services=frozenset({"auth"}))
        source.commit(OF_SERVICE + "blog")
        assert await read.get() == Unread(services=frozenset({"blog"})), "unasked, when nothing is heard"
    running.cancel()


async def test_a_commit_of_our_own_is_not_read_and_is_applied_all_the_same() -> None:
    """The store has taken memory further by the time its turn ends; what is heard of it may come before."""
    source, read = Source(), asyncio.Queue[Unread]()
    feed = Feed(source, read.put, applying)
    running = asyncio.ensure_future(feed.run())
    async with asyncio.timeout(30):
        assert await read.get() == ALL
        async with source.turn():
            source.commit(OF_SERVICE + "auth")
            asked = source.asked
            source.tell(1)
            await asyncio.sleep(0.01)
            source.known = Position(1, 1, "c1")
        while feed.applied != source.known:
            await asyncio.sleep(0.01)
        assert source.asked == asked
        source.commit(OF_SERVICE + "blog")
        source.tell(1)
        source.tell(2)
        assert await read.get() == Unread(services=frozenset({"blog"}))
    running.cancel()


async def test_memory_does_not_wait_for_workers_that_are_slow() -> None:
    source, read, may_apply = Source(), asyncio.Queue[Unread](), asyncio.Event()

    async def slow() -> None:
        await may_apply.wait()

    feed = Feed(source, read.put, slow)
    running = asyncio.ensure_future(feed.run())
    async with asyncio.timeout(30):
        await read.get()
        source.commit(OF_SERVICE + "auth")
        source.tell(1)
        await read.get()
        assert feed.applied is None
        may_apply.set()
        while feed.applied_revision() != 1:
            await asyncio.sleep(0.01)
    running.cancel()


async def test_a_gateway_says_what_it_goes_by_whenever_it_is_heard() -> None:
    source = Source()
    node = NodeRecord(id="1", name="a", release="1", listen=(), admin="127.0.0.1:1")
    presence = Presence(source, node)
    await presence.say()
    presence.applied, presence.isolated_in_s = lambda: 7, lambda: 21.0
    presence.draining = lambda: ("v1",)
    source.is_away = True
    await presence.say()
    source.is_away = False
    await presence.say()
    assert [each.applied_revision for each in source.beats] == [None, 7]
    assert [each.isolated_in_s for each in source.beats] == [None, 21.0]
    assert [each.draining for each in source.beats] == [(), ("v1",)]
    source.is_away = True
    await presence.leave()
    source.is_away = False
    await presence.leave()
    assert source.beats == []
