"""The breakers as control sees them: workers' reports in, one word to all workers out, rows and events to
the store.

A move is published as soon as the loop has read what else is waiting; it is stored right after. Trial
calls of a half-open breaker are each worker's own, so they are put into a snapshot as it goes to a worker
(`personal`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from gateway.control.hub import Hub, Peer
from gateway.core.breaker import BreakerSettings, BreakerState, compile_breaker
from gateway.core.merged_breaker import MergedBreaker
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import BreakerView, EndpointSnap, ServiceSnap, Snapshot, VersionSnap
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.records import BreakerRecord, EventRecord

log = get_logger(room="breakers")

TICK_S: Final = 0.1
KINDS: Final = {
    BreakerState.OPEN: "breaker.opened",
    BreakerState.HALF_OPEN: "breaker.half_open",
    BreakerState.CLOSED: "breaker.closed",
}


class BreakerCatalog(Protocol):
    """What breakers need of the catalog."""

    @property
    def services(self) -> Mapping[str, Any]:
        """Service entries by name: `record.settings.breaker`, `versions[id].record.version`,
        `.endpoints[key]`.
        """

    def set_breaker(self, key: str, view: BreakerView) -> None:
        """An endpoint's breaker moved."""

    def publish(self, names: Iterable[str]) -> int:
        """Send these services to the workers."""


class Stored(msgspec.Struct, frozen=True):
    """A breaker in the store. open_until: Unix seconds, when trial calls begin."""

    state: BreakerState
    epoch: int
    open_until: float = 0.0


class Place(msgspec.Struct, frozen=True):
    """Where an endpoint stands in the catalog."""

    service: str
    version_id: str
    version: str
    settings: BreakerSettings


