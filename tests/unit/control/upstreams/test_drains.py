"""Drains of versions: marked first, over when workers say so, and never lost to a restart or a full disk."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.control.upstreams import drains as module
from gateway.control.upstreams import drains_elsewhere as elsewhere
from gateway.control.upstreams import emptying
from gateway.control.upstreams.drains import Drains
from gateway.control.upstreams.drains_elsewhere import Others
from gateway.errors import StaleEpoch, StoreError, StoreUnreachable
from gateway.link.messages import EndpointLoad
from gateway.store.records import NodeState, VersionRecord
from tests.unit.control.world import START, FakeHub, World
from tests.unit.store.rows import a_node

KEY = "v1|url|address"


class Hub(FakeHub):
    """Workers that report, or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.reported = True
        self.forced = 0
        self.forgotten: list[str] = []

    def drain_state(self, keys: Iterable[str]) -> Mapping[str, EndpointLoad]:
        if not self.reported:
            return {}
        return {key: EndpointLoad(key, self.in_flight, 1, 500, self.forced) for key in keys}

    def forget_endpoints(self, keys: Iterable[str]) -> None:
        self.forgotten += keys


class Room:
    """A world's drains, with a wall clock moved by hand."""

    def __init__(self, world: World, others: Others | None = None) -> None:
        self.world = world
        self.hub = Hub()
        self.time = START
        self.drains = Drains(world.store, world.catalog, self.hub, others, now=self.now)

    def now(self) -> datetime:
        return self.time

    @property
    def record(self) -> VersionRecord:
        return self.world.catalog.version_record("v1")

    async def stored(self) -> VersionRecord:
        return {record.id: record for record in await self.world.store.load_versions()}["v1"]

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(event.kind, event.data) for event in await self.world.store.events(after=0, limit=100)]

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def room(path: Path, others: Others | None = None) -> AsyncIterator[Room]:
    world = await World(path).open()
    if others is not None:
        world.store.is_shared = True
    made = Room(world, others)
    try:
        yield made
    finally:
        await made.drains.stop()
        await world.close()


