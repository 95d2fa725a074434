"""A counter that this process's protocol callbacks raise: whoever supervises it sees that it gets on.

In a worker it lies in memory shared with control, so it says so also while the loop has no time for a
heartbeat. Raising it is `progress.counter[0] += 1`; it wraps around after centuries.
"""

import mmap
from typing import Final

CELLS: Final = 512
"""How many processes one shared memory can follow."""
_BYTES: Final = 8

counter: memoryview = memoryview(bytearray(_BYTES)).cast("Q")
"""This process's own: one cell."""


class SharedCounters:
    """Counters in memory that this process and every one forked from it later share."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, CELLS * _BYTES)).cast("Q")

    def read(self, cell: int) -> int:
        """Return what the process of `cell` has counted."""
        return int(self._cells[cell])

    def use(self, cell: int) -> None:
        """Let this process count in `cell` from now on."""
        global counter
        counter = self._cells[cell : cell + 1]
