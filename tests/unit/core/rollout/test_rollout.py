"""The rollout machine: every (event, phase) pair, and what each strategy and order leads to."""

from typing import Any

import msgspec
import pytest

from gateway.core.judge.evidence import Evidence
from gateway.core.judge.judge import Decision, Gate, Verdict
from gateway.core.rollout.commands import (
    Activate,
    AskHook,
    CallShutdownUrl,
    Command,
    Decide,
    Deprecate,
    MakeCurrent,
    Notify,
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
    GatewaysSeen,
    HookAnswered,
    Isolated,
    Judged,
    Order,
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
from gateway.core.rollout.moves import MOVES
from gateway.core.rollout.plan import HookKind, RolloutSettings, StepSettings, Strategy, plan
from gateway.core.rollout.rollout import Phase, Rollout, Status, due, move, resume
from gateway.errors import IllegalTransition
from tests import decisions

ALL_HOOKS: tuple[HookKind, ...] = ("confirm-start", "during-step", "confirm-promote", "on-rollback")


GATES: dict[Verdict, Gate] = {
    "advance": "clear",
    "hold": "requests",
    "abort": "comparison",
    "ask": "suspicion",
    "cleared": "cleared",
    "draw": "block",
    "pause": "undecided",
}


def warming() -> Decision:
    return decisions.decision("hold", "warming", "Its process is young.")


def decision(verdict: Verdict, reason: str = "because") -> Decision:
    return decisions.decision(verdict, GATES[verdict], reason)


class Hand:
    """A rollout moved by hand; remembers the commands of the last move and of all."""

    def __init__(
        self,
        strategy: Strategy = "canary",
        hooks: tuple[HookKind, ...] = (),
        **settings: Any,
    ) -> None:
        settings = {"step_interval": 10_000, "smoke_tests": False, **settings}
        self.state = Rollout(
            id="d1",
            service="auth",
            old="old",
            new="new",
            plan=plan(strategy, RolloutSettings(**settings), hooks=hooks),
        )
        self.last: tuple[Command, ...] = ()
        self.all: list[Command] = []

    def __call__(self, *events: Event) -> "Hand":
        for event in events:
            self.state, self.last = move(self.state, event, 100.0)
            self.all += self.last
        return self

    def applied(self) -> "Hand":
        return self(WeightsApplied(self.state.serial, 7 + self.state.serial))

    def judged(self, verdict: Verdict, draw: float = 0.9) -> "Hand":
        return self(Judged(self.state.evidence, decision(verdict), draw))

    def pass_time(self, seconds: int) -> "Hand":
        for _ in range(seconds):
            self(Tick(1000))
        return self

    def step(self, verdict: Verdict = "advance") -> "Hand":
        """Let the running step go to its end with one verdict."""
        return self.applied().judged(verdict).pass_time(10)

    def rolling(self) -> "Hand":
        return self(Start("ann"), GatePassed()).applied()

    def of(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.all if isinstance(command, kind)]


def at(phase: Phase) -> Hand:
    """Return a rollout in `phase`, on the shortest way there."""
    hand = Hand(hooks=ALL_HOOKS)
    match phase:
        case Phase.PENDING:
            return hand
        case Phase.GATE:
            return hand(Start("ann"))
        case Phase.FAILED:
            return hand(Start("ann"), GateFailed("refused"))
    hand(Start("ann"), GatePassed())
    if phase is Phase.CONFIRM_START:
        return hand
    if phase is Phase.READY:
        return hand(FreezeOn(), HookAnswered("confirm-start", 1, True))
    hand(HookAnswered("confirm-start", 1, True)).applied()
    match phase:
        case Phase.STEPPING:
            return hand
        case Phase.PAUSED:
            return hand(Pause("ann"))
        case Phase.CONFIRM_PROMOTE:
            return hand(HookAnswered("during-step", 1, True)).judged("advance").pass_time(10)
        case Phase.CONFIRM_ROLLBACK:
            return hand.judged("abort")
        case Phase.REVERTING:
            return hand(Rollback("ann"))
        case Phase.ROLLED_BACK:
            return hand(Rollback("ann")).applied()
    hand(PromoteFull("ann")).applied()
    if phase is Phase.BAKING:
        return hand
    if phase is Phase.ASKING:
        return hand.judged("ask")
    hand(Complete("ann"))
    if phase is Phase.ENDING:
        return hand
    return hand(DrainDone("old"))


EVENTS: list[Event] = [
    Start("ann"),
    Promote("ann"),
    PromoteFull("ann"),
    SetPercent("ann", 25),
    Pause("ann"),
    Resume("ann"),
    Complete("ann"),
    Rollback("ann"),
    Undo("ann"),
    GatePassed(),
    GateFailed("refused"),
    HookAnswered("confirm-start", 1, True),
    WeightsApplied(3, 9),
    Tick(1000),
    Judged(Evidence(), decision("abort"), 0.9),
    SmokeReported(2, True),
    UsabilityChanged(True, True),
    Isolated(60.0),
    FreezeOn(),
    GatewaysSeen(("1",), ("b",)),
    FreezeOff(),
    DrainDone("old"),
    ShutdownDone(),
    Superseded(),
]

P = Phase
LEADS: dict[type[Event], dict[Phase, Phase]] = {
    Start: {P.PENDING: P.GATE},
    Promote: {
        P.STEPPING: P.STEPPING,
        P.PAUSED: P.STEPPING,
        P.CONFIRM_PROMOTE: P.STEPPING,
        P.BAKING: P.ENDING,
        P.ASKING: P.BAKING,
    },
    PromoteFull: {
        P.STEPPING: P.BAKING,
        P.PAUSED: P.BAKING,
        P.CONFIRM_PROMOTE: P.BAKING,
        P.ASKING: P.BAKING,
    },
    SetPercent: {
        P.STEPPING: P.STEPPING,
        P.BAKING: P.STEPPING,
        P.PAUSED: P.PAUSED,
        P.CONFIRM_PROMOTE: P.STEPPING,
        P.ASKING: P.STEPPING,
    },
    Pause: {P.STEPPING: P.PAUSED, P.BAKING: P.PAUSED, P.CONFIRM_PROMOTE: P.PAUSED, P.ASKING: P.PAUSED},
    Resume: {P.PAUSED: P.STEPPING},
    Complete: {P.BAKING: P.ENDING},
    Rollback: {
        P.PENDING: P.FAILED,
        P.GATE: P.FAILED,
        P.CONFIRM_START: P.FAILED,
        P.READY: P.FAILED,
        P.STEPPING: P.REVERTING,
        P.BAKING: P.REVERTING,
        P.PAUSED: P.REVERTING,
        P.CONFIRM_PROMOTE: P.REVERTING,
        P.CONFIRM_ROLLBACK: P.REVERTING,
        P.ASKING: P.REVERTING,
        P.ENDING: P.REVERTING,
        P.REVERTING: P.REVERTING,
    },
    Isolated: {
        P.STEPPING: P.REVERTING,
        P.BAKING: P.REVERTING,
        P.PAUSED: P.REVERTING,
        P.CONFIRM_PROMOTE: P.REVERTING,
        P.CONFIRM_ROLLBACK: P.REVERTING,
        P.ASKING: P.REVERTING,
    },
    GatePassed: {P.GATE: P.CONFIRM_START},
    GateFailed: {P.GATE: P.FAILED},
    HookAnswered: {P.CONFIRM_START: P.STEPPING},
    Judged: {
        P.STEPPING: P.CONFIRM_ROLLBACK,
        P.BAKING: P.CONFIRM_ROLLBACK,
        P.PAUSED: P.CONFIRM_ROLLBACK,
        P.CONFIRM_PROMOTE: P.CONFIRM_ROLLBACK,
        P.ASKING: P.CONFIRM_ROLLBACK,
    },
    DrainDone: {P.ENDING: P.COMPLETED},
    FreezeOff: {P.READY: P.STEPPING},
}
"""Where the events above lead; others are refused (an order) or change no phase (an observation)."""
LEADS[Undo] = LEADS[Rollback]


@pytest.mark.parametrize("phase", list(Phase), ids=str)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_each_pair_of_event_and_phase_leads_where_it_should(event: Event, phase: Phase) -> None:
    before = at(phase).state
    assert before.phase is phase
    expected = LEADS.get(type(event), {}).get(phase)
    if expected is None and isinstance(event, Order):
        with pytest.raises(IllegalTransition):
            move(before, event, 0.0)
        return
    after, _ = move(before, event, 0.0)
    assert after.phase is (expected or phase)
    if type(event) not in MOVES or phase not in MOVES[type(event)]:
        assert after == before


def test_the_events_walked_are_all_there_are() -> None:
    assert {type(event) for event in EVENTS} == set(MOVES)


@pytest.mark.parametrize("phase", list(Phase), ids=str)
def test_a_state_comes_back_from_json_as_it_was(phase: Phase) -> None:
    state = at(phase).state
    assert msgspec.json.decode(msgspec.json.encode(state), type=Rollout) == state


@pytest.mark.parametrize("phase", list(Phase), ids=str)
def test_resuming_issues_what_the_state_waits_for(phase: Phase) -> None:
    hand = at(phase)
    state, commands = resume(hand.state)
    assert state == hand.state
    assert set(due(state)) <= set(commands)
    weights = [command for command in commands if isinstance(command, SetWeights)]
    assert len(weights) == (1 if state.is_open and state.serial else 0)
    assert all(command.old_weight + command.new_weight == 100 for command in weights)


def test_a_canary_goes_through_its_steps_to_the_end() -> None:
    hand = Hand(smoke_tests=True)
    hand(Start("ann"))
    assert hand.state.status is Status.TESTING
    assert hand.last[-1] == RunGate("new", True)
    hand(GatePassed())
    assert Activate("new") in hand.last
    hand.step().step()
    assert hand.state.phase is Phase.BAKING
    hand.applied()
    assert hand.last == (RunSmoke("new", 3, True),)
    hand(SmokeReported(3, True)).judged("advance").pass_time(10)
    assert hand.state.phase is Phase.ENDING
    assert hand.last[-1] == StartDrain("old", 30_000)
    hand(DrainDone("old"))
    assert hand.state.status is Status.COMPLETED
    assert {MakeCurrent("new"), Deprecate("old"), CallShutdownUrl("old")} <= set(hand.last)
    assert due(hand(ShutdownDone()).state) == ()
    assert [command.new_weight for command in hand.of(SetWeights)] == [10, 50, 100]
    assert [command.happening for command in hand.of(Notify)] == [
        "started",
        "step",
        "step",
        "step",
        "completed",
    ]


@pytest.mark.parametrize(("strategy", "smoke"), [("blue-green", True), ("immediate", False)])
def test_a_switch_is_one_step_watched_for_the_bake_time(strategy: Strategy, smoke: bool) -> None:
    hand = Hand(strategy, bake_time=20_000, smoke_tests=True)
    hand(Start("ann"))
    assert hand.last[-1] == RunGate("new", smoke)
    hand(GatePassed()).applied()(SmokeReported(1, True)).judged("advance").pass_time(19)
    assert (hand.state.phase, hand.state.percent) == (Phase.BAKING, 100)
    assert hand.pass_time(1).state.phase is Phase.ENDING


def test_a_bake_of_nought_is_not_waited_for() -> None:
    hand = Hand("immediate", bake_time=0).rolling()
    assert hand(Tick(1)).state.phase is Phase.ENDING


def test_a_failed_gate_moves_no_traffic() -> None:
    hand = Hand()(Start("ann"), GateFailed("GET /api/health: 500"))
    assert hand.state.status is Status.FAILED
    assert "GET /api/health: 500" in hand.state.reason
    assert not hand.of(SetWeights)


def test_the_clock_starts_when_the_weights_are_live() -> None:
    hand = Hand()(Start("ann"), GatePassed()).pass_time(5)
    assert hand.state.remaining_ms == 10_000
    assert hand.applied().pass_time(4).state.remaining_ms == 6_000


def test_an_acknowledgement_of_earlier_weights_is_not_taken_for_these() -> None:
    hand = Hand().rolling()(SetPercent("ann", 30), WeightsApplied(1, 8))
    assert not hand.state.applied
    assert hand.applied().state.applied


@pytest.mark.parametrize("elapsed_ms", [-5_000, 0])
def test_time_never_runs_backwards(elapsed_ms: int) -> None:
    assert Hand().rolling()(Tick(elapsed_ms)).state.remaining_ms == 10_000


def test_time_that_was_not_watched_does_not_count() -> None:
    assert Hand(step_interval=60_000).rolling()(Tick(3_600_000)).state.remaining_ms == 55_000


def test_an_abort_rolls_back_and_drains_the_new_version() -> None:
    hand = Hand().rolling().judged("abort")
    assert hand.last[-1] == SetWeights(2, "old", 100, "new", 0)
    assert hand.state.status is Status.ROLLING
    hand.applied()
    assert (hand.state.status, hand.state.reason) == (Status.ROLLED_BACK, "because")
    assert hand.last[-1] == StartDrain("new", 30_000)
    assert hand(DrainDone("new")).last == (Deprecate("new"),)
    assert due(hand.state) == ()


def test_an_abort_while_paused_rolls_back() -> None:
    hand = Hand().rolling()(Pause("ann")).judged("abort")
    assert hand.state.phase is Phase.REVERTING


def test_a_dry_run_records_the_abort_and_goes_on() -> None:
    hand = Hand(dry_run=True).rolling().judged("abort").judged("abort")
    assert [row.action for row in hand.of(Decide)].count("judge") == 1
    hand.pass_time(10)
    assert (hand.state.phase, hand.state.percent) == (Phase.STEPPING, 50)


def test_a_breach_may_pause_instead_and_a_person_may_go_on_in_spite_of_it() -> None:
    hand = Hand(on_breach="pause").rolling().judged("abort")
    assert hand.state.status is Status.PAUSED
    assert hand.judged("abort").state.status is Status.PAUSED
    hand(Resume("ann"))
    assert hand.state.phase is Phase.STEPPING
    assert hand.state.evidence.comparison.value == pytest.approx(1)


def test_an_automatic_rollback_with_nowhere_to_go_pauses_and_goes_ahead_once_it_can() -> None:
    hand = Hand().rolling()(UsabilityChanged(old=False, new=True)).judged("abort")
    assert hand.state.status is Status.PAUSED
    assert "Nowhere to go back to" in hand.of(Notify)[-1].text
    assert hand.of(Notify)[-1].alert
    assert hand.judged("abort").state.status is Status.PAUSED
    assert hand(UsabilityChanged(old=True, new=True)).state.phase is Phase.REVERTING
    assert hand.state.reason == "because"


@pytest.mark.parametrize("settings", [{}, {"on_breach": "pause"}, {"dry_run": True}])
def test_what_nobody_judged_for_too_long_is_rolled_back_whatever_a_breach_would_do(
    settings: dict[str, Any],
) -> None:
    hand = Hand(**settings).rolling()(Isolated(42.4))
    assert hand.state.phase is Phase.REVERTING
    assert hand.state.percent == 0
    assert hand.state.cause == "isolated"
    assert hand.state.reason.startswith("isolated: no gateway was in charge for 42 s")


def test_what_nobody_judged_stays_where_the_old_version_is_not_usable() -> None:
    hand = Hand().rolling()(UsabilityChanged(old=False, new=True), Isolated(42.4))
    assert hand.state.paused is not None
    assert (hand.state.paused.kind, hand.state.percent) == ("stranded", 10)
    assert hand(UsabilityChanged(old=True, new=True)).state.phase is Phase.REVERTING


def test_a_persons_rollback_acts_even_then_and_warns() -> None:
    hand = Hand().rolling()(UsabilityChanged(old=False, new=True), Rollback("ann", "I know"))
    assert hand.state.phase is Phase.REVERTING
    assert "not usable" in hand.state.warning
    assert "I know" in hand.state.reason


@pytest.mark.parametrize(
    "order",
    [
        Promote("ann", "looks fine"),
        PromoteFull("ann", "looks fine"),
        SetPercent("ann", 50, "looks fine"),
        Resume("ann", "looks fine"),
    ],
)
def test_why_somebody_steered_is_kept_with_the_decision(order: Event) -> None:
    """Guards the reason typed in a dialog, which promote lost."""
    hand = Hand().rolling()
    if isinstance(order, Resume):
        hand(Pause("ann"))
    hand(order)
    assert any("(looks fine)" in decision.reason for decision in hand.of(Decide))


def test_why_somebody_completed_it_is_kept_with_the_decision() -> None:
    hand = Hand().rolling()(PromoteFull("ann")).applied()(Complete("ann", "seen enough"))
    assert "(seen enough)" in hand.of(Decide)[-1].reason


def test_an_undecided_step_pauses_for_a_person_who_may_give_it_another() -> None:
    hand = Hand().rolling().step("hold")
    assert hand.state.status is Status.PAUSED
    assert hand.state.paused is not None and hand.state.paused.kind == "undecided"
    hand(Resume("ann"))
    assert (hand.state.phase, hand.state.remaining_ms, hand.state.percent) == (Phase.STEPPING, 10_000, 10)


@pytest.mark.parametrize(("then", "phase"), [("pause", Phase.PAUSED), ("rollback", Phase.REVERTING)])
def test_without_auto_pause_an_undecided_step_waits_until_its_deadline(then: str, phase: Phase) -> None:
    hand = Hand(auto_pause=False, on_undecided=then).rolling().judged("hold").pass_time(39)
    assert hand.state.phase is Phase.STEPPING
    assert hand.pass_time(1).state.phase is phase


def test_no_word_of_the_judge_is_not_a_pass() -> None:
    assert Hand().rolling().pass_time(10).state.status is Status.PAUSED


def test_a_verdict_of_the_last_step_does_not_pass_this_one() -> None:
    hand = Hand().rolling().step()
    assert hand.state.percent == 50
    assert hand.applied().pass_time(10).state.status is Status.PAUSED


def test_a_planned_pause_waits_for_a_person() -> None:
    hand = Hand(steps=(StepSettings(percent=10, pause=True), 100)).rolling().step()
    assert hand.state.paused is not None and hand.state.paused.kind == "planned"
    assert hand(Resume("ann")).state.percent == 100


def test_setting_a_share_restarts_the_clock_and_the_next_step_is_the_first_above() -> None:
    hand = Hand().rolling().pass_time(9)(SetPercent("ann", 30))
    assert (hand.state.percent, hand.state.remaining_ms, hand.state.next_percent) == (30, 10_000, 50)
    assert hand.step().state.percent == 50


def test_a_share_set_by_hand_is_judged() -> None:
    assert Hand().rolling()(SetPercent("ann", 30)).applied().judged("abort").state.phase is Phase.REVERTING


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_share_out_of_range_is_refused(percent: int) -> None:
    with pytest.raises(IllegalTransition):
        Hand().rolling()(SetPercent("ann", percent))


def test_promoting_at_the_last_step_ends_the_bake() -> None:
    hand = Hand().rolling()(PromoteFull("ann")).applied()
    assert hand.state.phase is Phase.BAKING
    assert hand(Promote("ann")).state.phase is Phase.ENDING


def test_completing_below_full_traffic_is_refused_and_changes_nothing() -> None:
    hand = Hand().rolling()
    before = hand.state
    with pytest.raises(IllegalTransition, match="10 %"):
        hand(Complete("ann"))
    assert hand.state == before


def test_a_rollback_that_comes_too_late_says_what_is_possible_instead() -> None:
    with pytest.raises(IllegalTransition, match="undo takes it back"):
        at(Phase.COMPLETED)(Rollback("ann"))
    with pytest.raises(IllegalTransition, match="rolled back already"):
        at(Phase.ROLLED_BACK)(Rollback("ann"))


def test_a_rollback_while_the_old_version_drains_calls_it_back() -> None:
    hand = at(Phase.ENDING)(Rollback("ann"))
    assert hand.last[-1] == SetWeights(3, "old", 100, "new", 0)
    assert not any(isinstance(act, StartDrain) for act in due(hand.state))
    assert hand(DrainDone("old")).state.phase is Phase.REVERTING


def test_a_freeze_holds_advances_and_the_clock_but_not_the_judge() -> None:
    hand = Hand().rolling()(FreezeOn()).judged("advance").pass_time(60)
    assert (hand.state.percent, hand.state.remaining_ms) == (10, 10_000)
    for order in (Promote("ann"), PromoteFull("ann"), SetPercent("ann", 20)):
        with pytest.raises(IllegalTransition, match="frozen"):
            hand(order)
    assert hand(SetPercent("ann", 5)).state.percent == 5
    assert hand.applied().judged("abort").state.phase is Phase.REVERTING


def test_a_freeze_refuses_a_start_and_never_a_rollback() -> None:
    with pytest.raises(IllegalTransition, match="frozen"):
        Hand()(FreezeOn(), Start("ann"))
    assert Hand().rolling()(FreezeOn(), Rollback("ann")).state.phase is Phase.REVERTING


def test_a_freeze_during_the_gate_holds_the_first_step() -> None:
    hand = Hand()(Start("ann"), FreezeOn(), GatePassed())
    assert (hand.state.status, hand.state.percent) == (Status.TESTING, 0)
    assert hand(FreezeOff()).state.percent == 10
    assert Activate("new") in hand.last


def test_a_thaw_lets_the_clock_go_on() -> None:
    hand = Hand().rolling()(FreezeOn()).pass_time(60)(FreezeOff()).step()
    assert hand.state.percent == 50


def test_a_veto_of_the_start_fails_without_traffic() -> None:
    hand = at(Phase.CONFIRM_START)(HookAnswered("confirm-start", 1, False, "not on Fridays"))
    assert hand.state.status is Status.FAILED
    assert "not on Fridays" in hand.state.reason
    assert not hand.of(SetWeights)


def test_a_veto_of_the_next_step_pauses_and_resuming_asks_again() -> None:
    hand = at(Phase.CONFIRM_PROMOTE)
    assert hand.last[-1] == AskHook("confirm-promote", 2)
    hand(HookAnswered("confirm-promote", 2, False, "no"))
    assert hand.state.paused is not None and hand.state.paused.kind == "veto"
    hand(Resume("ann")).judged("advance")(Tick(1))
    assert hand.last[-1] == AskHook("confirm-promote", 3)
    assert hand(HookAnswered("confirm-promote", 2, True)).state.phase is Phase.CONFIRM_PROMOTE
    assert hand(HookAnswered("confirm-promote", 3, True)).state.percent == 50


@pytest.mark.parametrize(
    "phase", [Phase.CONFIRM_START, Phase.STEPPING, Phase.CONFIRM_PROMOTE, Phase.CONFIRM_ROLLBACK]
)
def test_a_question_keeps_its_time_for_whoever_asks_it_again(phase: Phase) -> None:
    """Asked by the next control it has the same key, so it must have the same body."""
    hand = at(phase)
    assert hand.state.asked_at == 100.0
    hand.state, _ = move(hand.state, Tick(1000), 200.0)
    assert hand.state.asked_at == 100.0


def test_a_step_waits_for_its_webhook() -> None:
    hand = Hand(hooks=("during-step",)).rolling()
    assert hand.last == (AskHook("during-step", 1),)
    hand.judged("advance").pass_time(20)
    assert hand.state.percent == 10
    assert hand(HookAnswered("during-step", 1, True), Tick(1)).state.percent == 50


def test_a_veto_during_a_step_is_a_breach() -> None:
    hand = Hand(hooks=("during-step",)).rolling()(HookAnswered("during-step", 1, False, "load test failed"))
    assert hand.state.phase is Phase.REVERTING
    assert "load test failed" in hand.state.reason


def test_a_veto_of_a_rollback_leaves_it_to_a_person() -> None:
    hand = at(Phase.CONFIRM_ROLLBACK)
    hand(HookAnswered("on-rollback", hand.state.ask, False, "wait"))
    assert hand.state.paused is not None and hand.state.paused.kind == "breach"
    assert hand.judged("abort").state.phase is Phase.PAUSED
    assert hand(Rollback("ann")).state.phase is Phase.REVERTING


def test_a_rollback_that_is_confirmed_keeps_the_judges_reason() -> None:
    hand = at(Phase.CONFIRM_ROLLBACK)
    hand(HookAnswered("on-rollback", hand.state.ask, True))
    assert (hand.state.phase, hand.state.reason, hand.state.cause) == (Phase.REVERTING, "because", "judge")


def test_failed_smoke_tests_after_the_switch_roll_back() -> None:
    hand = Hand("blue-green", smoke_tests=True).rolling()
    assert hand(SmokeReported(1, False, "GET /: 500")).state.phase is Phase.REVERTING
    assert "GET /: 500" in hand.state.reason


def test_a_newer_rollout_keeps_the_cleaning_up_from_hurting_its_version() -> None:
    hand = at(Phase.ROLLED_BACK)(Superseded())
    assert due(hand.state) == ()
    assert hand(DrainDone("new")).last == ()


def test_records_are_numbered_without_gaps() -> None:
    hand = Hand().rolling().step().judged("abort").applied()
    numbers = [command.number for command in hand.all if isinstance(command, Decide | Notify)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_row_of_a_step_shows_what_the_judge_saw_in_the_one_before() -> None:
    hand = Hand().rolling().step()
    row = next(row for row in reversed(hand.of(Decide)) if row.action == "step")
    assert row.judged is not None and row.judged.verdict == "advance"


def test_a_verdict_that_goes_to_and_fro_is_recorded_no_more_than_every_ten_seconds() -> None:
    hand = Hand(step_interval=100_000).rolling()
    for second in range(60):
        hand.judged("hold" if second % 2 else "advance").pass_time(1)
    assert 2 <= len([row for row in hand.of(Decide) if row.action == "judge"]) <= 7


def test_the_wait_for_a_young_process_is_recorded_at_once_and_rarely() -> None:
    """Guards: a bad version's story went from too little traffic to its rollback, ten seconds later."""
    hand = Hand(step_interval=100_000).rolling().judged("hold").pass_time(1)
    hand(Judged(hand.state.evidence, warming(), 0.9))
    assert hand.of(Decide)[-1].reason == "Its process is young."
    for _ in range(30):
        hand.judged("hold").pass_time(1)
        hand(Judged(hand.state.evidence, warming(), 0.9))
    assert len([row for row in hand.of(Decide) if row.action == "judge"]) <= 9
