"""One write transaction: rows collected by statement, so that a tick of many rollouts is few calls."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiosqlite
import msgspec

from gateway.store import audit
from gateway.store.faults import named
from gateway.store.records import (
    AcknowledgementRecord,
    ApprovalRecord,
    AuditEntry,
    BreakerRecord,
    DecisionRecord,
    DeploymentRecord,
    EventRecord,
    HealthCheckRecord,
    ServiceRecord,
    SmokeRecord,
    StatisticRecord,
    TokenRecord,
    VersionRecord,
    WindowRecord,
)
from gateway.store.tables import (
    ACKNOWLEDGEMENTS,
    APPROVALS,
    AUDIT,
    BREAKERS,
    DECISIONS,
    DEPLOYMENTS,
    EVENTS,
    HEALTH_CHECKS,
    SERVICES,
    SMOKE_RESULTS,
    STATISTICS,
    TOKENS,
    VERSIONS,
    WINDOWS,
    Table,
    time_text,
)
from gateway.store.thread import Batch, at_once, commit, write

COMMIT: Final = "commit"
"""Under this name each commit leaves its own mark: an error of COMMIT does not say whether it was done."""
DROP_WINDOW: Final = f"""
    DELETE FROM {WINDOWS.name}
    WHERE deployment_id = ? AND version_id = ? AND stage = ? AND share = ? AND started_at = ?
"""
DROP_STATISTIC: Final = f"DELETE FROM {STATISTICS.name} WHERE deployment_id = ? AND at = ?"
PUT_META: Final = """
    INSERT INTO gateway_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""


class Counters(msgspec.Struct):
    """Where the store's counters stand when a transaction begins, and then within it."""

    event: int
    decision: int
    audit: audit.Tail


def numbers_of(counters: Counters) -> dict[str, int]:
    """Return the last id given out, by table."""
    return {
        EVENTS.name: counters.event,
        DECISIONS.name: counters.decision,
        AUDIT.name: counters.audit.id,
    }


