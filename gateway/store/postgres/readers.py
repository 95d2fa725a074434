"""A few sessions that only read: no read waits for the writer, or for long on a server that is frozen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from gateway.errors import StoreBusy, StoreUnreachable
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import placed
from gateway.store.postgres.faults import named
from gateway.store.postgres.server import Server

MOST: Final = 4
"""Sessions: reads are lists for people, a few at a time."""
WAIT_S: Final = 2.5
"""How long a read waits for one."""
SILENCE_S: Final = 1.0
"""How long a server that did not answer in time is not asked again."""
PAGE: Final = 500
"""Rows a long walk reads at once: each page well within the time a session may pause in a transaction."""


class Readers:
    """The sessions, made when they are needed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._places = asyncio.Semaphore(MOST)
        self._idle: list[Connection] = []
        self._is_closed = False
        self._silent_until = 0.0
        """Until then nobody asks a server that has not answered: each would wait as long."""

    async def rows(self, query: str, *parameters: object) -> list[Any]:
        """Return the rows of a query. Raises StoreError."""
        if any(isinstance(each, str) and "\0" in each for each in parameters):
            return []  # no text here holds a NUL
        now = asyncio.get_running_loop().time
        if now() < self._silent_until:
            raise StoreUnreachable(f"{self._server.label}: no answer in time, a moment ago")
        try:
            async with self.session() as connection:
                return list(await connection.fetch(placed(query), *parameters))
        except StoreUnreachable as exc:
            if isinstance(exc.__cause__, TimeoutError):
                self._silent_until = now() + SILENCE_S
            raise

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """Have a session for the block; one that broke meanwhile is not used again."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise StoreBusy(f"{self._server.label}: too many reads wait") from None
        try:
            connection = await self._next()
            try:
                with named(self._server.label):
                    yield connection
            except BaseException as exc:
                self._after(connection, exc)
                raise
            self._give_back(connection)
        finally:
            self._places.release()

    async def _next(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._server.connect()

    def _after(self, connection: Connection, error: BaseException) -> None:
        is_usable = isinstance(error, Exception) and not isinstance(error, StoreUnreachable)
        if is_usable and not connection.is_in_transaction():
            self._give_back(connection)
        else:
            connection.terminate()

    def _give_back(self, connection: Connection) -> None:
        if self._is_closed:
            connection.terminate()
        else:
            self._idle.append(connection)

    async def close(self) -> None:
        """End the sessions; those in use end when they are given back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().terminate()

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[Connection]:
        """Have a session that sees one moment only, for the block."""
        async with (
            self.session() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection
