"""What else becomes of real rollouts: undecided, unusable, refused, frozen, undone, asked about later."""

from pathlib import Path
from typing import Any, Final

import pytest

from bench.harness import World
from tests.integration.test_rollout_story import at_percent, traffic, when

QUICK: Final[dict[str, Any]] = {"steps": [10, 100], "stepInterval": 1_000, "drainTimeout": 2_000}

pytestmark = pytest.mark.timeout(120)


async def reasons(world: World, deployment: str) -> list[tuple[str, str, str]]:
    """Return (verdict, actor, reason) of each decision, newest first."""
    rows = (await world.api("GET", f"deployment/{deployment}/decisions"))["items"]
    return [(row["verdict"], row["actor"], row["reason"]) for row in rows]


async def test_no_traffic_is_never_success(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        deployment = await world.start("v1.1", **QUICK)
        paused = await when(world, deployment, lambda d: d["status"] == "paused")
        assert paused["trafficPercent"] == 10
        verdict, actor, reason = (await reasons(world, deployment))[0]
        assert (verdict, actor) == ("pause", "clock")
        assert "Too little traffic" in reason
        await world.api("POST", f"deployment/{deployment}/rollback", {"reason": "nobody uses it"})
        ended = await when(world, deployment, lambda d: d["status"] == "rolled_back")
        assert "nobody uses it" in ended["errorMessage"]


async def test_canary_that_dies_is_aborted_as_unavailable(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        sample, _ = await world.add_version("v1.1")
        async with traffic(world, rate=100):
            deployment = await world.start("v1.1", **QUICK | {"stepInterval": 60_000})
            await when(world, deployment, at_percent(10))
            sample.kill()
            ended = await when(world, deployment, lambda d: d["status"] == "rolled_back")
        assert "The new version" in ended["errorMessage"]


async def test_frozen_rollout_stays_where_it_is_and_still_rolls_back(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with traffic(world, rate=200):
            deployment = await world.start("v1.1", **QUICK | {"stepInterval": 2_000})
            await when(world, deployment, at_percent(10))
            await world.api("PUT", "freeze", {"frozen": True})
            held = await world.deployment(deployment)
            refused = await world.ask("POST", f"deployment/{deployment}/promote", {})
            assert refused.status == 409
            await world.api("POST", f"deployment/{deployment}/rollback", {})
            await when(world, deployment, lambda d: d["status"] == "rolled_back")
            assert held["trafficPercent"] == 10


async def test_undo_of_a_finished_release_is_a_release_of_its_own(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with traffic(world, rate=200):
            first = await world.start("v1.1", "immediate", bakeTime=1_000, drainTimeout=2_000)
            await when(world, first, lambda d: d["status"] == "completed")
            undone = await world.api("POST", "services/auth/undo", {"reason": "support called"})
            assert (undone["strategy"], undone["toVersion"]) == ("immediate", "v1.0")
            await when(world, undone["id"], at_percent(100))
            ((_, _, gate),) = [row for row in await reasons(world, undone["id"]) if row[0] == "gate"]
            assert "healthy" in gate
        body = {"serviceName": "auth", "strategy": "canary", "config": {"errorThreshold": 1}}
        replayed = await world.api("POST", "deployment/whatif", body)
        assert first in [item["deploymentId"] for item in replayed["items"]]


async def test_failing_smoke_test_blocks_the_start(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        smoke = {"endpoints": [{"method": "GET", "path": "/", "expectedStatus": 418}], "retries": 0}
        deployment = await world.start("v1.1", **QUICK, smokeTests=smoke)
        failed = await when(world, deployment, lambda d: d["status"] == "failed")
        assert failed["trafficPercent"] == 0
        assert "smoke test" in failed["errorMessage"]
