"""Records that need more than their own columns to be shown."""

import msgspec

from gateway.admin.schemas import DeploymentView
from gateway.core.rollout import ENDED, Paused, Phase, Rollout
from gateway.store.records import DeploymentRecord

CLOCKED = frozenset({Phase.STEPPING, Phase.BAKING, Phase.PAUSED, Phase.CONFIRM_PROMOTE})
"""Phases in which a step's remaining time means something."""

_state = msgspec.json.Decoder(Rollout)


def deployment(record: DeploymentRecord) -> DeploymentView:
    """Return what is shown of a rollout: its row, and what the machine's stored state says of progress."""
    state = _state.decode(record.state) if record.state else None
    columns = {name: getattr(record, name) for name in _SHARED}
    return DeploymentView(
        phase=state.phase.value if state else record.status,
        steps=[step.percent for step in state.plan.steps] if state else [],
        step_ms=state.planned.interval_ms if state else 0,
        remaining_ms=state.remaining_ms if state and state.phase in CLOCKED else None,
        summary=summary(state) if state else record.error_message or "",
        verdict=state.judged if state else None,
        warning=state.warning if state else "",
        **columns,
    )


def summary(state: Rollout) -> str:
    """Return why a rollout stands where it stands: the pause's reason, its end's, else the judge's."""
    if isinstance(state.paused, Paused):
        return f"paused by {state.paused.actor}: {state.paused.reason}" if state.paused.reason else "paused"
    if state.reason:
        return state.reason
    if state.phase in ENDED or state.judged is None:
        return ""
    return f"{state.judged.verdict}: {state.judged.reason}"


_SHARED = tuple(
    name for name in DeploymentView.__struct_fields__ if name in DeploymentRecord.__struct_fields__
)
