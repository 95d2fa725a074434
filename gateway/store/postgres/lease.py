"""Which gateway is in charge of a database: a row with the database's clock, renewed while it lives.

The lease only says whether another one lives. What keeps a gateway that lost it from writing is the epoch.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec

from gateway.core.rollout.isolation import Lease as Found
from gateway.errors import StaleEpoch, StoreBusy, StoreTaken, StoreUnreachable
from gateway.store.migrations import refuse_later
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import ADMITS, LEASE, NEEDED
from gateway.store.postgres.faults import named
from gateway.store.postgres.server import Server
from gateway.store.postgres.session import KeptSession, hurry_commits

LEASE_S: Final = 4.0
"""After so long without a word of the holder, another may take over: with LOOK_S, within five seconds."""
RENEW_S: Final = 1.0
LOOK_S: Final = 0.25
"""How often one that waits looks whether the lease was renewed."""

_UNTIL: Final = f"clock_timestamp() + interval '{LEASE_S} seconds'"
_VACATED: Final = """
    CASE WHEN lease.lapses_at <= clock_timestamp()
        THEN coalesce(lease.vacated_at, lease.renewed_at) ELSE lease.vacated_at END
"""
"""Since when nobody was in charge: it is kept until what follows from that is stored."""
_VACANT_S: Final = "extract(epoch FROM renewed_at - vacated_at)::float8"
_CLAIM: Final = f"""
    INSERT INTO {LEASE} AS lease (id, holder, name, since, renewed_at, lapses_at)
    SELECT 1, $1::text, $2::text, now(), now(), {_UNTIL} WHERE {ADMITS}
    ON CONFLICT (id) DO UPDATE SET
        holder = excluded.holder,
        name = excluded.name,
        since = CASE WHEN lease.holder = excluded.holder THEN lease.since ELSE excluded.since END,
        renewed_at = excluded.renewed_at,
        lapses_at = excluded.lapses_at,
        vacated_at = {_VACATED}
    WHERE lease.holder = excluded.holder OR lease.lapses_at <= clock_timestamp()
    RETURNING since = renewed_at, {_VACANT_S}
"""
"""Returns whether the holder is another than before, and for how long nobody was in charge; no row: somebody
else has it."""
_RENEW: Final = f"""
    UPDATE {LEASE} AS lease
    SET renewed_at = clock_timestamp(), lapses_at = {_UNTIL}, vacated_at = {_VACATED}
    WHERE holder = $1 AND {ADMITS}
    RETURNING {_VACANT_S}
"""
_SETTLE: Final = f"""
    UPDATE {LEASE} SET vacated_at = CASE WHEN {_VACANT_S} < $2 + {LEASE_S} THEN NULL ELSE vacated_at END
    WHERE holder = $1 AND {ADMITS}
    RETURNING vacated_at IS NULL
"""
"""Not if it has been longer than what was decided by: it lapsed again meanwhile."""
_RELEASE: Final = f"UPDATE {LEASE} SET holder = '', lapses_at = clock_timestamp() WHERE holder = $1"
_HELD: Final = f"SELECT name, renewed_at, since, holder, ({NEEDED}) AS needed FROM {LEASE}"


class Lease:
    """The row, as one gateway deals with it. It has a session of its own: no write may hold it up."""

    def __init__(self, server: Server) -> None:
        self._label = server.label
        # Renewals that a crash of the database loses only make the lease lapse sooner.
        self._session = KeptSession(server, hurry_commits)
        self.holder = ""
        """Who we are, once we have claimed it; empty: we never did."""
        self.found = Found(-math.inf, is_held=False)
        """As it was when it was last ours."""
        self._seen: datetime | None = None
        """When another's was renewed, as we saw it last; None: we have not looked, or could not."""
        self._seen_at = 0.0
        """When we saw that first, monotonic seconds."""

    async def claim(self, holder: str, name: str) -> bool:
        """Take the lease; wait for one that is not renewed any more to lapse.

        holder: the same for all that succeed each other in one place. Returns whether it was another's.
        Raises StoreTaken if that one lives; StaleEpoch if this release is not to use the database.
        """
        found: list[Any] = []
        try:
            with named(self._label):
                while not found:
                    if await self._is_free(holder):
                        asked_at = time.monotonic()
                        found = await self._session.write(_CLAIM, holder, name)
                    if not found:
                        await asyncio.sleep(LOOK_S)
        except (StoreUnreachable, StoreBusy):
            self._seen = None
            raise
        self.holder = holder
        was_anothers: bool = found[0][0]
        self._note(asked_at, found[0][1])
        return was_anothers

    async def _is_free(self, holder: str) -> bool:
        """Look whether nobody else can have the lease. Raises StoreTaken if somebody has renewed it.

        Another's has to be watched for as long as it lasts: one that has lapsed while the database was away
        is its holder's first, who may have acted on what could not be stored.
        """
        held = await self._session.fetch(_HELD)
        if held:
            refuse_later(held[0]["needed"], self._label)
        if not held or held[0]["holder"] in (holder, ""):
            return True
        now, renewed_at = asyncio.get_running_loop().time(), held[0]["renewed_at"]
        if renewed_at == self._seen:
            return now - self._seen_at >= LEASE_S
        was_seen = self._seen is not None
        self._seen, self._seen_at = renewed_at, now
        if was_seen:
            raise StoreTaken(_taken(held[0]))
        return False

    async def is_ours(self, connection: Connection) -> bool:
        """Return whether nobody else has the lease, for the rest of the connection's transaction."""
        holder = await connection.fetchval(f"SELECT holder FROM {LEASE} FOR UPDATE")
        return holder == self.holder or not self.holder

    async def hold(self, check: Callable[[], None]) -> None:
        """Renew the lease for as long as this runs. Raises StaleEpoch when another has it.

        check: called each time; may raise what else ends us.
        """
        while True:
            check()
            with suppress(StoreUnreachable, StoreBusy):  # the next one may come in time
                await self.renew()
            await asyncio.sleep(RENEW_S)

    async def renew(self) -> None:
        """Renew it once. Raises StaleEpoch: another has it, or this release is not to; StoreError."""
        asked_at = time.monotonic()
        with named(self._label):
            found = await self._session.write(_RENEW, self.holder)
        if not found:
            raise StaleEpoch("another gateway has taken over")
        self._note(asked_at, found[0][0])

    def _note(self, asked_at: float, vacant_s: float | None) -> None:
        self.found = Found(asked_at, is_ours=True, vacant_s=vacant_s)

    async def settle(self, vacant_s: float) -> None:
        """Say that everything is stored that follows from so long without anybody in charge.

        Raises StaleEpoch: another has the lease; StoreError.
        """
        with named(self._label):
            settled = await self._session.write(_SETTLE, self.holder, vacant_s)
        if not settled:
            raise StaleEpoch("another gateway has taken over")
        if settled[0][0]:
            self.found = msgspec.structs.replace(self.found, vacant_s=None)

    async def release(self) -> None:
        """Let another one take over at once. Raises StoreError."""
        if self.holder:
            with named(self._label):
                await self._session.fetch(_RELEASE, self.holder)

    async def close(self) -> None:
        """End the session; the lease lapses."""
        self._session.close()


def _taken(held: Any) -> str:
    since = f"{held['since']:%Y-%m-%d %H:%M:%S} UTC"
    return f"the gateway {held['name']!r} has been in charge since {since}: one gateway a database"
