"""Workers' breaker reports in, one word to all of them out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.control.processes.hub import WorkerInfo
from gateway.control.upstreams.breaker_rows import Stored
from gateway.control.upstreams.breakers import Breakers
from gateway.core.resilience.breaker import BreakerState
from gateway.core.resilience.merged_breaker import FRESH_S
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.resilience import BreakerSettings
from gateway.errors import StaleEpoch, StoreError
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import BreakerView, EndpointSnap, ServiceSnap, Snapshot, VersionSnap
from gateway.store.records import BreakerRecord, EventRecord, VersionRecord

KEY = "id-1|http://a:80|10.0.0.1"
OTHER = "id-1|http://a:80|10.0.0.2"
SETTINGS = BreakerSettings(failure_threshold=3, reset_timeout=1000, half_open_max_calls=2)
START = datetime(2026, 1, 1, tzinfo=UTC)
VERSION = VersionRecord(
    id="id-1",
    service_id="s",
    service_name="auth",
    version="v1",
    url="http://a:80",
    created_at=START,
    updated_at=START,
)


class Catalog:
    def __init__(self) -> None:
        version = SimpleNamespace(record=VERSION, endpoints={KEY: None, OTHER: None})
        settings = ServiceSettings(breaker=SETTINGS)
        record = SimpleNamespace(settings=settings)
        self.services: dict[str, Any] = {"auth": SimpleNamespace(record=record, versions={"id-1": version})}
        self.views: dict[str, BreakerView] = {}
        self.published: list[set[str]] = []

    def version_record(self, version_id: str) -> VersionRecord:
        record: VersionRecord = self.services["auth"].versions[version_id].record
        return replace(record, circuit_state="OPEN") if self.views else record

    def put_version(self, record: VersionRecord) -> None:
        self.services["auth"].versions[record.id].record = record

    def set_breaker(self, key: str, view: BreakerView) -> None:
        self.views[key] = view

    def publish(self, names: Iterable[str]) -> int:
        self.published.append(set(names))
        return len(self.published)


class Store:
    def __init__(self) -> None:
        self.rows: dict[str, BreakerRecord] = {}
        self.follows = False
        self.versions: dict[str, VersionRecord] = {}
        self.kinds: list[str] = []
        self.writes = 0
        self.failure: StoreError | None = None
        """What the next commits end in."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        transaction = Transaction(self)
        yield transaction
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.writes += 1
        for work in transaction.work:
            work()

    async def breakers(self) -> list[BreakerRecord]:
        return list(self.rows.values())


