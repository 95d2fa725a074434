"""What exists, in memory: services, versions and endpoints, and the numbered tables workers are sent of them.

The store comes first: a row is put here when its transaction has committed, and at a start the same
functions build everything from the rows. What a row does not hold (health between probes, breakers,
addresses of names) lives only here and is found out again.
"""

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from msgspec.structs import replace

from gateway.control.catalog.declared import Declared, Served, served, served_of
from gateway.control.catalog.entries import EndpointEntry, Observer, ServiceEntry, VersionEntry
from gateway.control.catalog.marked import added_up, as_marked, lowered
from gateway.control.upstreams.probes import Probed
from gateway.core.resilience.health import Health
from gateway.core.routing.overlap import losers
from gateway.core.routing.service import RouteSettings
from gateway.core.settings.targets import ANYWHERE, TargetRules, parse_target
from gateway.errors import ConfigError
from gateway.link.snapshot import BreakerView, Mark, ProxySettings, RolloutSnap, ServiceSnap, Snapshot
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.records import CatalogRows, DeploymentRecord, ServiceRecord, VersionRecord

log = get_logger(component="catalog")

COMING_UP: Final = timedelta(minutes=10)
"""How long a version that has never answered is asked as often as any."""

_AHEAD: Final = ("weight", "draining", "drained", "drain_deadline")
"""What a rollout changes of a version without waiting for the store."""


class Links(Protocol):
    """Who the tables go to."""

    whole: Callable[[], Snapshot] | None

    def publish(self, snapshot: Snapshot) -> None:
        """Send a table to every worker; returns at once."""


class OpenRollouts(Protocol):
    """Who knows which deployment is open."""

    def open_for(self, service: str) -> DeploymentRecord | None: ...
    def mark_for(self, service: str) -> Mark | None: ...


