"""Old versions are deleted: of a service's deprecated ones, the newest `keep_versions` stay."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from gateway.control.catalog.catalog import Catalog
from gateway.control.catalog.entries import ServiceEntry
from gateway.errors import StaleEpoch, StoreError
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import AuditEntry, EventRecord, VersionRecord

log = get_logger(component="retention")

AGAIN_S: Final = 3600.0
RECENT: Final = 5
"""Completed deployments that are looked at: the newest that led to the current version is undone."""
ACTOR: Final = "gateway"


class Counts(Protocol):
    """Who counts by version."""

    def forget(self, version_ids: Iterable[str]) -> None: ...


class Retention:
    """Deletes what is too old, when a version has been drained, and every hour."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        tally: Counts,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._tally = tally
        self._now = now
        self._due = asyncio.Event()
        catalog.subscribe(self._on_change)

    async def run(self) -> None:
        """Prune until cancelled. Raises StaleEpoch: another control is in charge."""
        while True:
            try:
                await self.prune()
            except StaleEpoch:
                raise
            except StoreError as exc:
                log.error("versions_not_pruned", error=str(exc), next_in_s=AGAIN_S)
            try:
                async with asyncio.timeout(AGAIN_S):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def prune(self) -> None:
        """Delete every version that is one too many. Raises StoreError."""
        self._due.clear()
        for name in list(self._catalog.services):
            if self._surplus(name, frozenset()):
                await self._prune_service(name, await self._undo_targets(name))

    async def _prune_service(self, name: str, undo_targets: frozenset[str]) -> None:
        if not self._surplus(name, undo_targets):
            return
        async with self._store.transaction() as tx:
            surplus = self._surplus(name, undo_targets)
            for record in surplus:
                self._delete(tx, record)
        for record in surplus:
            log.info("version_pruned", service=name, version=record.version)
        self._tally.forget([record.id for record in surplus])
        self._catalog.publish([name])

    def _delete(self, tx: Transaction, record: VersionRecord) -> None:
        at, name = self._now(), record.service_name
        tx.delete_version(record.id)
        tx.add_event(EventRecord(at=at, kind="version.deleted", service=name, version=record.version))
        tx.add_audit(
            AuditEntry(
                at=at,
                actor=ACTOR,
                action="version.delete",
                resource="version",
                resource_id=record.id,
                details={"service": name, "version": record.version, "reason": "keep_versions"},
            )
        )
        tx.on_commit(partial(self._catalog.drop_version, record.id))

    def _surplus(self, name: str, undo_targets: frozenset[str]) -> list[VersionRecord]:
        """Return the deprecated versions beyond the newest so many that nothing needs, oldest first."""
        service = self._catalog.services.get(name)
        if service is None:
            return []
        records = [each.record for each in service.versions.values() if each.record.status == "deprecated"]
        records.sort(key=lambda record: record.updated_at)
        beyond = records[: -service.record.settings.keep_versions]
        return [each for each in beyond if each.id not in undo_targets and self._is_free(service, each)]

    def _is_free(self, service: ServiceEntry, record: VersionRecord) -> bool:
        """Whether nothing runs at the version, and nothing names it."""
        rollout = self._catalog.open_for(record.service_name)
        is_rolling = rollout is not None and record.id in (rollout.from_version_id, rollout.to_version_id)
        is_current = service.record.current_version_id == record.id
        named = service.record.settings.named_versions  # by a fallback, or for testers
        is_named = record.version in named or record.id in named
        return record.drained and not record.weight and not is_rolling and not is_current and not is_named

    async def _undo_targets(self, name: str) -> frozenset[str]:
        """Return the versions that an undo of one of the last releases would go back to."""
        done = await self._store.deployments(service=name, status="completed", limit=RECENT)
        current = self._catalog.services[name].record.current_version_id
        targets = [str(record.from_version_id) for record in done.items if record.to_version_id == current]
        return frozenset(targets[:1])

    def _on_change(self, kind: str, service: str, version: VersionRecord | None) -> None:
        if version is None or version.drained:
            self._due.set()
