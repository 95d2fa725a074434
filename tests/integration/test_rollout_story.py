"""A release as its users see it: real services, real traffic, the admin API, and not one request lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bench.harness import World
from bench.load import KEPT, Load, LoadSettings

CONFIG: Final[dict[str, Any]] = {
    "steps": [10, 50, 100],
    "stepInterval": [8_000, 12_000, 2_000],  # long enough to be measured in, on a busy machine too
    "drainTimeout": 5_000,
}

pytestmark = pytest.mark.timeout(180)


class Traffic:
    """A constant load, and which versions served it since a mark."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self._mark: Counter[str] = Counter()

    def mark(self) -> None:
        """Count from here."""
        self._mark = self.load.versions.copy()

    def since_mark(self) -> Counter[str]:
        return self.load.versions - self._mark

    async def served(self, requests: int) -> Counter[str]:
        """Return who served the next `requests` requests."""
        self.mark()
        while self.since_mark().total() < requests:
            await asyncio.sleep(0.05)
        return self.since_mark()


@asynccontextmanager
async def traffic(world: World, *, rate: float = 400.0) -> AsyncIterator[Traffic]:
    """Load the gateway while the block runs; nothing may be lost."""
    load = Load(LoadSettings(port=world.port, rate=rate, connections=16, cycle=(KEPT,)))
    enough = asyncio.Event()
    running = asyncio.ensure_future(load.run(1, until=enough))
    try:
        yield Traffic(load)
    finally:
        enough.set()
        report = await running
    assert report.lost == {}, report.examples


async def when(
    world: World, deployment: str, holds: Callable[[Any], bool], *, deadline_s: float = 60.0
) -> Any:
    """Return the deployment as soon as it is as asked."""
    async with asyncio.timeout(deadline_s):
        while not holds(found := await world.deployment(deployment)):
            await asyncio.sleep(0.05)
    return found


def at_percent(percent: int) -> Callable[[Any], bool]:
    return lambda deployment: deployment["trafficPercent"] == percent


async def test_good_canary_moves_exact_shares_and_loses_nothing(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        _, version_id = await world.add_version("v1.1")
        report = await world.api("POST", f"deployment/versions/{version_id}/test")
        assert report["isHealthy"] is True
        async with traffic(world) as seen:
            deployment = await world.start("v1.1", **CONFIG)
            for percent in (10, 50):
                await when(world, deployment, at_percent(percent))
                await asyncio.sleep(0.3)  # requests chosen under the old weights have been answered
                served = await seen.served(800)
                assert abs(100 * served["v1.1"] / served.total() - percent) <= 1.0
                assert (await world.deployment(deployment))["trafficPercent"] == percent
            await when(world, deployment, at_percent(100))
            await asyncio.sleep(0.3)
            assert set(await seen.served(500)) == {"v1.1"}
            ended = await when(world, deployment, lambda d: d["status"] == "completed")
        assert ended["completedAt"] is not None
        old = await world.version(await world.version_id("v1.0"))
        assert (old["status"], old["isActive"], old["weight"]) == ("deprecated", False, 0)


async def test_failing_canary_is_rolled_back_with_its_reason(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1", "--error-rate", "0.2", "--seed", "1")
        load = Load(LoadSettings(port=world.port, rate=400.0, connections=16, cycle=(KEPT,)))
        enough = asyncio.Event()
        running = asyncio.ensure_future(load.run(1, until=enough))
        seen = Traffic(load)
        deployment = await world.start("v1.1", **CONFIG)
        ended = await when(world, deployment, lambda d: d["status"] == "rolled_back")
        await asyncio.sleep(1.0)  # the bound on what follows a verdict
        served = await seen.served(500)
        enough.set()
        await running
        assert set(served) == {"v1.0"}
        assert "new version fails" in ended["errorMessage"]
        assert ended["rolledBackAt"] is not None
        decisions = await world.api("GET", f"deployment/{deployment}/decisions")
        assert any(each["verdict"] == "rollback" for each in decisions["items"])


async def test_killed_control_goes_on_at_its_step_while_traffic_flows(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with traffic(world) as seen:
            deployment = await world.start("v1.1", **CONFIG)
            await when(world, deployment, at_percent(50))
            await world.kill_control()
            assert (await seen.served(200)).total() >= 200  # nobody is in control, and nothing is missed
            world.start_gateway()
            await world.until(world.serves, "the next control")
            found = await world.deployment(deployment)
            assert (found["trafficPercent"], found["currentStep"]) == (50, 1)
            served = await seen.served(400)
            assert abs(100 * served["v1.1"] / served.total() - 50) <= 2.5
            await when(world, deployment, lambda d: d["status"] == "completed")


@pytest.mark.parametrize("strategy", ["blue-green", "immediate"])
async def test_switch_moves_everything_at_once_and_can_be_undone(tmp_path: Path, strategy: str) -> None:
    async with World(tmp_path) as world:
        await world.add_version("v1.1")
        async with traffic(world) as seen:
            deployment = await world.start("v1.1", strategy, bakeTime=60_000)
            await when(world, deployment, at_percent(100))
            await asyncio.sleep(0.3)
            assert set(await seen.served(300)) == {"v1.1"}
            await world.api("POST", f"deployment/{deployment}/rollback", {})
            await when(world, deployment, lambda d: d["status"] == "rolled_back")
            await asyncio.sleep(0.3)
            assert set(await seen.served(300)) == {"v1.0"}


async def test_seeds_own_calls_work_as_they_are_written(tmp_path: Path) -> None:
    """Flat config, no fromVersion, the percent set by hand, completed by hand."""
    async with World(tmp_path) as world:
        sample = world.add_sample("v1.1")
        body = {
            "serviceName": "auth",
            "version": "v1.1",
            "url": sample.url,
            "weight": 0,
            "status": "testing",
        }
        version = await world.api("POST", "deployment/versions", body)
        tested = await world.api("POST", f"deployment/versions/{version['id']}/test")
        assert tested["isHealthy"] is True
        start = {
            "serviceName": "auth",
            "toVersion": "v1.1",
            "strategy": "canary",
            "steps": [10, 50, 100],
            "stepInterval": 300_000,
        }
        deployment = await world.api("POST", "deployment/start", start)
        await when(world, deployment["id"], at_percent(10))
        refused = await world.ask("POST", f"deployment/{deployment['id']}/complete", {})
        assert refused.status == 409
        await world.api("PUT", f"deployment/{deployment['id']}/traffic", {"percent": 100})
        await when(world, deployment["id"], at_percent(100))
        await world.api("POST", f"deployment/{deployment['id']}/complete", {})
        await when(world, deployment["id"], lambda d: d["status"] == "completed")
        listed = await world.api("GET", "deployment?serviceName=auth&status=completed")
        assert [each["id"] for each in listed["items"]] == [deployment["id"]]
