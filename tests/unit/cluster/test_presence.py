"""What a gateway says of itself to those that share its database."""

from msgspec.structs import replace

from gateway.cluster.presence import Presence
from gateway.errors import StoreUnreachable
from gateway.store.records import ANY_VERSION, NodeRecord

NODE = NodeRecord(id="1", name="a", release="0.1", listen=(), admin="")


class Members:
    """The rows. is_away: nobody hears anything."""

    def __init__(self) -> None:
        self.rows: dict[str, NodeRecord] = {}
        self.is_away = False

    async def beat(self, node: NodeRecord) -> None:
        if self.is_away:
            raise StoreUnreachable("away")
        self.rows[node.id] = node

    async def leave(self, node_id: str) -> None:
        if self.is_away:
            raise StoreUnreachable("away")
        del self.rows[node_id]


async def test_one_that_stops_goes_by_nothing_and_may_run_anything_until_it_leaves() -> None:
    members = Members()
    presence = Presence(members, NODE)
    presence.applied, presence.isolated_in_s = lambda: 7, lambda: 3.0
    await presence.say()
    assert members.rows["1"] == replace(NODE, applied_revision=7, isolated_in_s=3.0, draining=())
    assert not members.rows["1"].is_stopping
    members.is_away = True
    await presence.stopping()
    members.is_away = False
    await presence.say()
    assert members.rows["1"] == replace(NODE, draining=(ANY_VERSION,))
    assert members.rows["1"].is_stopping
    await presence.leave()
    assert members.rows == {}
