"""One write transaction on PostgreSQL."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from gateway.errors import StoreError
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import CHANGES, CHANNEL, NODES, SEQUENCES, placed
from gateway.store.postgres.faults import named
from gateway.store.records import (
    EVENTS,
    EVERYTHING,
    NODE,
    OF_SERVICE,
    SETTINGS,
    AuditEntry,
    DecisionRecord,
    DeploymentRecord,
    EventRecord,
    ServiceRecord,
    TokenRecord,
    VersionRecord,
)
from gateway.store.tables import Table
from gateway.store.transaction import COMMIT, Collected, Counters, numbers_of

_MARK: Final = f"""
    INSERT INTO gateway_meta (key, value) VALUES ('{COMMIT}', '\\x{{}}')
    ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""
_COUNT: Final = f"""
    INSERT INTO {SEQUENCES} (name, seq) VALUES ('{{}}', {{}})
    ON CONFLICT (name) DO UPDATE SET seq = excluded.seq
"""
"""Filled in with names of tables, numbers and hexadecimal digits of our own: several statements in one
message take no parameters."""
_LOG: Final = f"""
    INSERT INTO {CHANGES} (revision, follows, mark, topics, at)
    VALUES ({{0}}, '{{1}}', '{{2}}', convert_from('\\x{{3}}', 'UTF8'), clock_timestamp());
    SELECT pg_notify('{CHANNEL}', '{{0}}')
"""
BEGIN: Final = "BEGIN; SELECT 1 FROM gateway_meta WHERE key = 'epoch' FOR UPDATE"
"""Whoever holds the epoch's row writes; all others wait, as long as their `lock_timeout` lets them."""
BEGINNING: Final = f"""
    SELECT
        (SELECT value FROM gateway_meta WHERE key = 'epoch'),
        (SELECT seq FROM {SEQUENCES} WHERE name = 'gateway_event'),
        (SELECT seq FROM {SEQUENCES} WHERE name = 'gateway_decision'),
        (SELECT seq FROM {SEQUENCES} WHERE name = 'gateway_audit'),
        (SELECT hash FROM gateway_audit ORDER BY id DESC LIMIT 1),
        (SELECT value FROM gateway_meta WHERE key = 'commit'),
        (SELECT max(revision) FROM {CHANGES}),
        (SELECT min(revision) FROM {CHANGES}),
        (SELECT mark FROM {CHANGES} WHERE revision = $1),
        (SELECT value FROM gateway_meta WHERE key = 'compatible_from'),
        clock_timestamp()
"""
"""Asked after the row is held: a statement sees what was committed when it began, not when its lock came."""


class PostgresTransaction(Collected):
    """See `api.Transaction`. The store makes it once it holds the epoch's row, and ends it."""

    def __init__(
        self,
        label: str,
        connection: Connection,
        counters: Counters,
        revision: int,
        follows: str,
        node: str,
        on_event: Callable[[], object],
    ) -> None:
        """label: what messages call the database. revision, follows: the store's before this, and the mark of
        the commit that made it. node: this gateway's name. on_event: called once after the commit if events
        were added.
        """
        super().__init__(counters, on_event)
        self.revision = revision + 1
        """The store's once this is committed."""
        self.follows = follows
        """The mark of the commit before."""
        self._node = node
        self._topics: set[str] = set()
        """What of it other gateways have in memory too."""
        self._label = label
        self._connection = connection
        self._counted = numbers_of(counters)

    def add_audit(self, entry: AuditEntry) -> int:
        """Link an entry to the audit chain: by what will be stored, not by what was said.

        Which gateway it is from stands in its details: an older release would not sign a column of its own.
        """
        if self._node:
            entry = msgspec.structs.replace(entry, details={**entry.details, NODE: self._node})
        fields = {name: storable(getattr(entry, name)) for name in entry.__struct_fields__}
        return super().add_audit(msgspec.structs.replace(entry, **fields))

    def put_service(self, record: ServiceRecord) -> None:
        self._topics.add(OF_SERVICE + record.name)
        super().put_service(record)

    def put_version(self, record: VersionRecord) -> None:
        self._topics.add(OF_SERVICE + record.service_name)
        super().put_version(record)

    def put_deployment(self, record: DeploymentRecord) -> None:
        self._topics.add(OF_SERVICE + record.service_name)
        super().put_deployment(record)

    def delete_service(self, service_id: str) -> None:
        self._topics.add(EVERYTHING)
        super().delete_service(service_id)

    def delete_version(self, version_id: str) -> None:
        self._topics.add(EVERYTHING)
        super().delete_version(version_id)

    def add_event(self, record: EventRecord) -> int:
        self._topics.add(EVENTS)
        return super().add_event(msgspec.structs.replace(record, node=self._node or None))

    def add_decision(self, record: DecisionRecord) -> int:
        """Which gateway has decided stands in the data: an older release knows of no column for it."""
        if self._node:
            record = msgspec.structs.replace(record, data={**record.data, NODE: self._node})
        return super().add_decision(record)

    def put_token(self, record: TokenRecord) -> None:
        self._topics.add(SETTINGS)
        super().put_token(record)

    def set_meta(self, key: str, value: bytes) -> None:
        self._topics.add(SETTINGS)
        super().set_meta(key, value)

    def delete_node(self, node_id: str) -> None:
        self._queue_alone(f"DELETE FROM {NODES} WHERE id = ?", (node_id,))

    def put_rows(self, table: Table[Any], rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows of another store, as they are stored there."""
        self._topics.add(EVERYTHING)
        super().put_rows(table, rows)

    async def flush(self) -> None:
        """Write what was collected so far, uncommitted."""
        batches, self._batches = self._batches, [{}]
        with named(self._label):
            for batch in batches:
                for statement, rows in batch.items():
                    await self._connection.executemany(
                        placed(statement), [tuple(map(storable, row)) for row in rows]
                    )

    async def commit(self, mark: bytes) -> None:
        """Leave the commit's mark, how far the counters have come and a row of the log, and commit: in one
        message, which tells all gateways of the revision.

        Raises StoreUnreachable if nobody can say whether it was done.
        """
        numbers = numbers_of(self._counters)
        changed = [(name, number) for name, number in numbers.items() if number != self._counted[name]]
        topics = storable(msgspec.json.encode(sorted(self._topics)).decode()).encode()
        last = "; ".join(
            [
                _MARK.format(mark.hex()),
                *(_COUNT.format(*each) for each in changed),
                _LOG.format(self.revision, self.follows, mark.decode(), topics.hex()),
                "COMMIT",
            ]
        )
        with named(self._label):
            if (done := await self._connection.execute(last)) != "COMMIT":
                raise StoreError(f"the transaction ended with {done}")

    async def execute(self, statement: str, *parameters: object) -> int:
        """Run one statement now, after what was collected. Returns how many rows it changed."""
        await self.flush()
        with named(self._label):
            done = await self._connection.execute(placed(statement), *parameters)
        return changed_by(done)

    async def query(self, statement: str, *parameters: object) -> list[Any]:
        """Return rows as this transaction sees them."""
        await self.flush()
        with named(self._label):
            return list(await self._connection.fetch(placed(statement), *parameters))


def changed_by(done: str) -> int:
    """Return how many rows a statement changed, from what the server says of it: `DELETE 3`, `INSERT 0 1`."""
    last = done.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


def storable(value: Any) -> Any:
    """Return a value as PostgreSQL can keep it: no text there holds a NUL."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
