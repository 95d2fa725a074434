"""A rollout killed anywhere ends as if it had not been.

A small control runs in a scripted world: it commits state and records at once, then carries out the acts, and
every place where it could die is a *point*. A run without a kill counts the points; then it is run again once
for each, killed there and started anew from what was committed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from gateway.core.judge.judge import judge
from gateway.core.judge.window import Cell, Window
from gateway.core.rollout.commands import (
    Act,
    AskHook,
    CallShutdownUrl,
    Command,
    Decide,
    Notify,
    Record,
    RunGate,
    RunSmoke,
    SetWeights,
    StartDrain,
)
from gateway.core.rollout.events import (
    Complete,
    DrainDone,
    Event,
    GateFailed,
    GatePassed,
    HookAnswered,
    Judged,
    Order,
    Pause,
    PromoteFull,
    Resume,
    Rollback,
    SetPercent,
    ShutdownDone,
    SmokeReported,
    Start,
    Tick,
    UsabilityChanged,
    WeightsApplied,
)
from gateway.core.rollout.plan import HookKind, RolloutSettings, Strategy, plan
from gateway.core.rollout.rollout import JUDGED, Phase, Rollout, move, resume


class Killed(Exception):
    """Control is gone, with everything that was not committed."""


class Operator(msgspec.Struct, frozen=True):
    """Somebody who gives one order when the rollout looks a certain way, and repeats it until it is on
    record.
    """

    when: Callable[[Rollout], bool]
    order: Order


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One script: what the world is like, and what people do."""

    name: str
    ends: str
    strategy: Strategy = "canary"
    settings: dict[str, Any] = {}
    hooks: tuple[HookKind, ...] = ()
    refused_hook: str = ""
    gate_ok: bool = True
    smoke_ok: bool = True
    error_rate: float = 0.0
    """Of the new version."""
    per_second: int = 50
    usable: tuple[bool, bool] = (True, True)
    """Old, new, while rolling."""
    operators: tuple[Operator, ...] = ()


