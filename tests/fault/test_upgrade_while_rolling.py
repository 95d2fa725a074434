"""The gateway is replaced while a canary runs: the rollout goes on, and so does who follows it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from bench.client import Lost
from bench.harness import ADMIN, World
from bench.load import Load, LoadSettings
from tests.fault.under_load import under_load, upgrade

pytestmark = pytest.mark.timeout(180)

# A step lasts until it is measured and promoted, however long an upgrade takes; the last one ends by itself.
# A machine that is busy with the upgrade is no reason to hold one.
HOUR_MS: Final = 3_600_000
CONFIG: Final[dict[str, Any]] = {
    "steps": [20, 60, 100],
    "stepInterval": [HOUR_MS, HOUR_MS, 1_000],
    "drainTimeout": 5_000,
    "maxLatencyRatio": None,
    "autoPause": False,
}
RATE: Final = 300.0


class Follower:
    """A client of the event stream that comes back, as browsers do, with the last id it saw."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: list[dict[str, Any]] = []
        self.came_back = -1

    async def run(self) -> None:
        while True:
            self.came_back += 1
            try:
                await self._listen()
            except (OSError, asyncio.IncompleteReadError, Lost):
                await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.world.admin_port)
        last = self.events[-1]["id"] if self.events else 0
        fields = f"Authorization: Bearer {self.world.token}\r\nLast-Event-ID: {last}\r\n"
        writer.write(f"GET {ADMIN}/events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise Lost("refused")
            while line := await reader.readline():
                if line.startswith(b"data: "):
                    self.events.append(json.loads(line.removeprefix(b"data: ")))
        finally:
            writer.close()


@asynccontextmanager
async def following(world: World) -> AsyncIterator[Follower]:
    follower = Follower(world)
    task = asyncio.ensure_future(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def share_of_next(load: Load, requests: int) -> float:
    """Return the new version's percentage of the next answers."""
    before = load.versions.copy()
    while (load.versions - before).total() < requests:
        await asyncio.sleep(0.05)
    served = load.versions - before
    return 100 * served["v1.1"] / served.total()


async def test_a_canary_goes_on_over_upgrades_with_the_right_shares(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with following(world) as follower, under_load(LoadSettings(port=world.port, rate=RATE)) as load:
            rollout = await world.start_rolling("v1.1", **CONFIG)
            for step, percent in enumerate((20, 60)):
                await world.until(partial(is_at, world, rollout, percent), f"{percent} %")
                await upgrade(world)
                found = await world.deployment(rollout)
                assert (found["status"], found["currentStep"]) == ("rolling", step)
                assert abs(await share_of_next(load, 600) - percent) <= 1.5
                await world.api("POST", f"deployment/{rollout}/promote")
            assert await world.settled(rollout) == "completed"
            said = await world.api("GET", f"deployment/{rollout}/events")
            newest = max(event["id"] for event in said["items"])
            await world.until(lambda: follower.events[-1]["id"] >= newest, "the follower to catch up")
        ids = [event["id"] for event in follower.events]
        assert ids == sorted(set(ids)), "each event once, in order"
        assert {event["id"] for event in said["items"]} <= set(ids), "none missed"
        assert follower.came_back >= 2


async def is_at(world: World, rollout: str, percent: int) -> bool:
    return bool((await world.deployment(rollout))["trafficPercent"] == percent)
