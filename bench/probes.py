"""What probing costs the control process: its CPU with many endpoints, each asked every ten seconds.

All endpoints are one small service, at as many addresses of this machine's own network (127.0.0.0/8).
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import report
from bench.harness import World
from bench.procs import cpu_ns

OF_ONE_SERVICE: Final = 100
SERVICE: Final = """
[[service]]
name = "many{number}"
routes = [{{ path = "/many{number}" }}]
health = {{ interval = {interval_ms} }}
[[service.version]]
version = "v1"
url = "{url}"
replicas = [{replicas}]
weight = 100
"""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        none, many = asyncio.run(measured(Path(folder), options))
    rows = [["none", f"{none:.2f} %"], [str(options.endpoints), f"{many:.2f} %"]]
    print(report.table([f"endpoints, every {options.interval_s:g} s", "control, of a core"], rows))
    report.save(
        "probes", {"endpoints": options.endpoints, "interval_s": options.interval_s, "percent": many - none}
    )
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench probes", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1_000)
    parser.add_argument("--interval-s", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    return parser.parse_args(arguments)


async def measured(folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Return the percent of a core that control needs without the endpoints, and with them."""
    async with World(folder, workers=1) as world:
        without = await busy(world, options.seconds)
        sample = world.add_sample("v1", "--host", "0.0.0.0")
        services = declared(sample.port, options.endpoints, round(options.interval_s * 1000))
        world.write_config(extra="\n".join(services))
        await world.reload()
        await world.until(lambda: all_probed(world, options.endpoints), "every endpoint to be probed", 120)
        await asyncio.sleep(options.interval_s)  # the first round, all at once, spreads out
        return without, await busy(world, options.seconds)


def declared(port: int, endpoints: int, interval_ms: int) -> Iterator[str]:
    """Yield services that have so many endpoints in all, each at an address of its own."""
    urls = [f"http://127.1.{number // 250}.{number % 250 + 1}:{port}" for number in range(endpoints)]
    for start in range(0, endpoints, OF_ONE_SERVICE):
        url, *replicas = urls[start : start + OF_ONE_SERVICE]
        yield SERVICE.format(
            number=start // OF_ONE_SERVICE,
            interval_ms=interval_ms,
            url=url,
            replicas=", ".join(f'"{each}"' for each in replicas),
        )


async def all_probed(world: World, endpoints: int) -> bool:
    found = 0
    for service in (await world.api("GET", "services"))["items"]:
        if service["name"].startswith("many"):
            health = await world.api("GET", f"services/{service['name']}/health")
            found += sum(endpoint["healthy"] for endpoint in health["versions"][0]["endpoints"])
    return found == endpoints


async def busy(world: World, seconds: float) -> float:
    """Return the percent of a core the control process needs over so many seconds."""
    pids = [int((await world.info())["pid"])]
    before = cpu_ns(pids)
    await asyncio.sleep(seconds)
    return (cpu_ns(pids) - before) / 1e7 / seconds
