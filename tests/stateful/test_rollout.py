"""Rollouts of one service under any order of orders, verdicts, answers, crashes and clock jumps."""

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
    FreezeOff,
    FreezeOn,
    GateFailed,
    GatePassed,
    HookAnswered,
    Judged,
    Pause,
    Promote,
    PromoteFull,
    Resume,
    Rollback,
    SetPercent,
    ShutdownDone,
    SmokeReported,
    Start,
    Superseded,
    Tick,
    Undo,
    UsabilityChanged,
    WeightsApplied,
)
from gateway.core.rollout.plan import RolloutSettings, plan
from gateway.core.rollout.rollout import ENDED, JUDGED, Phase, Rollout, due, move, resume
from gateway.errors import IllegalTransition
from tests.decisions import decision

pytestmark = pytest.mark.timeout(1_800)
"""Enough for the `deep` profile on a busy machine."""

HOOKS = st.lists(
    st.sampled_from(["confirm-start", "during-step", "confirm-promote", "on-rollback"]), unique=True
).map(tuple)
PLANS: st.SearchStrategy[Any] = st.builds(
    lambda strategy, steps, hooks, given: plan(
        strategy, RolloutSettings(steps=steps, step_interval=5_000, bake_time=2_000, **given), hooks=hooks
    ),
    st.sampled_from(["canary", "blue-green", "immediate"]),
    st.sampled_from([(10, 50, 100), (1, 100), (10, 50, 95, 100), (100,)]),
    HOOKS,
    st.fixed_dictionaries(
        {
            "auto_pause": st.booleans(),
            "on_breach": st.sampled_from(["rollback", "pause"]),
            "on_undecided": st.sampled_from(["rollback", "pause"]),
            "dry_run": st.booleans(),
            "smoke_tests": st.booleans(),
        }
    ),
)
ORDERS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([Promote("p"), PromoteFull("p"), Pause("p"), Resume("p"), Complete("p"), Start("p")]),
    st.integers(-1, 101).map(lambda percent: SetPercent("p", percent)),
)
RESTING = (Phase.PENDING, Phase.READY, Phase.STEPPING, Phase.BAKING, Phase.ASKING, Phase.PAUSED)
"""Open phases that may wait for time, the judge or a person alone."""


