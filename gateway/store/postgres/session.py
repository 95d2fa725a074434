"""One session that is kept, and made anew after it broke: for what must not wait behind anything else."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.store.migrations import refuse_later
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import NEEDED
from gateway.store.postgres.server import Server


class KeptSession:
    """A session of its own, for one statement at a time."""

    def __init__(self, server: Server, prepare: Callable[[Connection], Awaitable[object]]) -> None:
        """prepare: what is done first with each new session."""
        self._label = server.label
        self._server = server
        self._prepare = prepare
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None

    async def fetch(self, statement: str, *parameters: object) -> list[Any]:
        """Run a statement, and return its rows; whatever goes wrong ends the session."""
        async with self._lock:
            connection = await self._session()
            try:
                return list(await connection.fetch(statement, *parameters))
            except BaseException:
                connection.terminate()
                raise

    async def write(self, statement: str, *parameters: object) -> list[Any]:
        """Run a statement that writes, and returns a row for what it has written, only if ADMITS says so.

        Raises StaleEpoch if it has written nothing because it does not.
        """
        rows = await self.fetch(statement, *parameters)
        if not rows:
            needed = await self.fetch(NEEDED)
            refuse_later(needed[0][0] if needed else None, self._label)
        return rows

    async def _session(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = None
            connection = await self._server.connect()
            try:
                await self._prepare(connection)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """End it."""
        if self._connection is not None:
            self._connection.terminate()


async def hurry_commits(connection: Connection) -> None:
    """Let commits of this session not wait for the disk: what a crash of the database loses is said anew."""
    await connection.execute("SET synchronous_commit = off")
