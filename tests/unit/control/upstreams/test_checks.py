"""Checks of whole versions: which smoke tests are run and kept, and the call that lets a service stop."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.control.upstreams import checks as module
from gateway.control.upstreams import smoke
from gateway.control.upstreams.checks import SHUTDOWN_WAITS_S, Checks
from gateway.control.upstreams.probes import ProbeResult
from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.smoke import SmokeEndpoint, SmokeSettings
from gateway.errors import ConnectFailed
from gateway.http1.fetch import FetchResult
from gateway.store.records import ServiceRecord, VersionRecord
from tests.unit.control.world import START, World

OWN = SmokeSettings(endpoints=(SmokeEndpoint(path="/own"),), retries=0)
SERVICES = SmokeSettings(endpoints=(SmokeEndpoint(path="/a"), SmokeEndpoint(path="/b")), retries=0)


class Upstream:
    """Answers by path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str | None, list[int | Exception]] = {}
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []

    async def fetch(self, url: str, *, path: str | None = None, **how: Any) -> FetchResult:
        self.asked.append((url, path, how))
        answers = self.answers.get(path, [200])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return FetchResult(answer, {}, b"", 0.001)

    def paths(self) -> list[str | None]:
        return [path for _, path, _ in self.asked]


class Catalog:
    """One service with one version."""

    def __init__(self, service: ServiceRecord, version: VersionRecord) -> None:
        self.service = service
        self.version = version

    def service_record(self, name: str) -> ServiceRecord:
        return self.service

    def version_record(self, version_id: str) -> VersionRecord:
        return self.version

    def tls_of(self, version_id: str) -> ssl.SSLContext | None:
        return None


class Probes:
    async def gate(self, version_id: str) -> str:
        return f"gate of {version_id}"

    async def check_now(self, version_id: str) -> ProbeResult:
        return ProbeResult(is_healthy=False, response_time_ms=7)


class Room:
    def __init__(self, world: World, upstream: Upstream) -> None:
        self.upstream = upstream
        self.store = world.store
        self.catalog = Catalog(world.catalog.service_record("auth"), world.catalog.version_record("v1"))
        probes: Any = Probes()
        self.checks = Checks(world.store, self.catalog, probes, now=lambda: START)

    def configure(self, own: SmokeSettings | None = None, **settings: Any) -> None:
        self.catalog.version = replace(self.catalog.version, smoke_tests=own)
        self.catalog.service = replace(self.catalog.service, settings=ServiceSettings(**settings))


@asynccontextmanager
async def room(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    upstream = Upstream()
    monkeypatch.setattr(smoke, "fetch", upstream.fetch)
    monkeypatch.setattr(module, "fetch", upstream.fetch)
    monkeypatch.setattr(module, "SHUTDOWN_WAITS_S", (0.0,) * len(SHUTDOWN_WAITS_S))
    world = await World(path).open()
    try:
        yield Room(world, upstream)
    finally:
        await world.close()


@pytest.mark.parametrize(
    ("own", "settings", "paths"),
    [
        (OWN, {"smoke_tests": SERVICES}, ["/own"]),
        (None, {"smoke_tests": SERVICES}, ["/a", "/b"]),
        (None, {"health": HealthSettings(path="/up")}, ["/up"]),
        (None, {"health": HealthSettings(kind="tcp")}, []),
        (None, {"health": False}, []),
        (SmokeSettings(), {"smoke_tests": SERVICES}, []),
    ],
    ids=["its own", "its service's", "the health path", "tcp", "no health", "none on purpose"],
)
async def test_which_smoke_tests_a_version_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: SmokeSettings | None,
    settings: dict[str, Any],
    paths: list[str],
) -> None:
    async with room(tmp_path, monkeypatch) as it:
        it.configure(own, **settings)
        assert await it.checks.smoke("v1") == ""
        assert it.upstream.paths() == paths


async def test_smoke_tests_are_stored_and_the_first_complaint_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(tmp_path, monkeypatch) as it:
        it.configure(smoke_tests=SERVICES)
        it.upstream.answers = {"/b": [ConnectFailed("connection refused")]}
        said = await it.checks.smoke("v1", deployment_id="d1")
        assert said == "a smoke test failed: GET /b: ConnectFailed: connection refused"
        (stored,) = (await it.store.smoke("v1")).items
        assert (stored.deployment_id, stored.is_healthy, stored.at) == ("d1", False, START)
        assert [(test["path"], test["ok"], test["status"]) for test in stored.tests] == [
            ("/a", True, 200),
            ("/b", False, None),
        ]


async def test_tests_given_with_the_call_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with room(tmp_path, monkeypatch) as it:
        it.configure(smoke_tests=SERVICES)
        assert (await it.checks.smoke_report("v1", OWN)).is_healthy
        assert it.upstream.paths() == ["/own"]


async def test_gate_and_probe_are_the_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with room(tmp_path, monkeypatch) as it:
        assert await it.checks.gate("v1") == "gate of v1"
        assert (await it.checks.probe("v1")).response_time_ms == 7


async def test_the_shutdown_call_is_made_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(tmp_path, monkeypatch) as it:
        it.catalog.version = replace(it.catalog.version, shutdown_url="http://127.0.0.1:1/shutdown")
        it.upstream.answers = {None: [ConnectFailed("connection refused"), 503, 202, 500]}
        await it.checks.shut_down("v1", "d1")
        assert len(it.upstream.asked) == 3
        assert {url for url, _, _ in it.upstream.asked} == {"http://127.0.0.1:1/shutdown"}
        assert {how["method"] for _, _, how in it.upstream.asked} == {"POST"}
        keys = {tuple(how["fields"]) for _, _, how in it.upstream.asked}
        assert keys == {(("Idempotency-Key", "shutdown:d1"),)}


async def test_a_shutdown_call_nobody_takes_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(tmp_path, monkeypatch) as it:
        await it.checks.shut_down("v1", "d1")
        assert it.upstream.asked == [], "no url, no call"
        it.catalog.version = replace(it.catalog.version, shutdown_url="http://127.0.0.1:1/shutdown")
        it.upstream.answers = {None: [500]}
        await it.checks.shut_down("v1", "d1")
        assert len(it.upstream.asked) == len(SHUTDOWN_WAITS_S)
