"""What other settings would have made of earlier rollouts."""

from typing import Final

from gateway.actions.access import Access, planned
from gateway.actions.bodies import WhatIf
from gateway.actions.problems import not_found
from gateway.actions.reports import Report
from gateway.control.rollouts.rows import decoded
from gateway.core.judge.replay import replay, windows_of
from gateway.core.rollout.plan import Plan, RolloutSettings
from gateway.store.records import DeploymentRecord

REPLAYED: Final = 50
"""The newest rollouts of a service that are judged again."""


class Replayed(Report, frozen=True, kw_only=True):
    """What the proposed settings would have done to one earlier rollout."""

    deployment_id: str
    status: str
    """How it ended in truth."""
    verdict: str
    """`abort`: it would have been stopped. Else the judge's last word."""
    step: int
    """Index among the shares it went through."""
    after_ms: int
    """Observed time until then."""
    reason: str


class Replays(Report, frozen=True, kw_only=True):
    """Earlier rollouts judged again, newest first; those without stored windows are left out."""

    items: list[Replayed]


class WhatIfs:
    """Everything about rollouts that did not happen."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def replay(self, body: WhatIf) -> Replays:
        """Judge earlier rollouts of a service, or one of them, again under other settings."""
        service = self._access.service(body.service_name)
        settings = RolloutSettings(**body.config.given())
        proposed = planned(service.record.settings, body.strategy, settings)
        found = [await self._replay(record, proposed) for record in await self._earlier(body)]
        return Replays(items=[replayed for replayed in found if replayed is not None])

    async def _earlier(self, body: WhatIf) -> list[DeploymentRecord]:
        if body.deployment_id is None:
            return (await self._access.store.deployments(service=body.service_name, limit=REPLAYED)).items
        record = await self._access.store.deployment(body.deployment_id)
        if record is None or record.service_name != body.service_name:
            raise not_found(f"deployment of service {body.service_name!r}", body.deployment_id)
        return [record]

    async def _replay(self, record: DeploymentRecord, proposed: Plan) -> Replayed | None:
        rows = await self._access.store.windows(deployment_id=record.id)
        windows = windows_of(rows, record.from_version_id or "", record.to_version_id)
        known = decoded(record).evidence.record if record.state else None
        outcome = replay(proposed.rules, windows, known)
        if outcome is None:
            return None
        return Replayed(
            deployment_id=record.id,
            status=record.status,
            verdict=outcome.verdict,
            step=outcome.step,
            after_ms=outcome.after_ms,
            reason=outcome.reason,
        )
