"""The room's statements in PostgreSQL: places for parameters, types of columns, and what is only there."""

import itertools
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from gateway.store.migrations import BOOKKEEPING, MIGRATIONS, SCHEMA, Migration
from gateway.store.tables import APPROVALS, DECISIONS, EVENTS, SMOKE_RESULTS, STATISTICS, WINDOWS

SEQUENCES: Final = "gateway_sequence"
"""Keeps the last id given out of each table that counts; rolled back with the transaction that counted."""
LEASE: Final = "gateway_lease"
CHANGES: Final = "gateway_change"
NODES: Final = "gateway_node"
SERVED: Final = "gateway_served"
CHANNEL: Final = "gateway"
"""Where each commit says its revision."""

NEEDED: Final = "SELECT value FROM gateway_meta WHERE key = 'compatible_from'"
"""The oldest schema whose release may use the database."""
ADMITS: Final = f"coalesce(convert_from(({NEEDED}), 'UTF8')::bigint, 0) <= {SCHEMA}"
"""Whether this release may: what is written beside the transactions asks it as it writes."""

_WORDS: Final = (
    ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT PRIMARY KEY"),
    ("INTEGER", "BIGINT"),
    ("REAL", "DOUBLE PRECISION"),
    ("BLOB", "BYTEA"),
    ("TEXT", 'TEXT COLLATE "C"'),
    ("x''", "''"),
)
"""SQLite's words in a migration, and PostgreSQL's; the first that fits counts."""
_WORD: Final = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word, _ in _WORDS))


def _order_of_arrival(table: str) -> tuple[str, ...]:
    """Return what gives a table the column that every table of SQLite has: rows in the order they came."""
    return (
        f"ALTER TABLE {table} ADD COLUMN rowid BIGINT GENERATED ALWAYS AS IDENTITY",
        f"CREATE UNIQUE INDEX {table}_rowid ON {table} (rowid)",
    )


_ALSO: Final = {
    1: (
        f'CREATE TABLE {SEQUENCES} (name TEXT COLLATE "C" PRIMARY KEY, seq BIGINT NOT NULL)',
        f"""
        CREATE TABLE {LEASE} (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            holder TEXT NOT NULL,
            name TEXT NOT NULL,
            since TIMESTAMPTZ NOT NULL,
            renewed_at TIMESTAMPTZ NOT NULL,
            lapses_at TIMESTAMPTZ NOT NULL
        )
        """,
        *_order_of_arrival(EVENTS.name),
        *_order_of_arrival(DECISIONS.name),
        *_order_of_arrival(SMOKE_RESULTS.name),
        *_order_of_arrival(WINDOWS.name),
    ),
    4: _order_of_arrival(STATISTICS.name),
    5: _order_of_arrival(APPROVALS.name),
    6: (
        f"""
        CREATE TABLE {CHANGES} (
            revision BIGINT PRIMARY KEY,
            follows TEXT COLLATE "C" NOT NULL,
            mark TEXT COLLATE "C" NOT NULL,
            topics TEXT NOT NULL,
            at TIMESTAMPTZ NOT NULL
        )
        """,
        f"INSERT INTO {CHANGES} VALUES (0, '', '', '[\"everything\"]', now())",
        f"""
        CREATE TABLE {NODES} (
            id TEXT COLLATE "C" PRIMARY KEY,
            name TEXT COLLATE "C" NOT NULL,
            release TEXT NOT NULL,
            listen TEXT NOT NULL,
            admin TEXT NOT NULL,
            applied_revision BIGINT,
            seen_at TIMESTAMPTZ NOT NULL
        )
        """,
    ),
    7: (
        f"""
        CREATE TABLE {SERVED} (
            deployment_id TEXT COLLATE "C" NOT NULL,
            run TEXT COLLATE "C" NOT NULL,
            node TEXT COLLATE "C" NOT NULL,
            serial BIGINT NOT NULL,
            data BYTEA NOT NULL,
            PRIMARY KEY (deployment_id, run)
        )
        """,
    ),
    8: (
        f"ALTER TABLE {LEASE} ADD COLUMN vacated_at TIMESTAMPTZ",
        f"ALTER TABLE {NODES} ADD COLUMN isolated_at TIMESTAMPTZ",
    ),
    9: (f"ALTER TABLE {NODES} ADD COLUMN schema_number BIGINT",),
    10: (f"ALTER TABLE {NODES} ADD COLUMN draining TEXT",),
    11: (
        *_order_of_arrival(SERVED),
        f"ALTER TABLE {NODES} ADD COLUMN schema_at TIMESTAMPTZ",
    ),
}
"""What a step does here besides, by its number."""


@lru_cache(maxsize=1024)
def placed(statement: str) -> str:
    """Return a statement with its places `?` and `?3` as `$1` and `$3`."""
    counter: Iterator[int] = itertools.count(1)
    return re.sub(r"\?(\d*)", lambda found: f"${found[1] or next(counter)}", statement)


def defined(statement: str) -> str:
    """Return a statement of a migration with PostgreSQL's types."""
    return _WORD.sub(lambda found: dict(_WORDS)[found[0]], statement)


def _migration(step: Migration) -> Migration:
    statements = (*map(defined, step.statements), *_ALSO.get(step.number, ()))
    return msgspec.structs.replace(step, statements=statements)


STEPS: Final = tuple(map(_migration, MIGRATIONS))
"""The same steps under the same numbers. Their text is part of what was released: a test holds it fast."""
BEGINNING: Final = tuple(map(defined, BOOKKEEPING))
