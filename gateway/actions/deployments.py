"""What operators may do with rollouts: start, steer, look, undo."""

import asyncio
import uuid
from typing import Any, Final

from gateway.actions.access import (
    Access,
    Actor,
    bound_key,
    end_it,
    planned,
    require_match,
    require_scope,
    why_so,
)
from gateway.actions.bodies import Explain, Promote, StartDeployment, Traffic
from gateway.actions.problems import conflict, not_found
from gateway.actions.replay import plain, replayed
from gateway.actions.second_person import is_watched, sets_share
from gateway.control.catalog.entries import ServiceEntry, VersionEntry
from gateway.control.rollouts.unstored import Ordered
from gateway.core.rollout.events import (
    Complete,
    Event,
    Order,
    Pause,
    PromoteFull,
    Resume,
    Rollback,
    SetPercent,
    Undo,
)
from gateway.core.rollout.events import Promote as PromoteOrder
from gateway.core.rollout.plan import RolloutSettings
from gateway.core.rollout.rollout import refusal_once_ended
from gateway.errors import IllegalTransition, StoreError
from gateway.store.api import Page
from gateway.store.records import DecisionRecord, DeploymentRecord, EventRecord, SmokeRecord, Strategy

MAKE_WAY_S: Final = 10.0
"""How long a start waits for the rollout it replaces to move its traffic back."""
SMOKE_RUNS: Final = 100
"""The newest smoke runs of a version, among which those of one deployment are."""
REVERT_S: Final = 0.5
"""How long the answer to a roll back waits to say that it is done."""


