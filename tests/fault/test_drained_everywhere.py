"""A version drains on every gateway of a database: it is drained once it is on all; each cuts by itself."""

import asyncio
import signal
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from bench.harness import World
from tests import postgres
from tests.fault.test_followers import are, two

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]

PLAN: Final[dict[str, Any]] = {"bakeTime": 600_000, "drainTimeout": 120_000}


async def test_a_version_is_drained_and_shut_down_once_it_is_on_all_gateways(tmp_path: Path) -> None:
    """It was shut down amid the requests of a follower, which nobody cut at the deadline either."""
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        old = await first.version_id("v1.0")
        url = f"{first.first[0].url}/shutdown"
        await first.api("PATCH", f"deployment/versions/{old}", {"shutdownUrl": url})
        _, new = await first.add_version("v1.1")
        await _outlived(first, second, old)
        await _cut(first, second, new)


async def test_a_version_is_not_shut_down_amid_the_requests_of_a_gateway_that_stops(tmp_path: Path) -> None:
    """That one had left the list by then, so that nobody waited for what still ran there."""
    async with two(tmp_path, postgres.shared().database(), drain_ms=240_000) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        old = await first.version_id("v1.0")
        url = f"{first.first[0].url}/shutdown"
        await first.api("PATCH", f"deployment/versions/{old}", {"shutdownUrl": url})
        await first.add_version("v1.1")
        reader, writer = await _asked(second)
        second.control.process.send_signal(signal.SIGTERM)
        await first.until(lambda: are(first, a="in charge", b="stops"), "it to stop")
        rollout = await first.start("v1.1", "immediate", **PLAN)
        await first.until(
            lambda: _weighs_nothing(first, old), "the switch, which waits for nobody that stops"
        )
        await first.api("POST", f"deployment/{rollout}/complete")
        await first.until(lambda: _waits_for(first, old, ["b"]), "the one in charge to wait for it")
        await _held_until_answered(first, rollout, old, reader, writer)
        assert await first.settled(rollout) == "completed"
        await asyncio.to_thread(first.first[0].process.wait, 60)
        assert await asyncio.to_thread(second.control.process.wait, 60) == 0
        assert await are(first, a="in charge"), "it has left the list"


async def _held_until_answered(
    first: World, rollout: str, old: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """However often somebody looks, the old version is neither drained nor stopped; then end its request."""
    await asyncio.sleep(1)  # ten looks of the one in charge
    assert (await first.version(old))["drained"] is False
    assert await first.has_status(rollout, "rolling")
    assert first.first[0].process.poll() is None, "it was not asked to stop"
    writer.write(b"b")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def _outlived(first: World, second: World, old: str) -> None:
    """A rollout ends while a request runs at the old version on the follower: it waits for that."""
    reader, writer = await _asked(second)
    rollout = await first.start("v1.1", "immediate", **PLAN)
    await first.until(lambda: _weighs_nothing(second, old), "the switch")
    await first.api("POST", f"deployment/{rollout}/complete")
    await first.until(lambda: _waits_for(first, old, ["b"]), "the one in charge to wait for the follower")
    await second.until(lambda: _drains_here(second, old), "the follower to know")
    await _held_until_answered(first, rollout, old, reader, writer)
    assert await second.settled(rollout) == "completed"
    await asyncio.to_thread(first.first[0].process.wait, 60)
    assert second.control.has_said('"forced": 0, "event": "drained_here"')


async def _cut(first: World, second: World, old: str) -> None:
    """A request that outlasts a drain that was ordered at the follower is cut there, at its deadline."""
    _, new = await first.add_version("v1.2")
    reader, writer = await _asked(second)
    await first.api("PATCH", f"deployment/versions/{new}", {"weight": 100})
    await first.api("PATCH", f"deployment/versions/{old}", {"weight": 0})
    await second.until(lambda: _weighs_nothing(second, old), "the follower to know")
    drain = await second.api("POST", f"deployment/versions/{old}/drain", {"timeout": 2_000})
    assert not (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await second.until(lambda: second.control.has_said('"forced": 1, "event": "drained_here"'), "the cut")
    await first.until(lambda: _is_drained(first, old), "the one in charge to hear of it")
    drained_at = datetime.fromisoformat((await first.version(old))["updatedAt"])
    assert drained_at >= datetime.fromisoformat(drain["deadline"])


async def _asked(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the ends of a request that runs until it is sent the rest of its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\na")
    await world.until(lambda: _runs(world), "a request under way")
    return reader, writer


async def _runs(world: World) -> bool:
    versions = (await world.api("GET", "overview"))["items"][0]["versions"]
    return any(each["inFlight"] for each in versions)


async def _drain(world: World, version_id: str) -> Any:
    return await world.api("GET", f"deployment/versions/{version_id}/drain")


async def _waits_for(world: World, version_id: str, names: list[str]) -> bool:
    return bool((await _drain(world, version_id))["waitsFor"] == names)


async def _drains_here(world: World, version_id: str) -> bool:
    found = await _drain(world, version_id)
    return bool(found["state"] == "draining" and found["inFlight"] == 1)


async def _weighs_nothing(world: World, version_id: str) -> bool:
    return bool((await world.version(version_id))["weight"] == 0)


async def _is_drained(world: World, version_id: str) -> bool:
    return bool((await world.version(version_id))["drained"])
