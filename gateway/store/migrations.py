"""How the schema came to be: numbered steps, never edited once released, each only adding to what is there.

Release N and N-1 share one file during an upgrade, so a step adds tables, and columns that may stay
empty; it never drops, renames or narrows. A step that N-1 cannot live with raises COMPATIBLE_FROM: then N-1
refuses the store, also while it runs, and a database that gateways of N-1 live on is left as it is.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from gateway.errors import StaleEpoch, StoreError


class Migration(msgspec.Struct, frozen=True):
    """One step."""

    number: int
    name: str
    statements: tuple[str, ...]

    @property
    def checksum(self) -> str:
        """SHA-256 of what it does, in hex: an edited step is found out."""
        return hashlib.sha256("\0".join(self.statements).encode()).hexdigest()


_INITIAL: Final = (
    """
    CREATE TABLE gateway_service_config (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        settings TEXT NOT NULL,
        source TEXT NOT NULL,
        current_version_id TEXT,
        paused INTEGER NOT NULL,
        stage INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE gateway_service_version (
        id TEXT PRIMARY KEY,
        service_id TEXT NOT NULL
            REFERENCES gateway_service_config (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        service_name TEXT NOT NULL,
        version TEXT NOT NULL,
        url TEXT NOT NULL,
        replicas TEXT NOT NULL,
        weight INTEGER NOT NULL CHECK (weight BETWEEN 0 AND 100),
        is_active INTEGER NOT NULL,
        status TEXT NOT NULL,
        health_status TEXT NOT NULL,
        last_health_check TEXT,
        failure_count INTEGER NOT NULL,
        circuit_state TEXT NOT NULL,
        shutdown_url TEXT,
        smoke_tests TEXT,
        draining INTEGER NOT NULL,
        drained INTEGER NOT NULL,
        ever_healthy INTEGER NOT NULL,
        drain_deadline TEXT,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        UNIQUE (service_id, version)
    )
    """,
    # No reference to the versions: the history of a rollout outlives them.
    """
    CREATE TABLE gateway_deployment (
        id TEXT PRIMARY KEY,
        service_name TEXT NOT NULL,
        from_version_id TEXT,
        from_version TEXT,
        to_version_id TEXT NOT NULL,
        to_version TEXT NOT NULL,
        status TEXT NOT NULL,
        strategy TEXT NOT NULL,
        traffic_percent INTEGER NOT NULL CHECK (traffic_percent BETWEEN 0 AND 100),
        target_percent INTEGER NOT NULL,
        current_step INTEGER NOT NULL,
        config TEXT NOT NULL,
        state BLOB NOT NULL,
        started_at TEXT,
        completed_at TEXT,
        rolled_back_at TEXT,
        error_message TEXT,
        error_count INTEGER NOT NULL,
        request_count INTEGER NOT NULL,
        created_by TEXT,
        idempotency_key TEXT UNIQUE,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    )
    """,
    """
    CREATE UNIQUE INDEX gateway_deployment_one_open ON gateway_deployment (service_name)
    WHERE status IN ('pending', 'testing', 'rolling', 'paused')
    """,
    "CREATE INDEX gateway_deployment_newest ON gateway_deployment (created_at, id)",
    """
    CREATE TABLE gateway_health_check (
        id TEXT PRIMARY KEY,
        version_id TEXT NOT NULL
            REFERENCES gateway_service_version (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        endpoint TEXT NOT NULL,
        is_healthy INTEGER NOT NULL,
        response_time INTEGER NOT NULL,
        status_code INTEGER,
        error_message TEXT,
        checked_at TEXT NOT NULL
    )
    """,
    "CREATE INDEX gateway_health_check_newest ON gateway_health_check (version_id, checked_at, id)",
    "CREATE INDEX gateway_health_check_endpoint ON gateway_health_check (version_id, endpoint, checked_at)",
    """
    CREATE TABLE gateway_event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        kind TEXT NOT NULL,
        service TEXT NOT NULL,
        version TEXT,
        deployment_id TEXT,
        actor TEXT NOT NULL,
        data TEXT NOT NULL
    )
    """,
    "CREATE INDEX gateway_event_deployment ON gateway_event (deployment_id, id)",
    "CREATE INDEX gateway_event_service ON gateway_event (service, id)",
    """
    CREATE TABLE gateway_decision (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        deployment_id TEXT NOT NULL
            REFERENCES gateway_deployment (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        at TEXT NOT NULL,
        step INTEGER NOT NULL,
        verdict TEXT NOT NULL,
        reason TEXT NOT NULL,
        actor TEXT NOT NULL,
        data TEXT NOT NULL
    )
    """,
    "CREATE INDEX gateway_decision_deployment ON gateway_decision (deployment_id, id)",
    """
    CREATE TABLE gateway_smoke_result (
        id TEXT PRIMARY KEY,
        version_id TEXT NOT NULL
            REFERENCES gateway_service_version (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        deployment_id TEXT,
        is_healthy INTEGER NOT NULL,
        response_time INTEGER NOT NULL,
        tests TEXT NOT NULL,
        at TEXT NOT NULL
    )
    """,
    "CREATE INDEX gateway_smoke_result_newest ON gateway_smoke_result (version_id, at, id)",
    """
    CREATE TABLE gateway_window (
        deployment_id TEXT NOT NULL
            REFERENCES gateway_deployment (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        version_id TEXT NOT NULL,
        stage INTEGER NOT NULL,
        share INTEGER NOT NULL,
        started_at TEXT NOT NULL,
        seconds REAL NOT NULL,
        answers INTEGER NOT NULL,
        errors TEXT NOT NULL,
        latency TEXT NOT NULL
    )
    """,
    "CREATE INDEX gateway_window_deployment ON gateway_window (deployment_id, started_at)",
    """
    CREATE TABLE gateway_audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        resource TEXT NOT NULL,
        resource_id TEXT NOT NULL,
        allowed INTEGER NOT NULL,
        details TEXT NOT NULL,
        address TEXT NOT NULL,
        user_agent TEXT NOT NULL,
        prev_hash TEXT NOT NULL,
        hash TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE gateway_token (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        prefix TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE,
        created_by TEXT NOT NULL,
        created_at TEXT NOT NULL,
        last_used_at TEXT,
        revoked_at TEXT
    )
    """,
    """
    CREATE TABLE gateway_breaker (
        key TEXT PRIMARY KEY,
        version_id TEXT NOT NULL
            REFERENCES gateway_service_version (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        state BLOB NOT NULL,
        updated_at TEXT NOT NULL
    )
    """,
)

_PROGRESS: Final = ("ALTER TABLE gateway_deployment ADD COLUMN progress BLOB NOT NULL DEFAULT x''",)

_TOKENS: Final = (
    "ALTER TABLE gateway_token ADD COLUMN expires_at TEXT",
    "ALTER TABLE gateway_token ADD COLUMN services TEXT NOT NULL DEFAULT '*'",
    "ALTER TABLE gateway_token ADD COLUMN idempotency_key TEXT",
)

_CHARTS: Final = (
    """
    CREATE TABLE gateway_statistic (
        deployment_id TEXT NOT NULL
            REFERENCES gateway_deployment (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        at TEXT NOT NULL,
        step INTEGER NOT NULL,
        percent INTEGER NOT NULL,
        verdict TEXT NOT NULL,
        gate TEXT NOT NULL,
        statistic REAL NOT NULL,
        statistic_limit REAL NOT NULL
    )
    """,
    "CREATE INDEX gateway_statistic_deployment ON gateway_statistic (deployment_id, at)",
    """
    CREATE TABLE gateway_acknowledgement (
        deployment_id TEXT PRIMARY KEY
            REFERENCES gateway_deployment (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        note TEXT NOT NULL,
        event_id INTEGER NOT NULL
    )
    """,
    "CREATE INDEX gateway_event_kind ON gateway_event (kind, id)",
)

_APPROVALS: Final = (
    """
    CREATE TABLE gateway_approval (
        id TEXT PRIMARY KEY,
        action TEXT NOT NULL,
        service TEXT NOT NULL,
        what TEXT NOT NULL,
        role TEXT NOT NULL,
        method TEXT NOT NULL,
        path TEXT NOT NULL,
        body BLOB NOT NULL,
        if_match TEXT,
        idempotency_key TEXT,
        asked_by TEXT NOT NULL,
        asked_owner TEXT NOT NULL,
        asked_token_id TEXT NOT NULL,
        address TEXT NOT NULL,
        user_agent TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        state TEXT NOT NULL,
        decided_by TEXT,
        decided_at TEXT,
        status INTEGER,
        outcome TEXT NOT NULL
    )
    """,
    "CREATE INDEX gateway_approval_newest ON gateway_approval (created_at, id)",
    "ALTER TABLE gateway_token ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
)

_NODE_NAMES: Final = ("ALTER TABLE gateway_event ADD COLUMN node TEXT",)

MIGRATIONS: Final = (
    Migration(1, "initial", _INITIAL),
    Migration(2, "progress", _PROGRESS),
    Migration(3, "tokens", _TOKENS),
    Migration(4, "charts", _CHARTS),
    Migration(5, "approvals", _APPROVALS),
    Migration(6, "nodes", ()),  # nothing in a file: only a database has several gateways
    Migration(7, "served", ()),  # so here
    Migration(8, "isolation", ()),  # as little
    Migration(9, "node_names", _NODE_NAMES),
    Migration(10, "drains", ()),  # nothing in a file: it has no other gateways
    Migration(11, "order", ()),  # nor here
)

SCHEMA: Final = MIGRATIONS[-1].number
"""What this release writes."""

COMPATIBLE_FROM: Final = 1
"""The oldest schema whose release may still open a file this release has written."""

BOOKKEEPING: Final = (
    "CREATE TABLE IF NOT EXISTS gateway_meta (key TEXT PRIMARY KEY, value BLOB NOT NULL)",
    """
    CREATE TABLE IF NOT EXISTS gateway_migration (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        checksum TEXT NOT NULL,
        applied_at TEXT NOT NULL
    )
    """,
)
"""What must be there before anything can be asked of a file."""

ADD_META: Final = "INSERT INTO gateway_meta VALUES (?, ?) ON CONFLICT DO NOTHING"
ADD_MIGRATION: Final = "INSERT INTO gateway_migration VALUES (?, ?, ?, ?)"

SIGNATURE: Final = (("schema", str(SCHEMA).encode()), ("compatible_from", str(COMPATIBLE_FROM).encode()))
"""What a store says of itself once this release has brought it up to its own schema."""


def birth() -> tuple[tuple[str, bytes], ...]:
    """Return what a store has from its beginning, and keeps."""
    return ("epoch", b"0"), ("gateway_id", secrets.token_hex(8).encode())


def refuse_newer(compatible_from: bytes | str | None) -> None:
    """Raise StoreError if a store can only be opened by a later schema's release. None: it is new."""
    needed = int(compatible_from or 0)
    if needed > SCHEMA:
        raise StoreError(f"it needs a gateway with schema {needed} or newer, this one has schema {SCHEMA}")


def refuse_later(compatible_from: bytes | str | None, label: str, *, follows: bool = False) -> None:
    """Raise StoreError if a later release has made a schema that this one, which runs, cannot use.

    Who is in charge, or is to be, ends by it: StaleEpoch. label: what messages call the store.
    """
    try:
        refuse_newer(compatible_from)
    except StoreError as exc:
        raise (StoreError if follows else StaleEpoch)(f"{label}: {exc}") from None


def missing(steps: Iterable[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """Return which steps a store has yet to be given. applied: number -> checksum.

    Raises StoreError if one was applied in another form.
    """
    left = []
    for step in steps:
        if step.number not in applied:
            left.append(step)
        elif applied[step.number] != step.checksum:
            label = f"migration {step.number} ({step.name})"
            raise StoreError(f"{label} was applied in another form than this release knows")
    return left
