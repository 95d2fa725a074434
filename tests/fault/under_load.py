"""What tests of this folder share: a load that may lose nothing while controls are killed and replaced."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from bench.client import Lost
from bench.deeds import in_charge_after
from bench.harness import World
from bench.load import Load, LoadSettings


@asynccontextmanager
async def under_load(settings: LoadSettings, *, allowed: frozenset[str] = frozenset()) -> AsyncIterator[Load]:
    """Load the gateway while the block runs. allowed: what the service itself may answer wrongly."""
    load, over = Load(settings), asyncio.Event()
    running = asyncio.ensure_future(load.run(1, until=over))
    try:
        yield load
    finally:
        over.set()
        report = await running
    lost = {kind: count for kind, count in report.lost.items() if kind not in allowed}
    assert lost == {}, report.examples


async def kill_and_start(world: World) -> None:
    """`kill -9` control, and start the next."""
    await world.kill_control()
    world.start_gateway()
    await world.until(lambda: answers(world), "the next control to answer", 60)


async def upgrade(world: World) -> None:
    """Have the gateway replace itself, and wait for the new control."""
    before = (await world.info())["pid"]
    await world.api("POST", "gateway/upgrade")
    await world.until(partial(in_charge_after, world, before), "a new control process")


async def answers(world: World) -> bool:
    """Whether a control answers the admin API."""
    try:
        await world.info()
    except (Lost, RuntimeError):
        return False
    return True
