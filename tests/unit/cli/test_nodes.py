"""The gateways that share a store, as people read them."""

from typing import Any

import pytest

from gateway.cli.exits import FAILED, OK
from gateway.cli.nodes import state_of

NODE = {
    "id": "id-a",
    "name": "a",
    "isLeader": True,
    "release": "1.2",
    "listen": ["0.0.0.0:80"],
    "admin": "127.0.0.1:4201",
    "appliedRevision": 7,
    "wantedRevision": 9,
    "lastSeen": "2026-01-02T03:04:05Z",
    "isSilent": False,
    "isIsolated": False,
}


def test_nodes_say_who_is_in_charge_and_how_far_each_is(api: Any, cli: Any, made: Any, capsys: Any) -> None:
    standby = NODE | {"name": "b", "isLeader": False, "appliedRevision": None}
    api.answers["GET nodes"] = made.page(NODE, standby)
    assert cli("nodes") == OK
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert "in charge" in first
    assert "7 of 9" in first
    assert "stands by" in second


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "in charge"),
        ({"isSilent": True}, "silent, in charge"),
        ({"isLeader": False}, "serves"),
        ({"isLeader": False, "appliedRevision": None}, "stands by"),
        ({"isLeader": False, "appliedRevision": None, "isStopping": True}, "stops"),
        ({"isLeader": False, "isSilent": True, "isIsolated": True}, "silent"),
        ({"isLeader": False, "isIsolated": True}, "isolated"),
    ],
)
def test_a_state_in_a_word(changed: dict[str, Any], state: str) -> None:
    assert state_of(NODE | changed) == state


def test_a_node_is_forgotten_by_its_name(api: Any, cli: Any, capsys: Any) -> None:
    api.answers["DELETE nodes/a%2Fb"] = None
    assert cli("nodes", "rm", "a/b") == OK
    assert "a/b is forgotten" in capsys.readouterr().out
    assert cli("nodes", "rm") == FAILED
    assert "gateway nodes rm NAME" in capsys.readouterr().err