class Transaction:
    """What is done when the commit succeeds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.work: list[Callable[[], object]] = []

    def put_breaker(self, record: BreakerRecord) -> None:
        self.work.append(lambda: self.store.rows.update({record.key: record}))

    def delete_breakers(self, keys: Iterable[str]) -> None:
        gone = list(keys)
        self.work.append(lambda: [self.store.rows.pop(key, None) for key in gone])

    def put_version(self, record: VersionRecord) -> None:
        self.work.append(lambda: self.store.versions.update({record.id: record}))

    def add_event(self, record: EventRecord) -> int:
        self.work.append(lambda: self.store.kinds.append(record.kind))
        return 0

    def on_commit(self, callback: Callable[[], object]) -> None:
        self.work.append(callback)


class Room:
    """Breakers with everything around them, and clocks moved by hand."""

    def __init__(self, store: Store | None = None) -> None:
        self.catalog = Catalog()
        self.store = store or Store()
        self.now = 100.0
        self.wall = 1_000_000.0
        self.incarnations = {0: "a", 1: "b", 2: "c"}
        """By slot: the worker there now. That of slot 2 is leaving."""
        hub: Any = SimpleNamespace(events=SimpleNamespace(), workers=self.workers)
        store_: Any = self.store
        self.breakers = Breakers(store_, self.catalog, hub, clock=lambda: self.now, wall=lambda: self.wall)

    def workers(self) -> list[WorkerInfo]:
        return [
            WorkerInfo(slot, 1, name, 1, connected=True, draining=slot == 2)
            for slot, name in self.incarnations.items()
        ]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        self.breakers.tick()

    async def say(self, slot: int, kind: Any, count: int = 1, epoch: int = 0) -> None:
        peer: Any = SimpleNamespace(incarnation=self.incarnations[slot])
        self.breakers.on_report(peer, BreakerReport(KEY, epoch, kind, count))
        await asyncio.sleep(0)

    def snapshot(self) -> Snapshot:
        endpoints = tuple(
            EndpointSnap(key=key, url="http://a:80", breaker=self.catalog.views.get(key, BreakerView()))
            for key in (KEY, OTHER)
        )
        version = VersionSnap(id="id-1", name="v1", endpoints=endpoints)
        service = ServiceSnap(
            id="s", name="auth", generation=0, settings=ServiceSettings(), versions=(version,)
        )
        return Snapshot(1, True, {"auth": service})

    def word(self, slot: int, key: str = KEY) -> BreakerView:
        snapshot = self.breakers.personal(self.snapshot(), self.incarnations[slot])
        (version,) = snapshot.services["auth"].versions
        return next(endpoint.breaker for endpoint in version.endpoints if endpoint.key == key)


async def test_a_breaker_one_worker_opened_opens_for_all_at_once() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    assert room.catalog.views[KEY].state == "OPEN"
    assert room.catalog.published == [{"auth"}]
    assert room.word(1) == BreakerView(1, "OPEN", 0, 1.0)
    assert room.word(1, OTHER) == BreakerView()


async def test_failures_of_several_workers_add_up() -> None:
    room = Room()
    await room.say(0, "failures", 2)
    assert room.catalog.published == []
    assert room.breakers.status(KEY).failures == 2
    await room.say(1, "failures", 2)
    assert room.catalog.views[KEY].state == "OPEN"


async def test_moves_of_one_moment_are_published_together() -> None:
    room = Room()
    peer: Any = SimpleNamespace(incarnation="a")
    for key in (KEY, OTHER):
        room.breakers.on_report(peer, BreakerReport(key, 0, "opened", 3))
    await asyncio.sleep(0)
    assert room.catalog.published == [{"auth"}]


async def test_trial_calls_are_shared_out_and_close_it() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    room.pass_time(1.1)
    assert room.catalog.views[KEY] == BreakerView(2, "HALF_OPEN", 0, 0.0)
    assert sorted(room.word(slot).grant for slot in (0, 1)) == [1, 1]
    await room.say(0, "trial_ok", 1, epoch=2)
    await room.say(1, "trial_ok", 1, epoch=2)
    assert room.catalog.views[KEY].state == "CLOSED"
    await room.breakers.flush()
    assert room.store.kinds == ["breaker.opened", "breaker.half_open", "breaker.closed"]


async def test_a_worker_that_leaves_gets_no_trial_calls() -> None:
    room = Room()
    await room.say(2, "opened", 3)
    room.pass_time(1.1)
    assert [room.word(slot).grant for slot in (0, 1, 2)] == [1, 1, 0]


async def test_a_worker_that_leaves_is_heard_to_the_end() -> None:
    """Guards its totals, which count once however often time passes."""
    room = Room()
    room.incarnations = {0: "a", 2: "c"}
    await room.say(0, "opened", 3)
    room.incarnations = {2: "a"}  # both trial calls were this one's, then it began to leave
    room.pass_time(1.1)
    for count in (1, 1):
        await room.say(2, "trial_ok", count, epoch=2)
        room.pass_time(0.1)
    assert room.catalog.views[KEY].state == "HALF_OPEN"


async def test_a_replaced_workers_failures_are_not_its_successors() -> None:
    room = Room()
    await room.say(0, "failures", 2)
    room.incarnations[0] = "d"
    room.pass_time(0.1)
    assert room.breakers.status(KEY).failures == 0
    await room.say(0, "failures", 2)
    assert room.catalog.views == {}


async def test_a_replaced_workers_trial_call_is_granted_to_its_successor() -> None:
    room = Room()
    room.incarnations = {0: "a"}
    await room.say(0, "opened", 3)
    room.pass_time(1.1)
    assert room.word(0).grant == 2
    await room.say(0, "trial_ok", 1, epoch=2)
    room.incarnations = {0: "d"}
    assert room.word(0).grant == 0  # as it says HELLO
    room.pass_time(0.1)
    assert room.word(0).grant == 1
    await room.say(0, "trial_ok", 1, epoch=2)
    assert room.catalog.views[KEY].state == "CLOSED"


async def test_state_survives_a_restart_with_its_remaining_time() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    room.pass_time(0.4)
    await room.breakers.flush()
    after = Room(room.store)
    after.now, after.wall = 5.0, room.wall + 0.1
    await after.breakers.recover()
    assert after.catalog.published == [{"auth"}]
    view = after.catalog.views[KEY]
    assert (view.epoch, view.state) == (1, "OPEN")
    assert abs(view.open_for_s - 0.5) < 1e-6
    after.pass_time(0.6)
    assert after.catalog.views[KEY].state == "HALF_OPEN"


async def test_failures_and_their_times_survive_a_restart() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    failed_at = datetime.fromtimestamp(room.wall, UTC)
    room.pass_time(0.5)
    await room.breakers.flush()
    assert (room.store.versions["id-1"].failure_count, room.store.versions["id-1"].circuit_state) == (
        3,
        "OPEN",
    )
    after = Room(room.store)
    after.now, after.wall = 5.0, room.wall
    await after.breakers.recover()
    status = after.breakers.status(KEY)
    assert status.failures == 3
    assert status.last_failure_at == failed_at
    assert status.next_attempt_at is not None
    assert (status.next_attempt_at - failed_at).total_seconds() == 1.0


async def test_failures_short_of_opening_are_stored_now_and_then() -> None:
    room = Room()
    for count in (2, 1, 2, 1):
        await room.say(0, "failures", count)
        await room.breakers.flush()
    assert room.store.writes == 1
    room.pass_time(1.0)
    await room.breakers.flush()
    assert room.store.writes == 2
    after = Room(room.store)
    after.wall = room.wall
    await after.breakers.recover()
    assert after.breakers.status(KEY).failures == 1
    after.pass_time(FRESH_S)
    assert after.breakers.status(KEY).failures == 0


async def test_failures_before_a_restart_open_nothing_after_it() -> None:
    """Guards against counting them twice: an orphan says its own again, and new workers count anew."""
    room = Room()
    await room.say(0, "failures", 2)
    await room.breakers.flush()
    after = Room(room.store)
    after.wall = room.wall
    await after.breakers.recover()
    await after.say(0, "failures", 2)
    assert after.breakers.status(KEY).failures == 2
    assert after.catalog.views[KEY].state == "CLOSED"


async def test_a_full_disk_delays_what_is_stored_and_loses_nothing() -> None:
    room = Room()
    room.store.failure = StoreError("gateway.db: disk is full")
    running = asyncio.ensure_future(room.breakers.run())
    await room.say(0, "opened", 3)
    while not room.breakers._is_failing:
        await asyncio.sleep(0.01)
    room.pass_time(1.1)
    room.store.failure = None
    while len(room.store.kinds) < 2:
        await asyncio.sleep(0.01)
    assert room.store.kinds == ["breaker.opened", "breaker.half_open"]
    assert msgspec.json.decode(room.store.rows[KEY].state, type=Stored).state is BreakerState.HALF_OPEN
    running.cancel()


async def test_what_moves_during_a_commit_is_stored_by_the_next() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    committing = asyncio.ensure_future(room.breakers.flush())
    await asyncio.sleep(0)
    room.pass_time(1.1)
    await committing
    await room.breakers.flush()
    assert room.store.kinds == ["breaker.opened", "breaker.half_open"]
    assert msgspec.json.decode(room.store.rows[KEY].state, type=Stored).state is BreakerState.HALF_OPEN


async def test_time_passes_only_while_some_breaker_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control with nothing to do for them takes no core from a worker ten times a second."""
    monkeypatch.setattr("gateway.control.upstreams.breakers.TICK_S", 0.001)
    room = Room()
    ticks = 0

    def workers() -> list[WorkerInfo]:
        nonlocal ticks
        ticks += 1
        return []

    room.breakers._hub.workers = workers  # type: ignore[method-assign]
    running = asyncio.ensure_future(room.breakers.run())
    await asyncio.sleep(0.05)
    assert ticks == 0
    await room.say(0, "failures", 1)
    while ticks < 3:
        await asyncio.sleep(0.001)
    room.catalog.services.clear()
    while KEY in room.breakers._merged or room.breakers._unstored:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    before = ticks
    await asyncio.sleep(0.05)
    assert ticks == before
    running.cancel()


