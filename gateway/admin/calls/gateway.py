"""Calls about the gateway itself: events, audit, tokens, freeze, upgrade."""

from gateway.admin.call import Call, Reply, created, listing, page, part
from gateway.admin.schemas import (
    AuditView,
    CreatedTokenView,
    EventView,
    GatewayView,
    TokenView,
    YouView,
    view,
)


async def events(call: Call) -> Reply:
    """List events, oldest first; as a stream this call never comes here."""
    query = call.query
    found = await call.actions.gateway.events(
        after=query.after, limit=query.limit, service=query.service_name
    )
    return listing([view(EventView, record) for record in found])


async def info(call: Call) -> Reply:
    """Show the control process in charge."""
    you = YouView(name=call.actor.name, role=call.actor.role)
    return Reply(value=view(GatewayView, await call.actions.gateway.info(), you=you))


async def upgrade(call: Call) -> Reply:
    """Replace the running release."""
    you = YouView(name=call.actor.name, role=call.actor.role)
    return Reply(value=view(GatewayView, await call.actions.gateway.upgrade(call.actor), you=you))


async def audit(call: Call) -> Reply:
    """List the audit trail, newest first."""
    query = call.query
    found = await call.actions.gateway.audit(
        cursor=query.after, limit=query.limit, actor=query.actor, action=query.action
    )
    return page(AuditView, found)


async def list_tokens(call: Call) -> Reply:
    """List tokens."""
    found = await call.actions.tokens.list_all()
    return part(TokenView, found.items, call.query, lambda each: (each.created_at.isoformat(), each.id))


async def create_token(call: Call) -> Reply:
    """Make a token."""
    key = call.fields.get("idempotency-key")
    record, token = await call.actions.tokens.create(call.actor, call.body, idempotency_key=key)
    return created(f"tokens/{record.id}", Reply(value=view(CreatedTokenView, record, token=token)))


async def rotate_token(call: Call) -> Reply:
    """Put a new secret in a token's place."""
    key = call.fields.get("idempotency-key")
    record, token = await call.actions.tokens.rotate(call.actor, call.id, call.body, idempotency_key=key)
    return created(f"tokens/{record.id}", Reply(value=view(CreatedTokenView, record, token=token)))


async def revoke_token(call: Call) -> Reply:
    """Revoke a token."""
    await call.actions.tokens.revoke(call.actor, call.id)
    return Reply()


async def get_freeze(call: Call) -> Reply:
    """Show the freeze."""
    return Reply(value=await call.actions.gateway.get_freeze())


async def put_freeze(call: Call) -> Reply:
    """Set the freeze."""
    return Reply(value=await call.actions.gateway.put_freeze(call.actor, call.body))
