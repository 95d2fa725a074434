"""Control killed at random moments of real rollouts under load: they end as they should, and nothing is lost.

GATEWAY_KILLS sets how many kills each story gets (2 by default), GATEWAY_SEED repeats a run.
"""

import asyncio
import os
import random
from pathlib import Path
from typing import Any, Final

import pytest

from bench.harness import SETTLED, World
from bench.load import KEPT, LoadSettings
from tests.fault.under_load import kill_and_start, under_load

KILLS: Final = int(os.environ.get("GATEWAY_KILLS", "2"))
SEED: Final = int(os.environ.get("GATEWAY_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
CANARY: Final[dict[str, Any]] = {"steps": [10, 50, 100], "stepInterval": 1_000 * KILLS, "drainTimeout": 5_000}

pytestmark = pytest.mark.timeout(120 + 20 * KILLS)


def light(world: World) -> LoadSettings:
    return LoadSettings(port=world.port, rate=150.0, connections=8, cycle=(KEPT,))


async def kill_until_over(world: World, deployment: str, chance: random.Random) -> str:
    """Kill control KILLS times at random moments, and wait for the end. Returns the status."""
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        if (await world.deployment(deployment))["status"] in SETTLED:
            break
        await kill_and_start(world)
    return await world.settled(deployment)


async def weights(world: World) -> dict[str, int]:
    rows = (await world.api("GET", "deployment/versions?serviceName=auth"))["items"]
    return {row["version"]: row["weight"] for row in rows}


async def test_good_canary_completes_however_often_control_is_killed(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with under_load(light(world)):
            deployment = await world.start("v1.1", **CANARY)
            ended = await kill_until_over(world, deployment, chance)
        assert ended == "completed", f"seed {SEED}"
        assert await weights(world) == {"v1.0": 0, "v1.1": 100}, f"seed {SEED}"


async def test_bad_canary_is_rolled_back_however_often_control_is_killed(tmp_path: Path) -> None:
    chance = random.Random(SEED + 1)
    async with World(tmp_path) as world:
        await world.add_version("v1.1", "--error-rate", "0.3", "--seed", "1")
        async with under_load(light(world), allowed=frozenset({"500"})):
            deployment = await world.start("v1.1", **CANARY | {"stepInterval": 20_000})
            ended = await kill_until_over(world, deployment, chance)
        assert ended == "rolled_back", f"seed {SEED}"
        assert await weights(world) == {"v1.0": 100, "v1.1": 0}, f"seed {SEED}"


async def test_control_killed_at_the_very_end_finishes_it(tmp_path: Path) -> None:
    """The old version drains, is asked to stop, and is asked again at most under the same key."""
    chance = random.Random(SEED + 2)
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with under_load(light(world)):
            deployment = await world.start("v1.1", "immediate", bakeTime=60_000, drainTimeout=3_000)
            await world.until(lambda: is_live(world, deployment), "all traffic on the new version")
            await world.api("POST", f"deployment/{deployment}/complete", {})
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            await kill_and_start(world)
            assert await world.settled(deployment) == "completed", f"seed {SEED}"
        old = await world.version(await world.version_id("v1.0"))
        assert (old["status"], old["weight"], old["isActive"]) == ("deprecated", 0, False), f"seed {SEED}"


async def test_control_killed_while_it_rolls_back_rolls_back(tmp_path: Path) -> None:
    chance = random.Random(SEED + 3)
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with under_load(light(world)):
            deployment = await world.start("v1.1", "blue-green", bakeTime=60_000)
            await world.until(lambda: is_live(world, deployment), "all traffic on the new version")
            ordered = asyncio.ensure_future(world.ask("POST", f"deployment/{deployment}/rollback", {}))
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            await kill_and_start(world)
            await asyncio.gather(ordered, return_exceptions=True)
            if not await is_reverting(world, deployment):
                await world.api("POST", f"deployment/{deployment}/rollback", {})
            assert await world.settled(deployment) == "rolled_back", f"seed {SEED}"
        assert await weights(world) == {"v1.0": 100, "v1.1": 0}, f"seed {SEED}"


async def is_live(world: World, deployment: str) -> bool:
    return bool((await world.deployment(deployment))["trafficPercent"] == 100)


async def is_reverting(world: World, deployment: str) -> bool:
    """Whether the rollback was committed before the kill."""
    return bool((await world.deployment(deployment))["trafficPercent"] == 0)
