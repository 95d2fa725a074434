"""A counter that this process's protocol callbacks raise: whoever supervises it sees that it gets on.

In a worker it lies in memory shared with control, so it says so also while the loop has no time for a
heartbeat. Raising it is `PROGRESS.note()`; it wraps around after centuries.
"""

import mmap
from typing import Final

CELLS: Final = 512
"""How many processes one shared memory can follow."""
_BYTES: Final = 8
_SHOWN_EVERY: Final = 8
"""Callbacks: so many take no two seconds, or the process hangs; the shared cell costs more than a number."""


class Progress:
    """What this process counts, and the cell in which it shows it."""

    __slots__ = ("_cell", "_count")

    def __init__(self, cell: memoryview) -> None:
        self._cell = cell
        self._count = 0

    def note(self) -> None:
        """One more callback."""
        count = self._count + 1
        self._count = count
        if count % _SHOWN_EVERY == 0:
            self._cell[0] = count

    def show(self) -> None:
        """One more, for all to see: the loop has come round."""
        self._count += 1
        self._cell[0] = self._count

    def move_to(self, cell: memoryview) -> None:
        """Count in `cell` from now on."""
        self._cell = cell


PROGRESS: Final = Progress(memoryview(bytearray(_BYTES)).cast("Q"))
"""This process's own."""


class SharedCounters:
    """Counters in memory that this process and every one forked from it later share."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, CELLS * _BYTES)).cast("Q")

    def read(self, cell: int) -> int:
        """Return what the process of `cell` has counted."""
        return int(self._cells[cell])

    def use(self, cell: int) -> None:
        """Let this process count in `cell` from now on."""
        PROGRESS.move_to(self._cells[cell : cell + 1])
