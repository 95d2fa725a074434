"""The store in one SQLite file: one writer, readers that never wait for it, nothing committed ever lost."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import aiosqlite

from gateway.core.rollout.isolation import Lease
from gateway.errors import StaleEpoch, StoreError
from gateway.store import prune as pruning
from gateway.store.api import Place
from gateway.store.audit import GENESIS, Tail
from gateway.store.faults import ErrorCounts, named
from gateway.store.known_tokens import KnownTokens
from gateway.store.log_sync import LogSync
from gateway.store.migrating import migrate
from gateway.store.migrations import refuse_later
from gateway.store.reads import Reads, Rows
from gateway.store.records import (
    DEFAULT_RETENTION,
    AuditReport,
    Changes,
    NodeRecord,
    NodeState,
    Position,
    Retention,
    ServedRecord,
    TokenRecord,
)
from gateway.store.safety import copy, damage, existing, identity, refuse_damaged, remove_log, verified
from gateway.store.thread import at_once, begin
from gateway.store.transaction import COMMIT, PUT_META, Counters, SqliteTransaction
from gateway.store.turns import Turns, to_the_end

T = TypeVar("T")

OPENING_S: Final = 5.0
"""How long opening waits for another process's write: there are two only in the moments of an upgrade."""
BUSY_S: Final = 2.0
"""The same for every later transaction."""

_BEGINNING: Final = """
    SELECT
        (SELECT value FROM gateway_meta WHERE key = 'epoch'),
        (SELECT seq FROM sqlite_sequence WHERE name = 'gateway_event'),
        (SELECT seq FROM sqlite_sequence WHERE name = 'gateway_decision'),
        (SELECT seq FROM sqlite_sequence WHERE name = 'gateway_audit'),
        (SELECT hash FROM gateway_audit ORDER BY id DESC LIMIT 1),
        (SELECT value FROM gateway_meta WHERE key = 'commit'),
        (SELECT value FROM gateway_meta WHERE key = 'compatible_from')
"""


