"""The store in a PostgreSQL database: the same rows, one writer, readers that never wait for it."""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from gateway.core.rollout.isolation import Lease as FoundLease
from gateway.errors import NotInCharge, StaleEpoch, StoreBusy, StoreError, StoreSetBack, StoreUnreachable
from gateway.store import copying
from gateway.store import prune as pruning
from gateway.store.api import Place
from gateway.store.audit import GENESIS, Tail, Walk
from gateway.store.faults import ErrorCounts
from gateway.store.known_tokens import KnownTokens
from gateway.store.migrations import refuse_later
from gateway.store.postgres.changes import SINCE, TIME, forget_old, found_in, is_lost
from gateway.store.postgres.clock import DatabaseClock
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import CHANGES, NEEDED, SEQUENCES, placed
from gateway.store.postgres.faults import named
from gateway.store.postgres.lease import Lease
from gateway.store.postgres.members import SEEN, Members, node_of
from gateway.store.postgres.migrating import migrate
from gateway.store.postgres.readers import PAGE, Readers
from gateway.store.postgres.served import Served
from gateway.store.postgres.server import FREE, Server
from gateway.store.postgres.transaction import BEGIN, BEGINNING, PostgresTransaction
from gateway.store.reads import Reads, Rows, catalog_of
from gateway.store.records import (
    DEFAULT_RETENTION,
    AuditReport,
    CatalogRows,
    Changes,
    NodeRecord,
    NodeState,
    Position,
    Retention,
    ServedRecord,
    TokenRecord,
)
from gateway.store.sqlite import SqliteStore
from gateway.store.tables import AUDIT
from gateway.store.transaction import PUT_META, Counters
from gateway.store.turns import Turns, to_the_end


