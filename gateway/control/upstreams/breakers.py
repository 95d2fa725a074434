"""The breakers as control sees them: workers' reports in, one word to all workers out, rows and events to
the store.

A move is published as soon as the loop has read what else is waiting; it is stored right after. Trial
calls of a half-open breaker are each worker's own, so they are put into a snapshot as it goes to a worker
(`personal`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.control.processes.hub import Hub
from gateway.control.processes.peer import Peer
from gateway.control.upstreams.breaker_rows import merged_of, record_of, unix
from gateway.control.upstreams.breaker_words import with_words
from gateway.core.resilience.breaker import BreakerState, compile_breaker
from gateway.core.resilience.merged_breaker import MergedBreaker
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.resilience import BreakerSettings
from gateway.errors import StaleEpoch, StoreError
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import BreakerView, Snapshot
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import EventRecord, VersionRecord

log = get_logger(component="breakers")

TICK_S: Final = 0.1
COUNTS_S: Final = 1.0
"""Failures that move nothing are stored this often; a move at once."""
KINDS: Final = {
    BreakerState.OPEN: "breaker.opened",
    BreakerState.HALF_OPEN: "breaker.half_open",
    BreakerState.CLOSED: "breaker.closed",
}


class _ServiceRecord(Protocol):
    @property
    def settings(self) -> ServiceSettings: ...


class _VersionView(Protocol):
    @property
    def record(self) -> VersionRecord: ...

    @property
    def endpoints(self) -> Mapping[str, object]:
        """By key."""


class _ServiceView(Protocol):
    @property
    def record(self) -> _ServiceRecord: ...

    @property
    def versions(self) -> Mapping[str, _VersionView]:
        """By id."""


class BreakerCatalog(Protocol):
    """What breakers need of the catalog."""

    @property
    def services(self) -> Mapping[str, _ServiceView]:
        """By name."""

    def version_record(self, version_id: str) -> VersionRecord: ...
    def put_version(self, record: VersionRecord) -> None: ...

    def set_breaker(self, key: str, view: BreakerView) -> None:
        """An endpoint's breaker moved."""

    def publish(self, names: Iterable[str]) -> int:
        """Send these services to the workers."""


class BreakerStatus(msgspec.Struct, frozen=True):
    """What is shown of an endpoint's breaker besides its state."""

    failures: int = 0
    """In a row, over all workers; while it is not closed, those that opened it."""
    last_failure_at: datetime | None = None
    next_attempt_at: datetime | None = None
    """OPEN: when trial calls begin."""


class Place(msgspec.Struct, frozen=True):
    """Where an endpoint stands in the catalog."""

    service: str
    version_id: str
    version: str
    settings: BreakerSettings


