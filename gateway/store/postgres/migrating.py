"""Brings a database up to this release's schema, or refuses it."""

from datetime import datetime
from typing import Final

from gateway.errors import StoreError
from gateway.store.migrations import (
    ADD_META,
    ADD_MIGRATION,
    COMPATIBLE_FROM,
    SCHEMA,
    SIGNATURE,
    Migration,
    birth,
    missing,
    refuse_newer,
)
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import BEGINNING, NEEDED, STEPS, placed
from gateway.store.postgres.members import OLDER
from gateway.store.tables import time_text
from gateway.store.transaction import PUT_META

LOCK: Final = 0x6761746577617901
"""The advisory lock held meanwhile: CREATE … IF NOT EXISTS, twice at once, is an error."""
STEP_S: Final = 60.0
"""How long one statement of a migration may take: an index over what a year has left."""


async def migrate(connection: Connection, now: datetime) -> None:
    """Apply what is missing, in one transaction.

    Raises StoreError with both numbers if it is too new, or too old for gateways that live there.
    """
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        await connection.execute(f"SET LOCAL statement_timeout = {round(STEP_S * 1000)}")
        for statement in BEGINNING:
            await connection.execute(statement)
        needed = await connection.fetchval(NEEDED)
        refuse_newer(needed)
        rows = await connection.fetch("SELECT number, checksum FROM gateway_migration")
        applied: dict[int, str] = dict(map(tuple, rows))
        for step in missing(STEPS, applied):
            await _apply(connection, step, now)
        if int(needed or 0) < COMPATIBLE_FROM:
            await _refuse_older(connection)
        await connection.executemany(placed(ADD_META), birth())
        if max(applied, default=0) < SCHEMA:
            await connection.executemany(placed(PUT_META), SIGNATURE)


async def _refuse_older(connection: Connection) -> None:
    """Raise StoreError if gateways live that could not go on with what this release makes of the schema."""
    names = ", ".join(repr(row[0]) for row in await connection.fetch(OLDER, COMPATIBLE_FROM))
    if names:
        raise StoreError(
            f"no gateway before schema {COMPATIBLE_FROM} can go on once it has schema {SCHEMA}, "
            f"and these live: {names}: stop them first, then start each with this release"
        )


async def _apply(connection: Connection, step: Migration, now: datetime) -> None:
    for statement in step.statements:
        await connection.execute(statement, timeout=STEP_S + 1)
    await connection.execute(placed(ADD_MIGRATION), step.number, step.name, step.checksum, time_text(now))
