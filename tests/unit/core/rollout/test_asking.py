"""Asking the old version: what moves, what waits, and what orders do meanwhile."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.core.judge.ask import MAX_ASKS
from gateway.core.judge.decision import Decision, Gate, Verdict
from gateway.core.judge.tallies import Tally
from gateway.core.rollout.commands import Decide, SetWeights
from gateway.core.rollout.events import (
    Complete,
    Event,
    FreezeOn,
    GatePassed,
    Judged,
    Pause,
    Promote,
    PromoteFull,
    Resume,
    Rollback,
    SetPercent,
    Start,
    Tick,
    WeightsApplied,
)
from gateway.core.rollout.plan import RolloutSettings, Strategy, plan
from gateway.core.rollout.rollout import Phase, Rollout, Status, move
from gateway.errors import IllegalTransition
from tests.decisions import decision


def said(verdict: Verdict, gate: Gate) -> Decision:
    return decision(verdict, gate, "It said so.", comparison="record")


class Hand:
    """A rollout at 100 %, moved by hand."""

    def __init__(self, strategy: Strategy = "canary", **settings: Any) -> None:
        given = RolloutSettings(**{"step_interval": 10_000, "smoke_tests": False, **settings})
        self.state = Rollout(id="d", service="s", old="old", new="new", plan=plan(strategy, given))
        self.shares: list[int] = []
        self.rows: list[Decide] = []
        self(Start("ann"), GatePassed())
        if self.state.percent < 100:
            self(PromoteFull("ann"))
        self.live()

    def __call__(self, *events: Event) -> "Hand":
        for event in events:
            self.state, commands = move(self.state, event, 100.0)
            self.shares += [command.new_weight for command in commands if isinstance(command, SetWeights)]
            self.rows += [command for command in commands if isinstance(command, Decide)]
        return self

    def live(self) -> "Hand":
        return self(WeightsApplied(self.state.serial, 7 + self.state.serial))

    def says(self, verdict: Verdict, gate: Gate, draw: float = 0.9) -> "Hand":
        return self(Judged(self.state.evidence, said(verdict, gate), draw))

    def asking(self, gate: Gate = "suspicion", draw: float = 0.9) -> "Hand":
        return self.says("ask", gate, draw).live()

    @property
    def where(self) -> tuple[Phase, int]:
        return self.state.phase, self.state.percent


def test_an_ask_that_mixes_leaves_the_new_version_a_quarter() -> None:
    hand = Hand().asking()
    assert hand.where == (Phase.ASKING, 25)
    assert hand.state.status is Status.ROLLING
    assert hand.state.evidence.ask is not None and hand.state.evidence.ask.mixes
    assert hand.rows[-1].action == "ask"


def test_the_steps_clock_stands_still_meanwhile() -> None:
    hand = Hand()
    remaining_ms = hand(Tick(2_000)).state.remaining_ms
    assert hand.asking()(Tick(5_000)).state.remaining_ms == remaining_ms
    hand.says("cleared", "cleared").live()
    assert hand.where == (Phase.BAKING, 100)
    assert hand.state.remaining_ms == remaining_ms
    assert (hand.rows[-1].action, hand.rows[-1].cause) == ("cleared", "judge")


def test_a_freeze_does_not_keep_a_cleared_version_from_going_back_up() -> None:
    assert Hand().asking()(FreezeOn()).says("cleared", "cleared").where == (Phase.BAKING, 100)


def test_an_ask_that_convicts_rolls_back() -> None:
    hand = Hand().asking().says("abort", "ask")
    assert hand.where == (Phase.REVERTING, 0)
    assert hand.state.back_to is None and hand.state.evidence.ask is None


def test_a_blue_green_goes_by_a_coin_that_is_drawn_for_each_block() -> None:
    hand = Hand("blue-green").asking(draw=0.1)
    assert hand.where == (Phase.ASKING, 100)
    for draw, percent in ((0.3, 0), (0.24, 100), (0.25, 0)):
        hand.says("draw", "block", draw).live()
        assert hand.where == (Phase.ASKING, percent)
    blocks = hand.state.evidence.ask.blocks  # type: ignore[union-attr]
    assert [block.is_new for block in blocks] == [True, False, True, False]
    assert [block.generation for block in blocks] == sorted({block.generation for block in blocks})
    assert hand.says("cleared", "cleared").where == (Phase.BAKING, 100)


def test_a_dead_version_is_switched_away_from_without_a_coin() -> None:
    hand = Hand("blue-green").asking("dead", draw=0.0)
    assert hand.where == (Phase.ASKING, 0)
    ask = hand.state.evidence.ask
    assert ask is not None
    works = replace(ask.block, tally=Tally(20, 0))
    hand.state = replace(hand.state, evidence=replace(hand.state.evidence, ask=replace(ask, blocks=(works,))))
    assert hand.says("draw", "block", draw=0.9).where == (Phase.ASKING, 100), "and tried once more"


def test_a_blue_green_mixes_if_it_is_told_to() -> None:
    assert Hand("blue-green", mix=True).asking().where == (Phase.ASKING, 25)


@pytest.mark.parametrize(("strategy", "percent"), [("canary", 25), ("blue-green", 0)])
def test_undecided_it_stays_with_the_old_version_and_a_person_may_go_back_up(
    strategy: Strategy, percent: int
) -> None:
    hand = Hand(strategy).asking(draw=0.1).says("pause", "undecided").live()
    assert hand.where == (Phase.PAUSED, percent)
    assert hand.state.paused is not None and hand.state.paused.kind == "asked"
    hand(Resume("ann"))
    assert hand.where == (Phase.BAKING, 100)
    assert hand.state.evidence.asks == 0
    assert "ann" in hand.rows[-1].reason


def test_after_so_many_asks_a_person_is_asked_on_the_version_that_serves() -> None:
    hand = Hand()
    for _ in range(MAX_ASKS):
        hand.asking().says("cleared", "cleared").live()
    assert hand.state.evidence.asks == MAX_ASKS
    assert hand.says("pause", "asks").where == (Phase.PAUSED, 100)


def test_a_dry_run_asks_nothing() -> None:
    assert Hand(dry_run=True).says("ask", "suspicion").where == (Phase.BAKING, 100)


def test_a_persons_pause_outlasts_an_ask() -> None:
    hand = Hand()(Pause("ann")).asking()
    assert hand.where == (Phase.ASKING, 25)
    assert hand.state.status is Status.PAUSED
    assert hand.says("cleared", "cleared").live().where == (Phase.PAUSED, 100)


def test_a_person_may_end_their_pause_during_an_ask() -> None:
    hand = Hand()(Pause("ann")).asking()(Resume("ann"))
    assert hand.where == (Phase.ASKING, 25)
    assert hand.state.status is Status.ROLLING
    assert hand.says("cleared", "cleared").live().where == (Phase.BAKING, 100)


def test_there_is_nothing_to_resume_in_an_ask_that_nobody_paused() -> None:
    with pytest.raises(IllegalTransition, match="nothing is paused"):
        Hand().asking()(Resume("ann"))


def test_rollback_acts_during_an_ask() -> None:
    assert Hand().asking()(Rollback("ann")).where == (Phase.REVERTING, 0)


def test_pause_ends_an_ask_where_it_is_and_resume_goes_back_up() -> None:
    hand = Hand().asking()(Pause("ann"))
    assert hand.where == (Phase.PAUSED, 25)
    assert hand.state.evidence.ask is None
    assert hand(Resume("ann")).where == (Phase.BAKING, 100)


def test_resume_after_an_ask_waits_for_the_end_of_a_freeze() -> None:
    hand = Hand().asking()(Pause("ann"), FreezeOn())
    with pytest.raises(IllegalTransition):
        hand(Resume("ann"))


def test_setting_the_share_ends_an_ask() -> None:
    hand = Hand().asking()(SetPercent("ann", 40))
    assert hand.where == (Phase.STEPPING, 40)
    assert hand.state.back_to is None and hand.state.evidence.ask is None


@pytest.mark.parametrize("order", [Promote("ann"), PromoteFull("ann")])
def test_promoting_ends_an_ask_and_no_watch(order: Event) -> None:
    hand = Hand().asking()(order)
    assert hand.where == (Phase.BAKING, 100)
    assert hand.state.evidence.asks == 0


def test_complete_is_refused_during_an_ask_even_in_a_block_of_the_new_version() -> None:
    hand = Hand("blue-green").asking(draw=0.1)
    assert hand.state.percent == 100
    with pytest.raises(IllegalTransition):
        hand(Complete("ann"))


@pytest.mark.parametrize("gate", ["shift", "latency"])
def test_a_shift_asks_a_person_whose_word_accepts_it(gate: Gate) -> None:
    hand = Hand().says("pause", gate)
    assert hand.state.paused is not None and hand.state.paused.kind == "held"
    hand(Resume("ann"))
    assert hand.where == (Phase.BAKING, 100)
    assert "ann, who accepts" in hand.rows[-1].reason
    assert hand.state.evidence.shift.value == pytest.approx(1)


def test_a_hold_that_no_longer_shows_lifts_itself() -> None:
    hand = Hand().says("pause", "latency").says("hold", "requests")
    assert hand.state.phase is Phase.BAKING
    assert (hand.rows[-1].action, hand.rows[-1].cause) == ("resume", "judge")


def test_a_hold_does_not_undo_a_persons_pause() -> None:
    hand = Hand()(Pause("ann")).says("pause", "latency").says("advance", "clear")
    assert hand.state.phase is Phase.PAUSED


def test_the_harm_budget_shrinks_the_next_step() -> None:
    given = RolloutSettings(step_interval=10_000, smoke_tests=False, max_failed_users=10)
    state = Rollout(id="d", service="s", old="old", new="new", plan=plan("canary", given))
    for event in (Start("ann"), GatePassed(), WeightsApplied(1, 8)):
        state, _ = move(state, event, 0.0)
    word = msgspec.structs.replace(said("advance", "clear"), affordable=22)
    for event in (Judged(state.evidence, word, 0.9), *[Tick(5_000)] * 2):
        state, _ = move(state, event, 0.0)
    assert state.percent == 22
    assert state.next_percent == 50


def test_a_state_in_the_middle_of_an_ask_comes_back_from_json_as_it_was() -> None:
    for strategy in ("canary", "blue-green"):
        state = Hand(strategy).asking().state  # type: ignore[arg-type]
        assert msgspec.json.decode(msgspec.json.encode(state), type=Rollout) == state
