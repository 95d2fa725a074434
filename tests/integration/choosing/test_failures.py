"""Endpoints and versions that fail: traffic leaves them, no client notices, and it comes back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from bench.harness import World
from bench.load import KEPT, Load, LoadReport, LoadSettings
from tests.integration.choosing.peers import Upstream, endpoints, give_weight, register, upstreams

WORKERS: Final = 2
THRESHOLD: Final = 5
CONNECTIONS: Final = 16
RESET_S: Final = 5.0
BREAKER: Final = (
    f"breaker = {{ failure_threshold = {THRESHOLD}, reset_timeout = {RESET_S * 1000:.0f} }}\nslow_start = 0"
)

pytestmark = pytest.mark.timeout(180)


@asynccontextmanager
async def load(world: World, rate: float = 300.0) -> AsyncIterator[Load]:
    """GETs at a constant rate while the block runs."""
    made = Load(LoadSettings(port=world.port, rate=rate, connections=CONNECTIONS, cycle=(KEPT,)))
    enough = asyncio.Event()
    running = asyncio.ensure_future(made.run(1, until=enough))
    try:
        yield made
    finally:
        enough.set()
        await running


async def circuits(world: World, version: str) -> list[str]:
    return [row["circuitState"] for row in await endpoints(world, version)]


def early_failures(upstream: Upstream) -> int:
    """Return how many requests it failed before any trial call could come."""
    first = upstream.failed_at[0]
    return sum(1 for at in upstream.failed_at if at < first + RESET_S)


async def test_traffic_leaves_a_failing_endpoint_and_returns_when_it_has_recovered(tmp_path: Path) -> None:
    async with World(tmp_path, workers=WORKERS, policies=BREAKER) as world, upstreams("v2", 3) as made:
        version_id = await register(world, made, weight=100)
        await give_weight(world, await world.version_id("v1.0"), 0)
        bad = made[1]
        async with load(world) as requests:
            await world.until(lambda: all(len(each.seen) > 50 for each in made), "traffic at all three")
            bad.status = 503
            await world.until(lambda: world_says_open(world, bad), "the breaker to open")
            row = await endpoint_of(world, bad)
            assert row["failureCount"] >= THRESHOLD
            assert row["lastFailureTime"] < row["nextAttemptTime"]
            version = await world.version(version_id)
            assert version["circuitState"] == "CLOSED"
            assert version["failureCount"] >= THRESHOLD
            until = bad.failed_at[0] + RESET_S
            await world.until(lambda: time.monotonic() > until, "the first trial call to be due")
            assert early_failures(bad) <= THRESHOLD * WORKERS + CONNECTIONS
            bad.status = 200
            seen = len(bad.seen)
            await world.until(lambda: len(bad.seen) > seen + 100, "traffic to return", 60)
            assert await circuits(world, "v2") == ["CLOSED"] * 3
        report = requests.report()
        assert report.lost == {}, report.examples


async def endpoint_of(world: World, upstream: Upstream) -> dict[str, object]:
    return next(row for row in await endpoints(world, "v2") if row["url"] == upstream.url)


async def world_says_open(world: World, upstream: Upstream) -> bool:
    return (await endpoint_of(world, upstream))["circuitState"] == "OPEN"


async def test_the_share_of_a_version_that_fails_everywhere_moves_at_once(tmp_path: Path) -> None:
    async with World(tmp_path, workers=WORKERS, policies=BREAKER) as world, upstreams("v2", 3) as made:
        version_id = await register(world, made, weight=50)
        await give_weight(world, await world.version_id("v1.0"), 50)
        async with load(world) as requests:
            await world.until(lambda: all(len(each.seen) > 20 for each in made), "traffic at all three")
            for each in made:
                each.status = 503
            await world.until(lambda: all_open(world), "the breakers to open")
            assert (await world.version(version_id))["circuitState"] == "OPEN"
            bound = 3 * THRESHOLD * WORKERS + CONNECTIONS
            failed = sum(early_failures(each) for each in made)
            assert failed <= bound
            # Each of those was tried once more there, then at the stable version: no client saw it.
            seen, served = sum(len(each.seen) for each in made), requests.versions["v1.0"]
            await world.until(lambda: requests.versions["v1.0"] > served + 200, "the other version to serve")
            trials = sum(len(each.seen) for each in made) - seen
            assert trials <= 3 * 3 * 5  # no more than trial calls, however slow this machine is
        report = requests.report()
        assert report.lost == {}, report.examples


async def all_open(world: World) -> bool:
    return await circuits(world, "v2") == ["OPEN"] * 3


async def test_attempts_stay_within_the_budget_when_every_upstream_fails(tmp_path: Path) -> None:
    policies = "breaker = false\nretry = { budget_percent = 20, budget_min_per_second = 10 }"
    async with World(tmp_path, workers=WORKERS, policies=policies) as world, upstreams("v2", 3) as made:
        await register(world, made, weight=100)
        await give_weight(world, await world.version_id("v1.0"), 0)
        for each in made:
            each.status = 503
        started = time.monotonic()
        async with load(world) as requests:
            await world.until(lambda: requests.sent >= 2_000, "enough requests")
        report: LoadReport = requests.report()
        seconds = time.monotonic() - started
        attempts = sum(len(each.seen) for each in made)
        assert report.lost == {"503": report.sent}
        assert attempts > report.sent
        # Budgets are by whole seconds of the clock: the first and the last are counted though cut short.
        assert attempts <= 1.2 * report.sent + 10 * (seconds + 2)
