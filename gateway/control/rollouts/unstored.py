"""What may be done before it is stored: a rollback, whatever else returns traffic, and a person's pause.

Workers carry a mark of it in their tables and say it to the next control. A mark counts only for a deployment
that the store still has open and without it; if the workers die too, the store's state stands.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.control.rollouts.moved import Moved
from gateway.control.rollouts.rows import decoded
from gateway.core.rollout.events import Pause, Rollback
from gateway.core.rollout.state import Phase, Rollout
from gateway.link.snapshot import Mark
from gateway.store.records import AuditEntry, DeploymentRecord

GRACE_S: Final = 0.25
"""How long a commit may take before such an act goes ahead of it."""
END_S: Final = 5.0
"""How long it waits where a commit that ends the rollout is under way: a store that fails says so by then."""
ANSWER_S: Final = 2.0
"""How long an answer then waits to say that it is stored after all."""
CARRY_S: Final = 1.0
"""How long it waits for a worker that says it has the mark: they take milliseconds, or there is none."""
MAX_UNSTORED: Final = 64
"""Of one rollout: asking for the same rollback again and again does not fill memory."""


class Ordered(msgspec.Struct, frozen=True):
    """What came of an order: the deployment as it is in force, and whether that is stored."""

    record: DeploymentRecord
    stored: bool = True
    is_kept: bool = True
    """Whether anybody beside this process knows of it: the store, or a worker."""


def may_act(moved: Moved) -> bool:
    """Return whether a move may be acted on before its commit.

    Asking the webhooks whether it may be rolled back moves nothing, and must not wait for the store.
    """
    return moved.is_lowering or moved.is_pausing or is_asking(moved)


def is_asking(moved: Moved) -> bool:
    """Return whether the move only asks the webhooks if it may be rolled back."""
    return moved.state.phase is Phase.CONFIRM_ROLLBACK and moved.base.phase is not Phase.CONFIRM_ROLLBACK


def mark_of(moved: Moved) -> Mark | None:
    """Return what workers are to remember of a move that is not stored; None: nothing has changed."""
    if is_asking(moved):
        return None
    state = moved.state
    is_rollback = state.phase is Phase.REVERTING
    order = moved.order
    return Mark(
        deployment=state.id,
        serial=state.records,
        order="rollback" if is_rollback else "pause" if moved.is_pausing else "lower",
        actor=order.actor if order is not None else state.cause,
        reason=getattr(order, "reason", "") if order is not None else state.reason,
        at=moved.wall,
        automatic=order is None,
    )


def counting(marks: Mapping[str, Mark], deployments: Iterable[DeploymentRecord]) -> dict[str, Mark]:
    """Return the marks that say more than the store does. deployments: the open ones, as stored.

    Raises StoreError naming a deployment whose state does not load.
    """
    marked = [record for record in deployments if record.id in marks and record.state]
    return {record.id: marks[record.id] for record in marked if _says_more(marks[record.id], decoded(record))}


def _says_more(mark: Mark, state: Rollout) -> bool:
    """Return whether a mark says more of a rollout than the store does.

    What it went ahead of may have been stored after all: a state with as many records, or more. A rollback is
    not taken back by anything, so one that is not stored counts whatever else is.
    """
    if not state.is_open:
        return False
    if mark.order == "rollback":
        return state.phase is not Phase.REVERTING
    if mark.order == "pause" and state.phase is not Phase.PAUSED:
        return state.records <= mark.serial
    return state.records < mark.serial


def ordered_by(mark: Mark) -> Rollback | Pause | None:
    """Return the order that does again what a mark says was done; None: the judge will by itself."""
    match mark.order:
        case "rollback":
            return Rollback(mark.actor, mark.reason)
        case "pause":
            return Pause(mark.actor, mark.reason)
        case "lower":
            return None


def audit_of(mark: Mark) -> AuditEntry | None:
    """Return the audit row that a person's act still has to get; None: nobody ordered it."""
    if mark.automatic:
        return None
    return AuditEntry(
        at=datetime.fromtimestamp(mark.at, UTC),
        actor=mark.actor,
        action=f"deployment.{mark.order}",
        resource="deployment",
        resource_id=mark.deployment,
        details={"reason": mark.reason, "stored": "late"},
    )