class PostgresStore(Reads):
    """See `api.Store`."""

    SEQUENCES = SEQUENCES
    is_shared = True
    """See `api.Store.is_shared`."""

    def __init__(
        self, server: Server, writer: Connection, epoch: int, gateway_id: bytes, clock: DatabaseClock
    ) -> None:
        """Called by `open`."""
        self.label = server.label
        self.epoch = epoch
        self._was_anothers = False
        """Whether whoever had the lease before us can still write."""
        self._committed = 0
        """What our last commit made of the revision."""
        self.follows = False
        """See `api.Store.follows`."""
        self.node = ""
        """See `api.Store.node`."""
        self.known: Position | None = None
        """See `api.Store.known`."""
        self.catch_up: Callable[[], Awaitable[object]] | None = None
        """See `api.Store.catch_up`."""
        self.on_event: Callable[[], object] = lambda: None
        """See `api.Store.on_event`."""
        self.errors = ErrorCounts()
        """What has failed since the start."""
        self._clock = clock
        self._server = server
        self._gateway_id = gateway_id
        self._writer: Connection | None = writer
        self._readers = Readers(server)
        self._lease = Lease(server)
        self._members = Members(server)
        self._served = Served(server)
        self._turns = Turns(server.label)
        self._known_tokens = KnownTokens(self.tokens)
        self._run = secrets.token_hex(4)
        """Tells our commits from those of another process in the same epoch."""
        self._commits = 0
        self._newest: tuple[int, str] | None = None
        """Revision and mark of our last commit; None: we have made none."""
        self._set_back = ""
        """How we know that the database has lost some of them; empty: it has not, as far as we know."""
        self._in_doubt: tuple[str, PostgresTransaction] | None = None
        """Mark and transaction of a commit whose answer never came, and nothing could be asked since."""

    @classmethod
    async def open(cls, server: Server, *, now: datetime) -> Self:
        """Open, and bring up to this release's schema, the store there; it begins empty in a new database.

        now: stamps the migrations. Raises StoreUnreachable: there is no such server now, or it cannot write;
        StoreError with the reason. Nothing was changed then.
        """
        writer = await server.connect()
        try:
            with named(server.label):
                await migrate(writer, now)
                rows = await writer.fetch(
                    "SELECT value FROM gateway_meta WHERE key IN ('epoch', 'gateway_id') ORDER BY key"
                )
                asked_at = time.monotonic()
                clock = DatabaseClock(await writer.fetchval("SELECT clock_timestamp()"), asked_at)
        except BaseException:
            writer.terminate()
            raise
        (epoch,), (gateway_id,) = rows
        return cls(server, writer, int(epoch), gateway_id, clock)

    async def close(self) -> None:
        """Wait for the writer's turn to end, and end every session."""
        async with self._turns.lock:
            self._drop_writer()
            await self._readers.close()
            await self._lease.close()
            await self._members.close()
            await self._served.close()

    @property
    def revision(self) -> int:
        """See `api.Store.revision`."""
        return self.known.revision if self.known is not None else self._committed

    def now(self) -> datetime:
        """See `api.Store.now`."""
        return self._clock.now()

    # -- being in charge

    async def claim(self, holder: str, name: str) -> None:
        """See `api.Store.claim`. Whoever was in charge before cannot write any more when this returns."""
        # Who followed until now may not know the epoch in which its own predecessor was in charge.
        self._was_anothers |= await self._lease.claim(holder, name) or self.follows
        if self._was_anothers:  # also if that failed the last time, when the lease was ours already
            await self.raise_epoch()
            self._was_anothers = False
        self.follows = False

    async def hold(self) -> None:
        """See `api.Store.hold`."""
        await self._lease.hold(self._refuse_set_back)

    @property
    def lease(self) -> FoundLease:
        """See `api.Store.lease`."""
        return self._lease.found

    async def settle(self, vacant_s: float) -> None:
        """See `api.Store.settle`."""
        await self._lease.settle(vacant_s)

    async def release(self) -> None:
        """See `api.Store.release`."""
        await self._lease.release()

    # -- other gateways

    async def beat(self, node: NodeRecord) -> None:
        """See `api.Store.beat`."""
        await self._members.beat(node)

    async def leave(self, node_id: str) -> None:
        """See `api.Store.leave`."""
        await self._members.leave(node_id)

    async def nodes(self) -> list[NodeState]:
        """See `api.Store.nodes`."""
        return [node_of(row) for row in await self.rows(SEEN)]

    async def put_served(self, records: Sequence[ServedRecord]) -> None:
        """See `api.Store.put_served`."""
        await self._served.put(records)

    async def served(self, known: Iterable[ServedRecord]) -> list[ServedRecord]:
        """See `api.Store.served`."""
        return await self._served.news(known)

    async def drop_served(self) -> None:
        """See `api.Store.drop_served`."""
        await self._served.drop(self._lease.holder)

    def on_change(self, callback: Callable[[int], object]) -> None:
        """See `api.Store.on_change`."""
        self._members.on_notify = callback

    async def changes(self, since: int) -> Changes:
        """See `api.Store.changes`."""
        asked_at = time.monotonic()
        rows = await self.rows(SINCE, since)
        self._clock.hear(rows[0][TIME], asked_at)
        return found_in(rows, asked_at, self._lease.holder)

    async def know(self) -> None:
        """See `api.Store.know`."""
        self.known = (await self.changes(0)).at

    async def refresh(self) -> None:
        """See `api.Store.refresh`."""
        if self.catch_up is not None:
            async with self.turn():
                if self._in_doubt is not None:
                    await to_the_end(self._is_settled())
                await to_the_end(self.catch_up())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """See `api.Store.turn`."""
        async with self._turns.lock:
            yield

    async def raise_epoch(self) -> int:
        """See `api.Store.raise_epoch`."""
        async with self._turns.lock:
            async with self._ending():
                self.epoch = await to_the_end(self._raise_epoch())
            self._known_tokens.forget()
            self._newest = None  # another process may have committed since
        await self.token_by_hash("")  # now: who may order a rollback must be known when the database is away
        return self.epoch

    async def _raise_epoch(self) -> int:
        connection = await self._locked(2)
        with named(self.label):
            refuse_later(await connection.fetchval(NEEDED), self.label)
            if not await self._lease.is_ours(connection):
                raise StaleEpoch("another gateway has taken over")
            epoch = int(await connection.fetchval("SELECT value FROM gateway_meta WHERE key = 'epoch'")) + 1
            await connection.execute(placed(PUT_META), "epoch", str(epoch).encode())
            await connection.execute("COMMIT")
        return epoch

    async def is_current(self) -> bool:
        """See `api.Store.is_current`."""
        return await self.meta("epoch") == str(self.epoch).encode()

    # -- writing

    @asynccontextmanager
    async def transaction(
        self, *, urgent: bool = False, anywhere: bool = False
    ) -> AsyncIterator[PostgresTransaction]:
        """See `api.Store.transaction`. Once the block has ended, a cancellation waits for the commit."""
        if self.follows and not anywhere:
            raise NotInCharge(f"{self.label}: this gateway follows another one, which alone writes this")
        with self.errors.counting():
            async with self._turns.next(urgent=urgent), self._ending():
                transaction = await to_the_end(self._begin(tries=2 if anywhere else 1))
                yield transaction
                await to_the_end(self._commit(transaction))

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Leave no transaction behind, and no connection that may be broken, whatever the block raises."""
        try:
            yield
        except BaseException as exc:
            await to_the_end(self._roll_back(is_broken=isinstance(exc, StoreUnreachable)))
            raise

    async def _begin(self, *, tries: int) -> PostgresTransaction:
        """Begin, and have in memory what is stored: until the transaction ends nobody else changes it.

        tries: how often to wait for whoever holds the epoch's row.
        """
        connection = await self._locked(tries)
        with named(self.label):
            await self._settle_doubt(connection)
            asked_at = time.monotonic()
            row = await connection.fetchrow(BEGINNING, self._newest[0] if self._newest is not None else -1)
        assert row is not None, "a SELECT without FROM has a row"
        epoch, event, decision, audit_id, audit_hash, mark, revision, oldest, ours, needed, said = row
        self._clock.hear(said, asked_at)
        refuse_later(needed, self.label, follows=self.follows)
        commit = bytes(mark or b"").decode()
        if self.follows:
            self.epoch = int(epoch)
        elif int(epoch) > self.epoch:
            raise StaleEpoch(f"epoch {int(epoch)} has begun, this process writes in {self.epoch}")
        elif int(epoch) < self.epoch or is_lost(self._newest, ours, oldest or 0):
            self._set_back = f"epoch {int(epoch)}, commit {commit}"
        self._refuse_set_back()
        known = self.known
        is_behind = known is not None and (known.revision, known.commit) != (revision, commit)
        if is_behind and self.catch_up is not None:
            await self.catch_up()
        tail = Tail(audit_id or 0, audit_hash or GENESIS)
        counters = Counters(event or 0, decision or 0, tail)
        return PostgresTransaction(
            self.label, connection, counters, revision or 0, commit, self.node, self.on_event
        )

    async def _locked(self, tries: int) -> Connection:
        """Return the writer, in a transaction that holds the epoch's row. Raises StoreError.

        Whoever is frozen with the row in its hands loses it when a wait for it ends: for the next who asks.
        """
        with named(self.label):
            connection = await self._connected()
        for tries_left in range(tries - 1, -1, -1):
            try:
                with named(self.label):
                    await connection.execute(BEGIN)
                    break
            except StoreBusy:
                with named(self.label):
                    await connection.execute("ROLLBACK")
                    await connection.execute(FREE)
                if not tries_left:
                    raise
        return connection

    async def _commit(self, transaction: PostgresTransaction) -> None:
        """Commit, and let memory follow. A COMMIT that was not answered may have been done: that is asked."""
        self._commits += 1
        mark = f"{self.epoch}.{self._run}.{self._commits}"
        await transaction.flush()
        try:
            await transaction.commit(mark.encode())
        except StoreUnreachable:
            self._in_doubt = mark, transaction
            if not await self._is_settled():
                raise
        else:
            self._follow(transaction, mark)

    async def _is_settled(self) -> bool:
        """Return whether the commit in doubt was done, once no transaction of ours can still be ending.

        A server that was frozen, or cut off, may carry out a COMMIT long after we gave up: as long as it has
        not, it holds the epoch's row. Raises StoreError if that takes too long: nobody knows yet.
        """
        self._drop_writer()
        connection = await self._locked(1)
        with named(self.label):
            was_done = await self._settle_doubt(connection)
            await connection.execute("ROLLBACK")
        return was_done

    async def _settle_doubt(self, connection: Connection) -> bool:
        """Learn what became of a commit that was not answered, and let memory follow if it was done.

        connection: holds the epoch's row. Returns whether there was one and it was done.
        """
        if self._in_doubt is None:
            return False
        mark, transaction = self._in_doubt
        query = f"SELECT mark FROM {CHANGES} WHERE revision = $1"
        found = await connection.fetchval(query, transaction.revision)
        self._in_doubt = None
        if found == mark:
            self._follow(transaction, mark)
        return bool(found == mark)

    def _refuse_set_back(self) -> None:
        """Raise StoreSetBack if the database has lost commits: a failover to a member that lagged behind.

        What memory has followed is not there any more: only a new start goes by what is stored.
        """
        if self._set_back:
            raise StoreSetBack(
                f"{self.label}: it has gone back to {self._set_back}: what was committed later is lost"
            )

    def _follow(self, transaction: PostgresTransaction, mark: str) -> None:
        self._newest, self._committed = (transaction.revision, mark), transaction.revision
        known = self.known
        if known is not None and (known.revision + 1, known.commit) == (
            transaction.revision,
            transaction.follows,
        ):
            self.known = Position(known.timeline, transaction.revision, mark)
        self._known_tokens.follow(transaction.tokens)
        transaction.follow()

    async def _roll_back(self, *, is_broken: bool) -> None:
        connection = self._writer
        if connection is None:
            return
        if is_broken or connection.is_closed():
            self._drop_writer()
        elif connection.is_in_transaction():
            try:
                with named(self.label):
                    await connection.execute("ROLLBACK")
            except StoreError:
                self._drop_writer()

    async def _connected(self) -> Connection:
        if self._writer is None or self._writer.is_closed():
            self._writer = None
            self._writer = await self._server.connect()
        return self._writer

    def _drop_writer(self) -> None:
        """End the session: the server ends its transaction, if it has one."""
        if self._writer is not None:
            self._writer.terminate()
            self._writer = None

    # -- reading

    async def rows(self, query: str, *parameters: object) -> list[Any]:
        """See `Reads.rows`."""
        with self.errors.counting():
            return await self._readers.rows(query, *parameters)

    async def token_by_hash(self, digest: str) -> TokenRecord | None:
        """See `api.Store.token_by_hash`. From memory, which follows what others write."""
        return await self._known_tokens.by_hash(digest)

    async def reread_tokens(self) -> None:
        """See `api.Store.reread_tokens`."""
        await self._known_tokens.reread()

    async def load_catalog(self, names: Collection[str] | None = None) -> CatalogRows:
        """See `api.Store.load_catalog`."""
        async with self.standing_still() as rows:
            return await catalog_of(rows, names)

    # -- the whole

    async def verify_audit(self) -> AuditReport:
        """See `api.Store.verify_audit`."""
        walk = Walk()
        async with self._readers.standing_still() as connection:
            rows = await connection.fetch(f"SELECT seq FROM {SEQUENCES} WHERE name = $1", AUDIT.name)
            page = await connection.fetch(f"{AUDIT.select} ORDER BY id LIMIT {PAGE}")
            while page and all(walk.step(row) for row in page):
                query = f"{AUDIT.select} WHERE id > $1 ORDER BY id LIMIT {PAGE}"
                page = await connection.fetch(query, walk.tail.id)
        return walk.report(max((row[0] for row in rows), default=0))

    async def damage(self) -> str:
        """See `api.Store.damage`. What the server's own checksums have found, where it keeps any."""
        rows = await self.rows(
            "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()"
        )
        found = max((row[0] or 0 for row in rows), default=0)
        return f"{self.label}: {found} pages whose checksum is wrong" if found else ""

    async def place(self) -> Place:
        """See `api.Store.place`."""
        tables = await self.rows("SELECT to_regclass('gateway_meta') IS NOT NULL")
        if not tables[0][0]:
            return "gone"
        return "kept" if await self.meta("gateway_id") == self._gateway_id else "replaced"

    async def put_back(self) -> None:
        """See `api.Store.put_back`."""
        raise StoreError(f"{self.label}: its tables are gone: restore the database from a backup")

    async def backup(self, target: Path) -> None:
        """See `api.Store.backup`. `gateway store copy` puts it into a database again."""
        with named(self.label):
            file = await SqliteStore.open(f"sqlite:///{target}", now=datetime.now(UTC))
            try:
                await copying.copy(self, file)
            finally:
                await file.close()

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[Rows]:
        """Return what reads as of one moment, for the block."""
        async with self._readers.standing_still() as connection:

            async def rows(query: str, *parameters: object) -> Sequence[Any]:
                with named(self.label):
                    return await connection.fetch(placed(query), *parameters)

            yield rows

    async def prune(self, now: datetime, keep: Retention = DEFAULT_RETENTION) -> dict[str, int]:
        """See `api.Store.prune`."""
        deleted = await pruning.prune(self, now, keep)
        if old := await forget_old(self):
            deleted[CHANGES] = old
        return deleted
