"""Several statements in one visit to the thread that runs a connection's SQL.

Each visit costs two hand-overs between threads, and beside a busy loop each waits for the interpreter's lock:
more than the statements themselves take.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import aiosqlite

T = TypeVar("T")

Batch: TypeAlias = dict[str, list[tuple[Any, ...]]]
"""Statement -> rows."""


async def at_once(connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Return what `work` makes of the connection, on the connection's own thread.

    aiosqlite itself offers one statement at a time. `work` may use nothing the loop uses.
    """
    execute: Callable[..., Awaitable[T]] = connection._execute
    return await execute(work, connection._conn)


def begin(connection: sqlite3.Connection, query: str) -> tuple[Any, ...]:
    """Begin a write transaction, and return the one row of `query`."""
    if connection.in_transaction:  # one that could not even be rolled back
        connection.rollback()
    connection.execute("BEGIN IMMEDIATE")
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def write(connection: sqlite3.Connection, batches: Iterable[Batch]) -> None:
    """Run every statement with its rows."""
    for batch in batches:
        for statement, rows in batch.items():
            connection.executemany(statement, rows)


def commit(connection: sqlite3.Connection, batches: Iterable[Batch]) -> None:
    """Write, and commit."""
    write(connection, batches)
    connection.execute("COMMIT")
