"""Calls about versions: register, show, change, test, drain, delete."""

from collections.abc import Sequence

from msgspec import convert, to_builtins
from msgspec.structs import replace

from gateway.admin.call import Call, Reply, created, part, tagged
from gateway.admin.schemas import VersionView, view
from gateway.core.settings.secrets import hidden
from gateway.core.settings.smoke import SmokeSettings
from gateway.store.records import VersionRecord


async def create(call: Call) -> Reply:
    """Register a version."""
    record = await call.actions.versions.create(call.actor, call.body)
    return created(f"deployment/versions/{record.id}", await _shown(call, record))


async def list_all(call: Call) -> Reply:
    """List versions."""
    found = await call.actions.versions.list_all(call.query.service_name)
    return part(VersionView, await _views(call, found.items), call.query, _place)


async def get(call: Call) -> Reply:
    """Show a version."""
    return await _shown(call, await call.actions.versions.get(call.id))


async def patch(call: Call) -> Reply:
    """Change a version."""
    changed = await call.actions.versions.patch(call.actor, call.id, call.body, if_match=call.if_match)
    return await _shown(call, changed)


async def delete(call: Call) -> Reply:
    """Delete a drained version."""
    await call.actions.versions.delete(call.actor, call.id, if_match=call.if_match)
    return Reply()


async def test(call: Call) -> Reply:
    """Probe a version now and run its smoke tests."""
    return Reply(value=await call.actions.versions.test(call.actor, call.id, call.body))


async def drain(call: Call) -> Reply:
    """Take a version out."""
    return Reply(value=await call.actions.versions.drain(call.actor, call.id, call.body))


async def drain_state(call: Call) -> Reply:
    """Show what still runs at a version."""
    return Reply(value=await call.actions.versions.drain_state(call.id))


def _place(record: VersionView) -> tuple[str, ...]:
    """Return what orders versions in a list: by service, the oldest first."""
    return record.service_name, record.created_at.isoformat(), record.id


async def _shown(call: Call, record: VersionRecord) -> Reply:
    (shown,) = await _views(call, [record])
    return tagged(shown, record)


async def _views(call: Call, records: Sequence[VersionRecord]) -> list[VersionView]:
    shares: dict[str, float] = {}
    for name in {record.service_name for record in records}:
        shares |= await call.actions.reports.shares(name)
    return [view(VersionView, _without_secrets(each), share=shares.get(each.id, 0.0)) for each in records]


def _without_secrets(record: VersionRecord) -> VersionRecord:
    """Return the record as anybody may see it."""
    holders = {"shutdown_url": record.shutdown_url, "smoke_tests": to_builtins(record.smoke_tests)}
    shown = hidden(holders)
    smoke_tests = convert(shown["smoke_tests"], SmokeSettings | None)
    return replace(record, shutdown_url=shown["shutdown_url"], smoke_tests=smoke_tests)
