"""The old version stays as long as a gateway that took part in the rollout is silent."""

import pytest

from gateway.core.rollout.commands import Decide, Deprecate, StartDrain
from gateway.core.rollout.events import (
    Complete,
    DrainDone,
    GatewaysSeen,
    HookAnswered,
    Promote,
    PromoteFull,
    Rollback,
)
from gateway.core.rollout.state import Phase, due
from gateway.errors import IllegalTransition
from tests.unit.core.rollout.test_rollout import Hand

ALL = GatewaysSeen(("1", "2"))
WITHOUT = GatewaysSeen(("1",), silent=("b",))


def baking() -> Hand:
    return Hand().rolling()(ALL, PromoteFull("ann")).applied()


def test_a_bake_waits_for_a_silent_gateway_and_says_for_whom() -> None:
    hand = baking()(WITHOUT)
    (said,) = [each for each in hand.of(Decide) if each.action == "wait"]
    assert "the gateway 'b'" in said.reason
    assert "`gateway nodes rm b`" in said.reason
    hand.judged("advance").pass_time(10_000)
    assert (hand.state.phase, hand.state.remaining_ms) == (Phase.BAKING, 0)
    assert hand.state.gateways == ("1", "2")
    hand(ALL)
    assert [each.action for each in hand.of(Decide)][-1] == "wait"
    assert hand.pass_time(1).state.phase is Phase.ENDING


def test_nobody_can_end_the_bake_over_a_silent_gateway() -> None:
    hand = baking()(WITHOUT)
    for order in (Complete("ann"), Promote("ann")):
        with pytest.raises(IllegalTransition, match="nothing is heard of the gateway 'b'"):
            hand(order)
    assert hand(Rollback("ann")).state.phase is Phase.REVERTING


def test_steps_before_the_last_do_not_wait() -> None:
    hand = Hand().rolling()(ALL, WITHOUT).judged("advance").pass_time(10)
    assert hand.state.percent == 50


def test_a_confirmed_end_waits_too() -> None:
    hand = Hand(hooks=("confirm-promote",)).rolling()(ALL, PromoteFull("ann")).applied()
    hand.judged("advance").pass_time(10)
    assert hand.state.phase is Phase.CONFIRM_PROMOTE
    hand(WITHOUT, HookAnswered("confirm-promote", hand.state.ask, True))
    assert hand.state.phase is Phase.BAKING
    hand(ALL).judged("advance").pass_time(10)
    assert hand.state.phase is Phase.CONFIRM_PROMOTE, "asked again: it is later now"


def test_a_gateway_that_falls_silent_during_the_drain_keeps_the_version() -> None:
    hand = baking()(Complete("ann"))
    drain = StartDrain("old", hand.state.plan.drain_timeout_ms)
    assert drain in due(hand.state)
    hand(WITHOUT)
    assert due(hand.state) == ()
    hand(DrainDone("old"))
    assert hand.state.phase is Phase.ENDING
    assert hand.of(Deprecate) == []
    hand(ALL)
    assert drain in hand.last
    assert hand(DrainDone("old")).state.phase is Phase.COMPLETED


def test_who_has_yet_to_apply_the_weights_is_known_until_they_have() -> None:
    hand = baking()
    hand(GatewaysSeen(("1", "2"), behind=("b",)))
    assert hand.state.behind == (), "the weights are applied"
    hand = Hand().rolling()(ALL, PromoteFull("ann"), GatewaysSeen(("1", "2"), behind=("b",)))
    assert hand.state.behind == ("b",)
    assert hand.applied().state.behind == ()
