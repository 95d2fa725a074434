"""Which gateways share a database: a row each, with the database's clock, renewed while it lives.

The session that renews it also listens: it hears of each commit at once, and a session that broke, or a
server that has gone silent, is found out by the next beat.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.store.migrations import SCHEMA
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.dialect import ADMITS, CHANGES, CHANNEL, LEASE, NODES, placed
from gateway.store.postgres.faults import named
from gateway.store.postgres.server import Server
from gateway.store.postgres.session import KeptSession, hurry_commits
from gateway.store.records import NodeRecord, NodeState

SILENT_S: Final = 3.0
"""After so long without a word a gateway counts as silent."""

DRAINS_SAID_FROM: Final = 10
"""The schema of the first release that says what drains; one before it leaves there what a later one said."""
MARKED_FROM: Final = 11
"""The schema of the first release that marks its schema as its own: with the time of its beat."""

_BEAT: Final = placed(f"""
    INSERT INTO {NODES} (
        id, name, release, listen, admin, applied_revision, isolated_at, draining,
        seen_at, schema_number, schema_at
    )
    SELECT
        ?::text, ?::text, ?::text, ?::text, ?::text, ?::bigint,
        clock_timestamp() + make_interval(secs => ?::float8), ?::text,
        statement_timestamp(), {SCHEMA}, statement_timestamp()
    WHERE {ADMITS}
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name,
        release = excluded.release,
        listen = excluded.listen,
        admin = excluded.admin,
        applied_revision = excluded.applied_revision,
        isolated_at = excluded.isolated_at,
        draining = excluded.draining,
        seen_at = excluded.seen_at,
        schema_number = excluded.schema_number,
        schema_at = excluded.schema_at
    RETURNING true
""")
_SCHEMA: Final = f"""
    CASE WHEN node.schema_number < {MARKED_FROM} OR node.schema_at = node.seen_at
        THEN node.schema_number ELSE 0 END
"""
"""What a node's release knows of: one from before there was this leaves there what a later one has said."""
_LEAVE: Final = placed(f"DELETE FROM {NODES} WHERE id = ?")
SEEN: Final = f"""
    SELECT
        node.id, node.name, node.release, node.listen, node.admin, node.applied_revision, node.seen_at,
        node.seen_at < clock_timestamp() - interval '{SILENT_S} seconds',
        coalesce(node.isolated_at <= clock_timestamp(), false),
        EXISTS (SELECT 1 FROM {LEASE} WHERE holder = node.id AND lapses_at > clock_timestamp()),
        (SELECT max(revision) FROM {CHANGES}),
        CASE WHEN {_SCHEMA} >= {DRAINS_SAID_FROM} THEN node.draining END
    FROM {NODES} AS node ORDER BY node.name, node.id
"""


OLDER: Final = f"""
    SELECT node.name FROM {NODES} AS node
    WHERE coalesce({_SCHEMA}, 0) < $1
        AND node.seen_at >= clock_timestamp() - interval '{SILENT_S} seconds'
    UNION
    SELECT lease.name FROM {LEASE} AS lease
    WHERE lease.lapses_at > clock_timestamp()
        AND NOT EXISTS (SELECT 1 FROM {NODES} AS node WHERE node.id = lease.holder AND {_SCHEMA} >= $1)
    ORDER BY name
"""
"""Those that live and know of no schema as new as that; the first releases have a lease, and no row."""


class Members:
    """The rows, as one gateway deals with them."""

    def __init__(self, server: Server) -> None:
        self._label = server.label
        self._session = KeptSession(server, self._listen)
        self.on_notify: Callable[[int], object] = lambda revision: None
        """Called with the revision when somebody has committed; with 0 when somebody may have: after the
        session was made anew.
        """

    async def beat(self, node: NodeRecord) -> None:
        """Say that this gateway lives. Raises StoreError; StaleEpoch: its release is not to any more."""
        listen = msgspec.json.encode(node.listen).decode()
        fields = (node.id, node.name, node.release, listen, node.admin, node.applied_revision)
        left_s = None if node.isolated_in_s is None else max(node.isolated_in_s, 0.0)
        draining = None if node.draining is None else msgspec.json.encode(node.draining).decode()
        with named(self._label):
            await self._session.write(_BEAT, *fields, left_s, draining)

    async def leave(self, node_id: str) -> None:
        """Say that it has ended, in order. Raises StoreError."""
        with named(self._label):
            await self._session.fetch(_LEAVE, node_id)

    async def close(self) -> None:
        """End the session; the row stays."""
        self._session.close()

    async def _listen(self, connection: Connection) -> None:
        await hurry_commits(connection)
        await connection.add_listener(CHANNEL, lambda *heard: self.on_notify(_revision_in(heard[-1])))
        self.on_notify(0)


def _revision_in(text: str) -> int:
    """Return the revision a commit has said; 0: somebody else has spoken on the channel."""
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def node_of(row: Any) -> NodeState:
    """Return what a row of SEEN says."""
    node_id, name, release, listen, admin, applied, seen_at, is_silent, is_isolated, *more = row
    is_leader, newest, draining = more
    return NodeState(
        id=node_id,
        name=name,
        release=release,
        listen=msgspec.json.decode(listen, type=tuple[str, ...]),
        admin=admin,
        applied_revision=applied,
        wanted_revision=newest,
        last_seen=seen_at,
        is_leader=is_leader,
        is_silent=is_silent,
        is_isolated=is_isolated,
        draining=None if draining is None else msgspec.json.decode(draining, type=tuple[str, ...]),
    )
