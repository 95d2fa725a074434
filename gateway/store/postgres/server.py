"""Where the database is, and how every session there begins: bounded in time, direct, and able to write."""

from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from gateway.core.settings.store_url import label_of, secrets_of
from gateway.errors import StoreError
from gateway.store.postgres.connection import Connection
from gateway.store.postgres.faults import named

CONNECT_S: Final = 2.0
ANSWER_S: Final = 2.0
"""How long a statement's answer may take: more than the server gives it, so that its word comes first."""
LIMIT: Final = "1s"
"""How long a statement, a wait for a lock, and a pause inside a transaction may take: whoever is frozen must
not hold a lock that a rollback elsewhere needs."""
SESSION: Final = {
    "application_name": "gateway",
    "statement_timeout": LIMIT,
    "lock_timeout": LIMIT,
    "idle_in_transaction_session_timeout": LIMIT,
    "jit": "off",
}
FREE: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND application_name = 'gateway'
        AND state = 'active' AND wait_event = 'ClientRead' AND state_change < now() - interval '0.5 seconds'
        AND pid <> pg_backend_pid()
"""
"""Ends sessions of a process that is frozen within a message (after Parse, before Sync): none of the time
limits that a session has counts there."""
OLDEST: Final = 130_000
"""PostgreSQL 13."""

POOLER: Final = (
    "a connection pooler (pgbouncer) stands between: it keeps neither a session's time limits nor its locks; "
    "store.url must lead to the server itself"
)

_SEEN: Final = """
    SELECT
        pg_backend_pid(),
        ARRAY[
            current_setting('statement_timeout'),
            current_setting('lock_timeout'),
            current_setting('idle_in_transaction_session_timeout')
        ],
        current_setting('server_version_num')::integer,
        current_setting('server_encoding'),
        current_setting('synchronous_commit')
"""


class Server:
    """One database, as `store.url` names it."""

    def __init__(self, url: str, *, password: str = "", password_file: str | None = None) -> None:
        """password_file: holds the password and nothing else; read anew for each session.

        Neither: the password is in the url, in PGPASSWORD, in the file PGPASSFILE names, in ~/.pgpass, or
        there is none.
        """
        self._url = url
        self._password = password
        self._password_file = password_file
        self.label = label_of(url)
        """What messages call it: no password, and nothing that may hold one."""
        self._secrets = [each for each in (password, *secrets_of(url)) if each]

    async def connect(self) -> Connection:
        """Return a new session. Raises StoreUnreachable: not now; StoreError: not so."""
        with named(self.label):
            try:
                connection = await self._connect()
            except ValueError as exc:  # what is wrong with the url, in asyncpg's words
                raise StoreError(self._without_secrets(str(exc))) from None
            except asyncpg.ProtocolViolationError as exc:
                raise StoreError(f"{POOLER} ({exc})") from exc
            try:
                await _check(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _connect(self) -> Connection:
        options: dict[str, Any] = {}
        if self._password_file is not None:
            options["password"] = partial(_read, Path(self._password_file))
        elif self._password:
            options["password"] = self._password
        if "target_session_attrs" not in parse_qs(urlsplit(self._url).query):
            options["target_session_attrs"] = "read-write"
        connection: Connection = await asyncpg.connect(
            self._url, timeout=CONNECT_S, command_timeout=ANSWER_S, server_settings=SESSION, **options
        )
        return connection

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


async def _check(connection: Connection) -> None:
    """Raise StoreError unless the session is one that may be relied on."""
    row = await connection.fetchrow(_SEEN)
    assert row is not None, "a SELECT without FROM has a row"
    pid, limits, version, encoding, synchronous_commit = row
    if pid != connection.get_server_pid() or limits != [LIMIT] * 3:
        raise StoreError(POOLER)
    if version < OLDEST:
        raise StoreError(f"it is PostgreSQL {version // 10_000}: 13 or newer is needed")
    if encoding != "UTF8":
        raise StoreError(f"the database's encoding is {encoding}: UTF8 is needed")
    if synchronous_commit == "off":  # a default of the role or the database: what is committed must be kept
        await connection.execute("SET synchronous_commit = on")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise StoreError(f"store.password_file: {file}: {exc}") from exc
