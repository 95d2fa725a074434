"""The store, and being its one gateway: wait until the database is there, open it, claim it."""

import asyncio
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.config import StoreSettings
from gateway.core.settings.store_url import is_postgres
from gateway.errors import StoreError, StoreUnreachable
from gateway.store.api import Store
from gateway.store.opening import open_store, reach

NODE_NAME: Final = "node.id"
"""The file that says which place this is, for a database that many places can reach."""
SAY_S: Final = 10.0
"""How often a start that waits says so."""
AGAIN_S: Final = 1.0
"""How soon a database that is away is asked again."""


async def until_there(settings: StoreSettings, on_away: Callable[[StoreError], None]) -> None:
    """Wait until the store's database can be used. on_away: called when it cannot, now and then.

    Raises StoreError if it never can: a wrong password, no such database, a pooler between.
    """
    now = asyncio.get_running_loop().time
    say_at = now()
    while True:
        try:
            await reach(settings.url, password=settings.password, password_file=settings.password_file)
            return
        except StoreUnreachable as exc:
            if now() >= say_at:
                say_at = now() + SAY_S
                on_away(exc)
        await asyncio.sleep(AGAIN_S)


async def in_charge(settings: StoreSettings) -> Store:
    """Open the store, and be its one gateway. Raises StoreError; StoreTaken: another gateway is."""
    store = await open_store(
        settings.url,
        now=datetime.now(UTC),
        password=settings.password,
        password_file=settings.password_file,
    )
    try:
        if is_postgres(settings.url):
            await store.claim(holder_of(settings.folder), socket.gethostname())
    except BaseException:
        await store.close()
        raise
    return store


def holder_of(folder: Path) -> str:
    """Return the name of this place, the same for every control process that ever runs in `folder` here.

    A folder copied to another machine is another place: two would hold one lease.
    """
    file = folder / NODE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            draft = file.with_name(file.name + ".new")
            draft.write_text(f"{uuid.uuid4()}\n", "ascii")
            draft.replace(file)
        return f"{file.read_text('ascii').strip()}@{socket.gethostname()}"
    except (OSError, UnicodeDecodeError) as exc:
        raise StoreError(f"{file}: {exc}") from exc
