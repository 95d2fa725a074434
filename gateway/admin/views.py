"""Records that need more than their own columns to be shown."""

from collections.abc import Mapping

import msgspec

from gateway.admin.schemas import AcknowledgementView, DeploymentView, view
from gateway.core.rollout.change import silent_words
from gateway.core.rollout.rollout import Paused, Phase, Rollout
from gateway.core.settings.secrets import hidden
from gateway.store.records import AcknowledgementRecord, DeploymentRecord

CLOCKED = frozenset({Phase.STEPPING, Phase.BAKING, Phase.PAUSED, Phase.CONFIRM_PROMOTE})
"""Phases in which a step's remaining time means something."""

_state = msgspec.json.Decoder(Rollout)


def deployment(
    record: DeploymentRecord,
    seen: Mapping[str, AcknowledgementRecord],
    *,
    unstored_at: str = "",
    is_kept: bool = True,
) -> DeploymentView:
    """Return what is shown of a rollout: its row, and what the machine's state says of progress.

    seen: what was acknowledged, by deployment id. unstored_at: the gateway where it is in force and not
    stored; empty: it is stored. is_kept: whether the store has it, or a worker.
    """
    ack = seen.get(record.id)
    state = _state.decode(record.state) if record.state else None
    columns = {name: getattr(record, name) for name in _SHARED}
    columns["config"] = hidden(record.config)
    return DeploymentView(
        phase=state.phase.value if state else record.status,
        steps=[step.percent for step in state.plan.steps] if state else [],
        step_ms=state.planned.interval_ms if state else 0,
        remaining_ms=state.remaining_ms if state and state.phase in CLOCKED else None,
        summary=summary(state) if state else record.error_message or "",
        verdict=state.judged if state else None,
        warning=state.warning if state else "",
        acknowledged=view(AcknowledgementView, ack) if ack is not None else None,
        stored=not unstored_at,
        kept=is_kept,
        nodes=[unstored_at] if unstored_at else [],
        **columns,
    )


def summary(state: Rollout) -> str:
    """Return why a rollout stands where it stands: the pause's reason, its end's, what it waits for, else the
    judge's last word.
    """
    if isinstance(state.paused, Paused):
        return f"paused by {state.paused.actor}: {state.paused.reason}" if state.paused.reason else "paused"
    if state.phase is Phase.COMPLETED:
        return f"The new version serves everything; the old one is drained (completed by {state.cause})."
    if state.reason:
        return state.reason
    kept = f"the old version is kept: {silent_words(state.silent)}" if state.silent else ""
    if kept and state.phase is Phase.ENDING:
        return kept
    late = f"waiting for {', '.join(state.behind)} to apply the weights" if state.behind else ""
    waits = _WAITS.get(state.phase)
    if waits is not None:
        return waits
    said = f"{state.judged.verdict}: {state.judged.reason}" if state.judged is not None else ""
    frozen = "changes are frozen, it stays here" if state.frozen else ""
    return "; ".join(part for part in (kept, late, frozen, said) if part)


_WAITS = {
    Phase.GATE: "checking the new version before it gets traffic",
    Phase.CONFIRM_START: "waiting for the confirm-start webhook",
    Phase.READY: "the new version passed its test gate, but changes are frozen",
    Phase.CONFIRM_PROMOTE: "the step passed; waiting for the confirm-promote webhook",
    Phase.ENDING: "the old version is being drained",
}
"""What a rollout waits for where neither the judge nor a person has the word."""


_SHARED = tuple(
    name for name in DeploymentView.__struct_fields__ if name in DeploymentRecord.__struct_fields__
)
