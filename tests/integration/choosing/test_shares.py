"""Weights are exact, over all workers and in every stretch, and no rhythm of a client can bend them."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from bench.harness import World, held_connections
from tests.effort import effort
from tests.integration.choosing.peers import Pipe, give_weight

WEIGHTS: Final = {"v1.0": 70, "v1.1": 20, "v1.2": 10}
REQUESTS: Final = effort(12_000, 30_000, 100_000)
CONNECTIONS: Final = 20

pytestmark = pytest.mark.timeout(180)


async def weighted(world: World) -> None:
    """Bring in the other two versions, and give all their weights."""
    for version in ("v1.1", "v1.2"):
        await world.add_version(version)
    for version, weight in WEIGHTS.items():
        await give_weight(world, await world.version_id(version), weight)
    await world.until(world.workers_follow, "the weights to be everywhere")


def off(served: Counter[str]) -> float:
    """Return how far the counts are from exact, in requests, at worst."""
    return max(abs(served[version] - served.total() * weight / 100) for version, weight in WEIGHTS.items())


async def open_on_both_workers(world: World) -> list[Pipe]:
    pipes: list[Pipe] = []
    pids = await world.worker_pids()
    while len(pipes) < CONNECTIONS or not all(held_connections(pid, world.port) for pid in pids):
        pipes.append(await Pipe.open(world.port))
        await pipes[-1].ask(["/"])
        pipes[-1].versions.clear()
    return pipes


async def test_shares_are_exact_over_workers_in_windows_and_for_a_cycle_of_calls(tmp_path: Path) -> None:
    async with World(tmp_path, workers=2) as world:
        await weighted(world)
        pipes = await open_on_both_workers(world)
        await asyncio.gather(*(pipe.ask(["/"] * (REQUESTS // len(pipes))) for pipe in pipes))
        served = Counter(version for pipe in pipes for version in pipe.versions)
        assert served.total() >= REQUESTS * 0.999
        assert off(served) <= REQUESTS * 0.001
        await one_worker(pipes[0])
        for pipe in pipes:
            pipe.close()


async def one_worker(pipe: Pipe) -> None:
    """All requests of one connection go to one worker, and now nobody else asks it for anything."""
    pipe.versions.clear()
    cycle = [f"/call/{number}" for number in range(10)]
    await pipe.ask(cycle * 1_000)
    seen = pipe.versions
    window = Counter(seen[:100])
    for leaves, comes in zip(seen, seen[100:], strict=False):
        assert off(window) < 2
        window[leaves] -= 1
        window[comes] += 1
    for call in range(10):
        # Of 1,000 like calls a share of 70 % has a standard deviation of 14.5 requests at most.
        assert off(Counter(seen[call::10])) < 75
