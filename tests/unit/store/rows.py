"""Rows and stores that the tests of this room begin with."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.store.records import (
    AuditEntry,
    DeploymentRecord,
    ServiceRecord,
    VersionRecord,
)
from gateway.store.sqlite import SqliteStore

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
    async with store.transaction() as tx:
        tx.put_service(a_service())
        tx.put_version(a_version())
    return store
