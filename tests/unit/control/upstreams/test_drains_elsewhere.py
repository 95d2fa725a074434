"""When a version is drained everywhere: decided from rows that are always a little old."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.control.upstreams.drains_elsewhere import Waiting, held_by
from gateway.control.upstreams.drains_here import Drain, drain_of, still_draining
from gateway.store.records import NodeState, VersionRecord
from tests.unit.store.rows import a_version

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WAITING = Waiting("auth", "v1", "v", 5, BEGAN)
BEFORE = a_version("v")
MARKED = replace(BEFORE, draining=True, drain_deadline=BEGAN + timedelta(seconds=30))


def node(**fields: Any) -> NodeState:
    made = NodeState(
        id="2",
        name="b",
        release="1",
        listen=(),
        admin="",
        applied_revision=5,
        draining=(),
        wanted_revision=5,
        last_seen=BEGAN,
        is_leader=False,
        is_silent=False,
        is_isolated=False,
    )
    return replace(made, **fields)


@pytest.mark.parametrize(
    ("fields", "holds", "holds_when_over"),
    [
        ({}, False, False),
        ({"draining": ("v",)}, True, True),
        ({"draining": ("another",)}, False, False),
        ({"draining": None}, True, False),
        ({"applied_revision": 4}, True, True),
        ({"applied_revision": 6}, False, False),
        ({"applied_revision": None}, False, False),
        ({"is_silent": True}, True, True),
        ({"is_silent": True, "last_seen": BEGAN - timedelta(seconds=2)}, True, True),
        ({"is_silent": True, "last_seen": BEGAN - timedelta(minutes=1)}, False, False),
        ({"is_leader": True, "draining": ("v",), "applied_revision": 1}, False, False),
    ],
    ids=str,
)
def test_who_is_waited_for(fields: dict[str, Any], *, holds: bool, holds_when_over: bool) -> None:
    nodes = [node(is_leader=True, name="a"), node(**fields)]
    assert held_by(nodes, WAITING, is_over=False) == (("b",) if holds else ())
    assert held_by(nodes, WAITING, is_over=True) == (("b",) if holds_when_over else ())


class Follower:
    """One other gateway: what runs there, and the row that was read of it last."""

    def __init__(self) -> None:
        self.memory: VersionRecord = BEFORE
        self.tables: VersionRecord = BEFORE
        """What its workers go by."""
        self.applied = 4
        self.running = 0
        self.emptied: set[Drain] = set()
        self.row = node(applied_revision=4)

    def step(self, what: str) -> None:
        match what:
            case "hears":
                self.memory = MARKED
            case "publishes":
                self.tables = self.memory
            case "applies":  # what is in memory, and workers go by
                self.applied = 5 if self.tables is MARKED else self.applied
            case "is asked" if not self.tables.draining:
                self.running += 1
            case "answers" if self.running:
                self.running -= 1
            case "finds it empty" if self.tables.draining and not self.running:
                self.emptied.add(drain_of(MARKED))
            case "cuts" if self.tables.draining:
                self.running = 0
            case "beats":
                said = tuple(still_draining([self.memory], self.emptied))
                self.row = node(applied_revision=self.applied, draining=said, last_seen=BEGAN)
            case "falls silent":
                self.row = replace(self.row, is_silent=True)


STEPS = ("hears", "publishes", "applies", "is asked", "answers", "finds it empty", "cuts", "beats")


@given(
    steps=st.lists(st.tuples(st.integers(0, 1), st.sampled_from((*STEPS, "falls silent"))), max_size=60),
    is_over=st.booleans(),
)
def test_nothing_runs_anywhere_once_nobody_holds(
    steps: list[tuple[int, str]], is_over: bool
) -> None:  # as hypothesis passes it
    """In whatever order they hear, apply, answer and say so, and however old the row is that is read."""
    followers = Follower(), Follower()
    for who, what in steps:
        followers[who].step(what)
        if not held_by([each.row for each in followers], WAITING, is_over=is_over):
            assert not any(each.running for each in followers)
    for each in followers:
        for what in ("hears", "publishes", "applies", "cuts", "finds it empty", "beats"):
            each.step(what)
    assert held_by([each.row for each in followers], WAITING, is_over=is_over) == (), "it ends"
