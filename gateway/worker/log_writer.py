"""The thread that writes the access log: it may be stalled by its target, which the loop may not."""

import queue
import threading
from typing import Final

from gateway.worker.log_target import LogTarget

BACKLOG_BYTES: Final = 8 * 1024 * 1024
"""What may wait for a target that stalls; more is dropped."""
CLOSE_S: Final = 1.0
"""How long the end waits for the target to take what is left."""


class LogWriter(threading.Thread):
    """Writes pieces in order to one target, and may be stalled by it."""

    def __init__(self, path: str) -> None:
        super().__init__(name="access-log", daemon=True)
        self.lost = 0
        """Lines of pieces that could not be written."""
        self._target = LogTarget(path)
        self._pieces: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._put_bytes = 0
        self._taken_bytes = 0

    def put(self, piece: bytes, lines: int) -> bool:
        """Take a piece; False if too much waits already."""
        if self._put_bytes - self._taken_bytes > BACKLOG_BYTES:
            return False
        self._put_bytes += len(piece)
        self._pieces.put((piece, lines))
        return True

    def run(self) -> None:
        while (item := self._pieces.get()) is not None:
            piece, lines = item
            try:
                if lines:
                    self._target.write(piece)
                else:
                    self._target.reopen()
            except OSError:
                self.lost += lines  # a full disk, a closed pipe: the next piece may fare better
            self._taken_bytes += len(piece)
        self._target.close()

    def reopen(self) -> None:
        """Open the file anew once what waits has been written."""
        self._pieces.put((b"", 0))

    def close(self, wait_s: float) -> None:
        """Write what waits, then end; return when that is done, or after `wait_s` seconds."""
        if not self.is_alive():
            self._target.close()
            return
        self._pieces.put(None)
        self.join(wait_s)