class Catalog:
    """All services, versions and endpoints."""

    def __init__(
        self,
        links: Links,
        *,
        rules: TargetRules = ANYWHERE,
        proxy: ProxySettings | None = None,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """rules: where endpoints may be. proxy: what holds for the whole data plane.

        workers: how many there are. clock: monotonic seconds.
        """
        self.services: dict[str, ServiceEntry] = {}
        """By name."""
        self._links = links
        self._rules = rules
        self._proxy = proxy or ProxySettings()
        self._workers = workers
        self._clock = clock
        self._now = now
        self._number = 0
        self._by_version: dict[str, VersionEntry] = {}
        self._followed: dict[str, tuple[RouteSettings, ...]] = {}
        """By service, the routes that workers were last sent."""
        self._declared: frozenset[str] = frozenset()
        """Names of services that the file declares."""
        self._set_aside: dict[str, str] = {}
        """Name -> id of services the file declared once and does not any more: stored, not served."""
        self._open: dict[str, DeploymentRecord] = {}
        """Open deployments as stored, until somebody knows better."""
        self._marks: dict[str, Mark] = {}
        """What was done to them and is not stored, by deployment, until then."""
        self._rollouts: OpenRollouts | None = None
        self._ahead: dict[str, dict[str, Any]] = {}
        """By id of a service or version: fields that are in force and not stored yet."""
        self._observers: list[Observer] = []

    # -- building

    async def load(
        self, store: Store, declared: Iterable[Declared] = (), marks: Mapping[str, Mark] | None = None
    ) -> None:
        """Build everything from the store and the services of the configuration file.

        marks: acts that were done before they could be stored, by deployment: they are in force. What the
        file adds and `store_declared` has not stored, because another control is in charge, is in memory
        alone, and has another id once it is stored. Endpoints that are known already keep their state. Raises
        StoreError if a row does not load, ConfigError if two services claim the same route.
        """
        self._marks = dict(marks or {})
        async with store.turn():  # nothing newer gets into memory meanwhile
            self._open = {
                record.service_name: as_marked(record, self._marks.get(record.id))
                for record in await store.open_deployments()
            }
            found = await self._read(store, tuple(declared))
            self._take(replace(found, versions=added_up(self._open.values(), found.versions)))

    async def reload(self, store: Store, declared: Iterable[Declared], proxy: ProxySettings) -> None:
        """Take a new configuration, all or nothing, and send out what it comes to.

        Raises ConfigError, having changed nothing, if a route is claimed twice, or if it drops a service
        whose deployment is open.
        """
        services = tuple(declared)
        names = {service.name for service in services}
        for name, entry in self.services.items():
            if entry.record.source == "file" and name not in names and self.open_for(name) is not None:
                raise ConfigError("service", f"{name!r} has an open deployment and cannot be dropped")
        if store.follows:
            async with store.turn():
                self._take(await self._read(store, services))
        else:
            async with store.transaction() as tx:
                found = await self._read(store, services)
                found.put(tx)
                tx.on_commit(partial(self._take, found))
        for name, entry in self.services.items():
            try:
                entry.reread_tls()
            except ConfigError as exc:  # what cannot be used leaves what was
                log.error("tls_not_reread", service=name, reason=str(exc))
        self._proxy = proxy
        self.publish_all()

    async def _read(self, store: Store, declared: tuple[Declared, ...]) -> Served:
        """Return what the store and the file come to. Of a follower's file only the names count.

        Raises ConfigError.
        """
        if store.follows:
            return Served.stored(await store.load_catalog(), declared)
        open_services = [name for name in {*self._open, *self.services} if self.open_for(name) is not None]
        return await served(store, declared, open_services, self._now())

    def _take(self, found: Served) -> None:
        """Let memory follow, all at once."""
        self._declared = found.declared
        marks, deployments = self._marks.values(), self._open.values()
        services, versions = lowered(marks, deployments, found.services, found.versions)
        self._build(services.values(), (*versions, *found.made.versions), found.set_aside)
        for name in found.set_aside:
            log.warning("service_set_aside", service=name, reason="the configuration no longer declares it")

    def _build(
        self,
        services: Iterable[ServiceRecord],
        versions: Iterable[VersionRecord],
        set_aside: dict[str, str],
    ) -> None:
        self._set_aside = set_aside
        wanted = {record.name: record for record in services}
        for name, entry in list(self.services.items()):
            if name not in wanted or wanted[name].id != entry.record.id:
                self.drop_service(name)
        for record in wanted.values():
            self.put_service(record)
        present = {record.id for record in versions}
        for version_id in self._by_version.keys() - present:
            self.drop_version(version_id)
        for version in versions:
            if version.service_name in wanted:
                in_force = replace(version, **self._ahead.get(version.id, {}))
                self._by_version[version.id] = self.services[version.service_name].put(in_force)
        for entry in self.services.values():
            entry.settle(self._now())
        self._number += 1
        self._links.whole = self.whole

    def served(self, rows: CatalogRows) -> list[ServiceRecord]:
        """Return the services that are served: one that the file has dropped is not."""
        return served_of(rows, self._declared)

    # -- rows that were committed

    def put_ahead(self, service: ServiceRecord | None, versions: Iterable[VersionRecord]) -> None:
        """Take rows that are in force before they could be stored, until `caught_up`.

        Rows of the same service and versions that commit meanwhile may have been read before that: they
        change everything else, and neither weights nor drains nor the generation.
        """
        if service is not None:
            self._ahead[service.id] = {"generation": service.generation}
            self._put_service(service)
        for version in versions:
            self._ahead[version.id] = {field: getattr(version, field) for field in _AHEAD}
            self._put_version(version)

    def caught_up(self, service: str) -> None:
        """The store has what was put ahead of it."""
        entry = self.services[service]
        for row_id in (entry.record.id, *(each.record.id for each in entry.versions.values())):
            self._ahead.pop(row_id, None)

    def put_service(self, record: ServiceRecord) -> None:
        """Take a service's committed row."""
        self._put_service(replace(record, **self._ahead.get(record.id, {})))

    def _put_service(self, record: ServiceRecord) -> None:
        entry = self.services.get(record.name)
        if entry is None:
            entry = self.services[record.name] = ServiceEntry(record, self._rules)
        entry.record = record
        if entry.health is not None:
            for version in entry.versions.values():
                for endpoint in version.endpoints.values():
                    endpoint.state.reconfigure(entry.health)
        self._notify("service", record.name, None)

    def put_version(self, record: VersionRecord) -> None:
        """Take a version's committed row.

        One that waited for its first probe begins, and workers get to know of it.
        """
        self._put_version(replace(record, **self._ahead.get(record.id, {})))

    def _put_version(self, record: VersionRecord) -> None:
        service = self.services[record.service_name]
        entry = service.put(record)
        self._by_version[record.id] = entry
        if service.settle(self._now()):
            self.publish([service.record.name])
        self._notify("version", record.service_name, entry.record)

    def drop_service(self, name: str) -> None:
        """Forget a service that was deleted, or set aside."""
        entry = self.services.pop(name)
        self._followed.pop(name, None)
        for version_id in entry.versions:
            del self._by_version[version_id]
        self._notify("service", name, None)

    def drop_version(self, version_id: str) -> None:
        """Forget a version that was deleted."""
        entry = self._by_version.pop(version_id)
        del entry.service.versions[version_id]
        self._notify("version", entry.service.record.name, None)

    # -- what is known

    def service_record(self, name: str) -> ServiceRecord:
        """Return a service's row. Raises KeyError."""
        return self.services[name].record

    def version_record(self, version_id: str) -> VersionRecord:
        """Return a version's row, its breakers' state as of now. Raises KeyError."""
        entry = self._by_version[version_id]
        if entry.record.circuit_state != entry.circuit_state:
            entry.record = replace(entry.record, circuit_state=entry.circuit_state)
        if (
            entry.record.drained
            and entry.health is Health.UNKNOWN
            and entry.record.health_status != "unknown"
        ):
            entry.record = replace(entry.record, health_status="unknown")
        return entry.record

    def has_version(self, version_id: str) -> bool:
        """Return whether there is such a version, and it is served."""
        return version_id in self._by_version

    def version_records(self) -> Iterator[VersionRecord]:
        """Yield the rows of all versions that are served."""
        return (entry.record for entry in self._by_version.values())

    def version(self, version_id: str) -> VersionEntry:
        """Return a version with its endpoints. Raises KeyError."""
        return self._by_version[version_id]

    def set_aside_id(self, name: str) -> str | None:
        """Return the id of a stored service of this name that is not served, because the file dropped it."""
        return self._set_aside.get(name)

    def is_usable(self, version_id: str) -> bool:
        """Return whether a version may be sent requests now."""
        entry = self._by_version.get(version_id)
        return entry is not None and entry.is_usable

    def is_healthy(self, version_id: str) -> bool:
        """Return whether any endpoint of a version passes its probes, or nobody probes them."""
        entry = self._by_version.get(version_id)
        return entry is not None and any(each.is_healthy for each in entry.endpoints.values())

    def health_of(self, version_id: str) -> Health:
        """Return a version's health: healthy if any endpoint is, unhealthy if all are. Raises KeyError."""
        return self._by_version[version_id].health

    def endpoint_keys(self, version_id: str) -> tuple[str, ...]:
        """Return the keys of a version's endpoints; none if it is gone."""
        entry = self._by_version.get(version_id)
        return tuple(entry.endpoints) if entry is not None else ()

    def endpoint(self, key: str) -> EndpointEntry | None:
        """Return the endpoint of this key; None if it is gone."""
        version = self._by_version.get(key.partition("|")[0])
        return version.endpoints.get(key) if version is not None else None

    def tls_of(self, version_id: str) -> ssl.SSLContext | None:
        """Return how a version's https endpoints are spoken to; None: by default."""
        return self._by_version[version_id].service.tls()

    # -- the open deployment

    def follow(self, rollouts: OpenRollouts) -> None:
        """From now on ask `rollouts` which deployment is open. Call it once they have been taken up."""
        self._rollouts = rollouts
        self._open.clear()
        self._marks.clear()

    def open_for(self, service: str) -> DeploymentRecord | None:
        """Return the service's open deployment, if there is one."""
        return self._rollouts.open_for(service) if self._rollouts is not None else self._open.get(service)

    # -- probing and names

    def to_probe(self) -> Iterator[str]:
        """Yield the key of every endpoint that may answer."""
        for version in self._by_version.values():
            if version.service.health is not None:
                yield from (key for key, each in version.endpoints.items() if each.is_worth_a_probe)

    def probed(self, key: str) -> Probed | None:
        """Return what there is to probe under `key`; None if it is gone."""
        endpoint = self.endpoint(key)
        if endpoint is None or not endpoint.is_worth_a_probe:
            return None
        is_idle = self._is_idle(endpoint.version)
        return endpoint.probed(is_idle=is_idle, is_rare=is_idle and self._is_settled(endpoint.version))

    def _is_idle(self, version: VersionEntry) -> bool:
        """Whether no request goes there, nor will by itself."""
        record, service = version.record, version.service
        rollout = self.open_for(service.record.name)
        rolls = rollout is not None and record.id in (rollout.from_version_id, rollout.to_version_id)
        return not record.weight and not rolls and not service.is_fallback(record.version)

    def _is_settled(self, version: VersionEntry) -> bool:
        """Whether nobody waits for a version to come up: it has been up, or had its time."""
        record = version.record
        return record.ever_healthy or self._now() - record.created_at > COMING_UP

    def shares(self, service: str) -> dict[str, float]:
        """Return the share of a service's requests each version gets now, 0–100, by id. Raises KeyError."""
        rollout = self.open_for(service)
        return self.services[service].shares(rollout.from_version_id if rollout is not None else None)

    def endpoints_of(self, version_id: str) -> list[Probed]:
        """Return a version's endpoints to probe, whatever its state; none if its health is switched off."""
        found = (endpoint.probed() for endpoint in self._by_version[version_id].endpoints.values())
        return [probed for probed in found if probed is not None]

    def named_urls(self) -> list[tuple[str, str]]:
        """Return (version id, url) for every url whose host is a name."""
        named = ((each.record.id, url) for each in self._by_version.values() for url in each.urls)
        return [(version_id, url) for version_id, url in named if parse_target(url).is_named]

    def has_address(self, version_id: str, url: str) -> bool:
        """Return whether a version's url has an endpoint; also where it is gone: nothing is to be found."""
        entry = self._by_version.get(version_id)
        return entry is None or any(each.url == url for each in entry.endpoints.values())

    def set_addresses(self, version_id: str, url: str, addresses: tuple[str, ...]) -> bool:
        """Make `addresses` the endpoints of a version's url, and publish.

        Returns whether anything changed.
        """
        entry = self._by_version.get(version_id)
        if entry is None or url not in entry.urls or not entry.set_addresses(url, addresses):
            return False
        if self._number:
            self.publish([entry.service.record.name])
        return True

    def set_breaker(self, key: str, view: BreakerView) -> None:
        """An endpoint's breaker has moved; the caller publishes."""
        endpoint = self.endpoint(key)
        if endpoint is not None:
            endpoint.breaker = view

    # -- tables

    @property
    def number(self) -> int:
        """Return the number of the newest table."""
        return self._number

    def snap_of(self, name: str) -> ServiceSnap:
        """Return what workers are to go by for a service now. Raises KeyError."""
        return self.services[name].snap(self._clock(), self._rollout_of(name), self._routes_of(name))

    def publish(self, names: Iterable[str]) -> int:
        """Send these services to the workers, or that they are gone. Returns the table's number."""
        chosen = set(names) | self._rerouted()
        self._number += 1
        self._links.publish(self._table(chosen & self.services.keys(), removed=chosen - self.services.keys()))
        return self._number

    def publish_all(self) -> int:
        """Send the whole table to the workers. Returns its number."""
        self._number += 1
        self._links.publish(self.whole())
        return self._number

    def whole(self) -> Snapshot:
        """Return the newest whole table."""
        table = self._table(self.services.keys(), removed=())
        own = tuple((each.address, each.port) for each in self._rules.own())  # known once they are bound
        targets = replace(self._proxy.targets, own=own)
        return replace(table, whole=True, proxy=replace(self._proxy, targets=targets))

    def _table(self, names: Iterable[str], *, removed: Iterable[str]) -> Snapshot:
        now = self._clock()
        names = sorted(names)
        self._followed.update({name: self._routes_of(name) for name in names})
        return Snapshot(
            number=self._number,
            whole=False,
            services={
                name: self.services[name].snap(now, self._rollout_of(name), self._followed[name])
                for name in names
            },
            removed=tuple(sorted(removed)),
            workers=self._workers,
        )

    def _rerouted(self) -> set[str]:
        """Return the services whose routes are to be followed, or no more, because others came or went."""
        known = self._followed.keys() & self.services.keys()
        waiting = [name for name in known if not self.services[name].has_begun]
        return {name for name in waiting if self._routes_of(name) != self._followed[name]}

    def _routes_of(self, name: str) -> tuple[RouteSettings, ...]:
        """Return the routes workers follow to a service.

        One that has never had a usable version takes no requests from those that have: a url that leads
        nowhere does not turn a working route into a 503.
        """
        entry = self.services[name]
        routes = entry.record.settings.routes
        if entry.has_begun:
            return routes
        others = {each: other.record.settings for each, other in self.services.items() if other.has_begun}
        return tuple(route for route in routes if not losers((route,), others))

    def _rollout_of(self, service: str) -> RolloutSnap | None:
        record = self.open_for(service)
        if record is None or record.from_version_id is None:
            return None
        mark = self._rollouts.mark_for(service) if self._rollouts is not None else self._marks.get(record.id)
        return RolloutSnap(
            id=record.id,
            old=record.from_version_id,
            new=record.to_version_id,
            percent=record.traffic_percent,
            mark=mark,
        )

    # -- observers

    def subscribe(self, observer: Observer) -> None:
        """Call `observer(kind, service, version)` after every change; kind: `service` or `version`."""
        self._observers.append(observer)

    def _notify(self, kind: str, service: str, version: VersionRecord | None) -> None:
        for observer in self._observers:
            observer(kind, service, version)
