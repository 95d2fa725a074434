"""Who is waited for: decided from the nodes seen, and waited for at the edge."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from gateway.control.rollouts.barrier import Barrier, behind, seen, serving, silent
from gateway.core.rollout.events import GatewaysSeen
from gateway.core.rollout.plan import RolloutSettings, plan
from gateway.core.rollout.state import Rollout
from gateway.errors import StoreUnreachable
from gateway.store.records import ANY_VERSION, NodeState


def node(name: str, applied: int | None = 5, **more: Any) -> NodeState:
    fields: dict[str, Any] = {"is_leader": False, "is_isolated": False, "is_silent": False, **more}
    return NodeState(
        id=f"id-{name}",
        name=name,
        release="1",
        listen=(),
        admin="",
        applied_revision=applied,
        wanted_revision=5,
        last_seen=datetime(2026, 1, 1, tzinfo=UTC),
        **fields,
    )


LEADER = node("a", 0, is_leader=True)


def rollout(**fields: Any) -> Rollout:
    made = plan("canary", RolloutSettings())
    return Rollout(id="d", service="auth", old="old", new="new", plan=made, **fields)


def test_who_lives_and_serves_has_to_apply() -> None:
    nodes = [LEADER, node("b", 4), node("c"), node("d", 1, is_silent=True), node("standby", None)]
    assert behind(nodes, 5) == ("b",)
    assert behind(nodes, 4) == ()
    assert serving(nodes) == ("id-a", "id-b", "id-c")


def test_who_took_part_and_is_silent_is_missed_until_removed() -> None:
    gone = node("b", is_silent=True)
    assert silent([LEADER, gone], ("id-a", "id-b")) == ("b",)
    assert silent([LEADER, gone], ("id-a",)) == (), "silent since before the rollout began"
    assert silent([LEADER], ("id-a", "id-b")) == (), "it left in order, or was removed"


def test_one_that_stops_in_order_is_not_waited_for_and_not_missed() -> None:
    stops = node("b", None, draining=(ANY_VERSION,))
    assert behind([LEADER, stops], 5) == ()
    assert serving([LEADER, stops]) == ("id-a",)
    assert silent([LEADER, replace(stops, is_silent=True)], ("id-a", "id-b")) == ()


def test_a_rollout_hears_what_it_does_not_know() -> None:
    nodes = [LEADER, node("b")]
    state = rollout()
    assert seen(nodes, state, ()) == GatewaysSeen(("id-a", "id-b"))
    state = replace(state, gateways=("id-a", "id-b"))
    assert seen(nodes, state, ()) is None
    assert seen([LEADER], state, ()) is None
    missed = GatewaysSeen(("id-a",), silent=("b",))
    assert seen([LEADER, node("b", is_silent=True)], state, ()) == missed
    assert seen(nodes, state, ("b",)) is None, "its weights are applied"
    late = seen(nodes, replace(state, applied=False), ("b",))
    assert late == GatewaysSeen(("id-a", "id-b"), behind=("b",))


class Nodes:
    """A store with nodes that a test moves."""

    is_shared = True
    revision = 5

    def __init__(self, *nodes: NodeState) -> None:
        self.seen = list(nodes)
        self.reads = 0
        self.away = False

    async def nodes(self) -> list[NodeState]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnreachable("away")
        return list(self.seen)


async def until(barrier: Barrier, late: tuple[str, ...]) -> None:
    while barrier.late.get("d") != late:
        await asyncio.sleep(0.01)


async def test_it_is_passed_once_all_that_live_have_applied() -> None:
    store = Nodes(LEADER, node("b", 4), node("c", 4))
    barrier = Barrier(store)
    assert barrier.is_blind
    passing = asyncio.ensure_future(barrier.passed("auth", "d"))
    await until(barrier, ("b", "c"))
    store.away = True
    store.seen = [LEADER, node("b", 5), node("c", 4, is_silent=True)]
    reads = store.reads
    while store.reads < reads + 2:
        await asyncio.sleep(0.01)
    assert not passing.done(), "nobody knows"
    store.away = False
    await passing
    assert barrier.late == {}
    assert not barrier.is_blind


async def test_all_who_wait_share_what_is_read() -> None:
    store = Nodes(LEADER)
    barrier = Barrier(store)
    await asyncio.gather(*(barrier.passed("auth", f"d{n}") for n in range(100)))
    assert store.reads <= 2


async def test_a_gateway_alone_waits_for_nobody() -> None:
    store = Nodes(node("b", 4))
    store.is_shared = False
    barrier = Barrier(store)
    await barrier.passed("auth", "d")
    await barrier.look(1)
    assert store.reads == 0
    assert not barrier.is_blind
