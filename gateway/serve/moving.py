"""One store copied into another: by `gateway store copy`, also while a gateway runs on the first."""

import asyncio
from datetime import UTC, datetime

import msgspec

from gateway.core.settings.store_url import is_postgres
from gateway.errors import StoreError
from gateway.store.copying import Copyable, copy
from gateway.store.opening import open_store
from gateway.store.sqlite import path_of
from gateway.store.tables import AUDIT, SERVICES, TOKENS, VERSIONS


class Copied(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What has been copied, and stands there now."""

    services: int
    versions: int
    tokens: int
    audit_rows: int
    rows: int
    """Of all tables."""


def copy_store(source: str, target: str, password_file: str | None = None) -> Copied:
    """Copy all that the store at the url `source` holds to the one at `target`, which must hold nothing.

    password_file: for every url of PostgreSQL. Raises StoreError; nothing was copied then.
    """
    if not is_postgres(source) and not path_of(source).is_file():
        raise StoreError(f"{path_of(source)}: there is no such file")
    if source == target:
        raise StoreError("a store is not copied into itself")
    return asyncio.run(_copy_store(source, target, password_file))


async def _copy_store(source: str, target: str, password_file: str | None) -> Copied:
    now = datetime.now(UTC)
    read = await open_store(source, now=now, password_file=password_file)
    try:
        written = await open_store(target, now=now, password_file=password_file)
        try:
            return await _copied(read, written)
        finally:
            await written.close()
    finally:
        await read.close()


async def _copied(source: Copyable, target: Copyable) -> Copied:
    rows = await copy(source, target)
    return Copied(
        services=rows.get(SERVICES.name, 0),
        versions=rows.get(VERSIONS.name, 0),
        tokens=rows.get(TOKENS.name, 0),
        audit_rows=rows.get(AUDIT.name, 0),
        rows=sum(rows.values()),
    )
