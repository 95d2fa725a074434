"""Everything a store holds, as it is at one moment, put into an empty one, whichever adapters keep them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, Protocol

from gateway.errors import StoreError
from gateway.store.api import Store
from gateway.store.audit import GENESIS, Tail
from gateway.store.reads import Rows
from gateway.store.tables import (
    ACKNOWLEDGEMENTS,
    ALL,
    APPROVALS,
    AUDIT,
    BREAKERS,
    DECISIONS,
    EVENTS,
    SMOKE_RESULTS,
    STATISTICS,
    WINDOWS,
    Table,
)
from gateway.store.transaction import COMMIT, Collected, Counters

PAGE: Final = 500
"""Rows that are read, and written, at once: well within the time a session may pause in a transaction."""

KEYS: Final = {
    ACKNOWLEDGEMENTS.name: "deployment_id",
    BREAKERS.name: "key",
    **dict.fromkeys((WINDOWS.name, STATISTICS.name, SMOKE_RESULTS.name, APPROVALS.name), "rowid"),
}
"""By which column a table is walked along, where that is not its `id`: rows keep the order they came in."""
COUNTED: Final = {"rowid": 0, **dict.fromkeys((EVENTS.name, DECISIONS.name, AUDIT.name), 0)}
OWN: Final = frozenset({"schema", "compatible_from", COMMIT})
"""What each store says of itself alone."""


class Copyable(Store, Protocol):
    """A store as its adapters make it: it can be read as of one moment, and filled row by row."""

    SEQUENCES: ClassVar[str]

    def standing_still(self) -> AbstractAsyncContextManager[Rows]:
        """Return what reads as of one moment, for the block; others may write meanwhile."""

    def transaction(
        self, *, urgent: bool = False, anywhere: bool = False
    ) -> AbstractAsyncContextManager[Collected]: ...


async def copy(source: Copyable, target: Copyable) -> dict[str, int]:
    """Copy all of `source`, in one transaction. Returns how many rows, by table.

    Raises StoreError, with nothing copied, if `target` is not empty or something fails; and when all is
    copied, if the audit chain is broken there as it was here.
    """
    async with source.standing_still() as rows:
        counters = await _counters(rows, source.SEQUENCES)
        async with target.transaction() as tx:
            await _refuse_filled(tx, target.label)
            copied = {table.name: await _copy_table(table, rows, tx) for table in ALL}
            await _copy_meta(rows, tx)
            await tx.go_on_from(counters)
    await _check(target, counters.audit)
    return {name: count for name, count in copied.items() if count}


async def _check(target: Copyable, tail: Tail) -> None:
    """Raise StoreError unless the audit chain is whole there, and ends where it ended here."""
    report = await target.verify_audit()
    if not report.ok:
        raise StoreError(
            f"{target.label}: all is copied, and the audit trail is broken, at row {report.broken_at}"
        )
    if (report.head_id, report.head_hash) != (tail.id, tail.hash):
        raise StoreError(f"{target.label}: the audit trail ends at row {report.head_id}, not {tail.id}")


async def _counters(rows: Rows, sequences: str) -> Counters:
    found: dict[str, int] = dict(tuple(row) for row in await rows(f"SELECT name, seq FROM {sequences}"))
    newest = await rows(f"SELECT hash FROM {AUDIT.name} ORDER BY id DESC LIMIT 1")
    tail = Tail(found.get(AUDIT.name, 0), newest[0][0] if newest else GENESIS)
    return Counters(found.get(EVENTS.name, 0), found.get(DECISIONS.name, 0), tail)


async def _refuse_filled(tx: Collected, label: str) -> None:
    for table in ALL:
        if await tx.query(f"SELECT 1 FROM {table.name} LIMIT 1"):
            raise StoreError(f"{label}: it is not empty ({table.name} has rows): a copy needs a new store")


async def _copy_table(table: Table[Any], rows: Rows, tx: Collected) -> int:
    count = 0
    async for page in _pages(table, rows):
        tx.put_rows(table, page)
        await tx.flush()
        count += len(page)
    return count


async def _pages(table: Table[Any], rows: Rows) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Yield a table's rows, as stored, in the order they came in where that counts."""
    key = KEYS.get(table.name, "id")
    after: str | int = 0 if key in COUNTED or table.name in COUNTED else ""
    columns = ", ".join(table.stored.values())
    query = f"SELECT {columns}, {key} FROM {table.name} WHERE {key} > ? ORDER BY {key} LIMIT {PAGE}"
    while page := await rows(query, after):
        yield [tuple(row)[:-1] for row in page]
        after = page[-1][-1]


async def _copy_meta(rows: Rows, tx: Collected) -> None:
    for key, value in await rows("SELECT key, value FROM gateway_meta ORDER BY key"):
        if key not in OWN:
            tx.set_meta(key, bytes(value))
