"""A rollout's state as rows of the store, and back."""

from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.control.rollouts.windows import OpenRow
from gateway.control.tally import Part
from gateway.core.rollout.commands import Decide, Notify
from gateway.core.rollout.state import JUDGED, Rollout
from gateway.errors import StoreError
from gateway.store.records import DecisionRecord, DeploymentRecord, EventRecord, StatisticRecord

P = TypeVar("P")


def at(wall: float) -> datetime:
    """Return wall-clock seconds as the store's time."""
    return datetime.fromtimestamp(wall, UTC)


MOST: Final = 1e15
"""The greatest statistic that is stored."""
FREEZE: Final = "freeze"
"""Under this name a FreezeState is stored, as JSON."""


class ScheduledFreeze(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A configured freeze window, and when it is in force, or will be next."""

    service: str = ""
    """Empty: of all services."""
    cron: str
    duration: int
    """Milliseconds."""
    tz: str
    reason: str
    in_force: bool
    start: datetime | None
    """Null: not within years."""
    end: datetime | None


class FreezeState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether starts are refused and advances held (rollbacks never are); since when, by whom and why."""

    frozen: bool = False
    reason: str = ""
    actor: str | None = None
    at: datetime | None = None
    until: datetime | None = None
    """By schedule: when it ends."""
    windows: tuple[ScheduledFreeze, ...] = ()
    """What the configuration has scheduled; never stored."""


def decoded(record: DeploymentRecord) -> Rollout:
    """Return the state a row holds. Raises StoreError naming the deployment: nothing replaces a state."""
    try:
        return msgspec.json.decode(record.state, type=Rollout)
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        raise StoreError(f"deployment {record.id}: its stored state does not load: {exc}") from exc


class Progress(msgspec.Struct, frozen=True):
    """How far the loop has come with a rollout: stored with the evidence that was made of it."""

    counted: Part
    """What its evidence came from; what was counted beyond it is still to be judged."""
    row: OpenRow
    floor: int | None = None
    """See `Windows.floor`; None: another release has not said."""


class _EncodedProgress(msgspec.Struct, frozen=True):
    """The same, `counted` as it was encoded when the window was closed."""

    counted: msgspec.Raw
    row: OpenRow
    floor: int


class _Met(msgspec.Struct, frozen=True):
    met: dict[str, int] = {}


class Asked(msgspec.Struct, frozen=True):
    """What gateways that follow need of the loop's progress."""

    counted: _Met
    floor: int | None = None


def encoded_part(part: Part) -> bytes:
    """Return a part as it is stored. It goes on changing: this is what it says now."""
    return msgspec.msgpack.encode(part)


def encoded_progress(counted: bytes, row: OpenRow, floor: int) -> bytes:
    """Return what is stored of the loop's progress. counted: from `encoded_part`."""
    return msgspec.msgpack.encode(_EncodedProgress(msgspec.Raw(counted), row, floor))


def progress_of(record: DeploymentRecord) -> Progress | None:
    """Return how far the loop had come; None: another release has not said. Raises StoreError."""
    return _progress_as(record, Progress)


def asked_of(record: DeploymentRecord) -> Asked | None:
    """Return what of it is asked of gateways that follow; so the rest."""
    return _progress_as(record, Asked)


def _progress_as(record: DeploymentRecord, kind: type[P]) -> P | None:
    if not record.progress:
        return None
    try:
        return msgspec.msgpack.decode(record.progress, type=kind)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"deployment {record.id}: its stored progress does not load: {exc}") from exc


def deployment_row(record: DeploymentRecord, state: Rollout, wall: float) -> DeploymentRecord:
    """Return the deployment's row for `state`."""
    now, status = at(wall), state.status.value
    return replace(
        record,
        status=status,
        traffic_percent=state.percent,
        current_step=state.step,
        state=msgspec.json.encode(state),
        started_at=at(state.started_at) if state.started_at is not None else None,
        completed_at=record.completed_at or (now if status == "completed" else None),
        rolled_back_at=record.rolled_back_at or (now if status == "rolled_back" else None),
        error_message=state.reason or None,
        error_count=state.evidence.new.errors,
        request_count=state.evidence.new.answers,
        updated_at=now,
    )


def decision_row(state: Rollout, decide: Decide) -> DecisionRecord:
    """Return a decision's row: what the judge saw, and what came of it."""
    judged = decide.judged
    data = msgspec.to_builtins(judged) if judged is not None else {}
    data["percent"] = decide.percent
    return DecisionRecord(
        deployment_id=state.id,
        at=at(decide.at),
        step=decide.step,
        verdict=judged.verdict if judged is not None and decide.action == "judge" else decide.action,
        reason=decide.reason,
        actor=decide.cause,
        data=data,
    )


def statistic_row(base: Rollout, state: Rollout, wall: float) -> StatisticRecord | None:
    """Return how the judge's statistic stands after a tick from `base` to `state`; None: it did not judge.

    Of a tick that advances it is what the judge said before: afterwards the step is new.
    """
    judged = state.judged or base.judged
    if judged is None or base.phase not in JUDGED:
        return None
    return StatisticRecord(
        deployment_id=state.id,
        at=at(wall),
        step=base.step,
        percent=base.percent,
        verdict=judged.verdict,
        gate=judged.gate,
        statistic=min(judged.statistic, MOST),  # beyond any limit; JSON knows no infinity
        limit=min(judged.limit, MOST),
    )


def event_row(
    record: DeploymentRecord, state: Rollout, notice: Notify, wall: float, *, is_late: bool = False
) -> EventRecord:
    """Return a notice's row in the event stream. is_late: it was acted on before it could be stored."""
    return EventRecord(
        at=at(wall),
        kind=f"deployment.{notice.happening}",
        service=state.service,
        version=record.to_version,
        deployment_id=state.id,
        actor=notice.cause,
        data={
            "text": notice.text,
            "percent": notice.percent,
            "alert": notice.alert,
            "status": record.status,
            "fromVersion": record.from_version,
            **({"stored": "late"} if is_late else {}),
        },
    )
