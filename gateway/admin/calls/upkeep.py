"""Calls about the store: copy it, check its audit trail."""

from gateway.actions.upkeep import AuditFound
from gateway.admin.call import Call, Reply
from gateway.admin.schemas import AuditReportView, view


async def backup(call: Call) -> Reply:
    """Stream a copy of the store."""
    fields = (
        ("Content-Type", "application/vnd.sqlite3"),
        ("Content-Disposition", 'attachment; filename="gateway.db"'),
    )
    return Reply(stream=await call.actions.upkeep.backup(call.actor), fields=fields)


async def verify(call: Call) -> Reply:
    """Walk along the audit trail."""
    return Reply(value=view(AuditReportView, await call.actions.upkeep.verify_audit()))


async def acknowledge(call: Call) -> Reply:
    """Say that a break of the trail was looked into."""
    found: AuditFound = await call.actions.upkeep.acknowledge_audit(call.actor, call.body)
    return Reply(value=found)
