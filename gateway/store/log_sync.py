"""What makes a commit outlive a power cut: an fsync of the write-ahead log, shared by all that wait for it.

SQLite itself writes a commit to the log without one (`synchronous = NORMAL`): it is atomic, seen by every
reader and outlives the process from then on, so the next writer may decide by it. Whoever made it hears
that it is done only after the fsync, which runs while others commit: the next one covers them all.
"""

import asyncio
import os
import sqlite3
import weakref
from functools import partial
from pathlib import Path
from typing import Final, Self

import aiosqlite

from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.faults import ErrorCounts, named
from gateway.store.thread import at_once

log = get_logger(component="store")

LOG: Final = "-wal"
"""What SQLite adds to the file's name for its log."""
AGAIN_S: Final = 0.1
"""How soon the disk is tried again."""
LONGEST_S: Final = 1.0
"""How long a commit waits for a disk that fails. It is made, seen and in force: its maker must go on by it,
and the log, the counts and an alert say that a power cut may still take it back.
"""

fsync: Final = getattr(os, "fdatasync", os.fsync)
"""A log's times are of no interest."""


class LogSync:
    """The fsyncs of one store's log."""

    def __init__(
        self, path: Path, connection: aiosqlite.Connection, descriptor: int, errors: ErrorCounts
    ) -> None:
        """connection: for its thread, and to move the log into the file if an fsync fails.

        descriptor: of the log. Called by `open`.
        """
        self.errors = errors
        self._path = path
        self._connection = connection
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self._waiting: list[asyncio.Future[None]] = []
        """One for each commit that no fsync covers yet."""
        self._running: asyncio.Task[None] | None = None
        self._failing_s: float | None = None
        """Since when (the loop's time) the disk fails; None: it does not.

        A second fsync would succeed whatever became of the pages of the one that failed.
        """
        self._is_closing = False

    @classmethod
    def open(cls, path: Path, connection: aiosqlite.Connection, errors: ErrorCounts) -> Self:
        """errors: where failures are counted. Raises OSError if the store at `path` has no log."""
        return cls(path, connection, os.open(path.with_name(path.name + LOG), os.O_RDONLY), errors)

    def covered(self) -> asyncio.Future[None]:
        """Take note of a commit. Returns what ends when it is on disk, or the disk fails for long.

        The fsync comes whether or not anybody waits for it.
        """
        commit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(commit)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run(), name="store-log-sync")
        return commit

    async def close(self) -> None:
        """End what waits; on a disk that fails after a last try."""
        self._is_closing = True
        while self._running is not None:
            await asyncio.wait({self._running})
        await self._connection.close()
        self._close()

    async def _run(self) -> None:
        try:
            while self._waiting or self._failing_s is not None:
                covered, self._waiting = self._waiting, []
                if await self._sync() or self._has_failed_for_long():
                    _end(covered)
                else:
                    self._waiting = covered + self._waiting
                if self._failing_s is not None:
                    if self._is_closing:
                        break
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._running = None
            _end(self._waiting)

    def _has_failed_for_long(self) -> bool:
        """Whether nobody shall wait for the disk any more."""
        since, now = self._failing_s, asyncio.get_running_loop().time()
        return since is not None and now - since >= LONGEST_S

    async def _sync(self) -> bool:
        """Bring the log to the disk. Returns whether that went well."""
        try:
            with self.errors.counting(), named(self._path):
                work = sync if self._failing_s is None else settle
                await at_once(self._connection, partial(work, descriptor=self._descriptor))
        except StoreError as exc:
            if self._failing_s is None:
                consequence = "the last changes may be undone if the power fails; tried again until it works"
                log.error("store_not_on_disk", error=str(exc), consequence=consequence)
                self._failing_s = asyncio.get_running_loop().time()
            return False
        if self._failing_s is not None:
            log.info("store_on_disk_again")
            self._failing_s = None
        return True


def _end(commits: list[asyncio.Future[None]]) -> None:
    for commit in commits:
        if not commit.done():
            commit.set_result(None)


def sync(_: sqlite3.Connection, descriptor: int) -> None:
    """Bring the log to the disk."""
    fsync(descriptor)


def settle(connection: sqlite3.Connection, descriptor: int) -> None:
    """Move all of the log into the file, which is brought to the disk then, too.

    Raises sqlite3.OperationalError if a reader or writer keeps a part of the log.
    """
    (is_busy, pages, moved), *_ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    if is_busy or moved < pages:
        raise sqlite3.OperationalError("the log could not be moved into the file")
    fsync(descriptor)
