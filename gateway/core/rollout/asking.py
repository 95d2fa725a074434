"""The judge's word: on record, to a person, to an abort, or to asking the old version.

An ask takes the share down, and back up if the new version is cleared; the step's clock stands still.
"""

from typing import Final

from gateway.core.judge.ask import MIXED_PERCENT, NEW_CHANCE, tries_again
from gateway.core.judge.decision import Decision
from gateway.core.judge.evidence import begin_ask, draw_block, end_ask, set_share
from gateway.core.rollout.change import Change, breach, is_in_hand, pause, phase_at
from gateway.core.rollout.commands import Action
from gateway.core.rollout.events import Judged
from gateway.core.rollout.state import Phase, Rollout

NOTE_MS: Final = 10_000
"""A verdict that goes to and fro is recorded no more often than this."""


def watched(change: Change, event: Judged) -> None:
    """Nothing to judge yet: only remember how the old version does."""
    change.set(evidence=event.evidence)


def judged(change: Change, event: Judged) -> None:
    decision = event.decision
    change.set(evidence=event.evidence, judged=decision)
    is_news = _is_news(change.state, decision)
    if is_news:
        change.set(noted=(decision.verdict, decision.gate), noted_ms=change.state.elapsed_ms)
    if decision.verdict == "abort":
        breach(change, "judge", decision.reason, is_news=is_news)
    elif decision.verdict == "ask" and _may_ask(change.state):
        _ask(change, decision, event.draw)
    elif decision.verdict == "pause" and _is_to_pause(change.state, decision):
        pause(change, "asked" if decision.gate == "asks" else "held", "judge", decision.reason)
    elif _is_lifted(change.state, decision):
        change.set(phase=phase_at(change.state.percent), paused=None)
        change.decide("resume", "judge", f"What held it up no longer shows. {decision.reason}")
        change.notify("resumed", "judge", "What held it up no longer shows")
    elif is_news:
        change.decide("judge", "judge", decision.reason)


def _may_ask(state: Rollout) -> bool:
    return not state.plan.dry_run and not is_in_hand(state)


def _is_to_pause(state: Rollout, decision: Decision) -> bool:
    """Whether a person is to be asked now; without `autoPause` it only holds the step up."""
    if state.plan.dry_run or state.phase in (Phase.PAUSED, Phase.CONFIRM_ROLLBACK):
        return False
    return state.plan.auto_pause or decision.gate in ("asks", "nobody")


def _is_lifted(state: Rollout, decision: Decision) -> bool:
    """Whether a pause for a shift has lost its reason."""
    return state.paused is not None and state.paused.kind == "held" and decision.verdict != "pause"


def asked(change: Change, event: Judged) -> None:
    """The judge's word while the old version is asked."""
    decision = event.decision
    change.set(evidence=event.evidence, judged=decision)
    if decision.verdict == "abort":
        breach(change, "judge", decision.reason)
    elif decision.verdict == "cleared":
        _go_back(change, decision)
    elif decision.verdict == "draw":
        _next_block(change, decision, event.draw)
    elif decision.verdict == "pause":
        _put_to_a_person(change, decision)


def _put_to_a_person(change: Change, decision: Decision) -> None:
    """Asking left it undecided: stay where the old version has most, or all, of the traffic."""
    change.set(evidence=end_ask(change.state.evidence))
    if not change.state.plan.rules.mixes and change.state.percent > 0:
        change.set(
            percent=0,
            serial=change.state.serial + 1,
            applied=False,
            evidence=set_share(change.state.evidence, 0),
        )
    pause(change, "asked", "judge", decision.reason)


def _is_news(state: Rollout, decision: Decision) -> bool:
    """Whether the judge's word is worth a row: it changed, and not to and fro within seconds.

    A wait for the end of the warm-up is seldom longer than that, and says why a version that fails is not
    stopped yet.
    """
    if (decision.verdict, decision.gate) == state.noted:
        return False
    is_settled = state.elapsed_ms - state.noted_ms >= NOTE_MS
    return state.noted is None or decision.verdict == "abort" or decision.gate == "warming" or is_settled


def _ask(change: Change, decision: Decision, draw: float) -> None:
    """Begin: a quarter of the traffic stays on the new version, or a coin chooses who serves."""
    state = change.state
    mixes, is_dead = state.plan.rules.mixes, decision.gate == "dead"
    percent = MIXED_PERCENT if mixes else _drawn(draw) * (not is_dead)
    evidence = begin_ask(state.evidence, percent, mixes=mixes, is_dead=is_dead, is_new=percent == 100)
    change.set(phase=Phase.ASKING, back_to=state.percent, evidence=evidence)
    _shift(change, percent, "ask", decision)
    change.notify("step", "judge", f"{percent} % of traffic to the new version: asking the old one")


def _next_block(change: Change, decision: Decision, draw: float) -> None:
    """Let the coin choose who serves the next block, or see whether the new version is dead still."""
    asked = change.state.evidence.ask
    assert asked is not None
    percent = 100 if tries_again(asked) else _drawn(draw)
    change.set(evidence=draw_block(change.state.evidence, percent, is_new=percent == 100))
    _shift(change, percent, "ask", decision)


def _drawn(draw: float) -> int:
    return 100 if draw < NEW_CHANCE else 0


def _go_back(change: Change, decision: Decision) -> None:
    """The new version is cleared: return to where it was. It is no advance, so no freeze holds it up."""
    percent = change.state.back_to
    assert percent is not None
    change.set(evidence=set_share(end_ask(change.state.evidence), percent), back_to=None)
    _shift(change, percent, "cleared", decision)
    change.set(phase=phase_at(percent) if change.state.paused is None else Phase.PAUSED)
    change.notify("step", "judge", f"{percent} % of traffic to the new version again: {decision.reason}")


def restore(change: Change) -> None:
    """A person goes on after an ask: return to the share it began at."""
    percent = change.state.back_to
    assert percent is not None
    change.set(
        evidence=set_share(change.state.evidence, percent),
        back_to=None,
        percent=percent,
        serial=change.state.serial + 1,
        applied=False,
    )


def _shift(change: Change, percent: int, action: Action, decision: Decision) -> None:
    """Ask for the share, unless it is in force already, and put the reason on record."""
    state = change.state
    change.set(percent=percent, serial=state.serial + 1, applied=False, noted=None)
    change.decide(action, "judge", f"{decision.reason} {percent} % of traffic to the new version.", decision)
