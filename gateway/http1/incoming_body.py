"""A request's body as it comes in: where it ends, and when it is longer than allowed."""

from gateway.errors import BadRequest, BodyTooLarge, DownstreamError
from gateway.http1.chunked import ChunkedDecoder, ChunkError
from gateway.http1.request import CHUNKED_BODY


class IncomingBody:
    """The body of one request. length: bytes, or CHUNKED_BODY. limit: bytes; 0: none.

    Raises BodyTooLarge for a length beyond the limit.
    """

    __slots__ = ("_came", "_decoder", "_left", "_limit", "is_complete", "trailers")

    def __init__(self, length: int, limit: int) -> None:
        if limit and length > limit:
            raise _too_large(limit)
        self._limit = limit
        self._decoder = ChunkedDecoder() if length == CHUNKED_BODY else None
        self._left = length
        self._came = 0
        """Bytes of content in the chunks so far."""
        self.is_complete = False
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return what `data` holds of the content, and where in it the body has ended, or `data` has.

        Raises BadRequest for chunks that are none, BodyTooLarge for more of them than is allowed.
        """
        if self._decoder is not None:
            return self._feed_chunks(self._decoder, data)
        piece = data[: self._left]
        self._left -= len(piece)
        self.is_complete = not self._left
        return piece, len(piece)

    def _feed_chunks(self, decoder: ChunkedDecoder, data: bytes) -> tuple[bytes, int]:
        try:
            content, end = decoder.feed(data)
        except ChunkError as exc:
            raise BadRequest(str(exc)) from exc
        piece = content[0] if len(content) == 1 else b"".join(content)
        self._came += len(piece)
        if self._limit and self._came > self._limit:
            raise _too_large(self._limit)
        if decoder.done:
            self.is_complete = True
            self.trailers = decoder.trailers
        return piece, end


def begun(length: int, limit: int, data: bytes) -> tuple[IncomingBody, bytes, int]:
    """Return a body, what of it `data` holds, which came with its head, and where in that it has ended.

    One that `data` spoils is returned as if nothing had come, to be fed it again: its handler shall hear of
    the head first. Raises BodyTooLarge for a length beyond the limit.
    """
    body = IncomingBody(length, limit)
    try:
        piece, end = body.feed(data)
    except DownstreamError:
        return IncomingBody(length, limit), b"", 0
    return body, piece, end


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is longer than {limit} bytes")