class Deployments:
    """Everything about deployments."""

    def __init__(self, access: Access) -> None:
        self._access = access

    # -- looking

    async def get(self, deployment_id: str) -> DeploymentRecord:
        """Return a deployment, as it is in force. One that is under way is known without the store."""
        if (in_force := self._access.rollouts.unstored(deployment_id)) is not None:
            return in_force
        try:
            record = await self._access.store.deployment(deployment_id)
        except StoreError:
            record = self._access.rollouts.record_of(deployment_id)
            if record is None:
                raise
        if record is None:
            raise not_found("deployment", deployment_id)
        return record

    async def list_all(
        self,
        service_name: str | None = None,
        *,
        status: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[DeploymentRecord]:
        """Return deployments, newest first. A service's newest one is known without the store, if it is under
        way: whoever wants to roll it back asks for it first.
        """
        try:
            page = await self._access.store.deployments(
                service=service_name, status=status, cursor=cursor, limit=limit
            )
        except StoreError:
            newest = self._access.rollouts.newest_of(service_name) if service_name else None
            if newest is None or (status, cursor, limit) != (None, None, 1):
                raise
            return Page([newest], self._access.store.cursor_after(newest))
        in_force = [self._access.rollouts.unstored(record.id) or record for record in page.items]
        return Page(in_force, page.next)

    @property
    def node(self) -> str:
        """Return what this gateway is called."""
        return self._access.node

    def unstored_at(self, deployment_id: str) -> str:
        """Return where a deployment is in force as the store does not have it yet; empty: it has."""
        return self.node if self._access.rollouts.unstored(deployment_id) is not None else ""

    async def decisions(
        self, deployment_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[DecisionRecord]:
        """Return a deployment's verdicts and moves, newest first."""
        await self.get(deployment_id)
        return await self._access.store.decisions(deployment_id, cursor=cursor, limit=limit)

    async def events(
        self, deployment_id: str, *, after: int | None = None, limit: int = 100
    ) -> list[EventRecord]:
        """Return what happened to a deployment, oldest first. after: an event's id; None: from its start."""
        await self.get(deployment_id)
        return await self._access.store.events(after=after or 0, limit=limit, deployment_id=deployment_id)

    async def smoke(self, deployment_id: str) -> list[SmokeRecord]:
        """Return the smoke tests that were run for a deployment, newest first."""
        record = await self.get(deployment_id)
        found = await self._access.store.smoke(record.to_version_id, limit=SMOKE_RUNS)
        return [run for run in found.items if run.deployment_id == deployment_id]

    # -- starting

    async def start(
        self, actor: Actor, body: StartDeployment, *, idempotency_key: str | None = None
    ) -> DeploymentRecord:
        """Open a deployment. The same key and the same body again return the deployment they opened."""
        key = bound_key(actor, idempotency_key)
        async with self._access.refusals(actor, "deployment.start", "", {"service": body.service_name}):
            require_scope(actor, body.service_name)
            settings = body.rollout()
            self._access.refuse_stand_in(settings, "" if body.given() else "/config")
            earlier = await self._opened_by(key, body, settings)
        if earlier is not None:
            return earlier
        await self._find_current(body.service_name)
        async with self._access.refusals(actor, "deployment.start", "", {"service": body.service_name}):
            self._hold_start(actor, body, settings)
        await self._make_way(actor, body)
        return await self._start(actor, "deployment.start", body, settings, key, is_flat=bool(body.given()))

    async def _start(
        self,
        actor: Actor,
        action: str,
        body: StartDeployment,
        settings: RolloutSettings,
        key: str | None,
        *,
        is_flat: bool = False,
        reason: str = "",
    ) -> DeploymentRecord:
        details = {"service": body.service_name, "toVersion": body.to_version, "strategy": body.strategy}
        if reason:
            details["reason"] = reason
        deployment_id = str(uuid.uuid4())
        async with self._access.change(actor, action, deployment_id, details) as tx:
            earlier = await self._opened_by(key, body, settings)
            if earlier is not None:
                details["replayed"] = earlier.id  # the same request came twice at the same time
                return earlier
            service = self._access.service(body.service_name)
            self._refuse_while_frozen(body.service_name)
            self._refuse_second(service)
            new = self._named(service, body.to_version)
            old = self._origin(service, body, new)
            under = "" if is_flat else "/config"
            resolved = planned(service.record.settings, body.strategy, settings, under=under)
            await self._access.supersede(tx, service.record.name)
            record = self._new_record(deployment_id, service, old, new, body.strategy, settings, actor, key)
            return self._access.rollouts.begin(tx, record, resolved, actor.name)

    def _hold_start(self, actor: Actor, body: StartDeployment, settings: RolloutSettings) -> None:
        """Let a second person confirm a start that brings all traffic over without the judge's word.

        What would be refused is refused first; Problem. Raises ApprovalNeeded.
        """
        service = self._access.catalog.services.get(body.service_name)
        if service is None:
            return
        under = "" if body.given() else "/config"
        resolved = planned(service.record.settings, body.strategy, settings, under=under)
        if is_watched(resolved):
            return
        self._refuse_while_frozen(body.service_name)
        if service.record.settings.on_new_version != "restart":
            self._refuse_second(service)
            self._origin(service, body, self._named(service, body.to_version))
        what = f"{body.strategy} start of {body.service_name} to {body.to_version}, watched by no judge"
        self._access.require_second(actor, body.service_name, what)

    async def _opened_by(
        self, key: str | None, body: StartDeployment, settings: RolloutSettings
    ) -> DeploymentRecord | None:
        """Return the deployment this Idempotency-Key has opened. Raises Problem 422 if `body` differs."""
        earlier = await self._access.store.deployment_by_key(key) if key is not None else None
        return replayed(earlier, body, settings) if earlier is not None else None

    def _new_record(
        self,
        deployment_id: str,
        service: ServiceEntry,
        old: VersionEntry,
        new: VersionEntry,
        strategy: Strategy,
        settings: RolloutSettings,
        actor: Actor,
        key: str | None,
    ) -> DeploymentRecord:
        now = self._access.now()
        return DeploymentRecord(
            id=deployment_id,
            service_name=service.record.name,
            from_version_id=old.record.id,
            from_version=old.record.version,
            to_version_id=new.record.id,
            to_version=new.record.version,
            strategy=strategy,
            config=plain(settings),
            created_by=actor.name,
            idempotency_key=key,
            created_at=now,
            updated_at=now,
        )

    def _named(self, service: ServiceEntry, version: str) -> VersionEntry:
        """Return a version of `service` by name or id. Raises Problem 404."""
        entry = service.named(version)
        if entry is None:
            raise not_found(f"version of service {service.record.name!r}", version)
        return entry

    def _origin(self, service: ServiceEntry, body: StartDeployment, new: VersionEntry) -> VersionEntry:
        """Return the version that has all the traffic now. Raises Problem 409 if others have some too."""
        given = body.from_version or service.record.current_version_id
        if given is None:
            raise conflict(
                "no version of the service has passed a health check yet; give fromVersion",
                f"`gateway get {service.record.name}` says how its versions are",
            )
        old = self._named(service, given)
        if old is new:
            raise conflict(
                f"version {new.record.version!r} is the one that has the traffic already",
                f"`gateway versions {service.record.name}` lists what else could get it",
            )
        others = [each.record for each in service.versions.values() if each.record.weight and each is not old]
        if others:
            named = ", ".join(f"{record.version} has {record.weight}" for record in others)
            first = f"`gateway set-weight {service.record.name} {others[0].version} 0`"
            raise conflict(
                f"version {old.record.version!r} does not have all the weight: {named}",
                f"{first} takes it away",
            )
        if not old.record.weight:
            name = f"{service.record.name} {new.record.version}"
            raise conflict(
                f"version {old.record.version!r} has no weight, so there is nothing to move",
                f"`gateway set-weight {name} 100` gives some without a rollout",
            )
        return old

    def _refuse_while_frozen(self, service: str) -> None:
        if why := self._access.why_frozen(service):
            raise conflict(f"changes are frozen by {why}: no deployment may start", self._access.unfreeze())

    def _refuse_second(self, service: ServiceEntry) -> None:
        deployment = self._access.rollouts.open_for(service.record.name)
        if deployment is not None:
            raise conflict(
                f"deployment {deployment.id} of this service is open already: "
                f"{deployment.status}, to {deployment.to_version}",
                end_it(service.record.name),
            )

    async def _find_current(self, service_name: str) -> None:
        """Probe what has weight if the service has no current version: it may have come a moment ago."""
        service = self._access.catalog.services.get(service_name)
        if service is None or service.record.current_version_id is not None:
            return
        carriers = [each.record.id for each in service.versions.values() if each.record.weight]
        await asyncio.gather(*map(self._access.checks.probe, carriers))

    async def _make_way(self, actor: Actor, body: StartDeployment) -> None:
        """Roll an open deployment back, if the service wants newer ones to replace it, and see it closed.

        The roll back has to be known to every worker before the next rollout may own the weights.
        """
        service = self._access.catalog.services.get(body.service_name)
        deployment = self._access.rollouts.open_for(body.service_name)
        if service is None or deployment is None or service.record.settings.on_new_version != "restart":
            return
        why = f"replaced by a deployment of {body.to_version}"
        async with self._access.change(actor, "deployment.rollback", deployment.id, {"reason": why}) as tx:
            self._named(service, body.to_version)
            self._refuse_while_frozen(body.service_name)
            self._access.rollouts.order(tx, deployment.id, Rollback(actor.name, why))
        await self._access.rollouts.closed(body.service_name, MAKE_WAY_S)

    # -- steering

    async def set_traffic(
        self, actor: Actor, deployment_id: str, body: Traffic, *, if_match: str | None = None
    ) -> DeploymentRecord:
        """Set the new version's share; the step's clock starts again."""
        order = SetPercent(actor.name, body.percent, body.reason)
        details = {"percent": body.percent, **_reason(body)}
        return await self._order(actor, "deployment.traffic", deployment_id, order, details, if_match)

    async def promote(
        self, actor: Actor, deployment_id: str, body: Promote, *, if_match: str | None = None
    ) -> DeploymentRecord:
        """Take the next step now; or all traffic, and then the bake."""
        kind = PromoteFull if body.full else PromoteOrder
        order = kind(actor.name, body.reason)
        details = {"full": body.full, **_reason(body)}
        return await self._order(actor, "deployment.promote", deployment_id, order, details, if_match)

    async def pause(self, actor: Actor, deployment_id: str, body: Explain) -> Ordered:
        """Hold a deployment where it is; the judge goes on guarding. Stored or not (`Ordered`)."""
        order = Pause(actor.name, body.reason)
        return await self._order_at_once(actor, "deployment.pause", deployment_id, order, body)

    async def resume(
        self, actor: Actor, deployment_id: str, body: Explain, *, if_match: str | None = None
    ) -> DeploymentRecord:
        """Let a paused deployment go on."""
        return await self._explained(
            actor, "deployment.resume", deployment_id, Resume(actor.name, body.reason), body, if_match
        )

    async def complete(
        self, actor: Actor, deployment_id: str, body: Explain, *, if_match: str | None = None
    ) -> DeploymentRecord:
        """End a deployment that is at 100 %."""
        return await self._explained(
            actor, "deployment.complete", deployment_id, Complete(actor.name, body.reason), body, if_match
        )

    async def rollback(self, actor: Actor, deployment_id: str, body: Explain) -> Ordered:
        """Move all traffic back to the old version, now. Never frozen, never refused for an If-Match.

        A store that fails does not hold it up: then it is in force, and stored later (`Ordered`).
        """
        order = Rollback(actor.name, body.reason)
        done = await self._order_at_once(actor, "deployment.rollback", deployment_id, order, body)
        return await self._reverted(done)

    async def _reverted(self, done: Ordered) -> Ordered:
        """Return the deployment as it is once the workers serve by the old weights, or shortly after anyway.

        They do within milliseconds; a slow one is not waited for, and the answer then says `rolling`.
        """
        if not done.stored:
            return done
        await self._access.rollouts.closed(done.record.service_name, REVERT_S)
        return Ordered(await self.get(done.record.id))

    async def _order_at_once(
        self, actor: Actor, action: str, deployment_id: str, order: Order, body: Explain
    ) -> Ordered:
        """Have an order carried out that waits for no store. Raises Problem 404, IllegalTransition (409)."""
        access, rollouts = self._access, self._access.rollouts
        details = _reason(body)
        async with access.refusals(actor, action, deployment_id, details):
            running = rollouts.record_of(deployment_id)
            if running is None:
                await access.store.refresh()  # another gateway may have begun it just now
                running = rollouts.record_of(deployment_id)
            if running is None:
                record = await self.get(deployment_id)
                details["service"] = record.service_name
                raise conflict(refusal_once_ended(record.status, order), _after_the_end(record, order))
            details["service"] = running.service_name
            require_scope(actor, running.service_name)
            entry = access.entry(actor, action, deployment_id, details)
            try:
                return await rollouts.order_at_once(deployment_id, order, entry)
            except IllegalTransition as refused:
                refused.next_step = refused.next_step or why_so(running.service_name)
                raise

    async def _explained(
        self,
        actor: Actor,
        action: str,
        deployment_id: str,
        order: Order,
        body: Explain,
        if_match: str | None = None,
    ) -> DeploymentRecord:
        return await self._order(actor, action, deployment_id, order, _reason(body), if_match)

    async def _order(
        self,
        actor: Actor,
        action: str,
        deployment_id: str,
        order: Event,
        details: dict[str, Any],
        if_match: str | None = None,
    ) -> DeploymentRecord:
        """Have an order carried out. Raises Problem 404 or 412, IllegalTransition (409)."""
        async with self._access.change(actor, action, deployment_id, details) as tx:
            record = await self.get(deployment_id)
            details["service"] = record.service_name
            require_scope(actor, record.service_name)
            require_match(if_match, record)
            state = self._access.rollouts.state_of(deployment_id)
            if state is None:
                raise conflict(refusal_once_ended(record.status, order), _after_the_end(record, order))
            try:
                if sets_share(state, order):
                    what = f"{action} of {record.service_name} to {record.to_version}"
                    share = f" ({order.percent} %)" if isinstance(order, SetPercent) else ""
                    self._access.require_second(actor, record.service_name, what + share)
                return self._access.rollouts.order(tx, deployment_id, order)
            except IllegalTransition as refused:
                why = self._access.why_frozen(record.service_name)
                if why and "frozen" in str(refused):
                    refused = IllegalTransition(f"{refused} (by {why})", next_step=self._access.unfreeze())
                refused.next_step = refused.next_step or why_so(record.service_name)
                raise refused

    # -- undo

    async def undo(self, actor: Actor, service_name: str, body: Explain) -> Ordered:
        """Take back the last release: roll it back if it is open, else start one to the version before."""
        async with self._access.refusals(actor, "service.undo", service_name):
            require_scope(actor, service_name)
        deployment = self._access.rollouts.open_for(service_name)
        if deployment is not None:
            order = Undo(actor.name, body.reason)
            return await self._reverted(
                await self._order_at_once(actor, "service.undo", deployment.id, order, body)
            )
        async with self._access.refusals(actor, "service.undo", service_name):
            service = self._access.service(service_name)
            before = await self._version_before(service)
            self._refuse_while_frozen(service_name)
            back_to = service.versions[before].record.version
            self._access.require_second(
                actor, service_name, f"undo: all traffic of {service_name} to {back_to}"
            )
        back = StartDeployment(service_name=service_name, to_version=before, strategy="immediate")
        record = await self._start(actor, "service.undo", back, back.rollout(), None, reason=body.reason)
        return Ordered(record)

    async def _version_before(self, service: ServiceEntry) -> str:
        """Return the id of the version the current one replaced.

        Raises Problem 409 if none did, or if another release is rolled back since: whoever asks twice, or
        together with somebody else, does not mean the release before.
        """
        before = await self._access.version_before(service)
        if before is None:
            name = service.record.name
            raise conflict(
                "there is no earlier version to go back to",
                f"`gateway versions {name}` lists what `gateway deploy {name} VERSION` can bring back",
            )
        newest = (await self._access.store.deployments(service=service.record.name, limit=1)).items[0]
        if newest.status == "rolled_back" and newest.to_version_id != before:
            raise conflict(
                f"the last release, {newest.to_version}, is rolled back already; "
                f"to go back further, start a deployment of {service.versions[before].record.version}",
                f"`gateway deploy {service.record.name} {service.versions[before].record.version}`",
            )
        return before


def _reason(body: Explain | Promote | Traffic) -> dict[str, Any]:
    """Return why somebody wants it, for the audit trail."""
    return {"reason": body.reason} if body.reason else {}


def _after_the_end(record: DeploymentRecord, order: Event) -> str:
    """Return what to do instead of an order that comes too late."""
    if isinstance(order, Rollback) and record.status == "completed":
        return f"`gateway undo {record.service_name}`"
    return why_so(record.service_name)
