"""What a move of a rollout comes to: every row it changes, so that it can be stored now, or later.

Deciding touches nothing. Whoever has decided puts the rows into a transaction and follows in memory at its
commit; a rollback that cannot be stored is followed first (`unstored.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.control.rollouts.rows import (
    at,
    decision_row,
    deployment_row,
    encoded_progress,
    event_row,
    statistic_row,
)
from gateway.control.rollouts.windows import OpenRow, Windows
from gateway.core.rollout.commands import (
    Activate,
    Command,
    Decide,
    Deprecate,
    MakeCurrent,
    Notify,
    SetWeights,
)
from gateway.core.rollout.events import Event, Order
from gateway.core.rollout.rollout import move
from gateway.core.rollout.state import Phase, Rollout
from gateway.store.api import Transaction
from gateway.store.records import (
    AuditEntry,
    DeploymentRecord,
    ServiceRecord,
    StatisticRecord,
    VersionRecord,
    WindowRecord,
)

_BACK: Final[dict[str, Any]] = {"draining": False, "drained": False, "drain_deadline": None}
"""A version that is given weight drains no more."""


class CatalogRows(Protocol):
    """What deciding needs of the catalog: rows as they are in force."""

    def service_record(self, name: str) -> ServiceRecord: ...
    def version_record(self, version_id: str) -> VersionRecord: ...


class Moved(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One move: from `base` to `state`. Two that look the same are two."""

    base: Rollout
    state: Rollout
    commands: tuple[Command, ...]
    record: DeploymentRecord
    versions: tuple[VersionRecord, ...]
    service: ServiceRecord | None
    wall: float
    """When it was decided: seconds since the epoch."""
    order: Order | None = None
    """What a person asked for, if somebody did."""
    audit: AuditEntry | None = None
    """The order's row in the audit trail, where the move has to bring it along."""
    windows: int = 0
    """How many of the pending windows the state was made of."""
    rows: tuple[WindowRecord, ...] = ()
    open_row: OpenRow = OpenRow()
    statistic: StatisticRecord | None = None
    """How the judge's stood when the rows were full."""
    elapsed_s: float = 0.0
    """Observed time it used up."""

    @property
    def is_lowering(self) -> bool:
        """Whether it returns traffic to the old version."""
        return self.state.percent < self.base.percent or self.state.phase is Phase.REVERTING

    @property
    def has_weights(self) -> bool:
        """Whether it asks for new weights."""
        return any(isinstance(command, SetWeights) for command in self.commands)

    @property
    def is_pausing(self) -> bool:
        """Whether it is a person's pause."""
        paused = self.state.paused
        return self.base.paused is None and paused is not None and paused.kind == "person"


Happening = Event | Callable[[Rollout], Event | None]
"""What happened; or who says so, once the state is known that it happens to (None: nothing did)."""


def decide(
    base: Rollout,
    record: DeploymentRecord,
    happenings: Iterable[Happening],
    windows: Windows,
    catalog: CatalogRows,
    wall: float,
    *,
    audit: AuditEntry | None = None,
) -> Moved:
    """Return what `happenings` lead to, one after the other. Raises IllegalTransition."""
    state = base
    commands: list[Command] = []
    order: Order | None = None
    for happening in happenings:
        event = happening if isinstance(happening, Event) else happening(state)
        if event is None:
            continue
        state, more = move(state, event, wall)
        commands += more
        order = event if isinstance(event, Order) else order
    versions, service = _changed_rows(catalog, state, commands, wall)
    rows, row = _last_rows(windows, state, catalog, wall)
    return Moved(
        base=base,
        state=state,
        commands=tuple(commands),
        record=deployment_row(record, state, wall),
        versions=versions,
        service=service,
        wall=wall,
        order=order,
        audit=audit,
        windows=0 if state.is_open else len(windows.pending),
        rows=rows,
        open_row=row,
    )


