"""When a version is drained everywhere: decided from rows that are always a little old."""

import functools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.control.upstreams.drains_elsewhere import Waiting, held_by
from gateway.control.upstreams.drains_here import Drain, drain_of, still_draining
from gateway.store.records import ANY_VERSION, NodeState, VersionRecord
from tests.unit.store.rows import a_node, a_version

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE = replace(a_version("v"), id="v")
WAITING = Waiting("auth", "v1", "v", 5, BEGAN)
MARKED = replace(BEFORE, draining=True, drain_deadline=BEGAN + timedelta(seconds=30))


def node(**fields: Any) -> NodeState:
    followed = {"last_seen": BEGAN, "applied_revision": 5, "draining": (), "wanted_revision": 5}
    return a_node(**followed | fields)


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
        ({"applied_revision": None, "draining": ()}, False, False),
        ({"applied_revision": None, "draining": (ANY_VERSION,)}, True, True),
        ({"applied_revision": None, "draining": (ANY_VERSION,), "is_silent": True}, False, False),
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


class Follower(msgspec.Struct, frozen=True):
    """One other gateway: what it knows, what runs there, and the row that was read of it last."""

    memory: VersionRecord = BEFORE
    tables: VersionRecord = BEFORE
    """What its workers go by."""
    applied: int = 4
    running: int = 0
    emptied: frozenset[Drain] = frozenset()
    row: NodeState = node(applied_revision=4)

    def after(self, what: str) -> "Follower":
        """Return it after one step; unchanged if that cannot come now."""
        drains = self.tables.draining
        match what:
            case "hears":
                return replace(self, memory=MARKED)
            case "publishes":
                return replace(self, tables=self.memory)
            case "applies" if drains:
                return replace(self, applied=5)
            case "is asked" if not drains and self.running < 2:
                return replace(self, running=self.running + 1)
            case "answers" if self.running:
                return replace(self, running=self.running - 1)
            case "finds it empty" if drains and not self.running:
                return replace(self, emptied=self.emptied | {drain_of(MARKED)})
            case "cuts" if drains:
                return replace(self, running=0)
            case "beats":
                said = tuple(still_draining([self.memory], self.emptied))
                row = replace(self.row, applied_revision=self.applied, draining=said, is_silent=False)
                return replace(self, row=row)
            case "falls silent":
                return replace(self, row=replace(self.row, is_silent=True))
        return self


ENDS = ("hears", "publishes", "applies", "cuts", "finds it empty", "beats")
STEPS = (*ENDS, "is asked", "answers", "falls silent")


def reachable() -> set[Follower]:
    """Return every state that any order of steps leads to."""
    found, new = {Follower()}, [Follower()]
    while new:
        each = new.pop()
        nexts = {each.after(what) for what in STEPS} - found
        found |= nexts
        new += nexts
    return found


@pytest.mark.parametrize("is_over", [False, True])
def test_nothing_runs_at_a_follower_that_does_not_hold(*, is_over: bool) -> None:
    """In whatever order it hears, applies, answers and says so, and however old the row is that is read."""
    states = reachable()
    passed = [each for each in states if not held_by([each.row], WAITING, is_over=is_over)]
    assert len(states) > len(passed) > 0
    assert not any(each.running for each in passed)
    for each in states:
        last = functools.reduce(Follower.after, ENDS, each)
        assert held_by([last.row], WAITING, is_over=is_over) == (), "it ends"
