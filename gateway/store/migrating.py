"""Brings a file up to this release's schema, or refuses it."""

from datetime import datetime

import aiosqlite

from gateway.errors import StoreError
from gateway.store.migrations import (
    ADD_META,
    ADD_MIGRATION,
    BOOKKEEPING,
    COMPATIBLE_FROM,
    MIGRATIONS,
    SCHEMA,
    SIGNATURE,
    Migration,
    birth,
    missing,
    refuse_newer,
)
from gateway.store.tables import time_text
from gateway.store.transaction import PUT_META


async def migrate(connection: aiosqlite.Connection, now: datetime, beside: int | None) -> None:
    """Apply what is missing, in one transaction: another process may be doing the same.

    beside: the schema of the release that runs on the file meanwhile; None: none does. Raises StoreError if
    the file is too new, or that release could not go on.
    """
    await connection.execute("BEGIN IMMEDIATE")
    for statement in BOOKKEEPING:
        await connection.execute(statement)
    rows = list(
        await connection.execute_fetchall("SELECT value FROM gateway_meta WHERE key = 'compatible_from'")
    )
    needed = rows[0][0] if rows else None
    refuse_newer(needed)
    if beside is not None and beside < COMPATIBLE_FROM and int(needed or 0) < COMPATIBLE_FROM:
        raise StoreError(
            f"no gateway before schema {COMPATIBLE_FROM} can go on once it has schema {SCHEMA}, "
            "and the one that runs is: stop it, then start this release"
        )
    found = await connection.execute_fetchall("SELECT number, checksum FROM gateway_migration")
    applied: dict[int, str] = {row[0]: row[1] for row in found}
    for migration in missing(MIGRATIONS, applied):
        await _apply(connection, migration, now)
    await connection.executemany(ADD_META, birth())
    if max(applied, default=0) < SCHEMA:
        await connection.executemany(PUT_META, SIGNATURE)
    await connection.execute("COMMIT")


async def _apply(connection: aiosqlite.Connection, migration: Migration, now: datetime) -> None:
    for statement in migration.statements:
        await connection.execute(statement)
    await connection.execute(
        ADD_MIGRATION,
        (migration.number, migration.name, migration.checksum, time_text(now)),
    )