def judged(
    moved: Moved, windows: Windows, counted: bytes, catalog: CatalogRows, *, elapsed_s: float
) -> Moved:
    """Return a tick's move with all that is stored of what it was made of: every pending window.

    counted: what had been counted when the newest was closed, from `rows.encoded_part`.
    """
    generation = catalog.service_record(moved.state.service).generation
    rows, row = windows.rows(
        at(moved.wall),
        generation,
        begun=moved.record.started_at,
        is_last=not moved.state.is_open,
    )
    is_full = row.gathered is None and bool(windows.pending)
    return replace(
        moved,
        record=replace(moved.record, progress=encoded_progress(counted, row, windows.floor)),
        windows=len(windows.pending),
        rows=tuple(rows),
        open_row=row,
        statistic=statistic_row(moved.base, moved.state, moved.wall) if is_full else None,
        elapsed_s=elapsed_s,
    )


def as_in_force(moved: Moved, catalog: CatalogRows) -> Moved:
    """Return a move that is in force already with the rows as they have become since."""
    service = moved.service
    return replace(
        moved,
        versions=tuple(catalog.version_record(version.id) for version in moved.versions),
        service=catalog.service_record(service.name) if service is not None else None,
    )


def put(tx: Transaction, moved: Moved, *, is_late: bool = False) -> None:
    """Put every row of a move into `tx`. is_late: it was acted on before it could be stored."""
    tx.add_windows(moved.rows)
    tx.put_deployment(moved.record)
    if moved.statistic is not None:
        tx.add_statistic(moved.statistic)
    for version in moved.versions:
        tx.put_version(version)
    if moved.service is not None:
        tx.put_service(moved.service)
    for command in moved.commands:
        if isinstance(command, Decide):
            tx.add_decision(decision_row(moved.state, command))
        elif isinstance(command, Notify):
            tx.add_event(event_row(moved.record, moved.state, command, moved.wall, is_late=is_late))
    if moved.audit is not None:
        tx.add_audit(moved.audit)


def take_back(tx: Transaction, moved: Moved, catalog: CatalogRows) -> None:
    """Take out of the store what only a move has put there that never came into force.

    Its windows are still to be judged, and to be stored with that; the rows it changed are as in force. What
    it decided and said stays: that much is history.
    """
    tx.drop_windows(moved.rows)
    if moved.statistic is not None:
        tx.drop_statistic(moved.statistic)
    in_force = as_in_force(moved, catalog)
    for version in in_force.versions:
        tx.put_version(version)
    if in_force.service is not None:
        tx.put_service(in_force.service)


def _last_rows(
    windows: Windows, state: Rollout, catalog: CatalogRows, wall: float
) -> tuple[tuple[WindowRecord, ...], OpenRow]:
    """Return what is left to store of the windows of a rollout that has ended; nothing while it is open."""
    if state.is_open:
        return (), windows.open_row
    rows, row = windows.rows(at(wall), catalog.service_record(state.service).generation, is_last=True)
    return tuple(rows), row


def _changed_rows(
    catalog: CatalogRows, state: Rollout, commands: Sequence[Command], wall: float
) -> tuple[tuple[VersionRecord, ...], ServiceRecord | None]:
    """Return the versions' and the service's rows as the commands change them; None: it does not change."""
    now = at(wall)
    versions: dict[str, VersionRecord] = {}
    service = original = catalog.service_record(state.service)

    def change(version_id: str, **fields: Any) -> None:
        known = versions.get(version_id) or catalog.version_record(version_id)
        versions[version_id] = replace(known, updated_at=now, **fields)

    for command in commands:
        match command:
            case Activate(version):
                change(version, is_active=True, status="staging")
            case MakeCurrent(version):
                change(version, is_active=True, status="production")
                service = replace(service, current_version_id=version, updated_at=now)
            case Deprecate(version):
                change(version, is_active=False, status="deprecated")
            case SetWeights(_, old, old_weight, new, new_weight):
                change(old, weight=old_weight, **(_BACK if old_weight else {}))
                change(new, weight=new_weight, **(_BACK if new_weight else {}))
                service = replace(service, generation=service.generation + 1, updated_at=now)
    return tuple(versions.values()), service if service is not original else None
