"""The access log: one line for each request, as JSON or in the combined format.

The exchange adds what it knows to a list; when that is long it becomes bytes, and ten times a second, or when
they are many, a thread is given them to write. So the loop never waits for a disk or a pipe, nor often for a
thread that has woken up. If the target stalls, lines are dropped and counted.

A file that was moved away or deleted is opened anew within a second: rotation needs no signal.
"""

import asyncio
import os
import queue
import re
import select
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

FLUSH_S: Final = 0.1
BATCH: Final = 200
"""Lines made bytes at a time: 40 µs."""
PIECE_BYTES: Final = 262_144
"""What the thread is given at once, when there is so much. Each time it wakes, the loop waits for it."""
BACKLOG_BYTES: Final = 8 * 1024 * 1024
"""What may wait for a target that stalls; more is dropped."""
CLOSE_S: Final = 1.0
"""How long the end waits for the target to take what is left."""
ROTATION_S: Final = 1.0
"""How often we look whether the file is still where it was."""

_UNSAFE: Final = re.compile(r'[^\x20-\x7e]|["\\]')


class Line(msgspec.Struct, gc=False, rename="camel", omit_defaults=True):
    """What is known of a request when it has ended. Text is ASCII: `add` sees to that."""

    time: datetime
    client: str
    """The address of the client itself: what trusted proxies say, else `peer`."""
    peer: str
    """Who was connected to us."""
    method: str
    target: str
    protocol: str
    status: int
    bytes: int
    """Of the answer's content."""
    duration_ms: float
    host: str = ""
    referer: str = ""
    user_agent: str = ""
    service: str = ""
    version: str = ""
    """Empty if the gateway answered by itself."""
    endpoint: str = ""
    attempts: int = 1
    outcome: str = ""
    """What went wrong, if something did: the words of `gateway_attempts_total`, or of `gateway_refused_total`
    for a head that was refused; then what was not understood of it is missing."""


class AccessLog:
    """Collects lines on the loop; a thread writes them."""

    def __init__(self, format: Literal["json", "combined"], path: str) -> None:
        """path: a file, appended to, or `-` for standard output. Raises OSError if it cannot be opened."""
        self._encode = _json_lines if format == "json" else _combined_lines
        self._writer = _Writer(path)
        self._lines: list[Line] = []
        self._piece: list[bytes] = []
        """What the thread is given next."""
        self._piece_bytes = 0
        self._piece_lines = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._refused = 0

    @property
    def dropped(self) -> int:
        """Lines that were not written, since the start: the target stalled, or failed."""
        return self._refused + self._writer.lost

    def start(self) -> None:
        """Begin to write, on the running loop. Not before a fork: threads do not survive one."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()

    def add(
        self,
        now: float,
        client: str,
        peer: str,
        method: bytes,
        target: bytes,
        protocol: str,
        status: int,
        content_bytes: int,
        duration_us: int,
        host: str,
        referer: bytes,
        user_agent: bytes,
        service: str,
        version: str,
        endpoint: str,
        attempts: int,
        outcome: str,
    ) -> None:
        """Note a request that has ended. now: Unix time."""
        lines = self._lines
        lines.append(
            Line(
                datetime.fromtimestamp(now, UTC),
                client,
                peer,
                method.decode("ascii", "backslashreplace"),
                target.decode("ascii", "backslashreplace"),
                protocol,
                status,
                content_bytes,
                duration_us / 1000,
                host,
                referer.decode("ascii", "backslashreplace"),
                user_agent.decode("ascii", "backslashreplace"),
                service,
                version,
                endpoint,
                attempts,
                outcome,
            )
        )
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)
        if len(lines) >= BATCH:
            self._encode_lines()
            if self._piece_bytes >= PIECE_BYTES:
                self.flush()

    def flush(self) -> None:
        """Hand what was added to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            self._encode_lines()
        if self._piece and not self._writer.put(b"".join(self._piece), self._piece_lines):
            self._refused += self._piece_lines
        self._piece.clear()
        self._piece_bytes = self._piece_lines = 0

    def _encode_lines(self) -> None:
        """Add the lines to the piece."""
        lines, self._lines = self._lines, []
        encoded = self._encode(lines)
        self._piece.append(encoded)
        self._piece_bytes += len(encoded)
        self._piece_lines += len(lines)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Write what is left. A target that stalls is waited for so long, then left to the process's end."""
        self.flush()
        self._writer.close(wait_s)


