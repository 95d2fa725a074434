"""The transitions that moves are made of: each changes the state and says what goes on record."""

from typing import Any, Final

from msgspec.structs import replace

from gateway.core.judge.evidence import accept_shift, begin_step, end_ask, forgive
from gateway.core.judge.judge import Decision
from gateway.core.rollout.commands import Action, Decide, Happening, Notify, Record
from gateway.core.rollout.state import Paused, PauseKind, Phase, Rollout
from gateway.errors import IllegalTransition


class Change:
    """One move in the making: the state as it becomes, and the records that go with it."""

    def __init__(self, state: Rollout, now: float) -> None:
        self.state = state
        self.now = now
        self.records: list[Record] = []

    def set(self, **fields: Any) -> None:
        """Change fields of the state."""
        self.state = replace(self.state, **fields)

    def decide(self, action: Action, cause: str, reason: str, judged: Decision | None = None) -> None:
        """Record a decision. judged: what it rests on; None: what the judge last saw in this step."""
        state = self.state
        self.set(records=state.records + 1)
        self.records.append(
            Decide(
                number=state.records + 1,
                at=self.now,
                step=state.step,
                percent=state.percent,
                action=action,
                cause=cause,
                reason=reason,
                judged=judged or state.judged,
            )
        )

    def notify(self, happening: Happening, cause: str, text: str, *, alert: bool = False) -> None:
        """Record something to tell."""
        number, percent = self.state.records + 1, self.state.percent
        self.set(records=number)
        self.records.append(
            Notify(number=number, happening=happening, cause=cause, percent=percent, text=text, alert=alert)
        )


def fail(change: Change, cause: str, reason: str) -> None:
    """End before any traffic moved."""
    change.set(phase=Phase.FAILED, reason=reason, cause=cause, ended_at=change.now, cleaned=True)
    change.decide("fail", cause, reason)
    change.notify("failed", cause, reason, alert=True)


def enter(change: Change, percent: int, cause: str, why: str) -> None:
    """Set the share and start the clock of the step it belongs to."""
    judged = change.state.judged
    set_step_share(change, percent)
    change.set(phase=phase_at(percent), paused=None)
    change.decide("step", cause, f"{why}: {percent} % of traffic to the new version.", judged)
    change.notify("step", cause, f"{percent} % of traffic to the new version")


def set_step_share(change: Change, percent: int) -> None:
    """Ask for new weights and begin the step they belong to; its clock waits until they are live."""
    state = change.state
    steps = state.plan.steps
    step = max((index for index, step in enumerate(steps) if step.percent <= percent), default=0)
    change.set(
        step=step,
        percent=percent,
        back_to=None,
        serial=state.serial + 1,
        applied=False,
        evidence=begin_step(end_ask(state.evidence), percent),
        judged=None,
        noted=None,
        during="asked" if "during-step" in state.plan.hooks and percent > 0 else "none",
        asked_at=change.now,
        smoke="due" if percent == 100 and state.plan.smoke_tests is not False else "none",
    )
    restart_clock(change)


def restart_clock(change: Change) -> None:
    """Give the step its whole interval again."""
    change.set(remaining_ms=change.state.planned.interval_ms, elapsed_ms=0, noted_ms=0)


def asked_now(change: Change) -> dict[str, Any]:
    """Return the fields of a new question to webhooks: asked again, it is the same to the byte."""
    return {"ask": change.state.ask + 1, "asked_at": change.now}


def phase_at(percent: int) -> Phase:
    """Return what a rollout does at a share."""
    return Phase.BAKING if percent == 100 else Phase.STEPPING


def proceed(change: Change, cause: str, why: str) -> None:
    """Leave a step that passed: over to a person, a webhook, or the next step."""
    state = change.state
    if state.planned.pause and state.percent == state.planned.percent and not is_approved(state):
        pause(change, "planned", "clock", f"{why}; its settings ask for a person's word before the next.")
    elif "confirm-promote" in state.plan.hooks:
        change.set(phase=Phase.CONFIRM_PROMOTE, paused=None, **asked_now(change))
    else:
        advance(change, cause, why)


def is_approved(state: Rollout) -> bool:
    """Whether a person has just ended the pause the step's settings ask for."""
    return state.paused is not None and state.paused.kind == "planned"


