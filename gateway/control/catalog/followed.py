"""What another gateway has stored, taken into the catalog of one that follows it."""

from collections.abc import Collection

from msgspec.structs import replace

from gateway.control.catalog.catalog import Catalog
from gateway.link.snapshot import ServiceSnap
from gateway.store.records import CatalogRows, ServiceRecord, VersionRecord


class Followed:
    """Takes rows as they were stored, by the functions that take our own commits."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._rows: dict[str, ServiceRecord | VersionRecord] = {}
        """By id, as they were stored when they were last taken."""
        self._taken: dict[str, ServiceSnap] = {}
        """What workers were to go by when a service was last taken: most rows change nothing of it."""

    def take(self, rows: CatalogRows, names: Collection[str] | None) -> int:
        """Take these services, or all, and send out what workers are to know of it.

        Returns the number of the table that holds it. Raises ConfigError, and changes nothing, if a service's
        TLS cannot be used here.
        """
        catalog = self._catalog
        served = {record.name: record for record in catalog.served(rows)}
        known = catalog.services.keys() if names is None else catalog.services.keys() & set(names)
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
        snaps = {name: _ageless(catalog.snap_of(name)) for name in served}
        news = {name for name, snap in snaps.items() if snap != self._taken.get(name)}
        self._taken.update(snaps)
        return catalog.publish(news | gone) if news or gone else catalog.number

    def _is_new(self, record: ServiceRecord | VersionRecord) -> bool:
        """Note a row. Returns whether it differs from what it was: the catalog knows more than rows say."""
        before, self._rows[record.id] = self._rows.get(record.id), record
        return record != before


def _ageless(service: ServiceSnap) -> ServiceSnap:
    """Return it without what changes by itself: for how long each endpoint has been there."""
    versions = []
    for version in service.versions:
        endpoints = tuple(replace(each, available_for_s=0.0) for each in version.endpoints)
        versions.append(replace(version, endpoints=endpoints))
    return replace(service, versions=tuple(versions))
