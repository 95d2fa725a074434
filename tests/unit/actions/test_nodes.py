"""Which gateways share a store, and which of them may be forgotten."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.actions.nodes import found
from gateway.actions.problems import Problem
from gateway.store.records import NodeRecord, NodeState
from tests.unit.control.console import ANN, ROOT, START, console
from tests.unit.store.rows import a_node

SILENT = a_node(START, id="id-a", name="a", wanted_revision=1, is_silent=True)
NODE = NodeRecord(id="id-me", name="me", release="1", listen=(), admin="127.0.0.1:4201")


async def status_of(work: Any) -> int:
    with pytest.raises(Problem) as refused:
        await work
    return int(refused.value.status)


async def test_a_gateway_that_lives_is_not_forgotten_and_who_tried_is_audited(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.store.beat(NODE)
        (me,) = await made.actions.nodes.list_all()
        assert (me.name, me.is_leader, me.is_isolated) == ("me", True, False)
        assert await status_of(made.actions.nodes.remove(ROOT, "me")) == 409
        assert await status_of(made.actions.nodes.remove(ROOT, "nobody")) == 404
        assert await status_of(made.actions.nodes.remove(replace(ANN, services="auth"), "me")) == 403
        assert [(row.action, row.resource_id, row.allowed) for row in await made.audit()] == [
            ("node.remove", "me", False),
            ("node.remove", "nobody", False),
            ("node.remove", "me", False),
        ]


async def test_a_silent_gateway_is_forgotten_with_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with console(tmp_path) as made:

        async def nodes() -> list[NodeState]:
            return [SILENT]

        monkeypatch.setattr(made.store, "nodes", nodes)
        await made.actions.nodes.remove(ROOT, "a")
        assert [(row.action, row.resource_id, row.allowed) for row in await made.audit()] == [
            ("node.remove", "a", True)
        ]
        (event,) = await made.store.newest_events()
        assert (event.kind, event.data["node"]) == ("gateway.node_removed", "a")


def test_a_node_is_named_by_its_name_or_by_its_id_where_two_have_one_name() -> None:
    twin = replace(SILENT, id="id-b")
    assert found([SILENT], "a") == SILENT
    assert found([SILENT, twin], "id-b") == twin
    with pytest.raises(Problem, match="2 nodes") as refused:
        found([SILENT, twin], "a")
    assert refused.value.next_step == "say which by its id: id-a, id-b"