async def test_a_control_that_was_replaced_stops() -> None:
    room = Room()
    room.store.failure = StaleEpoch("gateway.db: epoch 2 has begun")
    await room.say(0, "opened", 3)
    with pytest.raises(StaleEpoch):
        await room.breakers.run()


async def test_a_clock_set_back_does_not_keep_a_breaker_open() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    await room.breakers.flush()
    after = Room(room.store)
    after.wall = room.wall - 86_400
    await after.breakers.recover()
    assert after.catalog.views[KEY].open_for_s <= 1.0


async def test_an_endpoint_that_is_gone_takes_its_row_along() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    await room.breakers.flush()
    assert msgspec.json.decode(room.store.rows[KEY].state, type=Stored).state is BreakerState.OPEN
    del room.catalog.services["auth"].versions["id-1"].endpoints[KEY]
    room.breakers.tick()
    await room.breakers.flush()
    assert room.store.rows == {}
    await room.say(0, "opened", 3)
    assert room.breakers.status(KEY).failures == 0


async def test_a_breaker_that_is_switched_off_is_closed() -> None:
    room = Room()
    await room.say(0, "opened", 3)
    room.catalog.services["auth"].record.settings = ServiceSettings(breaker=False)
    room.breakers.tick()
    assert room.catalog.views[KEY] == BreakerView()


async def test_a_service_without_breaker_is_left_alone() -> None:
    room = Room()
    room.catalog.services["auth"].record.settings = ServiceSettings(breaker=False)
    await room.say(0, "opened", 3)
    assert room.catalog.views == {}


async def test_who_follows_another_gateway_keeps_its_breakers_to_itself() -> None:
    room = Room()
    room.store.follows = True
    await room.say(0, "opened", 3)
    await room.breakers.flush(counts=True)
    assert room.catalog.views[KEY].state == "OPEN"
    room.store.follows = False
    await room.breakers.flush(counts=True)
    assert (room.store.writes, room.store.kinds) == (0, []), "nor does it store them once it leads"
