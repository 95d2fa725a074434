"""What the first process of a container owes every other: to wait for those whose parents have gone.

Elsewhere init does this. Our own children are waited for by whoever started them, so each dead process is
looked at before it is reaped.
"""

import asyncio
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

FIRST: Final = 1
INTERVAL_S: Final = 5.0
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


def reap(ours: Collection[int]) -> list[int]:
    """Wait for every dead child that is none of `ours`. Returns their pids."""
    strangers = [pid for pid in zombies_of(os.getpid()) if pid not in ours]
    for pid in strangers:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody else was quicker
    return strangers


async def keep_reaping(ours: Callable[[], Collection[int]]) -> None:
    """Reap now and then while this process is a container's first. ours: pids of our own children."""
    while os.getpid() == FIRST:
        reap(ours())
        await asyncio.sleep(INTERVAL_S)