class Breakers:
    """Every endpoint's merged breaker that has anything to tell."""

    def __init__(
        self,
        store: Store,
        catalog: BreakerCatalog,
        hub: Hub,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """clock, wall: monotonic and Unix seconds."""
        self._store = store
        self._catalog = catalog
        self._hub = hub
        hub.events.breaker = self.on_report
        hub.personal = self.personal
        self._clock = clock
        self._wall = wall
        self._merged: dict[str, MergedBreaker] = {}
        self._told: dict[str, BreakerState] = {}
        """State of each as last published: what is not, is an event."""
        self._names: dict[str, str] = {}
        """Version id -> the service it was last found in."""
        self._unpublished: set[str] = set()
        """Names of services."""
        self._unstored: set[str] = set()
        self._events: list[EventRecord] = []

    async def recover(self) -> None:
        """Go on from what the store says, and tell the workers."""
        for record in await self._store.breakers():
            place = self._place_of(record.key)
            if place is None:
                continue
            stored = msgspec.json.decode(record.state, type=Stored)
            left_s = min(max(stored.open_until - self._wall(), 0.0), place.settings.reset_timeout / 1000)
            self._merged[record.key] = merged = MergedBreaker(
                place.settings, state=stored.state, epoch=stored.epoch, open_until=self._clock() + left_s
            )
            self._told[record.key] = merged.state
            self._catalog.set_breaker(record.key, self._view(merged))
            self._unpublished.add(place.service)
        if self._unpublished:
            self._publish()

    def failures(self, key: str) -> int:
        """Return the endpoint's failures in a row, over all workers."""
        merged = self._merged.get(key)
        return 0 if merged is None else merged.failures

    # -- the link

    def on_report(self, peer: Peer, report: BreakerReport) -> None:
        """Take what a worker saw."""
        place = self._place_of(report.key)
        if place is None:
            return
        merged = self._merged.get(report.key)
        if merged is None:
            merged = self._merged[report.key] = MergedBreaker(place.settings)
        merged.reconfigure(place.settings)
        # A leaving worker shares its slot with its successor: it is heard apart, and gets no trial calls.
        slot = -1 - peer.slot if peer.draining else peer.slot
        now = self._clock()
        if merged.report(now, slot, epoch=report.epoch, kind=report.kind, count=report.count):
            self._moved(report.key, merged, place)

    def personal(self, snapshot: Snapshot, slot: int) -> Snapshot:
        """Return `snapshot` as the worker of `slot` gets it: with its own trial calls, and times as of
        now.
        """
        restless = {key for key, merged in self._merged.items() if merged.state is not BreakerState.CLOSED}
        if not restless:
            return snapshot
        services = {
            name: self._for_slot(service, slot, restless) for name, service in snapshot.services.items()
        }
        return msgspec.structs.replace(snapshot, services=services)

    def tick(self) -> None:
        """Let time pass: begin trial calls, share out those nobody used, forget endpoints that are gone."""
        now = self._clock()
        slots = [worker.slot for worker in self._hub.workers() if not worker.draining]
        for key, merged in list(self._merged.items()):
            place = self._place_of(key)
            if place is None:
                self._forget(key)  # the endpoint is gone, or its service has no breaker any more
            elif merged.tick(now, slots):
                self._moved(key, merged, place)

    # -- the store

    async def run(self) -> None:
        """Tick, and store what moved, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
            await self.flush()

    async def flush(self) -> None:
        """Store what has moved since the last time."""
        if not self._unstored and not self._events:
            return
        keys, self._unstored = self._unstored, set()
        events, self._events = self._events, []
        async with self._store.transaction() as tx:
            for key in sorted(keys & self._merged.keys()):
                tx.put_breaker(self._record(key))
            tx.delete_breakers(keys - self._merged.keys())
            for event in events:
                tx.add_event(event)

    def _record(self, key: str) -> BreakerRecord:
        merged = self._merged[key]
        stored = Stored(
            state=merged.state,
            epoch=merged.epoch,
            open_until=self._wall() + max(merged.open_until - self._clock(), 0.0),
        )
        return BreakerRecord(
            key=key,
            version_id=key.partition("|")[0],
            state=msgspec.json.encode(stored),
            updated_at=self._utc(),
        )

    def _utc(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    # -- moves

    def _moved(self, key: str, merged: MergedBreaker, place: Place) -> None:
        """Tell the catalog and the workers; note what is to be stored."""
        self._catalog.set_breaker(key, self._view(merged))
        self._unstored.add(key)
        if self._told.get(key, BreakerState.CLOSED) is not merged.state:
            self._told[key] = merged.state
            self._note(key, merged, place)
        if not self._unpublished:
            asyncio.get_running_loop().call_soon(self._publish)
        self._unpublished.add(place.service)

    def _note(self, key: str, merged: MergedBreaker, place: Place) -> None:
        endpoint = key.partition("|")[2].replace("|", " at ")
        log.warning(KINDS[merged.state], service=place.service, version=place.version, endpoint=endpoint)
        self._events.append(
            EventRecord(
                at=self._utc(),
                kind=KINDS[merged.state],
                service=place.service,
                version=place.version,
                data={"endpoint": endpoint, "epoch": merged.epoch, "failures": merged.failures},
            )
        )

    def _publish(self) -> None:
        names, self._unpublished = self._unpublished, set()
        self._catalog.publish(names & self._catalog.services.keys())

    def _forget(self, key: str) -> None:
        del self._merged[key]
        self._told.pop(key, None)
        self._unstored.add(key)
        version_id = key.partition("|")[0]
        name = self._service_of(version_id)
        if name is not None and key in self._catalog.services[name].versions[version_id].endpoints:
            self._catalog.set_breaker(key, BreakerView())

    def _view(self, merged: MergedBreaker) -> BreakerView:
        """Return what all workers alike are told."""
        open_for_s = max(merged.open_until - self._clock(), 0.0) if merged.state is BreakerState.OPEN else 0.0
        return BreakerView(merged.epoch, merged.state.value, 0, open_for_s)

    # -- one worker's words

    def _for_slot(self, service: ServiceSnap, slot: int, restless: set[str]) -> ServiceSnap:
        keys = {endpoint.key for version in service.versions for endpoint in version.endpoints}
        if not keys & restless:
            return service
        versions = tuple(self._version_for(version, slot, restless) for version in service.versions)
        return msgspec.structs.replace(service, versions=versions)

    def _version_for(self, version: VersionSnap, slot: int, restless: set[str]) -> VersionSnap:
        endpoints = tuple(
            self._endpoint_for(endpoint, slot) if endpoint.key in restless else endpoint
            for endpoint in version.endpoints
        )
        return msgspec.structs.replace(version, endpoints=endpoints)

    def _endpoint_for(self, endpoint: EndpointSnap, slot: int) -> EndpointSnap:
        word = self._merged[endpoint.key].word(self._clock(), slot)
        view = BreakerView(word.epoch, word.state.value, word.grant, word.open_for_s)
        return msgspec.structs.replace(endpoint, breaker=view)

    def _place_of(self, key: str) -> Place | None:
        """Return where the endpoint stands; None if it is gone, or its service has no breaker."""
        version_id = key.partition("|")[0]
        name = self._service_of(version_id)
        if name is None:
            return None
        service = self._catalog.services[name]
        version = service.versions[version_id]
        settings = compile_breaker(service.record.settings.breaker)
        if settings is None or key not in version.endpoints:
            return None
        return Place(name, version_id, version.record.version, settings)

    def _service_of(self, version_id: str) -> str | None:
        services = self._catalog.services
        known = self._names.get(version_id)
        if known is not None and known in services and version_id in services[known].versions:
            return known
        self._names.pop(version_id, None)
        for name, service in services.items():
            if version_id in service.versions:
                self._names[version_id] = name
                return name
        return None
