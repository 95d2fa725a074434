"""Rollbacks and pauses that a person should look at, and what somebody said of them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from gateway.actions.access import Access, Actor, require_scope
from gateway.actions.bodies import Acknowledge
from gateway.actions.problems import not_found
from gateway.actions.reports import Report
from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.records import AcknowledgementRecord, DeploymentRecord, EventRecord

log = get_logger(component="actions")

KINDS: Final = {
    "deployment.rolled_back": "rolled_back",
    "deployment.failed": "failed",
    "deployment.paused": "paused",
}
"""Events that a person should look at, and the status the rollout must still have."""
LOOKED_AT: Final = 100
"""Of so many of them, the newest."""


class Alert(Report, frozen=True, kw_only=True):
    """A rollback, a failure or a pause that goes on, and that nobody has acknowledged since."""

    deployment_id: str
    service_name: str
    from_version: str | None
    to_version: str
    kind: str
    """`rolled_back`, `failed` or `paused`."""
    at: datetime
    reason: str
    actor: str
    """Who or what brought it about."""


class Acknowledgements:
    """Everything about alerts."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def acknowledge(self, actor: Actor, deployment_id: str, body: Acknowledge) -> DeploymentRecord:
        """Say that a deployment was looked at; of several times the last one is kept. Raises Problem 404."""
        details = {"note": body.note} if body.note else {}
        async with self._access.change(actor, "deployment.ack", deployment_id, details) as tx:
            record = await self._access.store.deployment(deployment_id)
            if record is None:
                raise not_found("deployment", deployment_id)
            details["service"] = record.service_name
            require_scope(actor, record.service_name)
            now = self._access.now()
            event_id = tx.add_event(
                EventRecord(
                    at=now,
                    kind="deployment.acknowledged",
                    service=record.service_name,
                    version=record.to_version,
                    deployment_id=deployment_id,
                    actor=actor.name,
                    data={"text": body.note},
                )
            )
            tx.put_acknowledgement(
                AcknowledgementRecord(
                    deployment_id=deployment_id, at=now, actor=actor.name, note=body.note, event_id=event_id
                )
            )
        return record

    async def of(self, deployment_ids: Iterable[str]) -> dict[str, AcknowledgementRecord]:
        """Return what was acknowledged of these deployments, by id; without the store, nothing.

        What is shown beside it is known without, and is wanted most when something fails.
        """
        ids = list(deployment_ids)
        try:
            return await self._access.store.acknowledgements(ids) if ids else {}
        except StoreError as exc:
            log.error("acknowledgements_not_read", error=str(exc))
            return {}

    async def alerts(self, service: str | None = None) -> list[Alert]:
        """Return what nobody has acknowledged, newest first; of all services, or of one. As `of`."""
        try:
            return await self._alerts(service)
        except StoreError as exc:
            log.error("alerts_not_read", error=str(exc))
            return []

    async def _alerts(self, service: str | None) -> list[Alert]:
        store = self._access.store
        events = await store.newest_events(limit=LOOKED_AT, service=service, kinds=tuple(KINDS))
        newest = {str(event.deployment_id): event for event in events}
        seen = await self.of(newest)
        unseen = [
            event
            for event in newest.values()
            if (ack := seen.get(str(event.deployment_id))) is None or ack.event_id < event.id
        ]
        found = [await self._alert(event) for event in sorted(unseen, key=lambda event: -event.id)]
        return [alert for alert in found if alert is not None]

    async def _alert(self, event: EventRecord) -> Alert | None:
        """Return an event as an alert; None if the deployment has gone on since."""
        deployment_id = str(event.deployment_id)
        rollouts = self._access.rollouts
        record = rollouts.unstored(deployment_id) or await self._access.store.deployment(deployment_id)
        if record is None or record.status != KINDS[event.kind]:
            return None
        return Alert(
            deployment_id=record.id,
            service_name=record.service_name,
            from_version=record.from_version,
            to_version=record.to_version,
            kind=KINDS[event.kind],
            at=event.at,
            reason=record.error_message or str(event.data.get("text", "")),
            actor=event.actor,
        )
