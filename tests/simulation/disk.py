"""aiosqlite's connections without its thread: the SQL is run by SQLite, in its turn, on the simulated loop.

Each connection has a queue, as aiosqlite's thread has: what is begun is done, whether or not anybody still
waits for it. A statement takes a while; a busy file is tried again until the connection's time-out. Files lie
in memory (`/dev/shm`), so the log, the locks and what a killed process leaves behind are SQLite's own.
"""

import asyncio
import contextlib
import errno
import os
import re
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.simulation import machine as machines
from tests.simulation.machine import running

BUSY_AGAIN_S: Final = 0.02
VISITS: Final = ("begin", "write", "commit", "sync", "settle")
"""What `store.thread.at_once` is asked for: several statements each."""
COMMITS: Final = ("COMMIT", "commit")
WAITS_FOR_DISK: Final = (*COMMITS, "sync", "settle")
FSYNC: Final = "FSYNC"
READS: Final = ("SELECT", "PRAGMA", "BEGIN", "begin", "sync", "settle", "close")
"""How statements and visits begin that change nothing anybody else sees."""
IN_ONE_PROCESS: Final = "&vfs=unix-excl"
"""SQLite's locks, without asking the kernel for them: all connections are this process's."""
_BUSY_TIMEOUT: Final = re.compile(r"PRAGMA busy_timeout = (\d+)")


class Disk:
    """How the disk is doing: what the world has in mind for the next statements."""

    def __init__(self) -> None:
        self.slow_s = 0.0
        self.failing: Callable[[str], str] | None = None
        """(statement) -> what goes wrong with it: "" nothing, "fails", "done" (yet reported as failed)."""
        self.commits = 0
        self.changes = 0
        """What was run that may have changed a file."""
        self.faults = 0


class Cursor:
    """What is left of an executed statement."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    async def close(self) -> None:
        """Nothing is held."""

    async def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def __aiter__(self) -> "Cursor":
        return self

    async def __anext__(self) -> Any:
        if not self._rows:
            raise StopAsyncIteration
        return self._rows.pop(0)


class Pending:
    """`connection.execute(…)`, to be awaited or entered."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def __await__(self) -> Any:
        return self._work.__await__()

    async def __aenter__(self) -> Cursor:
        cursor: Cursor = await self._work
        return cursor

    async def __aexit__(self, *exc: object) -> None:
        pass


