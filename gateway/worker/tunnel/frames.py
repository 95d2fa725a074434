"""WebSocket framing, as far as a proxy that leaves payloads alone needs it (RFC 6455 §5.2)."""

from typing import Final

_OPCODE: Final = 0x0F
_CLOSE: Final = 0x8
_FINAL_CLOSE: Final = 0x88
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127

GOING_AWAY: Final = 1001
"""What was spoken to goes away, and something else answers at the same address (§7.4.1)."""
SERVICE_RESTART: Final = 1012
"""The service restarts: come back, but not all at once (IANA's registry of close codes)."""


def close_frame(code: int) -> bytes:
    """Return an unmasked Close, as servers send it (§5.5.1)."""
    return bytes((_FINAL_CLOSE, 2)) + code.to_bytes(2, "big")


class FrameFollower:
    """Follows one direction of a WebSocket from header to header, to know where a frame of ours fits in."""

    __slots__ = ("_header", "_payload_left", "close_seen", "lost")

    def __init__(self) -> None:
        self.lost = False
        """This is not WebSocket framing: no boundary will be found any more."""
        self.close_seen = False
        """A Close has begun to pass: no frame may follow it (§5.5.1)."""
        self._header = b""
        self._payload_left = 0

    @property
    def at_boundary(self) -> bool:
        """Whether a frame has just ended (or none has begun)."""
        return not (self._header or self._payload_left or self.lost)

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        at = 0
        while at < len(data) and not self.lost:
            at = self._follow(data, at)

    def feed_to_boundary(self, data: bytes) -> int:
        """Follow up to the first boundary; return how many bytes that took: all if there is none."""
        at = 0
        while at < len(data) and not self.lost and not (at and self.at_boundary):
            at = self._follow(data, at)
        return len(data) if self.lost else at

    def _follow(self, data: bytes, at: int) -> int:
        """Follow to the end of the present payload, or through one header. Returns where that is."""
        if self._payload_left:
            step = min(self._payload_left, len(data) - at)
            self._payload_left -= step
            return at + step
        had = len(self._header)
        header = self._header + data[at : at + 14 - had]
        size = _header_bytes(header)
        if size > len(header):
            self._header = header
            return len(data)
        self._header = b""
        self._begin(header[:size])
        return at + size - had

    def _begin(self, header: bytes) -> None:
        length = header[1] & 0x7F
        if length == _LENGTH_16:
            length = int.from_bytes(header[2:4], "big")
        elif length == _LENGTH_64:
            length = int.from_bytes(header[2:10], "big")
        self.lost = length >> 63 == 1  # §5.2: the most significant bit must be 0
        self.close_seen = self.close_seen or header[0] & _OPCODE == _CLOSE
        self._payload_left = length


def _header_bytes(header: bytes) -> int:
    """Return the length of the header that begins like this: at least 2, at most 14."""
    if len(header) < 2:
        return 2
    length = header[1] & 0x7F
    extended = 2 if length == _LENGTH_16 else 8 if length == _LENGTH_64 else 0
    return 2 + extended + (4 if header[1] & _MASKED else 0)
