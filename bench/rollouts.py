"""What many rollouts at once cost the control process, and how soon a step's weights are live.

Each rollout is a canary of ten steps; all services get the same share of the load. "Live" is from the moment
new weights were decided on, before they are stored, until every worker has said that it serves by them, as
control logs it.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import report
from bench.client import request_head
from bench.harness import World
from bench.load import Load, LoadSettings
from bench.probes import busy

STEPS: Final = list(range(10, 101, 10))
SERVICE: Final = """
[[service]]
name = "many{number}"
routes = [{{ path = "/many{number}" }}]
[[service.version]]
version = "v1"
url = "{url}"
weight = 100
"""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        percent, live_ms, lost = asyncio.run(measured(Path(folder), options))
    live_ms.sort()
    found = {
        "rollouts": options.rollouts,
        "requests_per_s": options.rate,
        "control_percent": percent,
        "changes": len(live_ms),
        "live_p50_ms": report.quantile(live_ms, 0.5),
        "live_p99_ms": report.quantile(live_ms, 0.99),
        "lost": lost,
    }
    report.save_values("rollouts", found)
    return 0 if live_ms and lost == 0 else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench rollouts", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--rate", type=float, default=400.0, help="requests per second, over all services")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--step-s", type=float, default=10.0, help="length of a step")
    return parser.parse_args(arguments)


async def measured(folder: Path, options: argparse.Namespace) -> tuple[float, list[float], int]:
    """Return control's share of a core in percent, how long each change took (ms), and the lost requests."""
    async with World(folder, workers=1) as world:
        names = [f"many{number}" for number in range(options.rollouts)]
        url = world.first[0].url
        world.write_config(extra="\n".join(SERVICE.format(number=n, url=url) for n in range(len(names))))
        await world.reload()
        await world.until(lambda: all_serve(world, names), "every service to have a healthy version", 120)
        for name in names:
            body = {"serviceName": name, "version": "v2", "url": url}
            await world.api("POST", "deployment/versions", body, expect=201)
        load = Load(LoadSettings(port=world.port, rate=options.rate, connections=32, cycle=tuple(names)))
        load.heads.update({name: request_head("GET", f"/{name}", host="bench.test") for name in names})
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(load.run(1, until=enough), name="load")
            try:
                for name in names:
                    await world.api("POST", "deployment/start", start_of(name, options.step_s), expect=201)
                await asyncio.sleep(options.step_s)
                seen = len(list(changes(world)))
                percent = await busy(world, options.seconds)
                live_ms = list(changes(world))[seen:]
            finally:
                enough.set()
        return percent, live_ms, loading.result().failures


def start_of(service: str, step_s: float) -> dict[str, object]:
    config = {"steps": STEPS, "stepInterval": round(step_s * 1000), "minRequests": 0, "smokeTests": False}
    return {"serviceName": service, "toVersion": "v2", "strategy": "canary", "config": config}


async def all_serve(world: World, names: list[str]) -> bool:
    for name in reversed(names):
        service = await world.ask("GET", f"services/{name}")
        if service.status != 200 or service.json()["currentVersionId"] is None:
            return False
    return True


def changes(world: World) -> Iterator[float]:
    """Yield how long each change of weights so far took to be live, in milliseconds."""
    for line in world.controls[-1].log.read_text().splitlines():
        if '"weights_live"' in line:
            yield float(json.loads(line)["after_ms"])
