"""Rollbacks are counted by what they came from; decisions by what they did."""

from types import SimpleNamespace as Fake
from typing import Any

import pytest

from gateway.control.rollouts.counted import REASONS, RolloutCounts
from gateway.core.rollout.commands import Action, Decide, Notify


def moved(*commands: Any, gate: str = "comparison", order: object = None, service: str = "auth") -> Any:
    judged = Fake(gate=gate) if gate else None
    return Fake(commands=commands, order=order, state=Fake(service=service, judged=judged))


def decide(action: Action, cause: str = "judge") -> Decide:
    return Decide(number=1, at=0.0, step=0, percent=0, action=action, cause=cause, reason="…")


@pytest.mark.parametrize(
    ("cause", "gate", "order", "reason"),
    [
        ("judge", "comparison", None, "comparison"),
        ("judge", "dead", None, "dead"),
        ("judge", "", None, "other"),
        ("judge", "clear", None, "other"),
        ("clock", "comparison", None, "clock"),
        ("smoke", "", None, "smoke"),
        ("hook:during-step", "", None, "hook"),
        ("alice", "comparison", object(), "order"),
        ("somebody new", "", None, "other"),
    ],
)
def test_rollback_is_counted_by_what_it_came_from(cause: str, gate: str, order: object, reason: str) -> None:
    counts = RolloutCounts()
    counts.add(moved(decide("rollback", cause), gate=gate, order=order))
    assert counts.rollbacks == {("auth", reason): 1}
    assert reason in REASONS


def test_decisions_asks_and_shifts_are_counted_by_service() -> None:
    counts = RolloutCounts()
    said = Notify(number=2, happening="paused", cause="judge", percent=10, text="…")
    counts.add(moved(decide("step"), decide("ask"), said))
    counts.add(moved(decide("step"), service="shop"))
    counts.add(moved(decide("pause"), gate="shift"))
    counts.add(moved(decide("pause", "alice"), gate="shift", order=object()))
    assert counts.decisions == {
        ("auth", "step"): 1,
        ("auth", "ask"): 1,
        ("shop", "step"): 1,
        ("auth", "pause"): 2,
    }
    assert counts.shifts == {"auth": 1}
    counts.forget({"shop"})
    assert counts.decisions == {("shop", "step"): 1}
    assert counts.shifts == {}