class Collected(ABC):
    """A transaction's rows until they are written, and what follows: the same in any database."""

    def __init__(self, counters: Counters, on_event: Callable[[], object]) -> None:
        """on_event: called once after the commit if events were added."""
        self._counters = counters
        self._first_event = counters.event
        self._on_event = on_event
        self._batches: list[Batch] = [{}]
        """Statement -> rows. References are checked at commit, so only rows of one statement need to keep
        their order; a deletion stands in a batch of its own.
        """
        self.tokens: list[TokenRecord] = []
        """What was put, for the store's memory of them."""
        self._callbacks: list[Callable[[], object]] = []

    def put_service(self, record: ServiceRecord) -> None:
        self._queue(SERVICES.put, SERVICES.row(record))

    def put_version(self, record: VersionRecord) -> None:
        self._queue(VERSIONS.put, VERSIONS.row(record))

    def put_deployment(self, record: DeploymentRecord) -> None:
        self._queue(DEPLOYMENTS.put, DEPLOYMENTS.row(record))

    def delete_service(self, service_id: str) -> None:
        self._queue_alone(f"DELETE FROM {SERVICES.name} WHERE id = ?", (service_id,))

    def delete_version(self, version_id: str) -> None:
        self._queue_alone(f"DELETE FROM {VERSIONS.name} WHERE id = ?", (version_id,))

    def add_event(self, record: EventRecord) -> int:
        self._counters.event += 1
        self._queue(EVENTS.insert, EVENTS.row(msgspec.structs.replace(record, id=self._counters.event)))
        return self._counters.event

    def add_decision(self, record: DecisionRecord) -> int:
        self._counters.decision += 1
        row = DECISIONS.row(msgspec.structs.replace(record, id=self._counters.decision))
        self._queue(DECISIONS.insert, row)
        return self._counters.decision

    def add_audit(self, entry: AuditEntry) -> int:
        record = audit.link(entry, self._counters.audit)
        self._counters.audit = audit.Tail(record.id, record.hash)
        self._queue(AUDIT.insert, AUDIT.row(record))
        return record.id

    def add_smoke(self, record: SmokeRecord) -> None:
        self._queue(SMOKE_RESULTS.insert, SMOKE_RESULTS.row(record))

    def add_health(self, records: Iterable[HealthCheckRecord]) -> None:
        for record in records:
            self._queue(HEALTH_CHECKS.insert, HEALTH_CHECKS.row(record))

    def add_windows(self, records: Iterable[WindowRecord]) -> None:
        for record in records:
            self._queue(WINDOWS.insert, WINDOWS.row(record))

    def add_statistic(self, record: StatisticRecord) -> None:
        self._queue(STATISTICS.insert, STATISTICS.row(record))

    def drop_windows(self, records: Iterable[WindowRecord]) -> None:
        for each in records:
            place = (each.deployment_id, each.version_id, each.generation, each.share)
            self._queue_alone(DROP_WINDOW, (*place, time_text(each.started_at)))

    def drop_statistic(self, record: StatisticRecord) -> None:
        self._queue_alone(DROP_STATISTIC, (record.deployment_id, time_text(record.at)))

    def put_acknowledgement(self, record: AcknowledgementRecord) -> None:
        self._queue(ACKNOWLEDGEMENTS.put, ACKNOWLEDGEMENTS.row(record))

    def put_approval(self, record: ApprovalRecord) -> None:
        self._queue(APPROVALS.put, APPROVALS.row(record))

    def put_breaker(self, record: BreakerRecord) -> None:
        self._queue(BREAKERS.put, BREAKERS.row(record))

    def delete_breakers(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._queue_alone(f"DELETE FROM {BREAKERS.name} WHERE key = ?", (key,))

    def put_token(self, record: TokenRecord) -> None:
        self.tokens.append(record)
        self._queue(TOKENS.put, TOKENS.row(record))

    def set_meta(self, key: str, value: bytes) -> None:
        self._queue(PUT_META, (key, value))

    def on_commit(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)

    def put_rows(self, table: Table[Any], rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of another store, as they are stored there."""
        for row in rows:
            self._queue(table.insert, row)

    async def go_on_from(self, counters: Counters) -> None:
        """Count on from where another store is: no id of its is given out again."""
        self._counters = counters

    @abstractmethod
    def delete_node(self, node_id: str) -> None:
        """See `api.Transaction`."""

    @abstractmethod
    async def flush(self) -> None:
        """Write what was collected so far, uncommitted."""

    @abstractmethod
    async def execute(self, statement: str, *parameters: object) -> int:
        """Run one statement now, after what was collected. Returns how many rows it changed."""

    @abstractmethod
    async def query(self, statement: str, *parameters: object) -> list[Any]:
        """Return rows as this transaction sees them."""

    def follow(self) -> None:
        """Let memory follow what is committed: everybody hears of it, whoever fails."""
        with ExitStack() as followers:
            if self._counters.event > self._first_event:
                followers.callback(self._on_event)
            for callback in reversed(self._callbacks):
                followers.callback(callback)

    def _queue(self, statement: str, row: tuple[Any, ...]) -> None:
        self._batches[-1].setdefault(statement, []).append(row)

    def _queue_alone(self, statement: str, row: tuple[Any, ...]) -> None:
        self._batches += [{statement: [row]}, {}]


class SqliteTransaction(Collected):
    """See `api.Transaction`. The store makes it after BEGIN IMMEDIATE, and commits it or rolls it back."""

    def __init__(
        self,
        path: Path,
        connection: aiosqlite.Connection,
        counters: Counters,
        on_event: Callable[[], object],
    ) -> None:
        """on_event: called once after the commit if events were added."""
        super().__init__(counters, on_event)
        self._path = path
        self._connection = connection
        self.covered: asyncio.Future[None]
        """Set once it is committed: ends when that is on disk."""

    def delete_node(self, node_id: str) -> None:
        """See `api.Transaction`. A file has no other gateway to be forgotten."""

    async def go_on_from(self, counters: Counters) -> None:
        """See `Collected.go_on_from`."""
        await super().go_on_from(counters)
        for name, number in numbers_of(counters).items():
            await self.execute("DELETE FROM sqlite_sequence WHERE name = ?", name)
            await self.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", name, number)

    async def flush(self) -> None:
        """Write what was collected so far, uncommitted."""
        batches, self._batches = self._batches, [{}]
        if any(batches):
            with named(self._path):
                await at_once(self._connection, partial(write, batches=batches))

    async def commit(self) -> None:
        """Write and commit; `follow` comes next."""
        batches, self._batches = self._batches, [{}]
        with named(self._path):
            await at_once(self._connection, partial(commit, batches=batches))

    async def execute(self, statement: str, *parameters: object) -> int:
        """Run one statement now, after what was collected. Returns how many rows it changed."""
        await self.flush()
        with named(self._path):
            cursor = await self._connection.execute(statement, parameters)
            await cursor.close()
        return cursor.rowcount

    async def query(self, statement: str, *parameters: object) -> list[Any]:
        """Return rows as this transaction sees them."""
        await self.flush()
        with named(self._path):
            return list(await self._connection.execute_fetchall(statement, parameters))
