"""Calls about services: declare, show, change, hold, undo."""

from msgspec import convert, to_builtins
from msgspec.structs import replace

from gateway.admin.call import Call, Reply, created, part, tagged
from gateway.admin.calls.deployments import ordered
from gateway.admin.schemas import ServiceView, view
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.secrets import hidden
from gateway.store.records import ServiceRecord


async def create(call: Call) -> Reply:
    """Make a service."""
    record = await call.actions.services.create(call.actor, call.body)
    return created(f"services/{record.name}", _shown(record))


async def list_all(call: Call) -> Reply:
    """List services."""
    found = await call.actions.services.list_all()
    return part(ServiceView, map(_without_secrets, found.items), call.query, lambda each: (each.name,))


async def get(call: Call) -> Reply:
    """Show a service."""
    return _shown(await call.actions.services.get(call.name))


async def patch(call: Call) -> Reply:
    """Change a service's settings."""
    return _shown(await call.actions.services.patch(call.actor, call.name, call.body, if_match=call.if_match))


async def delete(call: Call) -> Reply:
    """Delete a service."""
    await call.actions.services.delete(call.actor, call.name, if_match=call.if_match)
    return Reply()


async def health(call: Call) -> Reply:
    """Show versions, endpoints and recent probes."""
    return Reply(value=await call.actions.reports.health(call.name))


async def stats(call: Call) -> Reply:
    """Show what was counted, by version."""
    return Reply(value=await call.actions.reports.stats(call.name))


async def undo(call: Call) -> Reply:
    """Take back the last release."""
    return await ordered(call, await call.actions.deployments.undo(call.actor, call.name, call.body))


async def pause(call: Call) -> Reply:
    """Hold new requests."""
    return _shown(await call.actions.services.pause(call.actor, call.name, call.body))


async def resume(call: Call) -> Reply:
    """Let requests through again."""
    return _shown(await call.actions.services.resume(call.actor, call.name, call.body))


def _shown(record: ServiceRecord) -> Reply:
    return tagged(view(ServiceView, _without_secrets(record)), record)


def _without_secrets(record: ServiceRecord) -> ServiceRecord:
    """Return the record as anybody may see it."""
    shown = convert(hidden(to_builtins(record.settings)), ServiceSettings)
    return replace(record, settings=shown)
