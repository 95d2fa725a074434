"""A start after a crash that is to stop: at once, and in order, whatever its database does meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.client import Lost, call
from bench.harness import World
from tests import postgres

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]


@asynccontextmanager
async def write_locked(database: str) -> AsyncIterator[None]:
    """Have nobody write to a store: each that wants to waits for a lock until it is told that it is busy."""
    import asyncpg

    holder = await asyncpg.connect(database)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM gateway_meta WHERE key = 'epoch' FOR UPDATE")
            yield
    finally:
        await holder.close()


async def test_it_ends_at_once_and_orphans_finish_what_they_have(tmp_path: Path) -> None:
    """It was heard once a step had failed for fifteen seconds; then orphans were left to nobody."""
    database = postgres.shared().database()
    async with World(tmp_path, database=database, workers=1) as world:
        await world.until(world.all_workers_serve, "every worker")
        await world.kill_control()
        under_way = asyncio.ensure_future(call(world.port, "GET", "/?delay_ms=8000"))
        await asyncio.sleep(0.5)  # it is at the version
        async with write_locked(database):
            starting = world.launch()
            await world.until(lambda: starting.has_said("store_failed"), "a step that fails")
            starting.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(starting.process.wait, 45) == 0
            assert not starting.has_said('"serving"')
        assert (await under_way).status == 200
        with pytest.raises(Lost):
            await call(world.port, "GET", "/")
        rows = postgres.shared().sql("DELETE FROM gateway_node", database)
        assert rows == "DELETE 0", "it has left, and is not waited for"
