"""The access log: one line for each request, as JSON or in the combined format.

A request that ends leaves its line in a list; ten times a second, or when they are many, a thread is given
them to write. So the loop never waits for a disk or a pipe, nor often for a thread that has woken up. If the
target stalls, lines are dropped and counted.
"""

import asyncio
from time import monotonic, time
from typing import Final, Literal

from gateway.core.settings.observing import LogFilter, statuses_of
from gateway.worker.log_line import CombinedFormat, JsonFormat, Line, LineFormat
from gateway.worker.log_writer import CLOSE_S, LogWriter

FLUSH_S: Final = 0.1
PIECE_BYTES: Final = 262_144
"""What the thread is given at once, when there is so much. Each time it wakes, the loop waits for it."""
LINE_BYTES: Final = 16_384
"""Room behind that for one line more; a longer one makes room."""
NO_STATUS: Final = (1000, 0)


class Wanted:
    """Which requests have a line, as the settings say."""

    def __init__(self, only: LogFilter) -> None:
        self._first, self._last = statuses_of(only.status) if only.status is not None else NO_STATUS
        self._min_us = -1 if only.min_duration is None else only.min_duration * 1000
        self._retried = only.retried

    def wants(self, status: int, duration_us: int, attempts: int) -> bool:
        """Tell whether any of the conditions holds."""
        return (
            self._first <= status <= self._last
            or 0 <= self._min_us <= duration_us
            or (self._retried and attempts > 1)
        )


def without_query(target: bytes) -> bytes:
    """Return a target without its query."""
    return target.partition(b"?")[0]


def redacted(target: bytes) -> bytes:
    """Return a target whose parameters have no values."""
    path, mark, query = target.partition(b"?")
    return path + mark + b"&".join([_redacted_parameter(each) for each in query.split(b"&")])


def _redacted_parameter(parameter: bytes) -> bytes:
    name, equals, _ = parameter.partition(b"=")
    if equals:
        return name + b"=***"
    return b"***" if name else b""


class AccessLog:
    """Collects lines on the loop; a thread writes them."""

    def __init__(
        self,
        format: Literal["json", "combined"],
        path: str,
        *,
        query: Literal["keep", "redact", "drop"] = "keep",
        only: LogFilter | None = None,
    ) -> None:
        """path: a file, appended to, or `-` for standard output. Raises OSError if it cannot be opened."""
        self.only = Wanted(only) if only is not None else None
        """Which requests have a line; None: all."""
        self.line = Line()
        """Of the request that ends now: filled in, and added, without an `await`."""
        self.has_referer = format == "combined"
        self._query = query
        self._format: LineFormat = JsonFormat() if format == "json" else CombinedFormat()
        self._writer = LogWriter(path)
        self._piece = bytearray(PIECE_BYTES + LINE_BYTES)
        """What the thread is given a copy of next, up to `_end`. A new one each time would first be cleared,
        or would grow, which copies all of it eight times."""
        self._end = 0
        self._lines = 0
        """In it."""
        self._offset = time() - monotonic()
        """What Unix time is ahead of monotonic seconds; looked at again for each piece."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refused = 0

    @property
    def dropped(self) -> int:
        """Lines that were not written, since the start: the target stalled, or failed."""
        return self._refused + self._writer.lost

    def start(self) -> None:
        """Begin to write, on the running loop. Not before a fork: threads do not survive one."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()

    def shown(self, target: bytes) -> bytes:
        """Return what is written of a target."""
        if self._query == "keep":
            return target
        return redacted(target) if self._query == "redact" else without_query(target)

    def add(self) -> None:
        """Note a request that has ended: `line`."""
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)
            self._offset = time() - monotonic()
        self._end = self._format.write(self._piece, self._end, self.line, self._offset)
        self._lines += 1
        if self._end >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what was added to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        piece = bytes(memoryview(self._piece)[: self._end])
        lines, self._lines, self._end = self._lines, 0, 0
        if lines and not self._writer.put(piece, lines):
            self._refused += lines

    def reopen(self) -> None:
        """Write what there is, then open the file anew if it was moved away."""
        self.flush()
        self._writer.reopen()

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Write what is left. A target that stalls is waited for so long, then left to the process's end."""
        self.flush()
        self._writer.close(wait_s)
