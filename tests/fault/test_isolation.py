"""Gateways cut off from their database in a canary: they go back, and nothing goes on unjudged."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from bench.client import Lost, call
from bench.harness import World
from bench.load import KEPT, Load, LoadSettings
from bench.procs import kill
from tests import postgres
from tests.cable import Cable
from tests.fault.under_load import answers, under_load

CANARY: Final[dict[str, Any]] = {"steps": [50, 100], "stepInterval": 600_000}
ISOLATION_MS: Final = 6_000
CLUSTER: Final = '[cluster]\nname = "{}"\nserve = true\nisolation = 6000\n'

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]


@asynccontextmanager
async def cut_off(folder: Path, database: str) -> AsyncIterator[tuple[World, World, Cable]]:
    """Start a leader, and a follower whose way to the database is a cable."""
    for name in ("a", "b"):
        (folder / name).mkdir()
    port = database.rpartition(":")[2].partition("/")[0]
    async with Cable(int(port)) as cable:
        extra = CLUSTER.format("a")
        async with World(folder / "a", database=database, workers=1, extra=extra) as first:
            over = database.replace(f":{port}/", f":{cable.port}/")
            second = World(folder / "b", database=over, workers=1, extra=CLUSTER.format("b"))
            second.first = first.first
            second.write_config()
            second.var.mkdir()
            (second.var / "admin.token").write_text(first.token)
            try:
                await asyncio.to_thread(second.start_gateway)
                await second.until(second.serves, "the follower to serve")
                yield first, second, cable
            finally:
                second.close()


def light(world: World) -> LoadSettings:
    return LoadSettings(port=world.port, rate=100.0, connections=8, cycle=(KEPT,))


async def says(world: World, text: str) -> bool:
    """Whether /readyz is 200 and says so."""
    with suppress(Lost):
        answer = await call(world.admin_port, "GET", "/readyz")
        return answer.status == 200 and text in answer.body.decode()
    return False


async def is_isolated(world: World) -> bool:
    return await says(world, "isolated")


async def metric(world: World, name: str) -> str:
    body = (await call(world.admin_port, "GET", "/metrics", token=world.token)).body.decode()
    return next(line.rpartition(" ")[2] for line in body.splitlines() if line.startswith(f"{name} "))


async def served(load: Load, version: str) -> bool:
    """Whether requests come to a version."""
    before = load.versions[version]
    await asyncio.sleep(0.5)
    return bool(load.versions[version] > before)


async def not_served(load: Load, version: str) -> bool:
    return not await served(load, version)


async def test_a_gateway_cut_off_goes_back_alone_and_takes_what_is_stored_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with cut_off(tmp_path, postgres.shared().database()) as (first, second, cable):
        await first.add_version("v1.1")
        async with under_load(light(first)) as there, under_load(light(second)) as load:
            rollout = await first.start_rolling("v1.1", **CANARY)
            await second.until(lambda: served(load, "v1.1"), "the follower to serve what rolls")
            assert not await is_isolated(second)
            assert await metric(second, "gateway_isolated_status") == "0"

            cable.refuses = True
            cable.cut()
            began = time.monotonic()
            assert await served(load, "v1.1"), "cut off, it serves on"
            await second.until(lambda: not_served(load, "v1.1"), "the follower to go back")
            assert time.monotonic() - began > ISOLATION_MS / 1000 - 3
            await second.until(lambda: is_isolated(second), "it to say so")
            assert await metric(second, "gateway_isolated_status") == "1"
            await first.until(lambda: node_is(first, "b", isIsolated=True, isSilent=True), "others to know")
            assert await served(there, "v1.1"), "whoever has the database goes on"
            assert (await first.deployment(rollout))["status"] == "rolling"

            cable.refuses = False
            await second.until(lambda: served(load, "v1.1"), "what is stored to hold again")
            assert not await is_isolated(second)
            await first.until(lambda: node_is(first, "b", isIsolated=False, isSilent=False), "it to be seen")

            cable.refuses = True
            cable.cut()
            await second.until(lambda: is_isolated(second), "the follower to be isolated")
            await first.api("POST", f"deployment/{rollout}/rollback", {"reason": "support called"})
            before = load.versions["v1.1"]
            cable.refuses = False
            await second.until(lambda: second.has_status(rollout, "rolled_back"), "it to follow")
            await asyncio.sleep(1)
            assert load.versions["v1.1"] - before < 5, "it did not go forward first"


async def test_a_rollout_is_rolled_back_when_the_database_was_away_for_everybody(tmp_path: Path) -> None:
    mortal = postgres.Server()
    mortal.start()
    try:
        async with cut_off(tmp_path, mortal.database()) as (first, second, _):
            await first.add_version("v1.1")
            async with under_load(light(first)) as there, under_load(light(second)) as load:
                rollout = await first.start_rolling("v1.1", **CANARY)
                await second.until(lambda: served(load, "v1.1"), "the follower to serve what rolls")
                await asyncio.to_thread(mortal.crash)
                for world, each in ((first, there), (second, load)):
                    await world.until(lambda each=each: not_served(each, "v1.1"), "each to go back")
                    await world.until(lambda world=world: is_isolated(world), "it to say so")
                before = there.versions["v1.1"], load.versions["v1.1"]
                await asyncio.to_thread(mortal.start)
                await first.until(lambda: ended(first, rollout), "the rollout to end", 60)
                deployment = await first.deployment(rollout)
                assert deployment["status"] == "rolled_back"
                assert deployment["errorMessage"].startswith("isolated: no gateway was in charge for")
                await second.until(lambda: ended(second, rollout), "the follower to know", 60)
                for world in (first, second):
                    await world.until(lambda world=world: is_back(world), "the word to come again")
                assert (there.versions["v1.1"], load.versions["v1.1"]) == before, "nobody went forward"
            decisions = (await first.api("GET", f"deployment/{rollout}/decisions"))["items"]
            assert "isolated" in {each["actor"] for each in decisions}
            assert (await first.api("GET", "audit/verify"))["ok"]
    finally:
        mortal.remove()


async def test_workers_go_back_by_themselves_while_their_control_is_frozen_or_dead(tmp_path: Path) -> None:
    async with World(
        tmp_path, database=postgres.shared().database(), extra=CLUSTER.format("a"), workers=2
    ) as world:
        await world.add_version("v1.1")
        async with under_load(light(world)) as load:
            rollout = await world.start_rolling("v1.1", **CANARY)
            await world.until(lambda: served(load, "v1.1"), "what rolls to be served")
            kill(world.control.process.pid, signal.SIGSTOP)
            try:
                assert await served(load, "v1.1"), "they serve on"
                await world.until(lambda: not_served(load, "v1.1"), "the workers to go back")
                assert world.control.has_said("worker_isolated")
                before = load.versions["v1.1"]
                await asyncio.sleep(1)
            finally:
                kill(world.control.process.pid, signal.SIGCONT)
            assert await world.settled(rollout) == "rolled_back"
            assert (await world.deployment(rollout))["errorMessage"].startswith("isolated: ")
            assert load.versions["v1.1"] == before

            await world.add_version("v1.2")
            rollout = await world.start_rolling("v1.2", **CANARY)
            await world.until(lambda: served(load, "v1.2"), "what rolls to be served")
            await world.kill_control()
            await world.until(lambda: not_served(load, "v1.2"), "the workers to go back")
            before = load.versions["v1.2"]
            await asyncio.to_thread(world.start_gateway)
            await world.until(lambda: answers(world), "the next control")
            assert await world.settled(rollout) == "rolled_back"
            assert load.versions["v1.2"] == before


async def test_a_start_that_follows_waits_for_its_database(tmp_path: Path) -> None:
    async with cut_off(tmp_path, postgres.shared().database()) as (first, second, cable):
        second.control.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.control.process.wait, 45) == 0
        cable.refuses = True
        cable.cut()
        waiting = second.launch()
        await second.until(lambda: waiting.has_said("store_away"), "a start that waits")
        with pytest.raises(Lost):
            await call(second.admin_port, "GET", "/readyz")
        assert waiting.process.poll() is None
        cable.refuses = False
        await second.until(second.serves, "it to serve, once the database is there")
        assert await first.serves()


async def test_a_session_that_is_ended_midway_ends_neither_a_start_nor_a_takeover(tmp_path: Path) -> None:
    """Guards against a gateway that ended with it, as where a busy machine had it idle for a second."""
    async with cut_off(tmp_path, postgres.shared().database()) as (first, second, cable):
        await second.kill_control()
        cuts = Cuts(b"gateway_service")
        cable.from_client = cuts
        await asyncio.to_thread(second.start_gateway)
        assert cuts.done
        await first.until(lambda: node_is(first, "b", isSilent=False), "it to be seen")
        cuts = Cuts(b"gateway_approval")
        cable.from_client = cuts
        await first.kill_control()
        await second.until(lambda: cuts.done, "it to take over", 60)
        body = {"frozen": True, "reason": "it is in charge"}
        await second.until(lambda: takes(second, "PUT", "freeze", body), "changes to be taken")
        assert await node_is(second, "b", isLeader=True)


class Cuts:
    """Cuts the cable once, where a text passes."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.done = False

    def __call__(self, piece: bytes) -> bytes | None:
        if self.done or self.text not in piece:
            return piece
        self.done = True
        return None


async def takes(world: World, method: str, path: str, body: object) -> bool:
    with suppress(Lost):
        return (await world.ask(method, path, body)).status < 300
    return False


async def node_is(world: World, name: str, **wanted: bool) -> bool:
    nodes = (await world.api("GET", "nodes"))["items"]
    return any(each["name"] == name and wanted.items() <= each.items() for each in nodes)


async def is_back(world: World) -> bool:
    return await says(world, "ready") and not await is_isolated(world)


async def ended(world: World, rollout: str) -> bool:
    with suppress(Lost, RuntimeError):
        return bool((await world.deployment(rollout))["status"] in ("rolled_back", "completed", "failed"))
    return False
