"""How soon a breaker that opens in one worker is known to the others.

Each opening is a service of its own with two endpoints, of which one refuses connections. One worker is sent
requests until so many have failed (502) that the breaker of that endpoint opens; from then on the other is
asked again and again, and has known it since the last request that it lost there. Beside it runs a constant
load.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import report
from bench.client import Connection, request_head
from bench.harness import World, owner_of
from bench.load import Load, LoadSettings
from bench.procs import free_port

WORKERS: Final = 2
THRESHOLD: Final = 100
"""Failures that open a breaker. More than what the other worker is asked meanwhile: it opens none itself."""
SERVICE: Final = """
[[service]]
name = "dead{number}"
routes = [{{ path = "/dead{number}" }}]
health = false
retry = false
breaker = {{ failure_threshold = {threshold} }}
[[service.version]]
version = "v1"
url = "http://127.0.0.1:{port}"
replicas = ["{good}"]
weight = 100
"""
SURE: Final = 30
"""So many answers in a row that are none of the dead endpoint's: about half would be."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        known_ms = sorted(asyncio.run(measured(Path(folder), options)))
    found = {
        "openings": len(known_ms),
        "requests_per_s": options.rate,
        "p50_ms": report.quantile(known_ms, 0.5),
        "p99_ms": report.quantile(known_ms, 0.99),
        "max_ms": known_ms[-1],
    }
    report.save_values("breakers", found)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench breakers", description=__doc__)
    parser.add_argument("--openings", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1_000.0, help="requests per second, beside it")
    return parser.parse_args(arguments)


async def measured(folder: Path, options: argparse.Namespace) -> list[float]:
    """Return how many milliseconds passed from each opening until the other worker refused."""
    async with World(folder, workers=WORKERS) as world:
        dead = free_port()
        services = range(options.openings)
        known = {"port": dead, "good": world.first[0].url, "threshold": THRESHOLD}
        texts = (SERVICE.format(number=number, **known) for number in services)
        world.write_config(extra="\n".join(texts))
        await world.reload()
        last = f"services/dead{options.openings - 1}"
        await world.until(lambda: has(world, last), "every service to be there", 120)
        one, other = await one_of_each(world)
        load = Load(LoadSettings(port=world.port, rate=options.rate, connections=32))
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(1, until=enough), name="load")
            try:
                return [await opening(one, other, f"/dead{number}") for number in services]
            finally:
                enough.set()


async def has(world: World, path: str) -> bool:
    return (await world.ask("GET", path)).status == 200


async def one_of_each(world: World) -> list[Connection]:
    """Return a connection to each worker."""
    found: dict[int, Connection] = {}
    pids = await world.worker_pids()
    while len(found) < len(pids):
        connection = await Connection.open("127.0.0.1", world.port)
        await connection.exchange(request_head("GET", "/"))  # answered: it has been accepted
        client_port = connection.transport.get_extra_info("sockname")[1]
        if found.setdefault(owner_of(world.port, client_port, pids), connection) is not connection:
            connection.close()
    return list(found.values())


async def opening(one: Connection, other: Connection, path: str) -> float:
    """Open the breaker behind `path` in one worker; return after how many ms the other one knew."""
    head = request_head("GET", path)
    while (await other.exchange(head)).status != 502:
        pass  # so that it is known to try there
    failed = 1
    while failed < THRESHOLD:
        failed += (await one.exchange(head)).status == 502
    opened = lost = time.monotonic()
    since = 0
    while since < SURE:
        since += 1
        if (await other.exchange(head)).status == 502:
            lost, since = time.monotonic(), 0
    return (lost - opened) * 1000
