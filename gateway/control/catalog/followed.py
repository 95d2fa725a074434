"""What another gateway has stored, taken into the catalog of one that follows it."""

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from gateway.control.catalog.catalog import Catalog
from gateway.control.catalog.entries import context_of
from gateway.errors import ConfigError
from gateway.link.snapshot import ServiceSnap
from gateway.log import get_logger
from gateway.store.records import CatalogRows, ServiceRecord, VersionRecord

log = get_logger(component="catalog")


class Followed:
    """Takes rows as they were stored, by the functions that take our own commits."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._rows: dict[str, ServiceRecord | VersionRecord] = {}
        """By id, as they were stored when they were last taken."""
        self._taken: dict[str, ServiceSnap] = {}
        """What workers were to go by when a service was last taken: most rows change nothing of it."""
        self._touched: set[str] = set()
        """Services that were taken since the last table."""

    def put(self, rows: CatalogRows, names: Collection[str] | None, *, skips_unusable: bool = False) -> None:
        """Take these services, or all. `publish` comes next.

        skips_unusable: leave a service as it is whose TLS cannot be used here, instead of raising. Raises
        ConfigError, and changes nothing, if a service's TLS cannot be used here.
        """
        catalog = self._catalog
        unusable = _unusable(rows.services, is_refused=not skips_unusable)
        rows = replace(rows, services=[each for each in rows.services if each.name not in unusable])
        served = {record.name: record for record in catalog.served(rows)}
        known = set(catalog.services if names is None else catalog.services.keys() & set(names)) - unusable
        gone = known - served.keys()
        made_anew = {each for each in known - gone if served[each].id != catalog.service_record(each).id}
        for name in gone | made_anew:
            catalog.drop_service(name)
            self._taken.pop(name, None)
        for record in served.values():
            if self._is_new(record) or record.name not in catalog.services:
                catalog.put_service(record)
        there = {each for name in served for each in catalog.services[name].versions}
        for version_id in there - {version.id for version in rows.versions}:
            catalog.drop_version(version_id)
        for version in rows.versions:
            if version.service_name not in served:
                continue
            if self._is_new(version) or not catalog.has_version(version.id):
                catalog.put_version(version)
        self._touched |= served.keys() | gone

    def forget(self) -> None:
        """Take every row for new: what is in force was ahead of the store, and is not any more."""
        self._rows.clear()

    def publish(self) -> int:
        """Send out what workers are to know of it. Returns the number of the table that has it."""
        catalog, touched = self._catalog, self._touched
        self._touched = set()
        gone = touched - catalog.services.keys()
        snaps = {name: _ageless(catalog.snap_of(name)) for name in touched - gone}
        news = {name for name, snap in snaps.items() if snap != self._taken.get(name)}
        self._taken.update(snaps)
        return catalog.publish(news | gone) if news or gone else catalog.number

    def _is_new(self, record: ServiceRecord | VersionRecord) -> bool:
        """Note a row. Returns whether it differs from what it was: the catalog knows more than rows say."""
        before, self._rows[record.id] = self._rows.get(record.id), record
        return record != before


def _unusable(services: Iterable[ServiceRecord], *, is_refused: bool) -> set[str]:
    """Return the names of those whose TLS cannot be used here. Raises ConfigError if one is refused."""
    found = set()
    for record in services:
        try:
            context_of(record.settings.tls)
        except ConfigError as exc:
            if is_refused:
                raise
            log.error("not_followed", service=record.name, error=str(exc), consequence="it stays as it was")
            found.add(record.name)
    return found


def _ageless(service: ServiceSnap) -> ServiceSnap:
    """Return it without what changes by itself: for how long each endpoint has been there."""
    versions = []
    for version in service.versions:
        endpoints = tuple(replace(each, available_for_s=0.0) for each in version.endpoints)
        versions.append(replace(version, endpoints=endpoints))
    return replace(service, versions=tuple(versions))
