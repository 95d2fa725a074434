"""Everything an operator wants at a glance, of all services in one call."""

import asyncio
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.actions.access import Access
from gateway.control.catalog.entries import ServiceEntry, VersionEntry
from gateway.control.recent import Lately
from gateway.control.rollouts.rows import FreezeState
from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord

log = get_logger(component="actions")

NEWEST: Final = 200
"""Of so many rollouts the newest of each service is shown: one question to the store for all services."""


class VersionGlance(msgspec.Struct, frozen=True, kw_only=True):
    """A version, and what it gets and does now. share: percent of its service's traffic."""

    record: VersionRecord
    share: float
    lately: Lately
    in_flight: int
    streams: int


class ServiceGlance(msgspec.Struct, frozen=True, kw_only=True):
    """A service with its versions. deployment: the open rollout. last: the newest, open or not."""

    record: ServiceRecord
    versions: list[VersionGlance]
    deployment: DeploymentRecord | None
    last: DeploymentRecord | None
    hour: tuple[list[int], list[int]] | None = None
    """Answers, and those of 500 and above, in each of the last sixty minutes; None: not asked for."""


class Overview:
    """What `GET overview` shows."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def freeze_state(self) -> FreezeState:
        """Return whether changes are frozen, by a person or by schedule."""
        why = self._access.why_frozen()
        state = self._access.rollouts.freeze_state
        return state if state.frozen or not why else FreezeState(frozen=True, reason=why, actor="schedule")

    async def services(self, name: str | None = None) -> list[ServiceGlance]:
        """Return all services, by name, or the one named; none if there is none of that name."""
        newest = await self._newest(name)
        entries = self._access.catalog.services
        names = sorted(entries) if name is None else [name] if name in entries else []
        return [self._service(entries[each], newest.get(each)) for each in names]

    async def _newest(self, name: str | None) -> dict[str, DeploymentRecord]:
        """Return the newest deployment of each service, or the one named; without the store, none.

        What is open, and all else at a glance, is in memory: it is wanted most when something fails.
        """
        try:
            found = await self._access.store.deployments(service=name, limit=1 if name else NEWEST)
        except StoreError as exc:
            log.error("overview_without_history", error=str(exc))
            return {}
        newest: dict[str, DeploymentRecord] = {}
        for record in found.items:
            newest.setdefault(record.service_name, record)
        return newest

    async def with_hours(self, glances: list[ServiceGlance]) -> list[ServiceGlance]:
        """Return services with their last hours, without holding up others."""
        found = []
        for glance in glances:
            ids = [each.record.id for each in glance.versions]
            found.append(replace(glance, hour=self._access.tally.history.minutes(ids)))
            await asyncio.sleep(0)
        return found

    def _service(self, entry: ServiceEntry, last: DeploymentRecord | None) -> ServiceGlance:
        shares = self._access.catalog.shares(entry.record.name)
        is_open = self._access.rollouts.open_for(entry.record.name)
        return ServiceGlance(
            record=entry.record,
            versions=[self._version(each, shares) for each in entry.versions.values()],
            deployment=is_open,
            last=is_open or last,
        )

    def _version(self, entry: VersionEntry, shares: dict[str, float]) -> VersionGlance:
        version_id = entry.record.id
        in_flight, streams = self._access.tally.running(version_id)
        return VersionGlance(
            record=self._access.catalog.version_record(version_id),
            share=shares.get(version_id, 0.0),
            lately=self._access.tally.recent.version(version_id),
            in_flight=in_flight,
            streams=streams,
        )
