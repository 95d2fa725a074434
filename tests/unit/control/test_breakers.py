"""Workers' breaker reports in, one word to all of them out."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec

from gateway.control.breakers import Breakers, Stored
from gateway.control.hub import WorkerInfo
from gateway.core.breaker import BreakerSettings, BreakerState
from gateway.core.service import ServiceSettings
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import BreakerView, EndpointSnap, ServiceSnap, Snapshot, VersionSnap
from gateway.store.records import BreakerRecord, EventRecord

KEY = "id-1|http://a:80|10.0.0.1"
OTHER = "id-1|http://a:80|10.0.0.2"
SETTINGS = BreakerSettings(failure_threshold=3, reset_timeout=1000, half_open_max_calls=2)


class Catalog:
    def __init__(self) -> None:
        version = SimpleNamespace(record=SimpleNamespace(version="v1"), endpoints={KEY: None, OTHER: None})
        settings = ServiceSettings(breaker=SETTINGS)
        record = SimpleNamespace(settings=settings)
        self.services: dict[str, Any] = {"auth": SimpleNamespace(record=record, versions={"id-1": version})}
        self.views: dict[str, BreakerView] = {}
        self.published: list[set[str]] = []

    def set_breaker(self, key: str, view: BreakerView) -> None:
        self.views[key] = view

    def publish(self, names: Iterable[str]) -> int:
        self.published.append(set(names))
        return len(self.published)


class Store:
    def __init__(self) -> None:
        self.rows: dict[str, BreakerRecord] = {}
        self.kinds: list[str] = []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Store"]:
        yield self

    def put_breaker(self, record: BreakerRecord) -> None:
        self.rows[record.key] = record

    def delete_breakers(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.rows.pop(key, None)

    def add_event(self, record: EventRecord) -> int:
        self.kinds.append(record.kind)
        return len(self.kinds)

    async def breakers(self) -> list[BreakerRecord]:
        return list(self.rows.values())


class Room:
    """Breakers with everything around them, and clocks moved by hand."""

    def __init__(self, store: Store | None = None) -> None:
        self.catalog = Catalog()
        self.store = store or Store()
        self.now = 100.0
        self.wall = 1_000_000.0
        hub: Any = SimpleNamespace(
            events=SimpleNamespace(),
            workers=lambda: [
                WorkerInfo(slot, 1, f"i{slot}", 1, connected=True, draining=slot == 2) for slot in (0, 1, 2)
            ],
        )
        store_: Any = self.store
        self.breakers = Breakers(store_, self.catalog, hub, clock=lambda: self.now, wall=lambda: self.wall)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        self.breakers.tick()

    async def say(self, slot: int, kind: Any, count: int = 1, epoch: int = 0, draining: bool = False) -> None:
        peer: Any = SimpleNamespace(slot=slot, draining=draining)
        self.breakers.on_report(peer, BreakerReport(KEY, epoch, kind, count))
        await asyncio.sleep(0)

    def snapshot(self) -> Snapshot:
        endpoints = tuple(
            EndpointSnap(key=key, url="http://a:80", breaker=self.catalog.views.get(key, BreakerView()))
            for key in (KEY, OTHER)
        )
        version = VersionSnap(id="id-1", name="v1", endpoints=endpoints)
        service = ServiceSnap(id="s", name="auth", stage=0, settings=ServiceSettings(), versions=(version,))
        return Snapshot(1, True, {"auth": service})

    def word(self, slot: int, key: str = KEY) -> BreakerView:
        snapshot = self.breakers.personal(self.snapshot(), slot)
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
    assert room.breakers.failures(KEY) == 2
    await room.say(1, "failures", 2)
    assert room.catalog.views[KEY].state == "OPEN"


async def test_moves_of_one_moment_are_published_together() -> None:
    room = Room()
    peer: Any = SimpleNamespace(slot=0, draining=False)
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
    await room.say(0, "opened", 3, draining=True)
    room.pass_time(1.1)
    assert sum(room.word(slot).grant for slot in (0, 1)) == 2


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
    assert room.breakers.failures(KEY) == 0


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
