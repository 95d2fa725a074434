"""The chunked coding, decoded (RFC 9112 §7.1). Strict: what is ambiguous is refused.

llhttp decodes it too, but it neither bounds extensions and trailers nor says where a message ended, and a
proxy needs
both.
"""

from typing import Final

from gateway.http1.message import CRLF, FIELD_VALUE, TOKEN
from gateway.http1.trailers import may_trail

MAX_SIZE_LINE: Final = 1024
"""Bytes of one chunk-size line, extensions included."""
MAX_EXTENSION_BYTES: Final = 16_384
"""Bytes of all extensions of a body: one-byte chunks with long extensions are an attack."""
MAX_TRAILER_BYTES: Final = 8_192
MAX_SIZE_DIGITS: Final = 15
"""Under 2^60: no size overflows what a peer behind us may hold it in."""

_CR: Final = ord("\r")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class ChunkError(Exception):
    """Not the chunked coding. The message says what is wrong."""


class ChunkedDecoder:
    """Decodes one body, fed in pieces of any size. Trailers that may be passed on are kept in `trailers`."""

    __slots__ = ("_extension_bytes", "_left", "_line", "_state", "_trailer_bytes", "done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._extension_bytes = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Return the pieces of content in `data`, and how many bytes of `data` belong to this body.

        Sets `done` with the last byte of the trailer section. Raises ChunkError.
        """
        content: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                content.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            at = self._take_line(data, at)
        return content, at

    def _take_line(self, data: bytes, at: int) -> int:
        """Consume up to the end of a line, or all there is, and return where."""
        newline = data.find(b"\n", at)
        end = len(data) if newline < 0 else newline + 1
        self._line += data[at:end]
        limit = MAX_TRAILER_BYTES if self._state == _TRAILER else MAX_SIZE_LINE
        if len(self._line) > limit:
            raise ChunkError("a chunk-size or trailer line is too long")
        if self._state == _DATA_END and not CRLF.startswith(self._line):
            raise ChunkError("a chunk is longer than its size")
        if newline < 0:
            return end
        line, self._line = self._line, b""
        if not line.endswith(CRLF) or _CR in line[:-2]:
            raise ChunkError("a line of the chunked coding must end with CRLF")
        self._end_line(line[:-2])
        return end

    def _end_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            self._size(line)
        elif self._state == _DATA_END:
            self._state = _SIZE
        elif line:
            self._trailer(line)
        else:
            self.done = True

    def _size(self, line: bytes) -> None:
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            digits = digits.rstrip(b" \t")
            self._extension_bytes += len(extension)
        if not 1 <= len(digits) <= MAX_SIZE_DIGITS or not _HEX.issuperset(digits):
            raise ChunkError("a chunk size must be a short run of hexadecimal digits")
        if self._extension_bytes > MAX_EXTENSION_BYTES or not FIELD_VALUE.fullmatch(extension):
            raise ChunkError("chunk extensions are malformed or too long")
        self._left = int(digits, 16)
        self._state = _DATA if self._left else _TRAILER

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not TOKEN.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
            raise ChunkError("a trailer field is malformed")
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise ChunkError("the trailer section is too long")
        if may_trail(name):
            self.trailers.append((name, value))


_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk. `data` must not be empty: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the end of a chunked body, trailer section included."""
    lines = b"".join(b"%b: %b\r\n" % field for field in trailers)
    return b"0\r\n" + lines + CRLF
