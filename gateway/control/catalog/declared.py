"""What the configuration file declares, as rows: what it adds to those of the store."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec.structs import replace

from gateway.control.catalog.entries import context_of
from gateway.core.routing.service import ServiceSettings
from gateway.errors import ConfigError
from gateway.store.api import Store, Transaction
from gateway.store.records import CatalogRows, ServiceRecord, VersionRecord


class DeclaredVersion(Protocol):
    """A `[[service.version]]` table."""

    @property
    def version(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def replicas(self) -> tuple[str, ...]: ...
    @property
    def weight(self) -> int: ...
    @property
    def shutdown_url(self) -> str | None: ...


class Declared(Protocol):
    """A `[[service]]` table."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> Sequence[DeclaredVersion]: ...
    def settings(self) -> ServiceSettings: ...


class Made(msgspec.Struct, frozen=True):
    """Rows to write: new ones, and changed ones."""

    services: list[ServiceRecord]
    versions: list[VersionRecord]


class Served(msgspec.Struct, frozen=True):
    """What the store and the file come to together."""

    services: dict[str, ServiceRecord]
    """Those that are served, by name."""
    versions: list[VersionRecord]
    """As stored."""
    made: Made
    """What the file adds."""
    set_aside: dict[str, str]
    """Name -> id of services that are stored and not served: the file declares them no more."""
    declared: frozenset[str]
    """Names of services that the file declares."""

    @classmethod
    def stored(cls, rows: CatalogRows, declared: Sequence[Declared]) -> "Served":
        """Return what another gateway has stored, as far as it is served here. Raises ConfigError."""
        for each in declared:
            check_tls(each)
        for stored in rows.services:
            context_of(stored.settings.tls)
        names = frozenset(each.name for each in declared)
        services = {record.name: record for record in served_of(rows, names)}
        return cls(services, list(rows.versions), Made([], []), {}, names)

    def put(self, tx: Transaction) -> None:
        """Write what the file adds."""
        for service in self.made.services:
            tx.put_service(service)
        for version in self.made.versions:
            tx.put_version(version)


async def store_declared(store: Store, declared: Sequence[Declared], now: datetime) -> None:
    """Write what the file adds to the store, which is ours. Raises StoreError, or ConfigError as `served`."""
    async with store.transaction() as tx:
        open_services = {record.service_name for record in await store.open_deployments()}
        (await served(store, declared, open_services, now)).put(tx)


async def served(
    store: Store, declared: Sequence[Declared], open_services: Collection[str], now: datetime
) -> Served:
    """Read the store, and see what it comes to with the file.

    open_services: what has an open deployment is served, declared or not. Raises ConfigError if TLS files
    cannot be used, or two services claim the same route.
    """
    for each in declared:
        check_tls(each)
    services = {record.name: record for record in await store.load_services()}
    versions = await store.load_versions()
    made = declare(declared, services, versions, now)
    services.update((record.name, record) for record in made.services)
    names = {*open_services, *(each.name for each in declared)}
    kept = {name: record for name, record in services.items() if record.source == "api" or name in names}
    if problem := route_conflict({name: record.settings for name, record in kept.items()}):
        raise ConfigError("service", problem)
    set_aside = {name: record.id for name, record in services.items() if name not in kept}
    return Served(kept, versions, made, set_aside, frozenset(each.name for each in declared))


def served_of(rows: CatalogRows, declared: Collection[str]) -> list[ServiceRecord]:
    """Return the services that are served: one that no file declares any more is not."""
    kept = {*declared, *(record.service_name for record in rows.deployments)}
    return [each for each in rows.services if each.source == "api" or each.name in kept]


def check_tls(declared: Declared) -> None:
    """Refuse TLS files that cannot be used before anything follows them. Raises ConfigError."""
    try:
        context_of(declared.settings().tls)
    except ConfigError as exc:
        raise ConfigError(f"service {declared.name!r}: tls", str(exc)) from exc


def declare(
    declared: Iterable[Declared],
    services: Mapping[str, ServiceRecord],
    versions: Iterable[VersionRecord],
    now: datetime,
) -> Made:
    """Return the rows that make the store say what the file does.

    services: those stored, by name. A service's settings follow the file; its versions are taken from the
    file only while the store has none.
    """
    made = Made([], [])
    settled = {version.service_id for version in versions}
    for each in declared:
        record = _service(each, services.get(each.name), now)
        if record != services.get(each.name):
            made.services.append(record)
        if record.id not in settled:
            made.versions.extend(_versions(each.version, record, now))
    return made


def _service(declared: Declared, stored: ServiceRecord | None, now: datetime) -> ServiceRecord:
    settings = declared.settings()
    if stored is None:
        return ServiceRecord(
            id=str(uuid.uuid4()),
            name=declared.name,
            settings=settings,
            source="file",
            created_at=now,
            updated_at=now,
        )
    if (stored.settings, stored.source) == (settings, "file"):
        return stored
    return replace(stored, settings=settings, source="file", updated_at=now)


def _versions(
    declared: Sequence[DeclaredVersion], service: ServiceRecord, now: datetime
) -> list[VersionRecord]:
    """Return the file's versions as rows; a single one without a weight gets all of it."""
    alone = len(declared) == 1
    return [
        VersionRecord(
            id=str(uuid.uuid4()),
            service_id=service.id,
            service_name=service.name,
            version=each.version,
            url=each.url,
            replicas=each.replicas,
            weight=100 if alone and not each.weight else each.weight,
            shutdown_url=each.shutdown_url,
            created_at=now,
            updated_at=now,
        )
        for each in declared
    ]


def route_conflict(services: Mapping[str, ServiceSettings]) -> str:
    """Return which route is claimed twice, naming both services; empty if none.

    Two routes are the same if host and path are, and both name some method or both leave it open: a route for
    some methods goes before one for all.
    """
    claimed: dict[tuple[str, str], list[tuple[frozenset[str], str]]] = {}
    for name, settings in services.items():
        for route in settings.routes:
            place = claimed.setdefault((route.host.lower(), route.path.rstrip("/")), [])
            methods = frozenset(method.upper() for method in route.methods)
            for others, other in place:
                if others != methods and not others & methods:
                    continue
                if other == name:
                    return f"service {name!r} claims {route.host}{route.path} twice"
                return f"services {other!r} and {name!r} both claim {route.host}{route.path}"
            place.append((methods, name))
    return ""
