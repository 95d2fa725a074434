"""A request's body on its way up: held while there is no upstream, kept as long as it may be needed again."""

from typing import Final

from gateway.http1.chunked import chunk
from gateway.http1.client import UpstreamConnection
from gateway.http1.heads import Pair, plain_name
from gateway.http1.message import CHUNK_END

MAX_HELD_BYTES: Final = 65_536
"""How much of a body is held while there is no upstream to write it to; then the client is not read from."""

_NO_PIECES: Final[list[bytes]] = []
"""Nobody adds to it: an idle connection holds no list of its own."""


class Upload:
    """The framed pieces of one body; used for one request after the other."""

    __slots__ = ("_bytes", "_pieces", "is_replayable")

    def __init__(self) -> None:
        self.is_replayable = True
        """Whether all of the body that has come is still at hand."""
        self._pieces: list[bytes] = _NO_PIECES
        self._bytes = 0

    @property
    def is_long(self) -> bool:
        """Whether no more should be held."""
        return self._bytes > MAX_HELD_BYTES

    def begin(self, content: bytes, *, complete: bool, is_chunked: bool) -> None:
        """Take what came with the head. complete: it is all there is."""
        if is_chunked:
            content = (chunk(content) if content else b"") + (CHUNK_END if complete else b"")
        if content:
            self.hold(content)

    def hold(self, framed: bytes) -> None:
        """Take a piece for the upstream to come."""
        if self._pieces:
            self._pieces.append(framed)
        else:
            self._pieces = [framed]
        self._bytes += len(framed)

    def send(self, framed: bytes, upstream: UpstreamConnection, keep_bytes: int) -> None:
        """Write a piece, and keep it if the body so far is no longer than `keep_bytes`."""
        upstream.transport.write(framed)
        if self.is_replayable:
            self.hold(framed)
            self._bound(keep_bytes)

    def take_held(self, head: bytes, keep_bytes: int) -> bytes:
        """Return `head` and all that has come so far, for a new upstream: one write, so one packet less."""
        whole = b"".join((head, *self._pieces)) if self._pieces else head
        self._bound(keep_bytes)
        return whole

    def forget(self) -> None:
        """The request is over."""
        self._pieces = _NO_PIECES
        self._bytes = 0
        self.is_replayable = True

    def _bound(self, keep_bytes: int) -> None:
        if self._bytes > keep_bytes:
            self.is_replayable = False
            self._pieces = _NO_PIECES


def passing_trailers(trailers: list[Pair], unwanted: frozenset[bytes]) -> list[Pair]:
    """Return the trailers that are passed on: what stays behind in a head does so here, secrets too."""
    return [each for each in trailers if plain_name(each[0]) not in unwanted]
