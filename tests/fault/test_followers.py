"""Two gateways that serve over one database: one leads, the other goes by what is stored, and takes over."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bench.client import Lost
from bench.harness import World
from bench.load import KEPT, LoadSettings
from bench.procs import kill
from gateway.cli.nodes import state_of
from tests import postgres
from tests.fault.under_load import under_load

CANARY: Final[dict[str, Any]] = {"steps": [50, 100], "stepInterval": 600_000}

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]


@asynccontextmanager
async def two(
    folder: Path, database: str, *, drain_ms: int = 30_000, env: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[World, World]]:
    """Start a leader and a follower, each with load of its own in mind. env: more of the environment."""
    for name in ("a", "b"):
        (folder / name).mkdir()
    settings = '[cluster]\nname = "{}"\nserve = true\n'
    more: dict[str, Any] = {"database": database, "workers": 1, "drain_ms": drain_ms, "env": env}
    async with World(folder / "a", extra=settings.format("a"), **more) as first:
        second = World(folder / "b", extra=settings.format("b"), **more)
        second.first = first.first
        second.write_config()
        second.var.mkdir()
        (second.var / "admin.token").write_text(first.token)
        try:
            second.start_gateway()
            await second.until(second.serves, "the follower to serve")
            yield first, second
        finally:
            second.close()


def light(world: World) -> LoadSettings:
    return LoadSettings(port=world.port, rate=100.0, connections=8, cycle=(KEPT,))


async def states(world: World) -> dict[str, str]:
    """Return what each node does, as one of them sees it."""
    try:
        return {each["name"]: state_of(each) for each in (await world.api("GET", "nodes"))["items"]}
    except (Lost, RuntimeError):
        return {}


async def are(world: World, **expected: str) -> bool:
    return await states(world) == expected


async def test_a_follower_goes_by_what_is_stored_and_takes_over_without_losing_a_request(
    tmp_path: Path,
) -> None:
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        async with under_load(light(second)) as load:
            _, new = await first.add_version("v1.1")
            rollout = await first.start_rolling("v1.1", **CANARY)
            await second.until(lambda: second.has_status(rollout, "rolling"), "the follower to follow")
            await second.until(lambda: _served(load, "v1.1"), "the follower to serve what rolls")
            assert (await second.version(new))["weight"] == 50

            await first.api("POST", f"deployment/{rollout}/rollback", {"reason": "support called"})
            await second.until(lambda: second.has_status(rollout, "rolled_back"), "the rollback to arrive")
            before = load.versions["v1.1"]
            await asyncio.sleep(1)
            assert load.versions["v1.1"] == before, "no request went there any more"

            await first.add_version("v1.2")
            rollout = await first.start_rolling("v1.2", **CANARY)
            await second.until(lambda: _served(load, "v1.2"), "the follower to serve what rolls")
            workers = await second.worker_pids()
            began = time.monotonic()
            await first.kill_control()
            await second.until(lambda: are(second, a="silent", b="in charge"), "the follower to take over")
            assert time.monotonic() - began < 60, "four seconds for the lease, and what it takes to load"
            assert await second.worker_pids() == workers
            assert (await second.deployment(rollout))["status"] == "rolling"
            body = {"reason": "support called"}
            path = f"deployment/{rollout}/rollback"
            await second.until(lambda: _takes(second, "POST", path, body), "changes to be taken")
            assert await second.settled(rollout) == "rolled_back"

            first.start_gateway()
            await second.until(lambda: are(second, a="serves", b="in charge"), "the first to follow")
            assert (await first.deployment(rollout))["status"] == "rolled_back"
            assert await first.serves()
        assert (await second.api("GET", "audit/verify"))["ok"]
        reader, writer = await asyncio.open_connection("127.0.0.1", second.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\na")
        await second.until(lambda: _runs(second), "a request under way")
        second.control.process.send_signal(signal.SIGTERM)
        await first.until(lambda: are(first, a="in charge", b="stops"), "the other one to take over")
        writer.write(b"b")  # amid the drain of the one that leaves
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await first.until(lambda: are(first, a="in charge"), "the other one to leave")


async def test_a_frozen_leader_a_crashed_database_and_commits_that_are_lost(tmp_path: Path) -> None:
    database = postgres.Server()
    database.start()
    try:
        async with two(tmp_path, database.database()) as (first, second):
            await _frozen(first, second)
            await _without_database(database, first, second)
            await _set_back(database, first, second)
    finally:
        database.remove()


async def _frozen(first: World, second: World) -> None:
    """The leader is frozen until the follower leads: it ends, and follows when it is started again."""
    await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
    async with under_load(light(second)):
        frozen = first.control.process.pid
        kill(frozen, signal.SIGSTOP)
        await second.until(lambda: are(second, a="silent", b="in charge"), "the follower to take over")
        body = {"frozen": True, "reason": "now it is mine"}
        await second.until(lambda: _takes(second, "PUT", "freeze", body), "changes to be taken")
        kill(frozen, signal.SIGCONT)
        assert await asyncio.to_thread(first.control.process.wait, 45) == 1
        assert await first.serves(), "its workers serve on"
        first.start_gateway()
        await second.until(lambda: are(second, a="serves", b="in charge"), "the first to follow")
        assert (await first.api("GET", "freeze"))["reason"] == "now it is mine"


async def _without_database(database: postgres.Server, first: World, second: World) -> None:
    """Both serve on, and what changes afterwards arrives."""
    async with under_load(light(first)), under_load(light(second)):
        await asyncio.to_thread(database.crash)
        await second.until(lambda: _answers(second, 503, "PUT", "freeze", {"frozen": False}), "a refusal")
        assert await first.serves()
        await asyncio.to_thread(database.start)
        body = {"frozen": False, "reason": ""}
        await second.until(lambda: _takes(second, "PUT", "freeze", body), "changes to be taken")
        await first.until(lambda: _is_frozen(first, frozen=False), "the change to arrive")


async def _set_back(database: postgres.Server, first: World, second: World) -> None:
    """What the leader knows is ahead of the database: it ends, and the follower leads from what is stored."""
    await asyncio.to_thread(database.stop)
    await asyncio.to_thread(database.keep)
    await asyncio.to_thread(database.start)
    body = {"frozen": True, "reason": "lost"}
    await second.until(lambda: _takes(second, "PUT", "freeze", body), "changes to be taken")
    await first.until(lambda: _is_frozen(first, frozen=True), "the change to arrive")
    async with under_load(light(first)):
        await asyncio.to_thread(database.go_back)
        assert await asyncio.to_thread(second.control.process.wait, 90) == 1
        await first.until(lambda: _is_frozen(first, frozen=False), "the follower to know that it is lost")
        await first.until(lambda: are(first, a="in charge", b="silent"), "the follower to take over")
        second.start_gateway()
        await first.until(lambda: are(first, a="in charge", b="serves"), "the other one to follow")
        assert (await first.api("GET", "audit/verify"))["ok"]


async def _served(load: Any, version: str) -> bool:
    return bool(load.versions[version] > 5)


async def _runs(world: World) -> bool:
    versions = (await world.api("GET", "overview"))["items"][0]["versions"]
    return any(each["inFlight"] for each in versions)


async def _is_frozen(world: World, *, frozen: bool) -> bool:
    try:
        return bool((await world.api("GET", "freeze"))["frozen"] is frozen)
    except (Lost, RuntimeError):
        return False


async def _answers(world: World, status: int, method: str, path: str, body: dict[str, object]) -> bool:
    return (await world.ask(method, path, body)).status == status


async def _takes(world: World, method: str, path: str, body: dict[str, object]) -> bool:
    """Whether a gateway that has just taken over carries an order out."""
    return (await world.ask(method, path, body)).status < 300