class Connection:
    """One connection to a file."""

    def __init__(self, raw: sqlite3.Connection, timeout_s: float) -> None:
        self._raw = raw
        self._timeout_s = timeout_s
        self._process = running()
        self._machine = machines.current
        self._queue: deque[tuple[str, Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._is_busy = False
        self._current: tuple[str, Callable[[], Any]] | None = None
        """The statement, or visit, that is being run; None: none, or it is done."""
        self._is_closed = False
        self._process.on_death.append(self._drop)

    # -- aiosqlite

    @property
    def in_transaction(self) -> bool:
        return not self._is_closed and self._raw.in_transaction

    def execute(self, statement: str, parameters: Any = ()) -> Pending:
        return Pending(self._run(statement, lambda: self._statement(statement, parameters)))

    def executemany(self, statement: str, rows: Any) -> Pending:
        def run() -> Cursor:
            cursor = self._raw.executemany(statement, rows)
            return Cursor([], cursor.rowcount)

        return Pending(self._run(statement, run))

    async def execute_fetchall(self, statement: str, parameters: Any = ()) -> list[Any]:
        cursor = await self._run(statement, lambda: self._statement(statement, parameters))
        rows: list[Any] = await cursor.fetchall()
        return rows

    async def commit(self) -> None:
        await self._run("COMMIT", self._raw.commit)

    async def rollback(self) -> None:
        await self._run("ROLLBACK", self._raw.rollback)

    async def close(self) -> None:
        await self._run("close", self._close)

    # -- what `store.thread` uses of it

    @property
    def _conn(self) -> "Raw":
        return Raw(self)

    async def _execute(self, work: Any, raw: "Raw") -> Any:
        return await self._run(work.func.__name__, lambda: work(raw))

    # -- the queue

    def _statement(self, statement: str, parameters: Any) -> Cursor:
        if (found := _BUSY_TIMEOUT.match(statement)) is not None:
            self._timeout_s = int(found[1]) / 1000
            return Cursor([(int(found[1]),)], -1)
        cursor = self._raw.execute(statement, parameters)
        return Cursor(cursor.fetchall(), cursor.rowcount)

    def _close(self) -> None:
        self._is_closed = True
        self._raw.close()

    async def _run(self, statement: str, work: Callable[[], Any]) -> Any:
        if self._is_closed:
            raise ValueError("no active connection")
        future = self._machine.loop.create_future()
        self._queue.append((statement, work, future))
        self._next()
        return await asyncio.shield(future)

    def _next(self) -> None:
        if self._is_busy or not self._queue:
            return
        self._is_busy = True
        statement, work, future = self._queue.popleft()
        self._current = statement, work
        disk: Disk = self._machine.disk  # type: ignore[attr-defined]
        delay_s = 0.00005 + 0.0003 * self._machine.chance.random()
        if statement in WAITS_FOR_DISK:
            delay_s += 0.002 * self._machine.chance.random() + disk.slow_s
        self._machine.loop.after(delay_s, lambda: self._do(statement, work, future, self._machine.now))

    def _do(self, statement: str, work: Callable[[], Any], future: asyncio.Future[Any], began: float) -> None:
        if self._is_closed or self._process.is_dead:
            return
        if self._process.stopped_until > self._machine.now:  # its threads are stopped, too
            self._machine.loop.at(
                self._process.stopped_until, lambda: self._do(statement, work, future, began)
            )
            return
        try:
            result = self._faulty(statement, work)
        except sqlite3.OperationalError as exc:
            may_wait = not self.in_transaction and self._machine.now < began + self._timeout_s
            if "locked" in str(exc) and may_wait:
                self._machine.loop.after(BUSY_AGAIN_S, lambda: self._do(statement, work, future, began))
                return
            self._answer(future, exc)
        except Exception as exc:
            self._answer(future, exc)
        else:
            self._answer(future, result)

    def _faulty(self, statement: str, work: Callable[[], Any]) -> Any:
        if not statement.startswith(READS):
            self._machine.disk.changes += 1  # type: ignore[attr-defined]
        if statement in VISITS:
            return work()  # each of its statements is passed to `faulty` by itself
        return self.faulty(statement, work)

    def faulty(self, statement: str, work: Callable[[], Any]) -> Any:
        """Return what `work` does, unless the disk is in no mood for `statement`."""
        if self._is_closed:  # its process is dead, and the disk has it already
            return work()
        disk: Disk = self._machine.disk  # type: ignore[attr-defined]
        wrong = disk.failing(statement) if disk.failing is not None else ""
        if wrong:
            disk.faults += 1
            if wrong == "done":
                work()
            raise sqlite3.OperationalError(
                "disk I/O error" if wrong == "done" else "database or disk is full"
            )
        if statement == "COMMIT":
            disk.commits += 1
        return work()

    def _answer(self, future: asyncio.Future[Any], result: Any) -> None:
        self._current = None

        def answer() -> None:
            self._is_busy = False
            if not future.done():
                if isinstance(result, Exception):
                    future.set_exception(result)
                    future.exception()
                else:
                    future.set_result(result)
            self._next()

        self._machine.loop.enqueue(self._process, answer)

    def _drop(self) -> None:
        """Its process is dead: what was not committed never was, but for a commit the disk has already."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._current is not None:
            name, work = self._current
            if name in COMMITS and self._machine.chance.random() < 0.5:
                self._machine.disk.changes += 1  # type: ignore[attr-defined]
                with contextlib.suppress(sqlite3.Error):
                    work()
        self._raw.close()


class Raw:
    """What a visit to the thread is given: SQLite's own connection, its statements on the simulated disk."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self._faulty(statement, lambda: self._connection._raw.execute(statement, parameters))

    def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
        return self._faulty(statement, lambda: self._connection._raw.executemany(statement, rows))

    def rollback(self) -> None:
        self._connection._raw.rollback()

    def _faulty(self, statement: str, work: Callable[[], Any]) -> Any:
        return self._connection.faulty(statement, work)


async def connect(path: Any, **kwargs: Any) -> Connection:
    """Do what `aiosqlite.connect` does."""
    timeout_s = kwargs.pop("timeout", 5.0)
    await asyncio.sleep(0)
    raw = sqlite3.connect(f"{path}{IN_ONE_PROCESS}", timeout=0, **kwargs)
    return Connection(raw, timeout_s)


def fsync(descriptor: int) -> None:
    """Do what `log_sync.fsync` does: files in memory need none, but its failure shows."""
    disk: Disk = machines.current.disk  # type: ignore[attr-defined]
    if disk.failing is not None and disk.failing(FSYNC):
        disk.faults += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))
