"""Three gateways that serve over one database, behind one balancer: what tests of a whole cluster share."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from bench.client import Lost
from bench.harness import SETTLED, World, gone
from bench.load import KEPT, NEW, LoadSettings
from bench.procs import kill
from gateway.cli.nodes import state_of
from tests.cable import Cable
from tests.splitter import Splitter

NAMES: Final = ("a", "b", "c")
LOOK_S: Final = 0.25
"""How often all are asked what they say: it is their time, too."""
SETTINGS: Final = '[cluster]\nname = "{}"\nserve = true\nisolation = {}\n'


class Cluster:
    """The gateways, each with a cable to the database, and the one port that clients know."""

    def __init__(self, worlds: Sequence[World], cables: Sequence[Cable], splitter: Splitter) -> None:
        self.worlds = list(worlds)
        self.cables = list(cables)
        self.splitter = splitter

    def load(self, rate: float = 120.0) -> LoadSettings:
        """Return a load on all of them: kept connections, and new ones."""
        return LoadSettings(port=self.splitter.port, rate=rate, connections=9, cycle=(KEPT, KEPT, NEW))

    async def states(self) -> dict[str, str]:
        """Return what each does, as one that answers sees it."""
        for world in self.worlds:
            with suppress(Lost, RuntimeError):
                return {each["name"]: state_of(each) for each in (await world.api("GET", "nodes"))["items"]}
        return {}

    async def leader(self) -> World:
        """Wait until one of them is in charge. Returns it."""
        found: list[World] = []

        async def has_one() -> bool:
            await asyncio.sleep(LOOK_S)
            states = await self.states()
            found[:] = [world for world in self.worlds if states.get(world.folder.name) == "in charge"]
            return bool(found)

        await self.worlds[0].until(has_one, "one in charge", 60)
        return found[0]

    async def all_serve(self) -> bool:
        """Whether one is in charge and the others follow."""
        await asyncio.sleep(LOOK_S)
        return sorted((await self.states()).values()) == ["in charge", *["serves"] * (len(NAMES) - 1)]

    async def ended(self, rollout: str) -> str:
        """Wait until a rollout is over, and every gateway says so. Returns its status."""
        said: set[str] = set()

        async def is_over() -> bool:
            await asyncio.sleep(LOOK_S)
            said.clear()
            with suppress(Lost, RuntimeError):
                said.update([(await world.deployment(rollout))["status"] for world in self.worlds])
            return len(said) == 1 and said <= set(SETTLED)

        await self.worlds[0].until(is_over, f"deployment {rollout} to end", 120)
        return said.pop()

    async def same(self, path: str) -> Any:
        """Return what the admin API answers, once it is the same at each."""
        answers: list[Any] = []

        async def is_same() -> bool:
            answers[:] = [await world.api("GET", path) for world in self.worlds]
            return all(each == answers[0] for each in answers)

        await self.worlds[0].until(is_same, f"one answer of {path}")
        return answers[0]


@asynccontextmanager
async def three(
    folder: Path,
    database: str,
    *,
    isolation_ms: int = 30_000,
    policies: str = "",
    env: Mapping[str, Mapping[str, str]] | None = None,
) -> AsyncIterator[Cluster]:
    """Start them: `a` first, which is in charge then. env: more of the environment, by name."""
    port = int(database.rpartition(":")[2].partition("/")[0])
    worlds: list[World] = []
    cables = [Cable(port) for _ in NAMES]
    async with AsyncExitStack() as stack:
        for name, cable in zip(NAMES, cables, strict=True):
            await stack.enter_async_context(cable)
            (folder / name).mkdir()
            world = World(
                folder / name,
                workers=1,
                policies=policies,
                extra=SETTINGS.format(name, isolation_ms),
                database=database.replace(f":{port}/", f":{cable.port}/"),
                env=(env or {}).get(name),
            )
            await asyncio.to_thread(_start, world, worlds[0] if worlds else None)
            worlds.append(world)
            stack.push_async_callback(asyncio.to_thread, world.close)
        splitter = await stack.enter_async_context(Splitter([world.port for world in worlds]))
        cluster = Cluster(worlds, cables, splitter)
        for world in worlds:
            await world.until(world.serves, "each to serve")
        await worlds[0].until(cluster.all_serve, "each to be seen")
        yield cluster


def _start(world: World, first: World | None) -> None:
    """Start a gateway; only the first one has services of its own."""
    try:
        if first is None:
            world.first = [world.add_sample("v1.0")]
        else:
            world.first = first.first
            world.var.mkdir()
            (world.var / "admin.token").write_text(first.token)
        world.write_config()
        world.start_anywhere()
    except BaseException:
        world.close()
        raise


async def kill_control(world: World) -> None:
    """`kill -9` control, as this world knows it. Its workers live on."""
    pid = int(world.runtime()["pid"])
    kill(pid, signal.SIGKILL)
    await world.until(lambda: gone(pid), f"control {pid} to be gone")