class SqliteStore(Reads):
    """See `api.Store`."""

    SEQUENCES = "sqlite_sequence"
    is_shared = False
    """See `api.Store.is_shared`."""

    def __init__(
        self,
        path: Path,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        log: LogSync,
        epoch: int,
    ) -> None:
        """Called by `open`."""
        self.path = path
        self.label = str(path)
        self.epoch = epoch
        self.on_event: Callable[[], object] = lambda: None
        """See `api.Store.on_event`."""
        self.errors = log.errors
        """What has failed since the start."""
        self._writer = writer
        self._reader = reader
        """A connection of its own, so that no read waits for the writer."""
        self._log = log
        self._identity = identity(path)
        """Which file it is: another one may come to stand at its path."""
        self._is_standing = asyncio.Event()
        """Unset while the file is put back."""
        self._is_standing.set()
        self._is_closed = False
        self._turns = Turns(str(path))
        self._known_tokens = KnownTokens(self.tokens)
        self.follows = False
        """See `api.Store.follows`. A file has one gateway."""
        self.node = ""
        """See `api.Store.node`."""
        self.known: Position | None = None
        """See `api.Store.known`. Nobody else writes."""
        self.catch_up: Callable[[], Awaitable[object]] | None = None
        """See `api.Store.catch_up`."""
        self._commits = 0
        self._node: NodeRecord | None = None
        """This gateway, once it has said so."""
        self._in_doubt: tuple[bytes, SqliteTransaction] | None = None
        """Mark and transaction of a commit that failed, or was done all the same: nothing could be read."""

    @classmethod
    async def open(cls, url: str, *, now: datetime, beside: int | None = None) -> Self:
        """Open, and bring up to this release's schema, the store at `url`; make it, and its folders, if
        missing.

        url: `sqlite:///relative` or `sqlite:////absolute`. now: stamps the migrations. beside: the schema of
        the release that runs on it meanwhile; None: none does. Raises StoreError naming the file and the
        reason; nothing was changed then.
        """
        path = path_of(url)
        with named(path):
            _make(path)
            await refuse_damaged(path)
            writer = await _connect(path)
            try:
                await migrate(writer, now, beside)
            finally:
                await writer.close()
            writer, reader, log = await _connections(path, ErrorCounts())
            rows = await reader.execute_fetchall("SELECT value FROM gateway_meta WHERE key = 'epoch'")
        return cls(path, writer, reader, log, _number(next(iter(rows))[0]))

    async def close(self) -> None:
        """Wait for the writer's turn to end and close the file; see `api.Store.close`."""
        async with self._turns.lock:
            if not self._is_closed:
                self._is_closed = True
                await self._close()

    async def _close(self) -> None:
        await self._log.close()
        await self._reader.close()
        await self._writer.close()

    @asynccontextmanager
    async def transaction(
        self, *, urgent: bool = False, anywhere: bool = False
    ) -> AsyncIterator[SqliteTransaction]:
        """See `api.Store.transaction`. Once the block has ended, a cancellation waits for the commit.

        The turn ends with the commit, and memory has followed it by then: the next writer does not wait for
        this one's fsync.
        """
        with self.errors.counting():
            async with self._in_turn(urgent=urgent) as transaction:
                yield transaction
            await to_the_end(transaction.covered)

    @asynccontextmanager
    async def _in_turn(self, *, urgent: bool) -> AsyncIterator[SqliteTransaction]:
        async with self._turns.next(urgent=urgent):
            try:
                transaction = await to_the_end(self._begin())
                yield transaction
                await to_the_end(self._commit(transaction))
            except BaseException:
                await to_the_end(self._roll_back())
                raise

    async def _commit(self, transaction: SqliteTransaction) -> None:
        """Commit, and let memory follow. An error of COMMIT may hide that it was done: then it was."""
        self._commits += 1
        mark = f"{self.epoch}.{self._commits}".encode()
        transaction.set_meta(COMMIT, mark)
        try:
            await transaction.commit()
        except StoreError:
            self._in_doubt = mark, transaction
            await self._roll_back()
            if await self.meta(COMMIT) != mark:
                self._in_doubt = None
                raise
        self._in_doubt = None
        self._follow(transaction)

    def _settle_doubt(self, found: bytes | None) -> None:
        """Learn what became of a commit after which nothing could be read. found: the store's mark."""
        if self._in_doubt is not None:
            (mark, transaction), self._in_doubt = self._in_doubt, None
            if found == mark:
                self._follow(transaction)

    def _follow(self, transaction: SqliteTransaction) -> None:
        """Let memory follow a commit."""
        transaction.covered = self._log.covered()
        self._known_tokens.follow(transaction.tokens)
        transaction.follow()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """See `api.Store.turn`."""
        async with self._turns.lock:
            yield

    async def know(self) -> None:
        """See `api.Store.know`. Nobody else writes."""

    async def refresh(self) -> None:
        """See `api.Store.refresh`. Nobody else writes."""

    async def raise_epoch(self) -> int:
        """See `api.Store.raise_epoch`."""
        async with self._turns.lock:
            try:
                self.epoch = await to_the_end(self._raise_epoch())
                self._known_tokens.forget()
            except BaseException:
                await to_the_end(self._roll_back())
                raise
            covered = self._log.covered()
        await to_the_end(covered)
        return self.epoch

    def now(self) -> datetime:
        """See `api.Store.now`. Nobody else's clock counts."""
        return datetime.now(UTC)

    async def claim(self, holder: str, name: str) -> None:
        """See `api.Store.claim`. The lock beside the file has said it."""

    async def hold(self) -> None:
        """See `api.Store.hold`. The lock is held until this process ends."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """See `api.Store.release`. The lock goes with the process."""

    @property
    def revision(self) -> int:
        """See `api.Store.revision`. Of this process alone: nobody else writes."""
        return self._commits

    async def changes(self, since: int) -> Changes:
        """See `api.Store.changes`. Nobody else's: what this process has changed it has in memory."""
        return Changes(Position(0, self._commits, ""), ())

    def on_change(self, callback: Callable[[int], object]) -> None:
        """See `api.Store.on_change`. Nobody else writes."""

    async def beat(self, node: NodeRecord) -> None:
        """See `api.Store.beat`. Once is enough: nobody else looks."""
        self._node = node

    async def leave(self, node_id: str) -> None:
        """See `api.Store.leave`."""
        self._node = None

    async def put_served(self, records: Sequence[ServedRecord]) -> None:
        """See `api.Store.put_served`. Nobody follows."""

    async def served(self, known: Iterable[ServedRecord]) -> list[ServedRecord]:
        """See `api.Store.served`. Nobody follows."""
        return []

    async def drop_served(self) -> None:
        """See `api.Store.drop_served`."""

    async def nodes(self) -> list[NodeState]:
        """See `api.Store.nodes`. This one alone."""
        if self._node is None:
            return []
        fields = {name: getattr(self._node, name) for name in NodeRecord.__struct_fields__}
        fields["applied_revision"] = self.revision
        seen = datetime.now(UTC)
        return [
            NodeState(
                **fields,
                wanted_revision=self.revision,
                last_seen=seen,
                is_leader=True,
                is_silent=False,
                is_isolated=False,
            )
        ]

    @property
    def lease(self) -> Lease:
        """See `api.Store.lease`. A file has nobody else."""
        return Lease(0.0, is_ours=True)

    async def settle(self, vacant_s: float) -> None:
        """See `api.Store.settle`."""

    async def token_by_hash(self, digest: str) -> TokenRecord | None:
        """See `api.Store.token_by_hash`. From memory: this process alone writes tokens."""
        return await self._known_tokens.by_hash(digest)

    async def reread_tokens(self) -> None:
        """See `api.Store.reread_tokens`. This process alone writes them."""

    async def is_current(self) -> bool:
        """See `api.Store.is_current`."""
        return await self.meta("epoch") == str(self.epoch).encode()

    async def verify_audit(self) -> AuditReport:
        """See `api.Store.verify_audit`. Uses a connection of its own: the walk may take a while."""
        with named(self.path):
            connection = await _connect(self.path)
            try:
                return await verified(connection)
            finally:
                await connection.close()

    async def damage(self) -> str:
        """See `api.Store.damage`."""
        return await damage(self.path)

    async def place(self) -> Place:
        """See `api.Store.place`."""
        found = identity(self.path)
        return "kept" if found == self._identity else "gone" if found is None else "replaced"

    async def put_back(self) -> None:
        """See `api.Store.put_back`."""
        async with self._turns.next():
            if await self.place() == "gone":
                await to_the_end(self._put_back())

    async def _put_back(self) -> None:
        draft = self.path.with_name(self.path.name + ".new")
        await self._roll_back()
        with named(self.path):
            await copy(self._writer, draft)
            self._is_standing.clear()
            try:
                # Closed before the new one stands: the last to close a file removes the log at its path.
                await self._close()
                remove_log(self.path)
                draft.replace(self.path)
                self._writer, self._reader, self._log = await _connections(self.path, self.errors)
                self._identity = identity(self.path)
            finally:
                self._is_standing.set()

    async def rows(self, query: str, *parameters: object) -> list[Any]:
        """See `Reads.rows`."""
        await self._is_standing.wait()
        with self.errors.counting(), named(self.path):
            return list(await self._reader.execute_fetchall(query, parameters))

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[Rows]:
        """Return what reads as of one moment, for the block; over a connection of its own."""
        with named(self.path):
            connection = await _connect(self.path)
        try:
            await connection.execute("BEGIN")
            yield partial(_fetch, self.path, connection)
        finally:
            await connection.close()

    async def backup(self, target: Path) -> None:
        """See `api.Store.backup`."""
        with named(self.path):
            connection = await _connect(self.path)
            try:
                await copy(connection, target)
            finally:
                await connection.close()

    async def prune(self, now: datetime, keep: Retention = DEFAULT_RETENTION) -> dict[str, int]:
        """See `api.Store.prune`."""
        return await pruning.prune(self, now, keep)

    async def _begin(self) -> SqliteTransaction:
        with named(self.path):
            row = await at_once(self._writer, partial(begin, query=_BEGINNING))
        epoch, event, decision, audit_id, audit_hash, mark, needed = row
        self._settle_doubt(mark)
        if _number(epoch) != self.epoch:
            raise StaleEpoch(
                f"{self.path}: epoch {_number(epoch)} has begun, this process writes in {self.epoch}"
            )
        refuse_later(needed, self.label)
        tail = Tail(audit_id or 0, audit_hash or GENESIS)
        counters = Counters(event or 0, decision or 0, tail)
        return SqliteTransaction(self.path, self._writer, counters, self.on_event)

    async def _raise_epoch(self) -> int:
        with named(self.path):
            await self._writer.execute("BEGIN IMMEDIATE")
            row = await self._writer.execute_fetchall(_BEGINNING)
            found, *_, needed = next(iter(row))
            refuse_later(needed, self.label)
            epoch = _number(found) + 1
            await self._writer.execute(PUT_META, ("epoch", str(epoch).encode()))
            await self._writer.execute("COMMIT")
        return epoch

    async def _roll_back(self) -> None:
        if self._writer.in_transaction:
            with named(self.path):
                await self._writer.rollback()