class Rollouts(RuleBasedStateMachine):
    """A control that may die between any two rules, and a world that outlives it."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = {"v0": 100}
        self.count = 0
        self.asked_back = False
        self.answered: list[Event] = []
        self.waiting: list[Act] = []

    @initialize(plan=PLANS)
    def first(self, plan: Any) -> None:
        self.open(plan)

    def open(self, plan: Any) -> None:
        """Begin a rollout to a version never seen before."""
        current = next(version for version, weight in self.weights.items() if weight == 100)
        self.count += 1
        new = f"v{self.count}"
        self.weights = {current: 100, new: 0}
        self.row = msgspec.json.encode(
            Rollout(id=f"d{self.count}", service="auth", old=current, new=new, plan=plan)
        )
        self.asked_back = False
        self.answered = []
        self.waiting = []
        self.numbers = 0
        self.weights_ever_set = False

    @property
    def state(self) -> Rollout:
        return msgspec.json.decode(self.row, type=Rollout)

    def happen(self, *events: Event) -> None:
        before = state = self.state
        commands: list[Command] = []
        for event in events:
            state, more = move(state, event, 0.0)
            commands += more
        if before.phase in ENDED:
            assert state.phase is before.phase
            assert not any(isinstance(command, SetWeights) for command in commands)
        for command in commands:
            if isinstance(command, Decide | Notify):
                self.numbers += 1
                assert command.number == self.numbers
        self.row = msgspec.json.encode(state)
        self.waiting += [command for command in commands if not isinstance(command, Record)]

    @precondition(lambda self: self.state.phase is Phase.PENDING)
    @rule()
    def begin(self) -> None:
        if not self.state.frozen:
            self.happen(Start("p"))

    @rule(order=st.sampled_from([Rollback("p"), Undo("p")]), dice=st.integers(0, 3))
    def go_back(self, order: Any, dice: int) -> None:
        """Now and then somebody wants everything back, in any state."""
        if dice == 3:
            self.order(order)

    @rule(order=ORDERS)
    def order_something(self, order: Any) -> None:
        self.order(order)

    def order(self, order: Any) -> None:
        before = self.state
        try:
            self.happen(order)
        except IllegalTransition:
            assert self.state == before
            assert not (isinstance(order, Rollback | Undo) and before.is_open), "a rollback was refused"
            return
        if isinstance(order, Rollback | Undo):
            self.asked_back = True

    @rule(
        verdict=st.sampled_from(
            ["advance", "advance", "hold", "hold", "abort", "ask", "cleared", "draw", "pause"]
        ),
        draw=st.floats(0, 1, exclude_max=True),
        elapsed_ms=st.one_of(st.integers(0, 6_000), st.sampled_from([-(10**9), 10**9])),
    )
    def second(self, verdict: Any, draw: float, elapsed_ms: int) -> None:
        state = self.state
        said = decision(verdict, reason="said so", percent=state.percent)
        self.happen(Judged(state.evidence, said, draw), Tick(elapsed_ms))
        after = self.state
        if state.phase in JUDGED and after.phase in JUDGED and after.serial == state.serial:
            assert 0 <= after.elapsed_ms - state.elapsed_ms <= 5_000

    @rule(seconds=st.integers(1, 8))
    def run_on(self, seconds: int) -> None:
        """Everything goes well for a while."""
        for _ in range(seconds):
            while self.waiting:
                self.act_on(good=True)
            self.second("advance", 0.9, 1_000)

    @precondition(lambda self: self.waiting)
    @rule(luck=st.integers(0, 4))
    def act(self, luck: int) -> None:
        self.act_on(good=luck > 0)

    def act_on(self, *, good: bool) -> None:
        """Carry out what waits longest and report it."""
        act = self.waiting.pop(0)
        event = self.answer(act, good)
        self.answered.append(event)
        self.happen(event)

    def answer(self, act: Act, good: bool) -> Event:
        match act:
            case SetWeights():
                assert act.old_weight + act.new_weight == 100
                self.weights = {act.old: act.old_weight, act.new: act.new_weight}
                self.weights_ever_set = True
                return WeightsApplied(act.serial, act.serial)
            case RunGate():
                return GatePassed() if good else GateFailed("no")
            case RunSmoke():
                return SmokeReported(act.serial, good, "no")
            case AskHook():
                return HookAnswered(act.hook, act.ask, good, "no")
            case StartDrain():
                return DrainDone(act.version)
            case CallShutdownUrl():
                return ShutdownDone()

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def late_answer(self, data: Any) -> None:
        """Something reported before is reported again."""
        event = data.draw(st.sampled_from(self.answered))
        if isinstance(event, DrainDone) and self.state.phase is Phase.ENDING:
            return  # that is no late answer then, but what is waited for
        self.happen(event)

    @rule()
    def crash(self) -> None:
        """Control dies and is started again."""
        state, commands = resume(self.state)
        assert state == self.state
        self.waiting = [command for command in commands if not isinstance(command, Record)]

    @rule(old=st.booleans(), new=st.booleans())
    def usability(self, old: bool, new: bool) -> None:
        self.happen(UsabilityChanged(old, new))

    @rule(on=st.booleans())
    def freeze(self, on: bool) -> None:
        self.happen(FreezeOn() if on else FreezeOff())

    @precondition(lambda self: not self.state.is_open)
    @rule(plan=PLANS)
    def next_rollout(self, plan: Any) -> None:
        """Only once the last has ended: one open deployment per service."""
        if not self.state.cleaned:
            self.happen(Superseded())
        assert due(self.state) == ()
        self.open(plan)

    @invariant()
    def shares_are_whole(self) -> None:
        assert sum(self.weights.values()) == 100
        assert sum(self.state.weights.values()) == 100
        assert all(0 <= weight <= 100 for weight in self.weights.values())

    @invariant()
    def rollback_wins(self) -> None:
        state = self.state
        if self.asked_back:
            assert state.phase in (Phase.REVERTING, Phase.ROLLED_BACK, Phase.FAILED)
            assert state.percent == 0

    @invariant()
    def an_end_is_what_it_says(self) -> None:
        state = self.state
        if state.is_open:
            return
        assert self.weights == state.weights
        assert state.percent == (100 if state.phase is Phase.COMPLETED else 0)
        assert state.phase is not Phase.FAILED or not self.weights_ever_set

    @invariant()
    def it_always_waits_for_something(self) -> None:
        state = self.state
        assert not state.is_open or state.phase in RESTING or due(state)
        assert state.phase is not Phase.PAUSED or state.paused is not None
        assert state.paused is None or state.phase in (Phase.PAUSED, Phase.ASKING)
        assert state.phase is not Phase.READY or state.frozen

    @invariant()
    def what_is_live_is_what_is_stored(self) -> None:
        state = self.state
        if state.applied:
            assert self.weights == state.weights


Rollouts.TestCase.settings = settings(stateful_step_count=40)
TestRollouts = Rollouts.TestCase
