"""Endpoints and versions that fail: traffic leaves them, no client notices, and it comes back."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
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
AMPLE: Final = f"{BREAKER}\nretry = {{ budget_min_per_second = 1000 }}"
"""Retries for all that fail before a breaker opens, however many those are on a slow machine."""

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
    async with World(tmp_path, workers=WORKERS, policies=AMPLE) as world, upstreams("v2", 3) as made:
        version_id = await register(world, made, weight=50)
        await give_weight(world, await world.version_id("v1.0"), 50)
        async with load(world) as requests:
            await world.until(lambda: all(len(each.seen) > 20 for each in made), "traffic at all three")
            for each in made:
                each.status = 503
            await world.until(lambda: all_open(world), "the breakers to open")
            assert (await world.version(version_id))["circuitState"] == "OPEN"
            bound = 3 * THRESHOLD * WORKERS + 2 * CONNECTIONS  # what is under way may fail at two of them
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


async def test_an_open_breaker_survives_a_crash_of_control(tmp_path: Path) -> None:
    policies = f"breaker = {{ failure_threshold = {THRESHOLD}, reset_timeout = 600000 }}"
    async with World(tmp_path, workers=WORKERS, policies=policies) as world, upstreams("v2", 2) as made:
        version_id = await register(world, made, weight=100)
        await give_weight(world, await world.version_id("v1.0"), 0)
        bad, good = made
        async with load(world) as requests:
            await world.until(lambda: len(bad.seen) > 20, "traffic")
            bad.status = 503
            await world.until(lambda: world_says_open(world, bad), "the breaker to open")
            before = await endpoint_of(world, bad)
            await world.until(lambda: stored_failures(world, version_id) >= THRESHOLD, "it to be stored")
            await world.kill_control()
            world.start_gateway()
            await world.until(lambda: world.all_workers_serve(), "the workers to be replaced")
            after = await endpoint_of(world, bad)
            assert after["circuitState"] == "OPEN"
            assert after["failureCount"] == before["failureCount"]
            assert within_a_second(after["lastFailureTime"], before["lastFailureTime"])
            assert within_a_second(after["nextAttemptTime"], before["nextAttemptTime"])
            assert (await world.version(version_id))["failureCount"] == before["failureCount"]
            seen, served = len(bad.seen), len(good.seen)
            await world.until(lambda: len(good.seen) > served + 200, "the other endpoint to serve")
            assert len(bad.seen) == seen
        report = requests.report()
        assert report.lost == {}, report.examples


def stored_failures(world: World, version_id: str) -> int:
    with closing(sqlite3.connect(world.folder / "gateway.db")) as store:
        query = "SELECT failure_count FROM gateway_service_version WHERE id = ?"
        (row,) = store.execute(query, (version_id,))
    return int(row[0])


def within_a_second(one: object, other: object) -> bool:
    """Compare two times; what was stored in monotonic seconds comes back with a clock's error."""
    times = [datetime.fromisoformat(str(each)) for each in (one, other)]
    return abs((times[0] - times[1]).total_seconds()) < 1


async def test_a_version_takes_no_request_before_its_first_probe_has_passed(tmp_path: Path) -> None:
    async with World(tmp_path, workers=WORKERS) as world, upstreams("v2") as made:
        made[0].is_healthy = False
        body = {"serviceName": "auth", "version": "v2", "url": made[0].url}
        version_id = (await world.api("POST", "deployment/versions", body, expect=201))["id"]
        await give_weight(world, version_id, 50)
        async with load(world) as requests:
            await world.until(lambda: requests.ok > 200, "requests")
            assert made[0].seen == []
            assert not await world.is_active(version_id)
            made[0].is_healthy = True
            await world.until(lambda: len(made[0].seen) > 50, "its share of the traffic")
        report = requests.report()
        assert report.lost == {}, report.examples
