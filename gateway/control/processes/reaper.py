"""What the first process of a container owes every other: to wait for those whose parents have gone.

Elsewhere init does this. Our own children are waited for at once by whoever started them: only who is dead at
two looks in a row has nobody.
"""

import asyncio
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

FIRST: Final = 1
INTERVAL_S: Final = 2.0
PROC: Final = Path("/proc")


def zombies_of(parent: int) -> list[int]:
    """Return the dead children of `parent` that nobody has waited for (proc(5), fields 3 and 4 of stat)."""
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, its_parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # gone meanwhile
        if state == "Z" and int(its_parent) == parent:
            found.append(int(folder.name))
    return found


def reap(pids: Collection[int]) -> None:
    """Wait for dead children; one that somebody else has waited for meanwhile is fine."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


async def keep_reaping() -> None:
    """Reap now and then while this process is a container's first."""
    before: set[int] = set()
    while os.getpid() == FIRST:
        dead = set(zombies_of(FIRST))
        reap(dead & before)
        before = dead
        await asyncio.sleep(INTERVAL_S)
