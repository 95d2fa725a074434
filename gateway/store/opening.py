"""Opens the store that a url names, with the adapter for it."""

from datetime import datetime

from gateway.core.settings.store_url import is_postgres
from gateway.store.copying import Copyable
from gateway.store.sqlite import SqliteStore


async def open_store(
    url: str,
    *,
    now: datetime,
    password: str = "",
    password_file: str | None = None,
    beside: int | None = None,
) -> Copyable:
    """Open, and bring up to this release's schema, the store at `url`.

    now: stamps the migrations. password, password_file: of PostgreSQL; neither: as its own clients find it.
    beside: the schema of the release that runs on a file meanwhile, and is to go on if we fail; None: none
    does. Of a database the gateways on it say so themselves. Raises StoreError with the reason;
    StoreUnreachable: the database is away, and may come back.
    """
    if not is_postgres(url):
        return await SqliteStore.open(url, now=now, beside=beside)
    # Here, because asyncpg is an extra.
    from gateway.store.postgres.server import Server
    from gateway.store.postgres.store import PostgresStore

    return await PostgresStore.open(Server(url, password=password, password_file=password_file), now=now)


async def reach(url: str, *, password: str = "", password_file: str | None = None) -> None:
    """See that a database can be used now. Raises StoreUnreachable: it is away; StoreError: it never can."""
    if is_postgres(url):
        from gateway.store.postgres.server import Server

        connection = await Server(url, password=password, password_file=password_file).connect()
        connection.terminate()
