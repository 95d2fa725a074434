"""What is forgotten, and when. History is kept by age or by number, and forgotten a little at a time:
other writers have their turn in between.
"""

from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from gateway.store.audit import CHECKPOINT, Checkpoint
from gateway.store.records import AuditEntry, Retention
from gateway.store.tables import (
    APPROVALS,
    AUDIT,
    DECISIONS,
    EVENTS,
    HEALTH_CHECKS,
    SMOKE_RESULTS,
    STATISTICS,
    WINDOWS,
    time_text,
)
from gateway.store.transaction import Collected

STRIDE: Final = 2_000
"""Rows looked at in one transaction."""

ENDPOINTS: Final = 100
"""Endpoints whose probes are pruned in one transaction."""


class Prunable(Protocol):
    """The store, as far as pruning needs it."""

    def transaction(self) -> AbstractAsyncContextManager[Collected]: ...
    async def rows(self, query: str, *parameters: object) -> list[Any]: ...


async def prune(store: Prunable, now: datetime, keep: Retention) -> dict[str, int]:
    """Delete what has outlived `keep`. Returns rows deleted by table."""
    by_age = (
        (EVENTS.name, "at", keep.events_days),
        (DECISIONS.name, "at", keep.decisions_days),
        (WINDOWS.name, "started_at", keep.windows_days),
        (STATISTICS.name, "at", keep.windows_days),
        (APPROVALS.name, "created_at", keep.decisions_days),
        (SMOKE_RESULTS.name, "at", keep.smoke_days),
    )
    deleted = {
        name: await _older_than(store, name, column, now - timedelta(days=days))
        for name, column, days in by_age
    }
    deleted[HEALTH_CHECKS.name] = await _surplus_probes(store, keep.health_checks_per_endpoint)
    deleted[AUDIT.name] = await _old_audit(store, now, now - timedelta(days=keep.audit_days))
    return {name: count for name, count in deleted.items() if count}


async def _older_than(store: Prunable, table: str, column: str, before: datetime) -> int:
    """Delete rows of `table` from before `before`, oldest first: they stand in order of age."""
    oldest = f"SELECT rowid AS place, {column} AS at FROM {table} ORDER BY rowid LIMIT {STRIDE}"
    statement = f"DELETE FROM {table} WHERE rowid IN (SELECT place FROM ({oldest}) AS oldest WHERE at < ?)"
    total = 0
    while True:
        async with store.transaction() as tx:
            deleted = await tx.execute(statement, time_text(before))
        total += deleted
        if deleted < STRIDE:
            return total


async def _surplus_probes(store: Prunable, keep: int) -> int:
    """Delete all but the newest `keep` probes of each endpoint."""
    table = HEALTH_CHECKS.name
    of_endpoint = f"FROM {table} WHERE version_id = ?1 AND endpoint = ?2"
    statement = (
        f"DELETE {of_endpoint} AND checked_at <= "
        f"(SELECT checked_at {of_endpoint} ORDER BY checked_at DESC LIMIT 1 OFFSET ?3)"
    )
    crowded = await store.rows(
        f"SELECT version_id, endpoint FROM {table} GROUP BY version_id, endpoint HAVING count(*) > ?", keep
    )
    total = 0
    for start in range(0, len(crowded), ENDPOINTS):
        async with store.transaction() as tx:
            for version_id, endpoint in crowded[start : start + ENDPOINTS]:
                total += await tx.execute(statement, version_id, endpoint, keep)
    return total


async def _old_audit(store: Prunable, now: datetime, before: datetime) -> int:
    """Delete audit rows from before `before`; each transaction leaves a checkpoint at the head."""
    total = 0
    while True:
        async with store.transaction() as tx:
            deleted = await _audit_stride(tx, now, before)
        total += deleted
        if deleted < STRIDE:
            return total


async def _audit_stride(tx: Collected, now: datetime, before: datetime) -> int:
    rows = await tx.query(f"SELECT id, at, hash FROM {AUDIT.name} ORDER BY id LIMIT {STRIDE}")
    limit = time_text(before)
    doomed = 0
    while doomed < len(rows) and rows[doomed][1] < limit:
        doomed += 1
    if not doomed:
        return 0
    last = rows[doomed - 1]
    mark = Checkpoint(through_id=last[0], through_hash=last[2], pruned=doomed)
    tx.add_audit(
        AuditEntry(
            at=now, actor="gateway", action=CHECKPOINT, resource="audit", details=msgspec.to_builtins(mark)
        )
    )
    return await tx.execute(f"DELETE FROM {AUDIT.name} WHERE id <= ?", last[0])
