"""What operators may do with the gateways that share a store."""

from typing import Final

from gateway.actions.access import Access, Actor, require_unscoped
from gateway.actions.problems import conflict, not_found
from gateway.store.records import NodeState

LIVES: Final = "it lives"
STOP_IT: Final = "stop it first (SIGTERM to its `gateway serve`); it leaves by itself then"


class Nodes:
    """Everything about the gateways that share a store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list_all(self) -> list[NodeState]:
        """Return every gateway that has not left in order, or been forgotten."""
        return await self._access.store.nodes()

    async def remove(self, actor: Actor, name: str) -> None:
        """Forget a gateway that will not come back. name: or its id, where two have one name."""
        async with self._access.change(actor, "node.remove", name) as tx:
            require_unscoped(actor, "forgetting a node")
            node = found(await self._access.store.nodes(), name)
            if not node.is_silent:
                raise conflict(f"node {node.name!r}: {LIVES}", STOP_IT)
            tx.delete_node(node.id)
            self._access.add_event(tx, "gateway.node_removed", actor, node=node.name)


def found(nodes: list[NodeState], name: str) -> NodeState:
    """Return the node of this id or name. Raises Problem unless it is one."""
    named = [each for each in nodes if name == each.id] or [each for each in nodes if name == each.name]
    if not named:
        raise not_found("node", name)
    if len(named) > 1:
        ids = ", ".join(each.id for each in named)
        raise conflict(f"{len(named)} nodes are called {name!r}", f"say which by its id: {ids}")
    return named[0]
