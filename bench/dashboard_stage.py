"""A gateway with a past and a present, for whoever looks at its dashboard: tests and pictures.

Services with traffic, a release that was rolled back, one that completed, one that waits for a person, and
one that is under way.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.harness import SETTLED, Sample, World
from bench.procs import FROM_HERE

CHROMIUM: Final = Path("/usr/bin/chromium")
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
RATE: Final = 60.0
HEALTH: Final = {"timeout": 400, "retries": 0, "healthyThreshold": 1}
SMOKE: Final = {"endpoints": [{"path": "/api/health"}, {"path": "/orders/1"}], "timeout": 3_000}
PATIENT: Final = {"autoPause": False, "maxStepTime": 600_000}
"""What is good is given time to prove it, however busy the machine."""
PATIENCE_S: Final = 90.0


class DashboardStage:
    """A world whose services share a few sample processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.good = world.add_sample("v1.1")
        self.bad = world.add_sample("v1.2", "--error-rate", "0.5", "--error-path", "/pay", "--seed", "7")
        self._loads: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return f"http://127.0.0.1:{self.world.admin_port}/"

    async def service(
        self, name: str, *versions: tuple[str, Sample], interval_ms: int = 500
    ) -> dict[str, str]:
        """Make a service with versions, of which the first serves. Returns their ids by name.

        interval_ms: between two probes of a version.
        """
        health = {**HEALTH, "interval": interval_ms}
        body = {"name": name, "routes": [{"path": f"/{name}"}], "health": health, "smokeTests": SMOKE}
        await self.world.api("POST", "services", body, expect=201)
        ids = {version: await self.register(name, version, sample) for version, sample in versions}
        first = next(iter(ids.values()))
        await self.world.until(lambda: self.world.is_active(first), f"{name} to serve", PATIENCE_S)
        await self.world.until(lambda: self._are_healthy(ids), f"{name} to be healthy", PATIENCE_S)
        return ids

    async def register(self, name: str, version: str, sample: Sample) -> str:
        """Register a version; returns its id."""
        body = {"serviceName": name, "version": version, "url": sample.url}
        return str((await self.world.api("POST", "deployment/versions", body, expect=201))["id"])

    async def _are_healthy(self, ids: dict[str, str]) -> bool:
        return all([await self.world.is_healthy(each) for each in ids.values()])

    def load(self, name: str, path: str = "orders/1", rate: float = RATE) -> None:
        """Send a service requests until the stage closes."""
        url = f"http://127.0.0.1:{self.world.port}/{name}/{path}"
        command = [sys.executable, "-m", "gateway.demo.load", url, "--rate", str(rate), "--connections", "2"]
        environment = {**os.environ, **FROM_HERE}
        self._loads.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment))

    def close(self) -> None:
        """End every load."""
        for load in self._loads:
            load.terminate()
        for load in self._loads:
            load.wait()

    async def start(self, name: str, to: str, **config: object) -> str:
        """Start a canary; returns its id."""
        body = {"serviceName": name, "toVersion": to, "strategy": "canary", "config": config}
        return str((await self.world.api("POST", "deployment/start", body, expect=201))["id"])

    async def until(self, rollout: str, *statuses: str) -> dict[str, Any]:
        """Return a rollout once it has one of the statuses."""
        found: dict[str, Any] = {}

        async def holds() -> bool:
            found.update(await self.world.deployment(rollout))
            return found["status"] in statuses

        await self.world.until(holds, f"{rollout} to be {' or '.join(statuses)}", PATIENCE_S)
        return found


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[DashboardStage]:
    """Run a gateway for the block, and end it with all that belongs to it."""
    async with World(folder, workers=1) as world:
        stage = DashboardStage(world)
        try:
            yield stage
        finally:
            stage.close()


async def furnish(stage: DashboardStage, quiet_services: Sequence[str] = ()) -> dict[str, str]:
    """Give the stage its past and its present. Returns the rollouts' ids by what became of them."""
    old, good, bad = stage.world.first[0], stage.good, stage.bad
    await asyncio.gather(
        stage.service("payments", ("v1.8.1", old), ("v1.9.0", bad)),
        stage.service("search", ("v5.0", old), ("v5.1", good)),
        stage.service("mail", ("v2.2", old), ("v2.3", good)),
        stage.service("checkout", ("v3.1.0", old), ("v3.2.0", good)),
        *(stage.service(name, ("v1.0", old)) for name in quiet_services),
    )
    for name, path in (("payments", "pay"), ("search", "q"), ("mail", "send"), ("checkout", "orders/1")):
        stage.load(name, path)
    slow = {"steps": [10, 25, 50, 100], "stepInterval": 120_000}
    rolled_back = await stage.start("payments", "v1.9.0", **slow)
    completed = await stage.start("search", "v5.1", steps=[25, 100], stepInterval=2_000, **PATIENT)
    paused = await stage.start("mail", "v2.3", **slow)
    open_ = await stage.start("checkout", "v3.2.0", **slow, **PATIENT)
    await stage.until(paused, "rolling")
    await stage.world.api("POST", f"deployment/{paused}/pause", {"reason": "waiting for the mail team"})
    await stage.until(rolled_back, "rolled_back")
    await stage.until(completed, *SETTLED)
    await stage.until(open_, "rolling")
    return {"rolled_back": rolled_back, "completed": completed, "paused": paused, "open": open_}
