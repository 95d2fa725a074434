"""Brings a database up to this release's schema, or refuses it."""

import secrets
from datetime import datetime
from typing import Final

from gateway.errors import StoreError
from gateway.store.migrations import COMPATIBLE_FROM, SCHEMA, Migration
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import BEGINNING, STEPS, placed
from gateway.store.tables import time_text
from gateway.store.transaction import PUT_META

LOCK: Final = 0x6761746577617901
"""The advisory lock held meanwhile: CREATE … IF NOT EXISTS, twice at once, is an error."""
STEP_S: Final = 60.0
"""How long one statement of a migration may take: an index over what a year has left."""


async def migrate(connection: Connection, now: datetime) -> None:
    """Apply what is missing, in one transaction. Raises StoreError with both numbers if it is too new."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        await connection.execute(f"SET LOCAL statement_timeout = {round(STEP_S * 1000)}")
        for statement in BEGINNING:
            await connection.execute(statement)
        await _check_compatible(connection)
        rows = await connection.fetch("SELECT number, checksum FROM gateway_migration")
        applied: dict[int, str] = dict(map(tuple, rows))
        for step in STEPS:
            if step.number not in applied:
                await _apply(connection, step, now)
            elif applied[step.number] != step.checksum:
                label = f"migration {step.number} ({step.name})"
                raise StoreError(f"{label} was applied in another form than this release knows")
        await _sign(connection, newest=max(applied, default=0))


async def _sign(connection: Connection, newest: int) -> None:
    """Note what every store has from its beginning, and which schema it has now."""
    for key, value in (("epoch", b"0"), ("gateway_id", secrets.token_hex(8).encode())):
        await connection.execute(
            "INSERT INTO gateway_meta VALUES ($1, $2) ON CONFLICT DO NOTHING", key, value
        )
    if newest < SCHEMA:
        for key, number in (("schema", SCHEMA), ("compatible_from", COMPATIBLE_FROM)):
            await connection.execute(placed(PUT_META), key, str(number).encode())


async def _check_compatible(connection: Connection) -> None:
    found = await connection.fetchval("SELECT value FROM gateway_meta WHERE key = 'compatible_from'")
    needed = int(found or 0)
    if needed > SCHEMA:
        raise StoreError(f"it needs a gateway with schema {needed} or newer, this one has schema {SCHEMA}")


async def _apply(connection: Connection, step: Migration, now: datetime) -> None:
    for statement in step.statements:
        await connection.execute(statement, timeout=STEP_S + 1)
    await connection.execute(
        "INSERT INTO gateway_migration VALUES ($1, $2, $3, $4)",
        step.number,
        step.name,
        step.checksum,
        time_text(now),
    )
