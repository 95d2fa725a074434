"""Everything that is asked of the store, over a connection of its own."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeAlias, TypeVar

import msgspec

from gateway.store.api import BadCursor, Page
from gateway.store.records import (
    OPEN_STATUSES,
    AcknowledgementRecord,
    ApprovalRecord,
    ApprovalState,
    AuditRecord,
    BreakerRecord,
    CatalogRows,
    DecisionRecord,
    DeploymentRecord,
    EventRecord,
    HealthCheckRecord,
    Record,
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

R = TypeVar("R", bound=Record)

Rows: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]
"""Returns the rows of a query, given its parameters."""


class Where:
    """The conditions of one query, and their parameters."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.parameters: list[Any] = []

    def equals(self, column: str, value: object | None) -> None:
        """Ask for rows with `value` in `column`; None asks nothing."""
        if value is not None:
            self.add(f"{column} = ?", value)

    def add(self, condition: str, *parameters: object) -> None:
        self._conditions.append(condition)
        self.parameters += parameters

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self._conditions)}" if self._conditions else ""


async def catalog_of(rows: Rows, names: Collection[str] | None) -> CatalogRows:
    """Return these services, or all, with their versions and open deployments. rows: answers a query."""

    async def of(table: Table[R], column: str, order: str, *conditions: str) -> list[R]:
        where = Where()
        if names is not None:
            where.add(f"{column} IN ({', '.join('?' * len(names))})", *names)
        for condition in conditions:
            where.add(condition)
        query = f"{table.select} {where} ORDER BY {order}"
        return [table.record(row) for row in await rows(query, *where.parameters)]

    is_open = f"status IN ({', '.join(repr(status) for status in OPEN_STATUSES)})"
    return CatalogRows(
        services=await of(SERVICES, "name", "name"),
        versions=await of(VERSIONS, "service_name", "created_at, id"),
        deployments=await of(DEPLOYMENTS, "service_name", "created_at, id", is_open),
    )


