"""A gateway on PostgreSQL: what it does with a file it does with a database, also while that is away."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from bench.client import Lost, call
from bench.harness import World
from bench.load import KEPT, LoadSettings
from bench.store_faults import until_returned
from gateway.cli.nodes import state_of
from tests import postgres
from tests.fault.under_load import answers, kill_and_start, under_load, upgrade

CANARY: Final[dict[str, Any]] = {"steps": [50, 100], "stepInterval": 600_000}

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]


@pytest.fixture
def mortal() -> Iterator[postgres.Server]:
    """A server of this test alone."""
    server = postgres.Server()
    server.start()
    yield server
    server.remove()


def light(world: World) -> LoadSettings:
    return LoadSettings(port=world.port, rate=100.0, connections=8, cycle=(KEPT,))


async def is_ready(world: World) -> bool:
    with contextlib.suppress(Lost):
        return (await call(world.admin_port, "GET", "/readyz")).status == 200
    return False


async def test_a_rollout_goes_on_through_kills_upgrades_and_a_database_that_is_away(
    tmp_path: Path, mortal: postgres.Server
) -> None:
    async with World(tmp_path, database=mortal.database()) as world:
        _, new = await world.add_version("v1.1")
        async with under_load(light(world)) as load:
            rollout = await world.start_rolling("v1.1", **CANARY)
            await kill_and_start(world)
            await world.until(world.all_workers_serve, "every worker")
            await upgrade(world)
            assert (await world.deployment(rollout))["status"] == "rolling"
            assert (await world.version(new))["weight"] == 50

            await asyncio.to_thread(mortal.crash)
            began = time.monotonic()
            assert (await world.ask("PUT", "freeze", {"frozen": True})).status == 503
            code, said = await _command(world, "rollback", "auth", "--reason", "it smells")
            assert code == 0, said
            assert "the store cannot take it yet" in said
            assert not (await world.deployment(rollout))["stored"]
            assert time.monotonic() - began < 60
            assert (await _command(world, "get"))[0] == 0
            async with asyncio.timeout(20):
                await until_returned(world, new)
            await asyncio.sleep(1)
            before = load.versions["v1.1"]
            await asyncio.sleep(1)
            assert load.versions["v1.1"] == before, "everything is served by the old version"

            await world.kill_control()
            waiting = world.launch()
            await world.until(lambda: waiting.has_said("store_away"), "a start that waits")
            assert not await is_ready(world)
            await asyncio.sleep(1)
            assert waiting.process.poll() is None
            await asyncio.to_thread(mortal.start)
            await world.until(lambda: answers(world), "the gateway, once its database is back", 60)
            assert await world.settled(rollout) == "rolled_back"
        assert load.versions["v1.1"] == before, "not one request went there again"
        rows = (await world.api("GET", "audit?action=deployment.rollback"))["items"]
        assert [row["details"]["reason"] for row in rows] == ["it smells"]
        assert (await world.api("GET", "audit/verify"))["ok"]
        await asyncio.to_thread(mortal.crash)
        await world.kill_control()
        waiting = world.launch()
        await world.until(lambda: waiting.has_said("store_away"), "a start that waits")
        waiting.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(waiting.process.wait, 45) == 0
        with pytest.raises(Lost):
            await call(world.port, "GET", "/")


async def test_a_second_gateway_stands_by_and_follows_the_first_when_that_dies(tmp_path: Path) -> None:
    database = postgres.shared().database()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with World(
        tmp_path / "a", database=database, workers=1, extra='[cluster]\nname = "gw-a"\n'
    ) as first:
        second = World(tmp_path / "b", database=database, workers=1, extra='[cluster]\nname = "gw-b"\n')
        second.first = first.first
        second.write_config()
        try:
            waiting = second.launch()
            await first.until(lambda: waiting.has_said("standing_by"), "a stand-by")
            assert waiting.has_said("gateway 'gw-a' has been in charge since")
            await first.until(lambda: _states(first, gw_a="in charge", gw_b="stands by"), "both to be seen")
            assert not await is_ready(second)
            assert (await first.ask("DELETE", "nodes/gw-b")).status == 409
            waiting.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(waiting.process.wait, 45) == 0
            assert await _states(first, gw_a="in charge"), "whoever leaves in order is not waited for"

            waiting = second.launch()
            await first.until(lambda: waiting.has_said("standing_by"), "a stand-by")
            assert (await first.info())["node"] == "gw-a"
            token = first.token  # the node that started first has it; it is valid on all
            await first.kill_control()
            began = time.monotonic()
            await first.until(second.serves, "the stand-by to serve")
            assert time.monotonic() - began < 60, "four seconds for the lease, and what a start takes"
            assert waiting.process.poll() is None
            assert not (second.var / "admin.token").exists()
            (second.var / "admin.token").write_text(token)
            assert [each["name"] for each in (await second.api("GET", "services"))["items"]] == ["auth"]
            await first.until(lambda: _states(second, gw_a="silent", gw_b="in charge"), "the new one")
            assert (await _command(second, "nodes", "rm", "gw-a"))[0] == 0
            assert await _states(second, gw_b="in charge")

            waiting = first.launch()
            await first.until(lambda: waiting.has_said("standing_by"), "the first, in second place")
            await first.until(lambda: _states(second, gw_a="stands by", gw_b="in charge"), "both")
        finally:
            second.close()


async def _states(world: World, **expected: str) -> bool:
    """Whether the gateway of a world sees these nodes, each doing what is said of it."""
    nodes = (await world.api("GET", "nodes"))["items"]
    return {each["name"].replace("-", "_"): state_of(each) for each in nodes} == expected


async def _command(world: World, *arguments: str) -> tuple[int, str]:
    """Run `gateway …` to its end. Returns its exit code and what it said."""
    command = (sys.executable, "-m", "gateway", *arguments, "--config", str(world.config))
    root = str(Path(__file__).parents[2])
    running = await asyncio.create_subprocess_exec(
        *command,
        cwd=world.folder,
        env={**os.environ, "PYTHONPATH": root},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert running.stdout is not None
    async with asyncio.timeout(60):
        said = (await running.stdout.read()).decode()
    return await running.wait(), said
