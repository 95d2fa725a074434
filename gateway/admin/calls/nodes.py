"""Calls about the gateways that share a store."""

from gateway.admin.call import Call, Reply, part
from gateway.admin.schemas import NodeView


async def list_all(call: Call) -> Reply:
    """List nodes."""
    return part(NodeView, await call.actions.nodes.list_all(), call.query, lambda each: (each.name, each.id))


async def remove(call: Call) -> Reply:
    """Forget a node."""
    await call.actions.nodes.remove(call.actor, call.name)
    return Reply()
