"""The part of an asyncpg connection that is used here: asyncpg itself says no types."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Connection(Protocol):
    """One session. Rows can be unpacked, and asked by number or by column."""

    async def execute(self, statement: str, *parameters: object, timeout: float | None = None) -> str:
        """Run a statement, or several without parameters. Returns what the server says of the last."""

    async def executemany(self, statement: str, rows: Iterable[Sequence[object]]) -> None: ...
    async def fetch(self, query: str, *parameters: object) -> Sequence[Any]: ...
    async def fetchrow(self, query: str, *parameters: object) -> Any: ...
    async def fetchval(self, query: str, *parameters: object) -> Any: ...
    async def add_listener(self, channel: str, callback: Callable[..., object]) -> None:
        """LISTEN; callback: called with connection, pid, channel and payload of each notification."""

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[None]: ...
    def is_in_transaction(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def get_server_pid(self) -> int: ...
    def terminate(self) -> None:
        """End the session without a word."""
