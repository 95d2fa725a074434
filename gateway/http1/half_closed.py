"""Clients that have closed their sending side: do they wait for their answer, or are they gone?

Half a close and a whole one look the same on the wire until something is written: a client that is gone
answers with a reset. So the first bytes of the answer, which are the same for every answer, are sent at once:
who waits has them a little early, and who is gone is known within a round trip.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

START: Final = b"HTTP/1.1 "
"""How every answer begins, an interim one too (RFC 9112 §4)."""
FIRST_LOOK_S: Final = 0.05
"""After how long to look for the reset; twice as long each further time, since some clients are far away."""
LONGEST_LOOK_S: Final = 5.0


class HalfClosed(asyncio.Transport):
    """Stands in for such a client's transport until something is written, and watches for the reset."""

    def __init__(
        self, transport: asyncio.Transport, on_written: Callable[[], None], on_reset: Callable[[], None]
    ):
        """on_written: before the first write, to put `transport` back. on_reset: the client is gone."""
        super().__init__()
        self.transport = transport
        self.is_doubtful = True
        """Whether nothing was written yet that would tell."""
        self._skip = 0
        """Bytes of the answer that have been sent already."""
        self._on_written = on_written
        self._on_reset = on_reset
        self._wait_s = FIRST_LOOK_S
        self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._look)

    def start_answer(self) -> None:
        """Send what every answer begins with; it is left out of the first write."""
        self.is_doubtful = False
        self._skip = len(START)
        self.transport.write(START)

    def stop(self) -> None:
        """Watch no longer: somebody else has the connection, or it has ended."""
        self._timer.cancel()

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._on_reset()
            return
        self._wait_s = min(2 * self._wait_s, LONGEST_LOOK_S)
        self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._look)

    # --- the transport ----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        skip, self._skip = self._skip, 0
        self.is_doubtful = False
        self._on_written()
        self.transport.write(data[skip:])

    def write_eof(self) -> None:
        self.transport.write_eof()

    def can_write_eof(self) -> bool:
        return self.transport.can_write_eof()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)