class Breakers:
    """The merged breaker of every endpoint that has failed lately."""

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
        self._has_some = asyncio.Event()
        """Whether there is one, or something of one that is to be stored."""
        self._published: dict[str, BreakerState] = {}
        """State of each as last published: what is not, is an event."""
        self._names: dict[str, str] = {}
        """Version id -> the service it was last found in."""
        self._worker_ids: dict[str, int] = {}
        """A worker's incarnation -> its number in merged breakers: a successor in its slot gets another."""
        self._last_worker_id = -1
        self._unpublished: set[str] = set()
        """Names of services."""
        self._unstored: set[str] = set()
        """Keys to store at the next tick."""
        self._counted: set[str] = set()
        """Keys whose counts alone have changed."""
        self._counts_due = 0.0
        self._events: list[EventRecord] = []
        self._is_failing = False

    async def recover(self) -> None:
        """Go on from what the store says, and publish it."""
        for record in await self._store.breakers():
            place = self._place_of(record.key)
            if place is None:
                continue
            merged = merged_of(record, place.settings, now=self._clock(), wall=self._wall())
            self._add(record.key, merged)
            self._published[record.key] = merged.state
            self._catalog.set_breaker(record.key, self._view(merged))
            self._unpublished.add(place.service)
        if self._unpublished:
            self._publish()

    def status(self, key: str) -> BreakerStatus:
        """Return an endpoint's failures, the last one's time, and when it is tried again."""
        merged = self._merged.get(key)
        if merged is None:
            return BreakerStatus()
        is_open = merged.state is BreakerState.OPEN
        return BreakerStatus(
            merged.failures,
            self._utc(merged.last_failure_at) if merged.last_failure_at is not None else None,
            self._utc(merged.open_until) if is_open else None,
        )

    # -- the link

    def on_report(self, peer: Peer, report: BreakerReport) -> None:
        """Take what a worker saw."""
        place = self._place_of(report.key)
        if place is None:
            return
        merged = self._merged.get(report.key)
        if merged is None:
            merged = self._add(report.key, MergedBreaker(place.settings))
        merged.reconfigure(place.settings)
        worker_id = self._worker_id(peer.incarnation)
        before = merged.failures, merged.last_failure_at
        if merged.report(self._clock(), worker_id, epoch=report.epoch, kind=report.kind, count=report.count):
            self._moved(report.key, merged, place)
        elif before != (merged.failures, merged.last_failure_at):
            self._counted.add(report.key)

    def _add(self, key: str, merged: MergedBreaker) -> MergedBreaker:
        self._merged[key] = merged
        self._has_some.set()
        return merged

    def _worker_id(self, incarnation: str) -> int:
        worker_id = self._worker_ids.get(incarnation)
        if worker_id is None:
            self._last_worker_id += 1
            worker_id = self._worker_ids[incarnation] = self._last_worker_id
        return worker_id

    def personal(self, snapshot: Snapshot, incarnation: str) -> Snapshot:
        """Return `snapshot` as one worker gets it: with its own trial calls, and times as of now."""
        now = self._clock()
        words = {
            key: merged.word(now, self._worker_id(incarnation))
            for key, merged in self._merged.items()
            if merged.state is not BreakerState.CLOSED
        }
        return with_words(snapshot, words)

    def tick(self) -> None:
        """Let time pass: begin trial calls, share out those nobody used, forget endpoints that are gone."""
        now = self._clock()
        workers = self._hub.workers()
        present = {worker.incarnation for worker in workers}
        self._worker_ids = {
            name: worker_id for name, worker_id in self._worker_ids.items() if name in present
        }
        # A leaving worker finishes the trial calls it has begun, and gets no more.
        leaving = [self._worker_id(worker.incarnation) for worker in workers if worker.draining]
        staying = [self._worker_id(worker.incarnation) for worker in workers if not worker.draining]
        for key, merged in list(self._merged.items()):
            place = self._place_of(key)
            if place is None:
                self._forget(key)  # the endpoint is gone, or its service has no breaker any more
            elif merged.tick(now, staying, leaving):
                self._moved(key, merged, place)

    # -- the store

    async def run(self) -> None:
        """Tick while there is a breaker to tick for, and store what moved, until cancelled."""
        while True:
            await self._has_some.wait()
            await asyncio.sleep(TICK_S)
            self.tick()
            await self._store_what_moved()
            if not self._merged and not self._unstored and not self._events:
                self._has_some.clear()

    async def _store_what_moved(self) -> None:
        """Store; a store that cannot now gets it later. Raises StaleEpoch: another control is in charge."""
        try:
            await self.flush()
        except StaleEpoch:
            raise
        except StoreError as exc:
            if not self._is_failing:
                log.error("breakers_not_stored", error=str(exc), consequence="tried again until it works")
            self._is_failing = True
        else:
            self._is_failing = False

    async def flush(self, *, counts: bool = False) -> None:
        """Store what has moved since the last time, and, now and then, what was counted. counts: now.

        Raises StoreError; nothing is forgotten then.
        """
        if self._counted and (counts or self._clock() >= self._counts_due):
            self._unstored |= self._counted
            self._counted.clear()
            self._counts_due = self._clock() + COUNTS_S
        if self._store.follows:  # they are this gateway's alone
            self._unstored.clear()
            self._events.clear()
        if not self._unstored and not self._events:
            return
        taken: set[str] = set()
        try:
            async with self._store.transaction() as tx:
                taken, self._unstored = self._unstored, set()
                self._write(tx, taken, tuple(self._events))
        except BaseException:
            self._unstored |= taken
            raise

    def _write(self, tx: Transaction, keys: set[str], events: Sequence[EventRecord]) -> None:
        for key in sorted(keys & self._merged.keys()):
            tx.put_breaker(record_of(key, self._merged[key], now=self._clock(), wall=self._wall()))
        tx.delete_breakers(keys - self._merged.keys())
        for event in events:
            tx.add_event(event)
        for version_id in sorted({key.partition("|")[0] for key in keys}):
            self._write_version(tx, version_id)

        def stored() -> None:
            del self._events[: len(events)]

        tx.on_commit(stored)

    def _write_version(self, tx: Transaction, version_id: str) -> None:
        """Let a version's row say what its breakers come to."""
        try:
            record = self._catalog.version_record(version_id)
        except KeyError:
            return  # deleted meanwhile
        name = self._service_of(version_id)
        keys = self._catalog.services[name].versions[version_id].endpoints if name is not None else ()
        failures = max((self.status(key).failures for key in keys), default=0)
        record = replace(record, failure_count=failures)
        tx.put_version(record)
        tx.on_commit(partial(self._catalog.put_version, record))

    def _utc(self, at: float) -> datetime:
        return datetime.fromtimestamp(unix(at, now=self._clock(), wall=self._wall()), UTC)

    # -- moves

    def _moved(self, key: str, merged: MergedBreaker, place: Place) -> None:
        """Have the catalog and the workers know; note what is to be stored."""
        self._catalog.set_breaker(key, self._view(merged))
        self._unstored.add(key)
        if self._published.get(key, BreakerState.CLOSED) is not merged.state:
            self._published[key] = merged.state
            self._note(key, merged, place)
        if not self._unpublished:
            asyncio.get_running_loop().call_soon(self._publish)
        self._unpublished.add(place.service)

    def _note(self, key: str, merged: MergedBreaker, place: Place) -> None:
        endpoint = key.partition("|")[2].replace("|", " at ")
        log.warning(KINDS[merged.state], service=place.service, version=place.version, endpoint=endpoint)
        self._events.append(
            EventRecord(
                at=self._utc(self._clock()),
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
        self._published.pop(key, None)
        self._counted.discard(key)
        self._unstored.add(key)
        version_id = key.partition("|")[0]
        name = self._service_of(version_id)
        if name is not None and key in self._catalog.services[name].versions[version_id].endpoints:
            self._catalog.set_breaker(key, BreakerView())

    def _view(self, merged: MergedBreaker) -> BreakerView:
        """Return what goes to all workers alike."""
        open_for_s = max(merged.open_until - self._clock(), 0.0) if merged.state is BreakerState.OPEN else 0.0
        return BreakerView(merged.epoch, merged.state.value, 0, open_for_s)

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
