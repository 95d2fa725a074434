"""What gateways that follow have served of open rollouts: a row for each of their processes, said anew each
second, outside the log of changes.

Its session is its own, so that a large row holds up neither the beat nor the lease.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.store.postgres.dialect import ADMITS, SERVED, placed
from gateway.store.postgres.faults import named
from gateway.store.postgres.server import Server
from gateway.store.postgres.session import KeptSession, hurry_commits
from gateway.store.records import OPEN_STATUSES, ServedRecord

_PUT: Final = placed(f"""
    INSERT INTO {SERVED} (deployment_id, run, node, serial, data)
    SELECT * FROM unnest(?::text[], ?::text[], ?::text[], ?::bigint[], ?::bytea[]) WHERE {ADMITS}
    ON CONFLICT (deployment_id, run) DO UPDATE SET serial = excluded.serial, data = excluded.data
    RETURNING true
""")
_NEWS: Final = placed(f"""
    SELECT said.deployment_id, said.run, said.node, said.serial, said.data
    FROM {SERVED} AS said
    LEFT JOIN unnest(?::text[], ?::text[], ?::bigint[]) AS known (deployment_id, run, serial)
        ON known.deployment_id = said.deployment_id AND known.run = said.run
    WHERE known.serial IS DISTINCT FROM said.serial
    ORDER BY said.rowid
""")
"""By what is known and not by a clock: none is asked, and a failover may take rows back. In the order in
which the processes first said something, whatever clock each of them goes by.
"""
_DROP: Final = placed(f"""
    DELETE FROM {SERVED} AS said WHERE {ADMITS} AND (said.node = ? OR NOT EXISTS (
        SELECT 1 FROM gateway_deployment AS deployment
        WHERE deployment.id = said.deployment_id
        AND deployment.status IN ({", ".join(map(repr, OPEN_STATUSES))})
    ))
""")


class Served:
    """The rows, as one gateway deals with them."""

    def __init__(self, server: Server) -> None:
        self._label = server.label
        self._session = KeptSession(server, hurry_commits)

    async def put(self, records: Sequence[ServedRecord]) -> None:
        """See `api.Store.put_served`."""
        if not records:
            return
        rows = [(row.deployment_id, row.run, row.node, row.serial, row.data) for row in records]
        with named(self._label):
            await self._session.write(_PUT, *map(list, zip(*rows, strict=True)))

    async def news(self, known: Iterable[ServedRecord]) -> list[ServedRecord]:
        """See `api.Store.served`."""
        rows = list(known)
        columns = [row.deployment_id for row in rows], [row.run for row in rows], [row.serial for row in rows]
        with named(self._label):
            found = await self._session.fetch(_NEWS, *columns)
        return [
            ServedRecord(deployment_id=deployment_id, run=run, node=node, serial=serial, data=bytes(data))
            for deployment_id, run, node, serial, data in found
        ]

    async def drop(self, node: str) -> None:
        """See `api.Store.drop_served`. node: who is in charge."""
        with named(self._label):
            await self._session.fetch(_DROP, node)

    async def close(self) -> None:
        """End the session; the rows stay."""
        self._session.close()
