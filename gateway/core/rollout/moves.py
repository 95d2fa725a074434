"""Every move a rollout can make: one table of (event, phase), and the handlers it names."""

from collections.abc import Callable
from typing import Any, Final

from gateway.core.judge.evidence import accept_shift, end_ask, forgive, step_live
from gateway.core.rollout.asking import asked, judged, restore, watched
from gateway.core.rollout.change import (
    Change,
    advance,
    asked_now,
    breach,
    end,
    enter,
    fail,
    overrule,
    pause,
    phase_at,
    proceed,
    refuse_if_frozen,
    restart_clock,
    revert,
    roll_back_automatically,
    set_step_share,
    silent_words,
)
from gateway.core.rollout.commands import (
    Activate,
    Deprecate,
    MakeCurrent,
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
from gateway.core.rollout.state import WATCHED, Paused, Phase, Rollout
from gateway.errors import IllegalTransition

MAX_TICK_MS: Final = 5_000
"""More than this between two ticks was not watched: a stalled or suspended control, a jumping clock."""
# The gate


def _start(change: Change, event: Start) -> None:
    refuse_if_frozen(change, "start")
    change.set(phase=Phase.GATE, started_at=change.now)
    change.decide(
        "start", event.actor, f"Started by {event.actor}; checking the new version before it gets traffic."
    )
    change.notify("started", event.actor, f"{change.state.plan.strategy} rollout started by {event.actor}")


def _gate_passed(change: Change, event: GatePassed) -> None:
    change.decide("gate", "gate", "The new version is healthy and passed its tests.")
    if "confirm-start" in change.state.plan.hooks:
        change.set(phase=Phase.CONFIRM_START, **asked_now(change))
    else:
        _first_step(change, "gate")


def _gate_failed(change: Change, event: GateFailed) -> None:
    fail(change, "gate", f"The new version did not pass its gate: {event.reason}")


def _start_answered(change: Change, event: HookAnswered) -> None:
    if event.hook != "confirm-start" or event.ask != change.state.ask:
        return
    if event.allowed:
        _first_step(change, "hook:confirm-start")
    else:
        fail(
            change, "hook:confirm-start", f"A webhook refused the start: {event.reason or 'no reason given'}"
        )


def _cancel(change: Change, event: Rollback | Undo) -> None:
    fail(change, event.actor, _because(f"Cancelled by {event.actor} before any traffic moved", event))


# Steps


def _first_step(change: Change, cause: str) -> None:
    if change.state.frozen:
        change.set(phase=Phase.READY)
        return
    change.records.append(Activate(change.state.new))
    enter(change, change.state.plan.steps[0].percent, cause, "First step")


def _weights_applied(change: Change, event: WeightsApplied) -> None:
    state = change.state
    if event.serial != state.serial or state.applied:
        return
    change.set(applied=True, behind=(), evidence=step_live(state.evidence, event.generation))


def _tick(change: Change, event: Tick) -> None:
    """Let observed time pass; at the step's end go on, wait, or give up."""
    state = change.state
    if not state.applied or state.frozen:
        return
    elapsed_ms = min(max(event.elapsed_ms, 0), MAX_TICK_MS)
    change.set(remaining_ms=max(0, state.remaining_ms - elapsed_ms), elapsed_ms=state.elapsed_ms + elapsed_ms)
    if change.state.remaining_ms == 0:
        _step_over(change)


def _step_over(change: Change) -> None:
    state = change.state
    lacking = _lacking(state)
    if not lacking and state.is_end_held:
        return  # the bake goes on until they are back, or removed
    if not lacking:
        proceed(change, "clock" if state.plan.dry_run else "judge", "The step passed")
    elif state.plan.auto_pause and not _is_answering(state):
        pause(change, "undecided", "clock", f"The step is over, undecided. {lacking}")
    elif _is_warming(state) or state.elapsed_ms < state.planned.max_ms:
        return
    elif state.plan.on_undecided == "rollback":
        roll_back_automatically(change, "clock", f"Still undecided at maxStepTime. {lacking}")
    else:
        pause(change, "undecided", "clock", f"Still undecided at maxStepTime. {lacking}")


def _lacking(state: Rollout) -> str:
    """Return what the step still lacks to pass; empty: nothing."""
    if state.during == "asked":
        return "The during-step webhook has not answered."
    if state.smoke == "due":
        return "The smoke tests after the switch have not finished."
    if state.plan.dry_run or state.planned.interval_ms == 0:
        return ""
    if state.judged is None:
        return "The judge has seen nothing of this step."
    return "" if state.judged.verdict == "advance" else state.judged.reason


def _is_answering(state: Rollout) -> bool:
    """Whether only an answer already asked for is missing: that is waited for, not put to a person."""
    return state.during == "asked" or state.smoke == "due" or _is_warming(state)


def _is_warming(state: Rollout) -> bool:
    """Whether the judge only waits for the end of the warm-up: seconds, however short the step."""
    return state.judged is not None and state.judged.gate == "warming"


def _promote_answered(change: Change, event: HookAnswered) -> None:
    _during_answered(change, event)
    if change.state.phase is not Phase.CONFIRM_PROMOTE:
        return
    if event.hook != "confirm-promote" or event.ask != change.state.ask:
        return
    if not event.allowed:
        pause(
            change,
            "veto",
            "hook:confirm-promote",
            f"A webhook refused the next step: {event.reason or 'no reason given'}",
        )
    elif change.state.frozen or change.state.is_end_held:
        change.set(phase=phase_at(change.state.percent))
    else:
        advance(change, "hook:confirm-promote", "The step passed and was confirmed")


def _during_answered(change: Change, event: HookAnswered) -> None:
    state = change.state
    if event.hook != "during-step" or event.ask != state.serial or state.during != "asked":
        return
    if event.allowed:
        change.set(during="allowed")
    else:
        change.set(during="none")
        breach(change, "hook:during-step", f"A webhook refused the step: {event.reason or 'no reason given'}")


def _smoke_reported(change: Change, event: SmokeReported) -> None:
    state = change.state
    if event.serial != state.serial or state.smoke != "due":
        return
    if event.ok:
        change.set(smoke="passed")
    else:
        change.set(smoke="none")
        breach(change, "smoke", f"Smoke tests failed after the switch: {event.reason}")


# Rollbacks that a webhook is asked about


def _rollback_answered(change: Change, event: HookAnswered) -> None:
    state = change.state
    if event.hook != "on-rollback" or event.ask != state.ask:
        return
    if event.allowed:
        roll_back_automatically(change, state.cause, state.reason)
        return
    pause(
        change,
        "breach",
        "hook:on-rollback",
        f"{state.reason} A webhook refused the rollback: {event.reason or 'no reason given'}",
    )


# Orders


def _pause_ordered(change: Change, event: Pause) -> None:
    change.set(evidence=end_ask(change.state.evidence))
    pause(change, "person", event.actor, event.reason or f"Paused by {event.actor}.")


def _resume(change: Change, event: Resume) -> None:
    """Go on as the kind of the pause asks for: with the clock where it was, a new clock, or the next step."""
    state = change.state
    assert state.paused is not None
    kind = state.paused.kind
    if kind == "planned" or state.back_to is not None:
        refuse_if_frozen(change, "advance")
    what = f"{_by('Resumed', event)}."
    if kind in ("breach", "stranded", "asked"):
        change.set(evidence=forgive(state.evidence), judged=None, noted=None, reason="", cause="")
    elif kind == "held" or (state.judged is not None and state.judged.gate in ("shift", "latency")):
        change.set(evidence=accept_shift(state.evidence), judged=None, noted=None)
        what = f"{_by('Resumed', event)}, who accepts what held it up."
    if kind in ("breach", "stranded", "undecided", "asked"):
        restart_clock(change)
    if state.back_to is not None:
        restore(change)
    change.decide("resume", event.actor, what)
    change.notify("resumed", event.actor, _by("Resumed", event))
    if kind == "planned":
        proceed(change, event.actor, f"Approved by {event.actor}")
    else:
        change.set(phase=phase_at(change.state.percent), paused=None)


def _resume_asking(change: Change, event: Resume) -> None:
    """End the pause that an ask came upon: cleared, it goes on by itself. The ask goes on."""
    state = change.state
    if state.paused is None:
        raise IllegalTransition("Resume is not possible while the old version is asked: nothing is paused")
    if state.paused.kind == "held":
        change.set(evidence=accept_shift(state.evidence))
    change.set(paused=None)
    change.decide("resume", event.actor, f"{_by('Resumed', event)}; the old version is still being asked.")
    change.notify("resumed", event.actor, _by("Resumed", event))


def _promote(change: Change, event: Promote) -> None:
    refuse_if_frozen(change, "advance")
    overrule(change)
    change.set(paused=None)
    if change.state.back_to == 100:  # the end of the watch is `complete`'s alone
        enter(change, 100, event.actor, f"{_by('Promoted', event)}, who ends the asking")
    else:
        advance(change, event.actor, _by("Promoted", event))


def _promote_full(change: Change, event: PromoteFull) -> None:
    refuse_if_frozen(change, "advance")
    if change.state.percent == 100:
        raise IllegalTransition("all traffic is on the new version already: complete ends the watch")
    overrule(change)
    enter(change, 100, event.actor, _by("Promoted in full", event))


def _set_percent(change: Change, event: SetPercent) -> None:
    state = change.state
    if not 0 <= event.percent <= 100:
        raise IllegalTransition(f"a share is between 0 and 100, not {event.percent}")
    if event.percent > state.percent:
        refuse_if_frozen(change, "raise the share")
    overrule(change)
    judged = state.judged
    set_step_share(change, event.percent)
    change.set(phase=phase_at(event.percent))
    why = f"{event.percent} % of traffic to the new version: {_by('set', event)}."
    change.decide("set_percent", event.actor, why, judged)
    change.notify("step", event.actor, why)
    if state.paused is not None:
        paused = Paused("person", f"Paused while {event.actor} sets the share.", event.actor)
        change.set(phase=Phase.PAUSED, paused=paused)


def _complete(change: Change, event: Complete) -> None:
    if change.state.percent != 100:
        raise IllegalTransition(f"only at 100 % can it be completed; it is at {change.state.percent} %")
    refuse_if_frozen(change, "complete")
    end(change, event.actor, _by("Completed", event))


def _by(what: str, event: Promote | PromoteFull | SetPercent | Resume | Complete) -> str:
    """Say who did it, and why if that was said."""
    return f"{what} by {event.actor}" + (f" ({event.reason})" if event.reason else "")


def _already(change: Change, event: Rollback | Undo) -> None:
    """It is on its way: asking again is no mistake."""


def _roll_back_ordered(change: Change, event: Rollback | Undo) -> None:
    warning = (
        ""
        if change.state.old_usable
        else "The old version is not usable at the moment; it gets all traffic all the same."
    )
    change.set(warning=warning)
    revert(change, event.actor, _because(f"Rolled back by {event.actor}", event))
    if warning:
        change.decide("warning", event.actor, warning)


def _because(what: str, event: Rollback | Undo) -> str:
    return f"{what}: {event.reason}" if event.reason else f"{what}."


# Ends


def _reverted(change: Change, event: WeightsApplied) -> None:
    state = change.state
    if event.serial != state.serial:
        return
    change.set(phase=Phase.ROLLED_BACK, applied=True, behind=(), ended_at=change.now)
    change.notify("rolled_back", state.cause, state.reason, alert=True)


def _new_drained(change: Change, event: DrainDone) -> None:
    if event.version == change.state.new and not change.state.cleaned:
        change.set(cleaned=True)
        change.records.append(Deprecate(event.version))


def _old_drained(change: Change, event: DrainDone) -> None:
    state = change.state
    if event.version != state.old or state.silent:
        return
    change.set(phase=Phase.COMPLETED, ended_at=change.now)
    change.records += [MakeCurrent(state.new), Deprecate(state.old)]
    change.notify("completed", state.cause, "The new version serves everything; the old one is drained")


def _tidied(change: Change, event: ShutdownDone | Superseded) -> None:
    change.set(cleaned=True)


# Anywhere


def _isolated(change: Change, event: Isolated) -> None:
    """Say what nodes have done by themselves; where they could not, a person is asked."""
    if not change.state.percent:
        return
    change.set(evidence=end_ask(change.state.evidence))
    reason = (
        f"isolated: no gateway was in charge for {event.seconds:.0f} s, and nobody judged what was served."
    )
    roll_back_automatically(change, "isolated", reason)


def _usability(change: Change, event: UsabilityChanged) -> None:
    """Take note; a rollback that had nowhere to go back to goes ahead once it has, or once nothing is left to
    spare.
    """
    change.set(old_usable=event.old, new_usable=event.new)
    state = change.state
    if state.paused is not None and state.paused.kind == "stranded" and (event.old or not event.new):
        revert(change, state.cause, state.reason)


def _gateways_seen(change: Change, event: GatewaysSeen) -> None:
    """Take note of who takes part, and put on record who is waited for."""
    state = change.state
    change.set(
        gateways=tuple(sorted({*state.gateways, *event.serving})),
        silent=event.silent,
        behind=() if state.applied else event.behind,
    )
    if event.silent != state.silent and state.serial:
        if event.silent:
            change.decide("wait", "gateways", f"The old version is kept: {silent_words(event.silent)}.")
        else:
            change.decide("wait", "gateways", "Nobody is waited for any more: all are back, or removed.")


def _freeze(change: Change, event: FreezeOn) -> None:
    change.set(frozen=True)


def _thaw(change: Change, event: FreezeOff) -> None:
    change.set(frozen=False)


def _thaw_ready(change: Change, event: FreezeOff) -> None:
    _thaw(change, event)
    _first_step(change, "gate")


Handler = Callable[[Change, Any], None]


def _in(handler: Handler, *phases: Phase) -> dict[Phase, Handler]:
    return dict.fromkeys(phases, handler)


_TESTING: Final = (Phase.GATE, Phase.CONFIRM_START, Phase.READY)
_RUNNING: Final = (Phase.STEPPING, Phase.BAKING)
_GUARDED: Final = (*_RUNNING, Phase.CONFIRM_PROMOTE, Phase.PAUSED)
_SHIFTED: Final = (*_GUARDED, Phase.ASKING)
"""Where the new version may have traffic and a person may want it otherwise."""
_OPEN: Final = (Phase.PENDING, *_TESTING, *_SHIFTED, Phase.CONFIRM_ROLLBACK, Phase.ENDING, Phase.REVERTING)
_GIVE_UP: Final = (
    _in(_cancel, Phase.PENDING, *_TESTING)
    | _in(_roll_back_ordered, *_SHIFTED, Phase.CONFIRM_ROLLBACK, Phase.ENDING)
    | _in(_already, Phase.REVERTING)
)

MOVES: Final[dict[type[Event], dict[Phase, Handler]]] = {
    # Orders: what is not listed is refused.
    Start: _in(_start, Phase.PENDING),
    Promote: _in(_promote, *_SHIFTED),
    PromoteFull: _in(_promote_full, *_SHIFTED),
    SetPercent: _in(_set_percent, *_SHIFTED),
    Pause: _in(_pause_ordered, *_RUNNING, Phase.ASKING, Phase.CONFIRM_PROMOTE),
    Resume: {Phase.PAUSED: _resume, Phase.ASKING: _resume_asking},
    Complete: _in(_complete, *_GUARDED),
    Rollback: _GIVE_UP,
    Undo: _GIVE_UP,
    # Observations: what is not listed comes too late and changes nothing.
    GatePassed: _in(_gate_passed, Phase.GATE),
    GateFailed: _in(_gate_failed, Phase.GATE),
    HookAnswered: {
        Phase.CONFIRM_START: _start_answered,
        Phase.STEPPING: _during_answered,
        Phase.BAKING: _during_answered,
        Phase.CONFIRM_PROMOTE: _promote_answered,
        Phase.PAUSED: _during_answered,
        Phase.CONFIRM_ROLLBACK: _rollback_answered,
    },
    WeightsApplied: _in(_weights_applied, *_SHIFTED, Phase.CONFIRM_ROLLBACK, Phase.ENDING)
    | _in(_reverted, Phase.REVERTING),
    Tick: _in(_tick, *_RUNNING),
    Judged: _in(watched, *WATCHED)
    | _in(judged, *_GUARDED, Phase.CONFIRM_ROLLBACK)
    | _in(asked, Phase.ASKING),
    SmokeReported: _in(_smoke_reported, *_GUARDED),
    Isolated: _in(_isolated, *_SHIFTED, Phase.CONFIRM_ROLLBACK),
    DrainDone: {Phase.ENDING: _old_drained, Phase.ROLLED_BACK: _new_drained},
    ShutdownDone: _in(_tidied, Phase.COMPLETED),
    Superseded: _in(_tidied, Phase.COMPLETED, Phase.ROLLED_BACK),
    UsabilityChanged: _in(_usability, *_OPEN),
    GatewaysSeen: _in(_gateways_seen, *_OPEN),
    FreezeOn: _in(_freeze, *_OPEN),
    FreezeOff: _in(_thaw, *_OPEN) | _in(_thaw_ready, Phase.READY),
}
"""(event, phase) -> handler: every move there is."""