class World:
    """The store and everything outside control: it outlives every kill."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        fresh = Rollout(
            id="d1",
            service="auth",
            old="old",
            new="new",
            plan=plan(
                scenario.strategy,
                RolloutSettings(**{"step_interval": 4_000, "bake_time": None, **scenario.settings}),
                hooks=scenario.hooks,
            ),
        )
        self.row = msgspec.json.encode(fresh)
        self.records: list[Record] = []
        self.weights = {"old": 100, "new": 0}
        self.weights_seen: list[int] = [0]
        self.draining: set[str] = set()
        self.shut_down: set[str] = set()

    def answer(self, act: Act) -> Event | None:
        """Carry an act out and return what control is told of it. Every act may come twice."""
        scenario = self.scenario
        match act:
            case SetWeights():
                self.weights = {act.old: act.old_weight, act.new: act.new_weight}
                if self.weights_seen[-1] != act.new_weight:
                    self.weights_seen.append(act.new_weight)
                self.draining -= {version for version, weight in self.weights.items() if weight}
                return WeightsApplied(act.serial, act.serial)
            case RunGate():
                return GatePassed() if scenario.gate_ok else GateFailed("no")
            case RunSmoke():
                return SmokeReported(act.serial, scenario.smoke_ok, "no")
            case AskHook():
                return HookAnswered(act.hook, act.ask, act.hook != scenario.refused_hook, "no")
            case StartDrain():
                self.draining.add(act.version)
                return DrainDone(act.version)
            case CallShutdownUrl():
                self.shut_down.add(act.version)
                return ShutdownDone()

    def window(self, state: Rollout) -> Window:
        """Return the second of traffic that follows on `state`: a function of it alone."""
        new = self.scenario.per_second * state.percent // 100
        errors = round(new * self.scenario.error_rate)
        share = state.percent * 100
        return Window(
            seconds=1.0,
            old=(Cell(state.serial, 10_000 - share, self.scenario.per_second - new),),
            new=(Cell(state.serial, share, new, {"500": errors} if errors else {}),),
        )

    @property
    def state(self) -> Rollout:
        return msgspec.json.decode(self.row, type=Rollout)


class Control:
    """The loop around the machine, as small as it gets."""

    def __init__(self, world: World, points: Iterator[int], kill_at: int) -> None:
        self.world = world
        self.points = points
        self.kill_at = kill_at
        self.waiting: list[Act] = []

    def run(self) -> None:
        """Start from the store and go on until nothing is left to do."""
        state, commands = resume(self.world.state)
        self.waiting = [act for act in commands if not isinstance(act, Record)]
        while True:
            state = self.world.state
            if order := self.next_order(state):
                self.commit(order)
            elif self.waiting:
                self.act(self.waiting.pop(0))
            elif state.phase is Phase.PENDING:
                self.commit(Start("ann"))
            elif self.report_usability(state):
                continue
            elif not state.is_open or self.is_waiting_for_a_person(state):
                return
            else:
                self.tick(state)

    def act(self, act: Act) -> None:
        self.point()
        event = self.world.answer(act)
        self.point()
        if event is not None:
            self.commit(event)

    def tick(self, state: Rollout) -> None:
        if state.phase not in JUDGED:
            self.commit(Tick(1_000))
            return
        evidence, decision = judge(state.evidence, self.world.window(state), state.plan.rules)
        self.commit(Judged(evidence, decision, 0.1 if state.serial % 3 == 0 else 0.9), Tick(1_000))

    def commit(self, *events: Event) -> None:
        """Move, and store the outcome with its records in one step."""
        state = self.world.state
        commands: list[Command] = []
        for event in events:
            state, more = move(state, event, 0.0)
            commands += more
        self.point()
        self.world.row = msgspec.json.encode(state)
        self.world.records += [command for command in commands if isinstance(command, Record)]
        self.point()
        self.waiting += [command for command in commands if not isinstance(command, Record)]

    def point(self) -> None:
        if next(self.points) == self.kill_at:
            raise Killed

    def report_usability(self, state: Rollout) -> bool:
        old, new = self.world.scenario.usable if state.phase in JUDGED else (True, True)
        if (old, new) == (state.old_usable, state.new_usable) or not state.is_open:
            return False
        self.commit(UsabilityChanged(old, new))
        return True

    def next_order(self, state: Rollout) -> Order | None:
        actors = {record.cause for record in self.world.records if isinstance(record, Decide)}
        for operator in self.world.scenario.operators:
            if operator.order.actor not in actors:
                return operator.order if operator.when(state) else None
        return None

    def is_waiting_for_a_person(self, state: Rollout) -> bool:
        return state.phase is Phase.PAUSED and (state.paused is None or state.paused.kind != "person")


def outcome(world: World) -> dict[str, Any]:
    """What a person could tell afterwards."""
    state = world.state
    return {
        "status": state.status.value,
        "reason": state.reason,
        "weights": world.weights,
        "steps": world.weights_seen,
        "draining": world.draining,
        "shut_down": world.shut_down,
        "decisions": [record for record in world.records if isinstance(record, Decide)],
        "told": [record for record in world.records if isinstance(record, Notify)],
        "versions": [record for record in world.records if not isinstance(record, Decide | Notify)],
    }


def play(scenario: Scenario, kill_at: int = -1) -> tuple[World, int]:
    """Play the script, killed at one point or none; return the world and how many points there were."""
    world = World(scenario)
    points = iter(range(100_000))
    try:
        Control(world, points, kill_at).run()
    except Killed:
        Control(world, points, -1).run()
    return world, next(points)


def at_percent(percent: int) -> Callable[[Rollout], bool]:
    return lambda state: state.percent == percent and state.applied and state.elapsed_ms >= 2_000


def is_paused(state: Rollout) -> bool:
    return state.phase is Phase.PAUSED


def is_ending(state: Rollout) -> bool:
    return state.phase is Phase.ENDING


SCENARIOS = [
    Scenario(name="good canary", ends="completed"),
    Scenario(name="good blue-green", ends="completed", strategy="blue-green", settings={"bake_time": 3_000}),
    Scenario(name="good immediate", ends="completed", strategy="immediate", settings={"bake_time": 3_000}),
    Scenario(name="bad canary", ends="rolled_back", error_rate=0.4),
    Scenario(
        name="bad blue-green",
        ends="rolled_back",
        strategy="blue-green",
        error_rate=0.9,
        settings={"bake_time": 9_000},
    ),
    Scenario(name="gate fails", ends="failed", gate_ok=False),
    Scenario(name="smoke fails after the switch", ends="rolled_back", strategy="immediate", smoke_ok=False),
    Scenario(name="undecided", ends="paused", per_second=10),
    Scenario(
        name="undecided, rolled back at the deadline",
        ends="rolled_back",
        per_second=2,
        settings={"auto_pause": False, "on_undecided": "rollback", "max_step_time": 6_000},
    ),
    Scenario(name="breach pauses", ends="paused", error_rate=0.4, settings={"on_breach": "pause"}),
    Scenario(name="nowhere to go back to", ends="paused", error_rate=0.4, usable=(False, True)),
    Scenario(name="dry run of a bad one", ends="completed", error_rate=0.4, settings={"dry_run": True}),
    Scenario(
        name="paused and resumed",
        ends="completed",
        operators=(Operator(at_percent(50), Pause("pauser")), Operator(is_paused, Resume("resumer"))),
    ),
    Scenario(
        name="paused and rolled back",
        ends="rolled_back",
        operators=(Operator(at_percent(50), Pause("pauser")), Operator(is_paused, Rollback("reverter"))),
    ),
    Scenario(
        name="undone in the bake", ends="rolled_back", operators=(Operator(at_percent(100), Rollback("u")),)
    ),
    Scenario(name="undone at the end", ends="rolled_back", operators=(Operator(is_ending, Rollback("u")),)),
    Scenario(
        name="share by hand", ends="completed", operators=(Operator(at_percent(10), SetPercent("s", 30)),)
    ),
    Scenario(
        name="promoted and completed",
        ends="completed",
        operators=(Operator(at_percent(10), PromoteFull("p")), Operator(at_percent(100), Complete("c"))),
    ),
    Scenario(name="hooks agree", ends="completed", hooks=("confirm-start", "during-step", "confirm-promote")),
    Scenario(name="start refused", ends="failed", hooks=("confirm-start",), refused_hook="confirm-start"),
    Scenario(
        name="rollback refused",
        ends="paused",
        error_rate=0.4,
        hooks=("on-rollback",),
        refused_hook="on-rollback",
    ),
    Scenario(name="rollback confirmed", ends="rolled_back", error_rate=0.4, hooks=("on-rollback",)),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_at_any_point_it_ends_as_if_it_had_not_been(scenario: Scenario) -> None:
    world, points = play(scenario)
    expected = outcome(world)
    assert expected["status"] == scenario.ends
    assert points > 5
    for kill_at in range(points):
        killed, _ = play(scenario, kill_at)
        assert outcome(killed) == expected, f"killed at point {kill_at} of {points}"
