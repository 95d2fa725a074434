"""One write transaction on PostgreSQL."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.errors import StoreError
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import SEQUENCES, placed
from gateway.store.postgres.faults import named
from gateway.store.records import AuditEntry
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


class PostgresTransaction(Collected):
    """See `api.Transaction`. The store makes it once it holds the epoch's row, and ends it."""

    def __init__(
        self, label: str, connection: Connection, counters: Counters, on_event: Callable[[], object]
    ) -> None:
        """label: what messages call the database. on_event: called once after the commit if events were
        added.
        """
        super().__init__(counters, on_event)
        self._label = label
        self._connection = connection
        self._counted = numbers_of(counters)

    def add_audit(self, entry: AuditEntry) -> int:
        """Link an entry to the audit chain: by what will be stored, not by what was said."""
        fields = {name: storable(getattr(entry, name)) for name in entry.__struct_fields__}
        return super().add_audit(msgspec.structs.replace(entry, **fields))

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
        """Leave the commit's mark and how far the counters have come, and commit: in one message.

        Raises StoreUnreachable if nobody can say whether it was done.
        """
        numbers = numbers_of(self._counters)
        changed = [(name, number) for name, number in numbers.items() if number != self._counted[name]]
        last = "; ".join([_MARK.format(mark.hex()), *(_COUNT.format(*each) for each in changed), "COMMIT"])
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
