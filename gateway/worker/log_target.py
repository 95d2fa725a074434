"""Where the access log goes: a file that may be moved away at any time, a pipe, or standard output.

A file that was moved away or deleted is opened anew within a second, if lines come, or by `reopen` at once.
"""

import os
import select
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NEWLINE: Final = ord("\n")
ROTATION_S: Final = 1.0
"""How often we look whether the file is still where it was."""


class LogTarget:
    """A file or standard output. Whole lines stay whole, whoever else writes there."""

    def __init__(self, path: str) -> None:
        self._path = None if path == "-" else Path(path)
        self._fd = 1 if self._path is None else self._open()
        self._look_at = 0.0
        self._is_torn = False
        """What was written last ends amid a line."""

    def write(self, piece: bytes | bytearray) -> None:
        """Write all of `piece`, however long it takes. Raises OSError."""
        self._follow_rotation()
        if self._is_torn:
            piece = b"\n" + piece
        # A pipe keeps only so much together when several processes write to it (pipe(7), PIPE_BUF); a file
        # opened with O_APPEND keeps each write together.
        parts = whole_lines(piece) if stat.S_ISFIFO(os.fstat(self._fd).st_mode) else (piece,)
        for part in parts:
            self._write_all(part)

    def reopen(self) -> None:
        """Look now whether the file is still where it was. Raises OSError."""
        self._look_at = 0.0
        self._follow_rotation()

    def close(self) -> None:
        """Close a file; standard output is not ours to close."""
        if self._path is not None:
            os.close(self._fd)

    def _write_all(self, part: bytes | bytearray) -> None:
        left = memoryview(part)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                _wait_until_writable(self._fd)
            finally:  # a disk may be full amid a line: the next one must not go on from there
                written = len(part) - len(left)
                if written:
                    self._is_torn = part[written - 1] != _NEWLINE

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
            self._is_torn = False


def _wait_until_writable(fd: int) -> None:
    poller = select.poll()  # select() takes no descriptor above 1023
    poller.register(fd, select.POLLOUT)
    poller.poll()


def whole_lines(piece: bytes | bytearray) -> Iterator[bytes | bytearray]:
    """Yield `piece` in parts of whole lines, at most PIPE_BUF long unless a single line is longer."""
    start = 0
    while start < len(piece):
        end = piece.rfind(b"\n", start, start + select.PIPE_BUF) + 1
        if end <= start:
            end = piece.find(b"\n", start) + 1 or len(piece)
        yield piece[start:end]
        start = end
