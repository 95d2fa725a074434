"""Calls about the two-person rule: what waits, and the second person's word."""

from typing import Any

import msgspec

from gateway.actions.access import Actor
from gateway.admin.call import BASE, Call, Reply, listing
from gateway.admin.schemas import ApprovalView, ConfirmedView, KeptView, View, view
from gateway.core.settings.secrets import hidden
from gateway.errors import GatewayError
from gateway.store.records import ApprovalRecord


async def list_all(call: Call) -> Reply:
    """List what was asked, newest first."""
    query = call.query
    found = await call.actions.approvals.list_all(state=query.state, cursor=query.after, limit=query.limit)
    return listing([_view(ApprovalView, record) for record in found.items], found.next)


async def get(call: Call) -> Reply:
    """Show one."""
    return Reply(value=_view(ApprovalView, await call.actions.approvals.get(call.id)))


async def confirm(call: Call) -> Reply:
    """Carry a kept call out: as it was asked, by whoever asked, and no more than once."""
    record, asker = await call.actions.approvals.claim(call.actor, call.id)
    try:
        return await _carry_out(call, record, asker)
    finally:
        call.actions.approvals.over(record)


async def _carry_out(call: Call, record: ApprovalRecord, asker: Actor) -> Reply:
    assert call.perform is not None, "the server gives it"
    finish = call.actions.approvals.finish
    try:
        reply = await call.perform(record, asker)
    except GatewayError as refused:
        await finish(record, state="failed", status=refused.status, outcome=str(refused))
        raise
    done = await finish(record, state="carried_out", status=reply.status or 200)
    return Reply(value=_view(ConfirmedView, done, answer=reply.value), fields=reply.fields)


async def withdraw(call: Call) -> Reply:
    """Say no."""
    return Reply(value=_view(ApprovalView, await call.actions.approvals.withdraw(call.actor, call.id)))


def kept(record: ApprovalRecord) -> Reply:
    """Return the answer to a call that waits for a second person."""
    shown = _view(KeptView, record, approval_id=record.id, next=f"gateway approve {record.id}")
    return Reply(value=shown, status=202, fields=(("Location", f"{BASE}/approvals/{record.id}"),))


def _view(kind: type[View], record: ApprovalRecord, **more: Any) -> View:
    body = msgspec.json.decode(record.body) if record.body.strip() else None
    return view(kind, record, body=hidden(body), **more)
