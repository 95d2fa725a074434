"""The real store on a disk that fails when it is told to."""

import sqlite3
import threading
from typing import Any, Final, Literal

from gateway.store.sqlite import SqliteStore

Where = Literal["begin", "statement", "commit", "after commit"]

FULL: Final = "database or disk is full"


class Disk:
    """Where the next writes fail. "after commit": COMMIT is done, and reported as failed."""

    def __init__(self) -> None:
        self.fails: Where | None = None
        self.statement = 0
        """Which one fails, counted from the transaction's first; 0: every one."""
        self.failed = 0
        """How often it has."""
        self._seen = 0
        self.commits_may_end = threading.Event()
        """A commit takes until then."""
        self.commits_may_end.set()
        self.is_committing = False

    def before(self, statement: str) -> None:
        """Pass a statement. Raises sqlite3.OperationalError where the disk fails."""
        is_begin, is_end = statement.startswith("BEGIN"), statement == "COMMIT"
        self._seen = 0 if is_begin else self._seen + (not is_end)
        if self.fails == "begin" and is_begin:
            self.fail()
        if self.fails == "commit" and is_end:
            self.fail()
        is_chosen = self.statement in (0, self._seen)
        if self.fails == "statement" and is_chosen and not is_begin and not is_end:
            self.fail()

    def after(self, statement: str) -> None:
        """Pass a statement that is done."""
        if self.fails == "after commit" and statement == "COMMIT":
            self.fail()

    def fail(self) -> None:
        self.failed += 1
        raise sqlite3.OperationalError(FULL)


class _Raw:
    """SQLite's own connection, on such a disk: used on its thread only."""

    def __init__(self, connection: Any, disk: Disk) -> None:
        self._connection = connection
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        self._disk.before(statement)
        cursor = self._connection.execute(statement, parameters)
        if statement == "COMMIT":
            self._disk.is_committing = True
            self._disk.commits_may_end.wait(20)
            self._disk.is_committing = False
        self._disk.after(statement)
        return cursor

    def executemany(self, statement: str, rows: Any) -> Any:
        self._disk.before(statement)
        return self._connection.executemany(statement, rows)


class _Writer:
    """The store's writing connection, on such a disk."""

    def __init__(self, connection: Any, disk: Disk) -> None:
        self._connection = connection
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @property
    def _conn(self) -> _Raw:
        return _Raw(self._connection._conn, self._disk)


def on(disk: Disk, store: SqliteStore) -> SqliteStore:
    """Return `store`, its writes going to `disk` from now on."""
    store._writer = _Writer(store._writer, disk)  # type: ignore[assignment]
    return store