def advance(change: Change, cause: str, why: str) -> None:
    """Go to the next step, or from the last to the end; no further than the harm budget allows."""
    state = change.state
    percent = state.next_percent
    if percent is None:
        end(change, cause, why)
        return
    most = state.judged.affordable if state.judged is not None and not state.plan.dry_run else None
    if most is not None and state.percent < most < percent:
        enter(change, most, cause, f"{why}; maxFailedUsers pays for no more than this")
    else:
        enter(change, percent, cause, why)


def breach(change: Change, cause: str, reason: str, *, is_news: bool = True) -> None:
    """The new version is not good enough: act as the settings say. is_news: it has no row yet."""
    change.set(evidence=end_ask(change.state.evidence))
    state = change.state
    if is_in_hand(state):
        if is_news:
            change.decide("judge", cause, reason)
    elif state.plan.dry_run:
        if is_news:
            change.decide("judge", cause, f"{reason} (Dry run: nothing is done about it.)")
    elif state.plan.on_breach == "pause":
        pause(change, "breach", cause, reason)
    elif "on-rollback" in state.plan.hooks:
        change.set(phase=Phase.CONFIRM_ROLLBACK, paused=None, reason=reason, cause=cause, **asked_now(change))
        change.decide("judge", cause, reason)
    else:
        roll_back_automatically(change, cause, reason)


def is_in_hand(state: Rollout) -> bool:
    """Whether a breach is being dealt with already: a webhook is asked, or a person has it on the table."""
    if state.phase is Phase.CONFIRM_ROLLBACK:
        return True
    return state.paused is not None and state.paused.kind in ("breach", "stranded")


def roll_back_automatically(change: Change, cause: str, reason: str) -> None:
    """Return the traffic, unless that would only make it worse."""
    state = change.state
    if not state.old_usable and state.new_usable:
        change.set(reason=reason, cause=cause)
        pause(change, "stranded", cause, f"Nowhere to go back to, the old version is not usable. {reason}")
    else:
        revert(change, cause, reason)


def pause(change: Change, kind: PauseKind, actor: str, reason: str) -> None:
    """Stop the clock, leave the traffic as it is, and say who is waited for."""
    change.set(phase=Phase.PAUSED, paused=Paused(kind, reason, actor))
    change.decide("pause", actor, reason)
    change.notify("paused", actor, reason, alert=kind != "person")


def overrule(change: Change) -> None:
    """A person goes on in spite of what the judge holds against the new version: it starts to count anew."""
    paused = change.state.paused
    state = change.state
    if state.phase is Phase.ASKING or (paused is not None and paused.kind in _OVERRULED):
        change.set(evidence=forgive(state.evidence), reason="", cause="")
    elif state.judged is not None and state.judged.gate in ("shift", "latency"):
        change.set(evidence=accept_shift(state.evidence))


_OVERRULED: Final = ("breach", "stranded", "undecided", "asked")


def refuse_if_frozen(change: Change, what: str) -> None:
    """Raise IllegalTransition while changes are frozen."""
    if change.state.frozen:
        raise IllegalTransition(f"changes are frozen: cannot {what}")


def revert(change: Change, cause: str, reason: str) -> None:
    """Ask for the old weights."""
    change.set(
        phase=Phase.REVERTING,
        paused=None,
        percent=0,
        back_to=None,
        serial=change.state.serial + 1,
        applied=False,
        evidence=begin_step(end_ask(change.state.evidence), 0),
        during="none",
        smoke="none",
        reason=reason,
        cause=cause,
    )
    change.decide("rollback", cause, reason)


def end(change: Change, cause: str, why: str) -> None:
    """Let the old version drain; until it has, it can be called back.

    Raises IllegalTransition while a gateway that took part is silent: nobody knows what it serves.
    """
    if change.state.silent:
        raise IllegalTransition(f"the old version is still needed: {silent_words(change.state.silent)}")
    change.set(phase=Phase.ENDING, paused=None, back_to=None, cause=cause)
    change.decide("complete", cause, f"{why}: the old version is drained.")


def silent_words(names: tuple[str, ...]) -> str:
    """Say who is waited for, and what ends that."""
    some = names[:3]
    more = f" and {len(names) - len(some)} more" if len(names) > len(some) else ""
    listed = ", ".join(repr(name) for name in some)
    who = "gateway" if len(names) == 1 else "gateways"
    return (
        f"nothing is heard of the {who} {listed}{more}, which may serve it: start again, "
        f"or `gateway nodes rm {some[0]}`"
    )