async def test_a_drain_is_stored_told_and_ends_when_nothing_runs(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.hub.in_flight = 2
        task = it.drains.begin("v1", 60_000)
        await it.until(lambda: it.hub.drained)
        assert (await it.stored()).drain_deadline == START + timedelta(seconds=60)
        assert it.record.weight == 0
        state = it.drains.state("v1")
        assert (state.state, state.in_flight, state.streams, state.oldest_ms) == ("draining", 2, 1, 500)
        assert not state.safe_to_stop
        assert it.hub.drained == [((KEY,), 60.0)]
        assert it.world.catalog.published, "workers hear of it before they are given the deadline"
        it.hub.in_flight = 0
        await task
        assert (await it.stored()).drained
        state = it.drains.state("v1")
        assert (state.state, state.in_flight, state.safe_to_stop) == ("drained", 0, True)
        assert [kind for kind, _ in await it.events()] == ["version.draining", "version.drained"]
        assert it.hub.forgotten == [KEY]


async def test_silence_is_not_emptiness(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.hub.reported = False
        task = it.drains.begin("v1", 60_000)
        await it.until(lambda: it.hub.drained)
        await asyncio.wait({task}, timeout=3 * emptying.REPORT_S)
        assert not task.done()
        it.hub.reported = True
        await task


async def test_at_the_deadline_it_ends_and_says_what_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emptying, "GRACE_S", 0.05)
    async with room(tmp_path) as it:
        it.hub.in_flight, it.hub.forced = 1, 3
        await it.drains.drain("v1", 0)
        assert (await it.events())[-1] == ("version.drained", {"forced": 3})


async def test_asking_twice_joins_the_drain_under_way(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.hub.in_flight = 1
        task = it.drains.begin("v1", 60_000)
        assert it.drains.begin("v1", 5_000) is task
        it.hub.in_flight = 0
        await asyncio.gather(it.drains.drain("v1", 1), task)
        assert (await it.stored()).drain_deadline == START + timedelta(seconds=60)


async def test_a_version_that_is_called_back_is_not_drained(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.hub.in_flight = 1
        task = it.drains.begin("v1", 60_000)
        await it.until(lambda: it.hub.drained)
        it.drains.call_back("v1")
        await task
        assert not (await it.stored()).drained
        assert it.hub.forgotten == [KEY]
        it.drains.call_back("v1")  # nobody drains: nothing to call back


async def test_a_drain_that_is_called_back_is_forgotten_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose link was cut was waited for, came back, and was told of the drain once more: it said
    goodbye to the WebSockets of a version that goes on.
    """
    async with room(tmp_path) as it:
        may_go_on = asyncio.Event()

        async def applied(number: int, timeout_s: float) -> list[int]:
            await may_go_on.wait()
            return []

        monkeypatch.setattr(it.hub, "applied", applied)
        task = it.drains.begin("v1", 60_000)
        await it.until(lambda: it.hub.drained)
        it.drains.call_back("v1")
        assert it.hub.forgotten == [KEY]
        may_go_on.set()
        await task
        assert it.hub.forgotten == [KEY]


async def test_a_version_that_is_called_back_before_its_drain_is_stored_keeps_its_weight(
    tmp_path: Path,
) -> None:
    """Completed, and undone a moment later: the drain came to the store after the rollback, took the weight
    of the version that had just got all traffic back, and left the service without any.
    """
    async with room(tmp_path) as it:
        weight = it.record.weight
        async with it.world.store.transaction():
            task = it.drains.begin("v1", 60_000)
            await asyncio.sleep(0)
            it.drains.call_back("v1")
        await task
        assert (it.record.weight, it.record.draining) == (weight, False)
        assert not it.hub.drained


class Slow:
    """A disk that takes its time for a commit."""

    def __init__(self, world: World) -> None:
        self.is_committing = asyncio.Event()
        self.is_done = asyncio.Event()
        self._transaction = world.store.transaction

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self._transaction() as tx:
            yield tx
            self.is_committing.set()
            await self.is_done.wait()


async def test_a_version_that_is_called_back_while_its_drain_is_stored_sends_nobody_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of its drain went to the workers behind the table that had called it back: they said
    goodbye to the WebSockets of a version that goes on.
    """
    async with room(tmp_path) as it:
        disk = Slow(it.world)
        monkeypatch.setattr(it.world.store, "transaction", disk.transaction)
        task = it.drains.begin("v1", 60_000)
        await disk.is_committing.wait()
        it.drains.call_back("v1")
        disk.is_done.set()
        await task
        assert not it.hub.drained
        assert it.hub.forgotten == [KEY]


async def test_what_runs_has_all_of_its_time_however_long_the_disk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored after its deadline, a drain cut at once what nobody had told to end."""
    async with room(tmp_path) as it:
        disk = Slow(it.world)
        monkeypatch.setattr(it.world.store, "transaction", disk.transaction)
        it.drains.begin("v1", 2_000)
        await disk.is_committing.wait()
        it.time = START + timedelta(seconds=3)
        disk.is_done.set()
        await it.until(lambda: it.hub.drained)
        assert it.hub.drained == [((KEY,), 2.0)]


async def test_a_drain_may_be_called_back_before_it_has_begun_to_run(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        task = it.drains.begin("v1", 60_000)
        it.drains.call_back("v1")
        await task
        assert not it.record.draining


async def test_a_drain_asked_for_behind_one_that_was_called_back_is_a_new_one(tmp_path: Path) -> None:
    """Who asked again was given the one that just ended, and took the version for drained."""
    async with room(tmp_path) as it:
        it.hub.in_flight = 1
        first = it.drains.begin("v1", 60_000)
        await it.until(lambda: it.hub.drained)
        it.drains.call_back("v1")
        second = it.drains.begin("v1", 60_000)
        await first
        assert not (await it.stored()).drained
        it.hub.in_flight = 0
        await second
        assert (await it.stored()).drained


async def test_who_waits_for_a_drain_may_leave_without_ending_it(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.hub.in_flight = 1
        waiter = asyncio.ensure_future(it.drains.drain("v1", 60_000))
        await it.until(lambda: it.hub.drained)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        it.hub.in_flight = 0
        await it.until(lambda: it.record.drained)


async def test_a_restart_goes_on_with_the_time_that_is_left(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.hub.in_flight = 1
        it.drains.begin("v1", 60_000)
        await it.until(lambda: it.hub.drained)
        await it.drains.stop()
        assert not (await it.stored()).drained
        after = Room(it.world)
        after.time = START + timedelta(seconds=45)
        after.drains.recover(await it.world.store.load_versions())
        await after.until(lambda: after.hub.drained)
        assert after.hub.drained == [((KEY,), 15.0)]
        await after.until(lambda: after.record.drained and not after.drains._under_way)
        after.drains.recover(await it.world.store.load_versions())
        assert not after.drains._under_way, "what is drained is not drained again"


async def test_a_drain_that_was_called_back_and_not_stored_so_is_not_gone_on_with(tmp_path: Path) -> None:
    """A rollback needs no store: the old version has all traffic, and its row still says that it drains."""
    async with room(tmp_path) as it:
        it.hub.in_flight = 1
        it.drains.begin("v1", 60_000)
        await it.until(lambda: it.hub.drained)
        await it.drains.stop()
        after = Room(it.world)
        in_force = replace(after.record, weight=100, draining=False, drain_deadline=None)
        it.world.catalog.put_version(in_force)
        after.drains.recover(await it.world.store.load_versions())
        assert not after.drains._under_way
        assert (await it.stored()).draining
        assert after.record == in_force


class Full:
    """A disk that is full when a drain is to be settled."""

    def __init__(self, world: World, error: StoreError) -> None:
        self.error: StoreError | None = error
        self.refused = 0
        self._transaction = world.store.transaction
        self._catalog = world.catalog

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        was_draining = self._catalog.version_record("v1").draining
        async with self._transaction() as tx:
            yield tx
            if was_draining and self.error is not None:
                self.refused += 1
                raise self.error


async def test_a_full_disk_delays_the_end_of_a_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a drain that was over but never said so until the next restart."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    async with room(tmp_path) as it:
        full = Full(it.world, StoreError("gateway.db: disk is full"))
        monkeypatch.setattr(it.world.store, "transaction", full.transaction)
        task = it.drains.begin("v1", 60_000)
        await it.until(lambda: full.refused >= 3)
        assert not it.record.drained
        full.error = None
        await task
        assert (await it.stored()).drained


async def test_a_drain_that_the_next_control_takes_up_outlasts_a_store_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended for good as it began: of a drain that goes on nobody hears that the store has failed."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    monkeypatch.setattr(emptying, "GRACE_S", 0.05)
    async with room(tmp_path) as it:
        draining = replace(it.record, draining=True, drain_deadline=START, weight=0)
        async with it.world.store.transaction() as tx:
            tx.put_version(draining)
        it.world.catalog.put_version(draining)
        full = Full(it.world, StoreError("gateway.db: disk is full"))
        monkeypatch.setattr(it.world.store, "transaction", full.transaction)
        it.drains.recover([draining])
        await it.until(lambda: full.refused > 1)
        assert not it.record.drained
        full.error = None
        await it.until(lambda: it.record.drained)


async def test_a_control_that_was_replaced_leaves_the_drain_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(tmp_path) as it:
        full = Full(it.world, StaleEpoch("gateway.db: epoch 2 has begun"))
        monkeypatch.setattr(it.world.store, "transaction", full.transaction)
        with pytest.raises(StaleEpoch):
            await it.drains.drain("v1", 60_000)
        assert full.refused == 1
        full.error = None


# -- several gateways


class Elsewhere:
    """One other gateway, as its row says."""

    def __init__(self) -> None:
        self.away = False
        self.reads = 0
        self.node = a_node(START, applied_revision=10_000, draining=("v1",))

    def says(self, **fields: Any) -> None:
        self.node = replace(self.node, **fields)

    async def read(self) -> list[NodeState]:
        self.reads += 1
        if self.away:
            raise StoreUnreachable("away")
        return [self.node]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptying, "GRACE_S", 0.05)
    monkeypatch.setattr(elsewhere, "AGAIN_S", 0.01)
    monkeypatch.setattr(elsewhere, "SELDOM_S", 0.01)


@pytest.mark.usefixtures("quick")
async def test_a_version_is_drained_once_nothing_runs_at_it_on_another_gateway(tmp_path: Path) -> None:
    """It was said to be drained, and shut down, amid requests that ran through a follower."""
    others = Elsewhere()
    async with room(tmp_path, others) as it:
        task = it.drains.begin("v1", 0)
        await it.until(lambda: it.drains.state("v1").waits_for == ("b",))
        others.away = True
        await it.until(lambda: it.drains.state("v1").waits_for == ())  # nobody knows
        reads = others.reads
        others.says(draining=(), applied_revision=0)
        others.away = False
        await it.until(lambda: others.reads > reads + 3)
        assert it.drains.state("v1").waits_for == ("b",), "what it says is of before the drain"
        assert not task.done()
        others.says(applied_revision=it.world.store.revision)
        await task
        state = it.drains.state("v1")
        assert (state.state, state.waits_for, state.safe_to_stop) == ("drained", (), True)


@pytest.mark.usefixtures("quick")
async def test_a_change_of_the_version_makes_its_drain_no_later(tmp_path: Path) -> None:
    """Who was heard of since the drain began may serve it yet, also where the next in charge asks for it."""
    others = Elsewhere()
    async with room(tmp_path, others) as it:
        it.drains.begin("v1", 0)
        await it.until(lambda: it.drains.state("v1").waits_for == ("b",))
        await it.drains.stop()
        others.says(is_silent=True, last_seen=START + timedelta(seconds=1))
        changed = replace(
            it.record, shutdown_url="http://127.0.0.1:1/", updated_at=START + timedelta(hours=1)
        )
        async with it.world.store.transaction() as tx:
            tx.put_version(changed)
        it.world.catalog.put_version(changed)
        after = Room(it.world, others)
        after.drains.recover([changed])
        await after.until(lambda: after.drains.state("v1").waits_for == ("b",) or after.record.drained)
        assert not after.record.drained
        others.says(last_seen=START - timedelta(minutes=1))  # dead before it began
        await after.until(lambda: after.record.drained)


@pytest.mark.usefixtures("quick")
async def test_a_store_that_fails_makes_nobody_wait_for_one_dead_before_the_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it had begun could not be read once: then it was as old as the version."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    others = Elsewhere()
    others.says(is_silent=True, last_seen=START - timedelta(minutes=1))
    async with room(tmp_path, others) as it:
        older = replace(it.record, created_at=START - timedelta(hours=1))
        async with it.world.store.transaction() as tx:
            tx.put_version(older)
        it.world.catalog.put_version(older)
        reads, read = 0, it.world.store.newest_events

        async def failing(**asked: Any) -> Any:
            nonlocal reads
            reads += 1
            if reads == 1:
                raise StoreUnreachable("gone")
            return await read(**asked)

        monkeypatch.setattr(it.world.store, "newest_events", failing)
        it.drains.begin("v1", 0)
        await it.until(lambda: it.record.drained)
        assert reads == 2


@pytest.mark.usefixtures("quick")
async def test_a_drain_that_waits_for_another_gateway_can_be_called_back(tmp_path: Path) -> None:
    async with room(tmp_path, Elsewhere()) as it:
        task = it.drains.begin("v1", 0)
        await it.until(lambda: it.drains.state("v1").waits_for == ("b",))
        it.drains.call_back("v1")
        await task
        assert not (await it.stored()).drained


async def test_a_gateway_whose_store_nobody_shares_asks_nobody(tmp_path: Path) -> None:
    others = Elsewhere()
    async with room(tmp_path, others) as it:
        it.world.store.is_shared = False
        alone = Room(it.world, others)
        await alone.drains.drain("v1", 0)
        assert others.reads == 0


# -- on a gateway that follows


async def following(it: Room, **fields: Any) -> None:
    """Another gateway has stored that the version drains."""
    it.world.store.follows = True
    deadline = START + timedelta(seconds=20)
    marked = replace(it.record, weight=0, draining=True, drain_deadline=deadline)
    it.world.catalog.put_version(replace(marked, **fields))
    it.drains.here.follow(["v1", "gone"])


async def test_a_follower_cuts_at_the_stored_deadline_and_says_when_nothing_runs(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        heard = asyncio.Event()
        it.drains.here.on_emptied = heard.set
        assert it.drains.here.busy() == ()
        it.hub.in_flight, it.time = 1, START + timedelta(seconds=5)
        await following(it)
        await following(it)
        assert it.drains.here.busy() == ("v1",), "before its workers know of it too"
        await it.until(lambda: it.hub.drained)
        assert it.hub.drained == [((KEY,), 15.0)]
        assert not heard.is_set()
        it.hub.in_flight = 0
        await heard.wait()
        assert it.drains.here.busy() == ()
        await following(it)
        assert len(it.hub.drained) == 1
        assert not (await it.stored()).draining, "nothing is stored from here"
        assert it.hub.forgotten == [KEY]


async def test_a_follower_takes_what_is_not_gone_after_the_deadline_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emptying, "GRACE_S", 0.05)
    async with room(tmp_path) as it:
        it.hub.in_flight, it.time = 1, START + timedelta(seconds=60)
        await following(it)
        await it.until(lambda: it.drains.here.busy() == ())
        assert it.hub.drained == [((KEY,), 0.0)]


async def test_a_worker_of_the_predecessor_that_comes_late_is_not_missed(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await following(it)
        await it.until(lambda: it.drains.here.busy() == ())
        it.hub.in_flight = 1
        assert it.drains.here.busy() == ("v1",)
        it.time = START + timedelta(minutes=1)
        assert it.drains.here.busy() == (), "it was cut, or has died"


async def test_a_version_called_back_and_drained_again_is_another_drain(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await following(it)
        await it.until(lambda: it.drains.here.busy() == ())
        it.hub.in_flight = 1
        later = START + timedelta(seconds=90)
        await following(it, draining=False, drain_deadline=None)
        await following(it, drain_deadline=later)
        assert it.drains.here.busy() == ("v1",)
        await it.until(lambda: len(it.hub.drained) == 2)
        await following(it, drained=True)
        assert it.drains.here.busy() == ()
        await it.until(lambda: not it.drains.here._under_way)
        assert it.hub.forgotten == [KEY, KEY]


async def test_who_takes_over_goes_on_with_what_it_had_a_part_in(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.hub.in_flight = 1
        it.drains.begin("v1", 20_000)
        await it.until(lambda: it.hub.drained)
        await it.drains.stop()
        after = Room(it.world)
        after.hub.in_flight = 1
        it.world.store.follows = True
        after.drains.ordered("v1", 20_000)
        await after.until(lambda: after.hub.drained)
        await after.drains.here.stop()
        it.world.store.follows = False
        after.hub.in_flight = 0
        after.drains.recover(await it.world.store.load_versions())
        await after.until(lambda: after.record.drained)
        assert [kind for kind, _ in await it.events()] == ["version.draining", "version.drained"]