class Reads(ABC):
    """The reading half of a store: the same queries in any database."""

    SEQUENCES: ClassVar[str]
    """The table that keeps the last id given out of each table that counts."""

    @abstractmethod
    async def rows(self, query: str, *parameters: object) -> list[Any]:
        """Return the rows of a query; for this room only."""

    async def load_catalog(self, names: Collection[str] | None = None) -> CatalogRows:
        return await catalog_of(self.rows, names)

    async def load_services(self) -> list[ServiceRecord]:
        return await self._all(SERVICES, "ORDER BY name")

    async def load_versions(self) -> list[VersionRecord]:
        return await self._all(VERSIONS, "ORDER BY created_at, id")

    async def open_deployments(self) -> list[DeploymentRecord]:
        slots = ", ".join("?" * len(OPEN_STATUSES))
        return await self._all(
            DEPLOYMENTS, f"WHERE status IN ({slots}) ORDER BY created_at, id", *OPEN_STATUSES
        )

    async def deployment(self, deployment_id: str) -> DeploymentRecord | None:
        return await self._one(DEPLOYMENTS, "id", deployment_id)

    async def deployment_by_key(self, idempotency_key: str) -> DeploymentRecord | None:
        return await self._one(DEPLOYMENTS, "idempotency_key", idempotency_key)

    async def deployments(
        self,
        *,
        service: str | None = None,
        status: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[DeploymentRecord]:
        where = Where()
        where.equals("service_name", service)
        where.equals("status", status)
        return await self._newest_first(DEPLOYMENTS, ("created_at", "id"), where, cursor, limit)

    def cursor_after(self, record: DeploymentRecord) -> str:
        return _encode_cursor([time_text(record.created_at), record.id])

    async def events(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        service: str | None = None,
        deployment_id: str | None = None,
    ) -> list[EventRecord]:
        where = Where()
        where.add("id > ?", after)
        where.equals("service", service)
        where.equals("deployment_id", deployment_id)
        return await self._all(EVENTS, f"{where} ORDER BY id LIMIT ?", *where.parameters, limit)

    async def newest_events(
        self, *, limit: int = 100, service: str | None = None, kinds: Sequence[str] = ()
    ) -> list[EventRecord]:
        where = Where()
        where.equals("service", service)
        if kinds:
            where.add(f"kind IN ({', '.join('?' * len(kinds))})", *kinds)
        found = await self._all(EVENTS, f"{where} ORDER BY id DESC LIMIT ?", *where.parameters, limit)
        return found[::-1]

    async def last_event_id(self) -> int:
        rows = await self.rows(f"SELECT seq FROM {self.SEQUENCES} WHERE name = ?", EVENTS.name)
        return rows[0][0] if rows else 0

    async def decisions(
        self, deployment_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[DecisionRecord]:
        where = Where()
        where.equals("deployment_id", deployment_id)
        return await self._newest_first(DECISIONS, ("id",), where, cursor, limit)

    async def health(
        self, version_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[HealthCheckRecord]:
        where = Where()
        where.equals("version_id", version_id)
        return await self._newest_first(HEALTH_CHECKS, ("checked_at", "id"), where, cursor, limit)

    async def smoke(
        self, version_id: str, *, cursor: str | None = None, limit: int = 20
    ) -> Page[SmokeRecord]:
        where = Where()
        where.equals("version_id", version_id)
        return await self._newest_first(SMOKE_RESULTS, ("at", "id"), where, cursor, limit)

    async def audit(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        actor: str | None = None,
        action: str | None = None,
    ) -> Page[AuditRecord]:
        where = Where()
        where.equals("actor", actor)
        where.equals("action", action)
        return await self._newest_first(AUDIT, ("id",), where, cursor, limit)

    async def audit_row(self, row_id: int) -> AuditRecord | None:
        return await self._one(AUDIT, "id", row_id)

    async def tokens(self) -> list[TokenRecord]:
        return await self._all(TOKENS, "ORDER BY created_at, id")

    async def breakers(self) -> list[BreakerRecord]:
        return await self._all(BREAKERS, "ORDER BY key")

    async def meta(self, key: str) -> bytes | None:
        rows = await self.rows("SELECT value FROM gateway_meta WHERE key = ?", key)
        return bytes(rows[0][0]) if rows else None

    async def windows(
        self,
        *,
        deployment_id: str | None = None,
        service: str | None = None,
        since: datetime | None = None,
    ) -> list[WindowRecord]:
        where = Where()
        where.equals("deployment_id", deployment_id)
        if service is not None:
            of_service = f"SELECT id FROM {DEPLOYMENTS.name} WHERE service_name = ?"
            where.add(f"deployment_id IN ({of_service})", service)
        if since is not None:
            where.add("started_at >= ?", time_text(since))
        return await self._all(WINDOWS, f"{where} ORDER BY started_at, rowid", *where.parameters)

    async def statistics(self, deployment_id: str, *, since: datetime | None = None) -> list[StatisticRecord]:
        where = Where()
        where.equals("deployment_id", deployment_id)
        if since is not None:
            where.add("at >= ?", time_text(since))
        return await self._all(STATISTICS, f"{where} ORDER BY at, rowid", *where.parameters)

    async def acknowledgements(self, deployment_ids: Sequence[str]) -> dict[str, AcknowledgementRecord]:
        if not deployment_ids:
            return {}
        slots = ", ".join("?" * len(deployment_ids))
        found = await self._all(ACKNOWLEDGEMENTS, f"WHERE deployment_id IN ({slots})", *deployment_ids)
        return {record.deployment_id: record for record in found}

    async def approval(self, approval_id: str) -> ApprovalRecord | None:
        return await self._one(APPROVALS, "id", approval_id)

    async def pending_approvals(self) -> list[ApprovalRecord]:
        return await self._all(APPROVALS, "WHERE state = ? ORDER BY created_at, id", "pending")

    async def approvals(
        self, *, state: ApprovalState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[ApprovalRecord]:
        where = Where()
        where.equals("state", state)
        return await self._newest_first(APPROVALS, ("created_at", "id"), where, cursor, limit)

    async def _all(self, table: Table[R], rest: str, *parameters: object) -> list[R]:
        return [table.record(row) for row in await self.rows(f"{table.select} {rest}", *parameters)]

    async def _one(self, table: Table[R], column: str, value: object) -> R | None:
        found = await self._all(table, f"WHERE {column} = ?", value)
        return found[0] if found else None

    async def _newest_first(
        self, table: Table[R], order: tuple[str, ...], where: Where, cursor: str | None, limit: int
    ) -> Page[R]:
        """Return a page that starts below the row `cursor` names; rows added meanwhile are above it.

        order: columns that together name a row, the first of them its age.
        """
        if cursor is not None:
            slots = ", ".join("?" * len(order))
            where.add(f"({', '.join(order)}) < ({slots})", *_decode_cursor(cursor, order))
        descending = ", ".join(f"{column} DESC" for column in order)
        query = f"{table.select} {where} ORDER BY {descending} LIMIT ?"
        rows = await self.rows(query, *where.parameters, limit + 1)
        kept = rows[:limit]
        last = [kept[-1][table.columns.index(column)] for column in order] if len(rows) > limit else None
        return Page([table.record(row) for row in kept], _encode_cursor(last) if last else None)


def _encode_cursor(values: Iterable[object]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(list(values))).decode().rstrip("=")


def _decode_cursor(cursor: str, order: tuple[str, ...]) -> list[Any]:
    """Return the place in the order of the row that a cursor names. Raises BadCursor."""
    try:
        values = msgspec.json.decode(
            base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[str | int]
        )
    except (ValueError, msgspec.MsgspecError) as exc:
        raise BadCursor(f"{cursor!r} is not a cursor of this list") from exc
    # A place is a number where rows are counted, and else a time and an id.
    is_counted = order == ("id",)
    if len(values) != len(order) or any(isinstance(each, int) != is_counted for each in values):
        raise BadCursor(f"{cursor!r} is not a cursor of this list")
    return list(values)
