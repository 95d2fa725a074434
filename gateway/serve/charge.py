"""The store, and being its one gateway: wait until the database is there, open it, claim it, stand by."""

import asyncio
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway import __version__
from gateway.cluster.presence import Presence
from gateway.config import Config, StoreSettings
from gateway.core.settings.store_url import is_postgres
from gateway.errors import StoreBusy, StoreError, StoreTaken, StoreUnreachable
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.opening import open_store, reach
from gateway.store.records import NodeRecord

log = get_logger(component="cluster")

NODE_NAME: Final = "node.id"
"""The file that says which place this is, for a database that many places can reach."""
SAY_S: Final = 10.0
"""How often a start that waits says so."""
AGAIN_S: Final = 1.0
"""How soon a database that is away is asked again."""
PATIENCE_S: Final = 15.0
"""For how long a step of a start or a takeover bears a database that fails it; an upgrade waits longer."""
SOON_S: Final = 1.0
"""How long a process that ends tries to say each thing to other gateways."""
Result = TypeVar("Result")


async def until_there(settings: StoreSettings, on_away: Callable[[StoreError], None]) -> None:
    """Wait until the store's database can be used. on_away: called when it cannot, now and then.

    Raises StoreError if it never can: a wrong password, no such database, a pooler between.
    """
    password, password_file = settings.password, settings.password_file
    await again(lambda: reach(settings.url, password=password, password_file=password_file), on_away)


async def again(work: Callable[[], Awaitable[Result]], on_refused: Callable[[StoreError], None]) -> Result:
    """Return what `work` does with the store, as soon as it is there and no other gateway has it.

    on_refused: called when it is not, now and then. Raises StoreError for what no waiting makes good.
    """
    say = _now_and_then(on_refused)
    while True:
        try:
            return await work()
        except StoreTaken as exc:  # found out by seeing its lease renewed: that took a second
            say(exc)
        except (StoreUnreachable, StoreBusy) as exc:
            say(exc)
            await asyncio.sleep(AGAIN_S)


async def patiently(store: Store, work: Callable[[], Awaitable[Result]]) -> Result:
    """Return what `work` does with the store: done again if a database that others share fails it midway.

    A session is ended for less than an outage: for a second's idling on a busy machine. Raises StoreError
    when it still fails after PATIENCE_S; a file's, at once.
    """
    return await _patiently(work, is_shared=store.is_shared)


async def _patiently(work: Callable[[], Awaitable[Result]], *, is_shared: bool) -> Result:
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await work()
        except (StoreUnreachable, StoreBusy) as exc:
            if not is_shared or time.monotonic() >= give_up_at:
                raise
            log.warning("store_failed", error=str(exc), consequence="it is asked again", next_in_s=AGAIN_S)
        await asyncio.sleep(AGAIN_S)


async def in_charge(
    settings: Config,
    on_standby: Callable[[StoreError], None] | None = None,
    *,
    beside: int | None = None,
) -> tuple[Store, Presence]:
    """Open the store, and be its one gateway. Returns it, and what is to say that we live.

    on_standby: wait until no other gateway is; called now and then with who is, or that the database is away.
    None: raises StoreTaken. With `cluster.serve` the store follows that one instead. beside: as for
    `open_store`. Raises StoreError.
    """
    # Another gateway may be bringing the schema up to date.
    opened = partial(_opened, settings.store, beside)
    store = await _patiently(opened, is_shared=is_postgres(settings.store.url))
    try:
        presence = await patiently(store, lambda: _presence_of(settings, store))
        if settings.cluster.serve and not presence.is_alone:
            await patiently(store, lambda: _claim_or_follow(store, presence))
        elif on_standby is not None:
            await _stand_by(store, presence, on_standby)
        else:
            await _claim(store, presence)
    except BaseException:
        await store.close()
        raise
    return store, presence


async def if_soon(saying: Awaitable[None]) -> None:
    """Say something to other gateways if the store takes it soon: this one ends."""
    with suppress(StoreError, TimeoutError):
        async with asyncio.timeout(SOON_S):
            await saying


async def _opened(settings: StoreSettings, beside: int | None) -> Store:
    opening = asyncio.ensure_future(
        open_store(
            settings.url,
            now=datetime.now(UTC),
            password=settings.password,
            password_file=settings.password_file,
            beside=beside,
        )
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(StoreError):  # a file's connections have threads, which would keep the process alive
            await (await opening).close()
        raise


async def _stand_by(store: Store, presence: Presence, on_standby: Callable[[StoreError], None]) -> None:
    """Claim the store as soon as nobody has it, and be seen to wait until then."""
    waiting = asyncio.get_running_loop().create_task(presence.run(), name="presence")
    try:
        await again(lambda: _claim(store, presence), on_standby)
    except BaseException:
        waiting.cancel()
        await asyncio.wait({waiting})  # its last word would undo this one
        await presence.leave()
        raise
    waiting.cancel()


async def _claim_or_follow(store: Store, presence: Presence) -> None:
    try:
        await _claim(store, presence)
    except StoreTaken:
        store.follows = True


async def _claim(store: Store, presence: Presence) -> None:
    if not presence.is_alone:
        await store.claim(presence.node.id, presence.node.name)
    presence.applied = lambda: store.revision


async def _presence_of(settings: Config, store: Store) -> Presence:
    """Return what says of this gateway that it lives, to whoever shares its store."""
    is_alone = not is_postgres(settings.store.url)
    own_id = (await store.meta("gateway_id") or b"").decode()
    node = NodeRecord(
        id=own_id if is_alone else holder_of(settings.store.folder),
        name=name_of(settings),
        release=__version__,
        listen=tuple(listen.address for listen in settings.listeners),
        admin=settings.admin.address,
    )
    store.node = "" if is_alone else node.name
    return Presence(store, node, is_alone=is_alone)


def name_of(settings: Config) -> str:
    """Return what this gateway is called."""
    return settings.cluster.name or socket.gethostname()


def _now_and_then(say: Callable[[StoreError], None]) -> Callable[[StoreError], None]:
    """Return what passes an error on unless one was passed on just before."""
    now = asyncio.get_running_loop().time
    say_at = now()

    def maybe(error: StoreError) -> None:
        nonlocal say_at
        if now() >= say_at:
            say_at = now() + SAY_S
            say(error)

    return maybe


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