# Formats

_encoder: Final = msgspec.json.Encoder()


def _json_lines(lines: list[Line]) -> bytes:
    # JSON lets DEL stand as it is; a terminal does not.
    return _encoder.encode_lines(lines).replace(b"\x7f", b"\\u007f")


def _combined_lines(lines: list[Line]) -> bytes:
    """Return lines like Apache's: client, identity, user, time, request, status, bytes, referer, agent."""
    text: list[str] = []
    second = None
    stamp = ""
    for line in lines:
        if (now := line.time.replace(microsecond=0)) != second:
            second = now
            stamp = now.strftime("%d/%b/%Y:%H:%M:%S +0000")
        request = f"{_quoted(line.method)} {_quoted(line.target)} {line.protocol}".strip() or "-"
        referer, agent = _quoted(line.referer) or "-", _quoted(line.user_agent) or "-"
        text.append(
            f'{line.client or "-"} - - [{stamp}] "{request}" {line.status} {line.bytes or "-"}'
            f' "{referer}" "{agent}"\n'
        )
    return "".join(text).encode("ascii", "backslashreplace")


def _quoted(text: str) -> str:
    """Return text as it may stand between quotes: what could end them, or a line, escaped."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\{char}" if char in '"\\' else f"\\x{ord(char):02x}"


# Writing


class _Writer(threading.Thread):
    """Writes pieces in order to one target, and may be stalled by it."""

    def __init__(self, path: str) -> None:
        super().__init__(name="access-log", daemon=True)
        self.lost = 0
        """Lines of pieces that could not be written."""
        self._target = _Target(path)
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
                self._target.write(piece)
            except OSError:
                self.lost += lines  # a full disk, a closed pipe: the next piece may fare better
            self._taken_bytes += len(piece)
        self._target.close()

    def close(self, wait_s: float) -> None:
        """Write what waits, then end; return when that is done, or after `wait_s` seconds."""
        if not self.is_alive():
            self._target.close()
            return
        self._pieces.put(None)
        self.join(wait_s)


class _Target:
    """A file or standard output. Whole lines stay whole, whoever else writes there."""

    def __init__(self, path: str) -> None:
        self._path = None if path == "-" else Path(path)
        self._fd = 1 if self._path is None else self._open()
        self._look_at = 0.0

    def write(self, piece: bytes) -> None:
        """Write all of `piece`, however long it takes. Raises OSError."""
        self._follow_rotation()
        # A pipe keeps only so much together when several processes write to it (pipe(7), PIPE_BUF); a file
        # opened with O_APPEND keeps each write together.
        parts = _whole_lines(piece) if stat.S_ISFIFO(os.fstat(self._fd).st_mode) else (piece,)
        for part in parts:
            self._write_all(part)

    def close(self) -> None:
        """Close a file; standard output is not ours to close."""
        if self._path is not None:
            os.close(self._fd)

    def _write_all(self, part: bytes) -> None:
        left = memoryview(part)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                _wait_until_writable(self._fd)

    def _open(self) -> int:
        assert self._path is not None
        # O_NONBLOCK: to a named pipe that nobody reads, an error now instead of waiting for a reader.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self._path, flags, 0o640)

    def _follow_rotation(self) -> None:
        """Open the file anew if what the path names is no longer what we write to."""
        now = time.monotonic()
        if self._path is None or now < self._look_at:
            return
        self._look_at = now + ROTATION_S
        try:
            named = self._path.stat()
        except FileNotFoundError:
            named = None
        if named is None or not os.path.samestat(named, os.fstat(self._fd)):
            fd = self._open()
            os.close(self._fd)
            self._fd = fd


def _wait_until_writable(fd: int) -> None:
    poller = select.poll()  # select() takes no descriptor above 1023
    poller.register(fd, select.POLLOUT)
    poller.poll()


def _whole_lines(piece: bytes) -> Iterator[bytes]:
    """Yield `piece` in parts of whole lines, at most PIPE_BUF long unless a single line is longer."""
    start = 0
    while start < len(piece):
        end = piece.rfind(b"\n", start, start + select.PIPE_BUF) + 1
        if end <= start:
            end = piece.find(b"\n", start) + 1 or len(piece)
        yield piece[start:end]
        start = end
