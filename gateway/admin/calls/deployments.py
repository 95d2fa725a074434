"""Calls about rollouts: start, steer, look."""

from msgspec.structs import replace

from gateway.admin import views
from gateway.admin.call import Call, Reply, created, listing, page, tagged
from gateway.admin.schemas import DecisionView, EventView, SmokeView, view
from gateway.control.rollouts.unstored import Ordered
from gateway.store.records import DeploymentRecord


async def start(call: Call) -> Reply:
    """Start a rollout."""
    key = call.fields.get("idempotency-key")
    record = await call.actions.deployments.start(call.actor, call.body, idempotency_key=key)
    return created(f"deployment/{record.id}", await _shown(call, record))


async def list_all(call: Call) -> Reply:
    """List rollouts, newest first."""
    query = call.query
    found = await call.actions.deployments.list_all(
        query.service_name, status=query.status, cursor=query.after, limit=query.limit
    )
    seen = await call.actions.acknowledgements.of(record.id for record in found.items)
    shown = [
        views.deployment(record, seen, unstored_at=call.actions.deployments.unstored_at(record.id))
        for record in found.items
    ]
    return listing(shown, found.next)


async def get(call: Call) -> Reply:
    """Show a rollout."""
    stored = not call.actions.deployments.unstored_at(call.id)
    found = Ordered(await call.actions.deployments.get(call.id), stored=stored)
    return await ordered(call, found, unstored=200)


async def set_traffic(call: Call) -> Reply:
    """Set the new version's share."""
    record = await call.actions.deployments.set_traffic(
        call.actor, call.id, call.body, if_match=call.if_match
    )
    return await _shown(call, record)


async def promote(call: Call) -> Reply:
    """Take the next step, or all traffic."""
    record = await call.actions.deployments.promote(call.actor, call.id, call.body, if_match=call.if_match)
    return await _shown(call, record)


async def pause(call: Call) -> Reply:
    """Hold a rollout."""
    return await ordered(call, await call.actions.deployments.pause(call.actor, call.id, call.body))


async def resume(call: Call) -> Reply:
    """Let a rollout go on."""
    record = await call.actions.deployments.resume(call.actor, call.id, call.body, if_match=call.if_match)
    return await _shown(call, record)


async def complete(call: Call) -> Reply:
    """End a rollout at 100 %."""
    record = await call.actions.deployments.complete(call.actor, call.id, call.body, if_match=call.if_match)
    return await _shown(call, record)


async def rollback(call: Call) -> Reply:
    """Move all traffic back."""
    return await ordered(call, await call.actions.deployments.rollback(call.actor, call.id, call.body))


async def decisions(call: Call) -> Reply:
    """List verdicts and moves, newest first."""
    query = call.query
    return page(
        DecisionView, await call.actions.deployments.decisions(call.id, cursor=query.after, limit=query.limit)
    )


async def events(call: Call) -> Reply:
    """List what happened to a rollout, oldest first."""
    query = call.query
    found = await call.actions.deployments.events(call.id, after=query.after, limit=query.limit)
    return listing([view(EventView, record) for record in found])


async def windows(call: Call) -> Reply:
    """Show how a rollout went."""
    return Reply(value=await call.actions.charts.windows(call.id, call.query.since))


async def acknowledge(call: Call) -> Reply:
    """Say that a rollout was looked at."""
    return await _shown(call, await call.actions.acknowledgements.acknowledge(call.actor, call.id, call.body))


async def smoke(call: Call) -> Reply:
    """List the smoke tests run for a rollout, newest first."""
    return listing([view(SmokeView, record) for record in await call.actions.deployments.smoke(call.id)])


async def whatif(call: Call) -> Reply:
    """Replay earlier rollouts under other settings."""
    return Reply(value=await call.actions.whatif.replay(call.body))


async def ordered(call: Call, done: Ordered, *, unstored: int = 202) -> Reply:
    """Return what came of an order. unstored: the status where it is in force and not stored yet."""
    if not done.stored:  # nor may the store be readable: the answer to a rollback needs none
        node = call.actions.deployments.node
        shown = views.deployment(done.record, {}, unstored_at=node, is_kept=done.is_kept)
        return replace(tagged(shown, done.record), status=unstored)
    return await _shown(call, done.record)


async def _shown(call: Call, record: DeploymentRecord) -> Reply:
    seen = await call.actions.acknowledgements.of([record.id])
    return tagged(views.deployment(record, seen), record)
