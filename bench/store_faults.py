"""A store that fails on purpose, and what is seen of a rollout meanwhile."""

import asyncio
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from bench.harness import World
from bench.load import Load

TICK_S: Final = 1.2
"""A verdict is made of all that is older than a tick of the loop."""
FULL_BYTES: Final = 4_096
"""No file grows beyond this: less than any store has."""


@contextmanager
def full_disk(control_pid: int) -> Iterator[None]:
    """Let every write of the control process fail as on a full disk, by its limit of file sizes."""
    resource.prlimit(control_pid, resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(control_pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Hold the store's write lock, as another process might."""
    other = sqlite3.connect(world.folder / "gateway.db", isolation_level=None, timeout=10)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


class Errors:
    """How many answers were 500, over time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._seen: list[tuple[float, int]] = [(time.time(), load.lost["500"])]

    async def watch(self) -> None:
        """Look every 20 ms, until cancelled."""
        while True:
            await asyncio.sleep(0.02)
            self._seen.append((time.time(), self._load.lost["500"]))

    def before(self, wall: float) -> int:
        """Return how many there were at `wall`, seconds since the epoch."""
        return max((count for at, count in self._seen if at <= wall), default=0)


async def until_returned(world: World, version_id: str) -> float:
    """Wait until a version has no weight. Returns when that was: seconds since the epoch."""
    while (await world.version(version_id))["weight"]:
        await asyncio.sleep(0.02)
    return time.time()


async def verdict_at(world: World, rollout: str) -> float:
    """Return when a rollout's rollback was decided: seconds since the epoch."""
    rows: list[Any] = (await world.api("GET", f"deployment/{rollout}/decisions"))["items"]
    row = next(row for row in rows if row["verdict"] in ("rollback", "abort"))
    return datetime.fromisoformat(row["at"]).timestamp()


async def unjudged(world: World, rollout: str, version: str) -> int:
    """Return how many answers of a version a rollout was not judged by; nothing may be under way."""
    stats = await world.api("GET", "services/auth/stats")
    shown = next(row for row in stats["versions"] if row["version"] == version)
    return int(shown["total"]) - int((await world.deployment(rollout))["requestCount"])
