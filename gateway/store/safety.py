"""Whether the file is whole and still there, its audit chain too, and copies of it."""

import os
import sqlite3
from pathlib import Path
from typing import Final

import aiosqlite

from gateway.errors import StoreDamaged
from gateway.store.audit import Walk
from gateway.store.faults import named
from gateway.store.records import AuditReport
from gateway.store.tables import AUDIT

RESTORE: Final = "put back a copy made by `gateway backup`, or move the file away to begin an empty one"
"""What to do about a file that is damaged."""


async def damage(path: Path) -> str:
    """Return what SQLite's own check finds wrong with the file; empty: nothing. Off the loop.

    Raises StoreError if the file cannot be opened at all.
    """
    with named(path):
        connection = await aiosqlite.connect(existing(path), uri=True)
        try:
            rows = list(await connection.execute_fetchall("PRAGMA quick_check(1)"))
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise  # busy, or unreadable for now: nothing was found out
            return str(exc)
        finally:
            await connection.close()
    found = str(rows[0][0])
    return "" if found == "ok" else found.splitlines()[-1]


async def verified(connection: aiosqlite.Connection) -> AuditReport:
    """Walk along the whole chain. connection: nobody else's, so that what it reads stands still meanwhile."""
    await connection.execute("BEGIN")
    newest = await connection.execute_fetchall(
        "SELECT seq FROM sqlite_sequence WHERE name = ?", (AUDIT.name,)
    )
    walk = Walk()
    async with connection.execute(f"{AUDIT.select} ORDER BY id") as rows:
        async for row in rows:
            if not walk.step(row):
                break
    return walk.report(max((row[0] for row in newest), default=0))


async def refuse_damaged(path: Path) -> None:
    """Raise StoreDamaged, with what to do about it, unless the file is whole."""
    if found := await damage(path):
        raise StoreDamaged(f"{path}: the file is damaged ({found}): {RESTORE}")


async def copy(connection: aiosqlite.Connection, target: Path) -> None:
    """Write all that `connection` sees to a new file only we may read, whole and on disk.

    It works from a connection whose file is deleted, too. Raises StoreError.
    """
    with named(target):
        _make_private(target)
        await connection.execute("VACUUM INTO ?", (str(target),))
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make_private(target: Path) -> None:
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def identity(path: Path) -> tuple[int, int] | None:
    """Return which file stands at `path`, as device and inode; None: none does."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def remove_log(path: Path) -> None:
    """Remove a write-ahead log that was left at `path`: another file would be made of it."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def existing(path: Path) -> str:
    """Return the address by which SQLite opens a file, and makes none."""
    quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{quoted}?mode=rw"