async def _fetch(path: Path, connection: aiosqlite.Connection, query: str, *parameters: object) -> list[Any]:
    with named(path):
        return list(await connection.execute_fetchall(query, parameters))


def path_of(url: str) -> Path:
    """Return the file that `url` names. Raises StoreError for anything but `sqlite:///path`."""
    scheme, found, path = url.partition(":///")
    if scheme != "sqlite" or not found or not path or "\0" in path:
        raise StoreError(f"{url!r}: not a store url (sqlite:///relative/path or sqlite:////absolute/path)")
    return Path(path)


def _make(path: Path) -> None:
    """Make the folders and an empty file only we may read: it will hold secrets."""
    if path.is_dir():
        raise IsADirectoryError("is a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


async def _connect(path: Path) -> aiosqlite.Connection:
    # By a mode that makes no file: an empty one in the place of a deleted store would be taken for it.
    connection = await aiosqlite.connect(existing(path), uri=True, isolation_level=None, timeout=OPENING_S)
    try:
        (mode,) = await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        if mode[0] != "wal":
            raise sqlite3.OperationalError("this file system cannot hold a write-ahead log")
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _connections(
    path: Path, errors: ErrorCounts
) -> tuple[aiosqlite.Connection, aiosqlite.Connection, LogSync]:
    """Return a writer, a reader, and what brings to the disk what the writer has committed."""
    made: list[aiosqlite.Connection] = []
    try:
        for _ in range(3):
            made.append(await _connect(path))
            # It answers: a row left unread is a statement in progress, and no copy can be made beside one.
            await made[-1].execute_fetchall(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")
        writer, reader, syncer = made
        await writer.execute("PRAGMA synchronous = NORMAL")  # `LogSync` does the rest
        await reader.execute("PRAGMA query_only = ON")
        return writer, reader, LogSync.open(path, syncer, errors)
    except BaseException:
        for connection in made:
            await connection.close()
        raise


def _number(value: bytes | str) -> int:
    return int(value)
