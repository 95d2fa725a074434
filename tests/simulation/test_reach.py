"""What can happen to a rollout, proven over every state it can reach instead of tried on some."""

import re
from pathlib import Path

import pytest

from gateway.core.rollout import __file__ as room
from gateway.core.rollout.events import (
    FreezeOff,
    GateFailed,
    HookAnswered,
    Order,
    Rollback,
    SmokeReported,
    Tick,
    WeightsApplied,
)
from gateway.core.rollout.rollout import due, move
from gateway.core.rollout.state import ENDED, Phase, Rollout
from tests.simulation import reach
from tests.simulation.reach import Graph, explore, plans

PLANS = plans()
README = Path(room).with_name("README.md")
WAITS_FOR_SOMEBODY = {Phase.PENDING, Phase.PAUSED}
BEFORE_TRAFFIC = {Phase.PENDING, Phase.GATE, Phase.CONFIRM_START, Phase.READY}


def check(state: Rollout) -> None:
    """Hold one state against what is true of all."""
    assert sum(state.weights.values()) == 100
    assert all(0 <= weight <= 100 for weight in state.weights.values())
    assert state.phase is not Phase.PAUSED or state.paused is not None
    assert state.paused is None or state.phase in (Phase.PAUSED, Phase.ASKING)  # an ask may interrupt a pause
    assert (state.evidence.ask is not None) == (state.phase is Phase.ASKING)
    assert state.back_to is None or state.phase in (Phase.ASKING, Phase.PAUSED, Phase.CONFIRM_ROLLBACK)
    assert state.phase is not Phase.READY or state.frozen
    assert state.phase is not Phase.COMPLETED or state.percent == 100
    assert state.phase not in (Phase.ROLLED_BACK, Phase.FAILED) or state.percent == 0
    assert state.phase not in BEFORE_TRAFFIC or state.percent == 0


@pytest.mark.parametrize("name", sorted(PLANS))
def test_everything_holds_in_every_state(name: str) -> None:
    """One walk for all: it is the walk that takes the time."""
    graph = explore(PLANS[name], check)
    rollback_reaches_rolled_back(graph)
    an_end_is_final(graph)
    every_run_can_end(graph)
    every_run_can_complete(graph)
    nothing_goes_round_in_circles(graph)
    nothing_is_stuck(graph)
    assert numbers()[name] == (len(graph.states), sum(map(len, graph.exits.values())))


def rollback_reaches_rolled_back(graph: Graph) -> None:
    for state in graph.states.values():
        if not state.is_open:
            continue
        after, _ = move(state, Rollback("p"), 0.0)
        if state.phase in BEFORE_TRAFFIC:
            assert after.phase is Phase.FAILED
            continue
        assert after.phase is Phase.REVERTING
        assert after.percent == 0
        after, _ = move(after, WeightsApplied(after.serial, 1), 0.0)
        assert after.phase is Phase.ROLLED_BACK


def an_end_is_final(graph: Graph) -> None:
    for key, exits in graph.exits.items():
        state = graph.states[key]
        if state.phase in ENDED:
            assert {graph.states[each.to].phase for each in exits} <= {state.phase}
            assert not any(isinstance(each.event, Order) for each in exits)
            assert state.cleaned or due(state)


def every_run_can_end(graph: Graph) -> None:
    assert reach.can_reach(graph, lambda state: state.phase in ENDED) == set(graph.states)


def every_run_can_complete(graph: Graph) -> None:
    """Unless it is on its way back, or ended otherwise."""
    able = reach.can_reach(graph, lambda state: state.phase is Phase.COMPLETED)
    lost = {graph.states[key].phase for key in graph.states.keys() - able}
    assert lost == {Phase.REVERTING, Phase.ROLLED_BACK, Phase.FAILED}


def nothing_goes_round_in_circles(graph: Graph) -> None:
    assert not reach.circle(reach.unaided(graph))


def nothing_is_stuck(graph: Graph) -> None:
    """What waits for nobody gets on when its answers come, time passes and the judge holds, or clears."""
    for key, exits in graph.exits.items():
        state = graph.states[key]
        is_warming = state.judged == reach.WARMING  # it holds next: that is the same place, without it
        if state.phase in WAITS_FOR_SOMEBODY or state.frozen or is_warming or not state.is_open:
            continue
        here = reach.place(key)
        ways = [each for each in exits if reach.place(each.to) != here]
        assert any(is_usual(each.event) for each in ways), state


def is_usual(event: object) -> bool:
    """Whether an event is bound to come, whoever means the rollout well or ill."""
    if isinstance(event, HookAnswered):
        return event.allowed
    if isinstance(event, SmokeReported):
        return event.ok
    if isinstance(event, reach.Judged):
        return event.decision in (reach.HOLD, reach.CLEARED)
    return not isinstance(event, Order | GateFailed) and isinstance(
        event, Tick | WeightsApplied | FreezeOff | reach.GatePassed | reach.DrainDone
    )


def numbers() -> dict[str, tuple[int, int]]:
    """Return what the room's README says: states and moves, by plan."""
    rows = re.findall(r"^\| ([\w, -]+) \| ([\d,]+) \| ([\d,]+) \|$", README.read_text("utf-8"), re.MULTILINE)
    return {plan: (int(a.replace(",", "")), int(b.replace(",", ""))) for plan, a, b in rows}


def test_the_readme_adds_up() -> None:
    """Each plan's numbers are held against its walk, and their sum against them."""
    found = numbers()
    total = found.pop("all")
    assert set(found) == set(PLANS)
    assert total == (sum(a for a, _ in found.values()), sum(b for _, b in found.values()))
