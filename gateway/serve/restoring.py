"""A backup looked at, and put in the place of a store: by `gateway restore`, while no gateway runs."""

import asyncio
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from gateway.control.processes.lock import StoreLock
from gateway.errors import StoreError
from gateway.store.migrations import SCHEMA
from gateway.store.sqlite import SqliteStore

MAGIC: Final = b"SQLite format 3\0"
COMPANIONS: Final = ("", "-wal", "-shm")
"""The files of a store, by what follows its name."""


class Found(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a backup holds."""

    schema: int
    """What it is once this release has opened it."""
    services: int
    versions: int
    open_deployments: int
    tokens: int
    audit_rows: int
    audit_ok: bool
    problem: str
    """Why it should not be used; empty: nothing speaks against it."""


def examine(file: Path) -> Found:
    """Open a copy of a backup as a start would, and look it through; the file itself is only read.

    Raises StoreError if this release cannot open it.
    """
    return asyncio.run(_examine(file))


async def _examine(file: Path) -> Found:
    with tempfile.TemporaryDirectory(prefix="gateway-restore-") as folder:
        copy = Path(folder) / "gateway.db"
        _copy(file, copy)
        try:
            store = await SqliteStore.open(f"sqlite:///{copy}", now=datetime.now(UTC))
        except StoreError as exc:
            raise StoreError(str(exc).replace(str(copy), str(file))) from exc
        try:
            return await _found(store)
        finally:
            await store.close()


async def _found(store: SqliteStore) -> Found:
    damage, audit = await store.damage(), await store.verify_audit()
    tokens = await store.tokens()
    problem = damage or ("" if audit.ok else f"audit trail, row {audit.broken_at}: {audit.reason}")
    return Found(
        schema=SCHEMA,
        services=len(await store.load_services()),
        versions=len(await store.load_versions()),
        open_deployments=len(await store.open_deployments()),
        tokens=sum(each.revoked_at is None for each in tokens),
        audit_rows=audit.count,
        audit_ok=audit.ok,
        problem=problem,
    )


def restore(file: Path, store: Path) -> Path | None:
    """Put a backup in the place of a store. Returns where the old one is now; None: there was none.

    Raises StoreError, and changes nothing, if a gateway runs on it or a file cannot be written.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    lock = StoreLock.acquire(store.parent)
    draft = store.with_name(store.name + ".restored")
    try:
        _copy(file, draft)
        old = _put_aside(store)
        draft.replace(store)
    except OSError as exc:
        raise StoreError(f"{store}: {exc.strerror or exc}") from exc
    finally:
        draft.unlink(missing_ok=True)
        lock.release()
    return old


def _put_aside(store: Path) -> Path | None:
    """Rename the files of a store."""
    if not store.exists():
        return None
    old = store.with_name(f"{store.name}.{datetime.now(UTC):%Y%m%dT%H%M%S}")
    for companion in COMPANIONS:
        each = store.with_name(store.name + companion)
        if each.exists():
            each.replace(old.with_name(old.name + companion))
    return old


def _copy(file: Path, to: Path) -> None:
    """Copy a backup whole, for its owner alone. Raises StoreError for what is none."""
    try:
        with file.open("rb") as source:
            if source.read(len(MAGIC)) != MAGIC:
                raise StoreError(f"{file} is no backup of a store")
            source.seek(0)
            with os.fdopen(os.open(to, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
    except OSError as exc:
        raise StoreError(f"{file}: {exc.strerror or exc}") from exc
