"""Rows and stores that the tests of this room begin with."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.settings.store_url import is_postgres, label_of
from gateway.store.api import Store
from gateway.store.opening import open_store
from gateway.store.records import AuditEntry, DeploymentRecord, NodeState, ServiceRecord, VersionRecord
from gateway.store.sqlite import SqliteStore, path_of
from tests import postgres

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def url(path: Path) -> str:
    return f"sqlite:///{path}"


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(url(path), now=NOW)


def a_service(name: str = "auth", **more: Any) -> ServiceRecord:
    settings = ServiceSettings(routes=(RouteSettings(path="/a"),), health=HealthSettings(interval=5))
    return ServiceRecord(
        id=f"id-{name}", name=name, settings=settings, created_at=NOW, updated_at=NOW, **more
    )


def a_version(name: str = "v1", service: str = "auth", **more: Any) -> VersionRecord:
    return VersionRecord(
        id=f"{service}-{name}",
        service_id=f"id-{service}",
        service_name=service,
        version=name,
        url="http://127.0.0.1:1",
        created_at=NOW,
        updated_at=NOW,
        **more,
    )


def a_node(last_seen: datetime, **more: Any) -> NodeState:
    """Another gateway as its row says: it lives, and follows."""
    made = NodeState(
        id="2",
        name="b",
        release="1",
        listen=(),
        admin="",
        wanted_revision=0,
        last_seen=last_seen,
        is_leader=False,
        is_silent=False,
        is_isolated=False,
    )
    return msgspec.structs.replace(made, **more)


def a_deployment(id: str, *, at: datetime = NOW, status: Any = "completed", **more: Any) -> DeploymentRecord:
    return DeploymentRecord(
        id=id,
        service_name="auth",
        to_version_id="auth-v1",
        status=status,
        created_at=at,
        updated_at=at,
        **more,
    )


def an_entry(n: int = 0, at: datetime = NOW) -> AuditEntry:
    return AuditEntry(
        at=at, actor="ann", action="x", resource="y", details={"n": n, "nested": {"b": 1, "a": [True]}}
    )


async def with_service(path: Path) -> SqliteStore:
    store = await opened(path)
    await put_service(store)
    return store


async def put_service(store: Store) -> None:
    async with store.transaction() as tx:
        tx.put_service(a_service())
        tx.put_version(a_version())


class Kept:
    """Where a store is kept, whichever adapter does it: what is true of a store is tried on each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.label = f"{label_of(url)}: " if is_postgres(url) else f"{path_of(url)}: "
        """What its errors begin with."""

    async def opened(self) -> Any:
        return await open_store(self.url, now=NOW)

    async def with_service(self) -> Any:
        store = await self.opened()
        await put_service(store)
        return store

    def change(self, statement: str) -> None:
        """Change what is kept, behind the store's back."""
        if is_postgres(self.url):
            postgres.shared().sql(statement, self.url)
            return
        with closing(sqlite3.connect(path_of(self.url))) as connection, connection:
            connection.execute(statement)
