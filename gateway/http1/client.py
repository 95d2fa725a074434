"""The upstream's side: one connection, one request at a time, its response read as it comes."""

import asyncio
import errno
import select
from typing import Final, Protocol, cast

from gateway.errors import BadResponse, ResetMidway, UpstreamError
from gateway.http1.chunked import ChunkedDecoder, ChunkError
from gateway.http1.response import CHUNKED_BODY, UNTIL_CLOSE, ResponseReader
from gateway.net.progress import PROGRESS

_IDLE: Final = 0  # no request under way: nothing may come
_HEAD: Final = 1  # a request was sent, its final head has not come
_SIZED: Final = 2  # a body with a length
_CHUNKED: Final = 3
_UNTIL_CLOSE: Final = 4
_CLOSED: Final = 5

MAX_INTERIM: Final = 32
"""1xx heads before a response: more is an attack, or a fault."""
OUR_FAULT: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""Errors of connecting that say nothing of the other end: we have no descriptor, memory or port left."""


class ResponseHandler(Protocol):
    """Whoever sent the request. It hears nothing after a complete response or a loss.

    Compiled, its calls are bound where the handler's class names it as a base.
    """

    __slots__ = ()

    def on_interim(self) -> None:
        """A 1xx came; `upstream.reader` describes it."""

    def on_upgrade(self, rest: bytes) -> None:
        """A 101 came, and behind it `rest`."""

    def on_response(self, body: bytes, *, complete: bool) -> None:
        """The final head came (`upstream.reader`), with as much of the body as came with it."""

    def on_response_body(self, data: bytes) -> None:
        """More of the body."""

    def on_response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The body is complete."""

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """The response will not be completed."""

    def on_upstream_writable(self, *, writable: bool) -> None:
        """The upstream reads too slowly (False), or has caught up (True)."""


class _NoTransport(asyncio.Transport):
    """Stands in where there is no connection."""

    def abort(self) -> None:
        """Nothing to cut."""


NO_TRANSPORT: Final = _NoTransport()


class Keeper(Protocol):
    """What keeps connections while they are idle."""

    __slots__ = ()

    def forget(self, connection: "UpstreamConnection") -> None:
        """Drop an idle connection: it has ended, or cannot be used again.

        Or hear of a young one that ended before a byte of its next response.
        """

    def give_back(self, connection: "UpstreamConnection", now: float) -> None:
        """Take a connection back whose response is complete. now: monotonic seconds."""


class UpstreamConnection:
    """One connection to an endpoint. `pool` is whoever keeps it while it is idle.

    An `asyncio.Protocol` in all but name: a class with a base that is not compiled cannot be compiled well.
    """

    __slots__ = (
        "_decoder",
        "_handler",
        "_interims",
        "_left",
        "_look",
        "_method",
        "_phase",
        "_reading",
        "_reusable",
        "idle_until",
        "is_reusable",
        "is_reused",
        "is_young",
        "pool",
        "reader",
        "transport",
        "was_silent",
        "writable",
    )

    def __init__(self, pool: Keeper) -> None:
        self.pool = pool
        self.reader = ResponseReader()
        self.transport: asyncio.Transport = NO_TRANSPORT
        self.idle_until = 0.0
        """Monotonic seconds until which an idle connection is kept."""
        self.is_reusable = True
        """Whether no response is under way, the last one ended cleanly, and another request may follow."""
        self.is_reused = False
        """Whether it has carried a request before the present one."""
        self.is_young = False
        """Whether that one's response came only a moment before the present request."""
        self.was_silent = False
        """Lost before any byte of a response came."""
        self.writable = True
        self._handler: ResponseHandler | None = None
        self._method = b""
        self._phase = _IDLE
        self._reading = True
        self._reusable = True
        self._decoder: ChunkedDecoder | None = None
        self._left = 0
        self._look: select.poll | None = None
        """Watches the socket, once somebody has looked."""
        self._interims = 0
        """1xx heads of the present response."""

    # --- for the handler -----------------------------------------------------------------------------

    def send(self, handler: ResponseHandler, method: bytes, head: bytes) -> None:
        """Begin a request. Its body, framed, is written to `transport` afterwards."""
        self._handler = handler
        self._method = method
        self._phase = _HEAD
        self.is_reusable = False
        self.transport.write(head)

    @property
    def is_open(self) -> bool:
        return self._phase != _CLOSED

    def pause(self) -> None:
        """Stop reading from the upstream."""
        if self._reading and self._phase != _CLOSED:
            self._reading = False
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and self._phase != _CLOSED:
            self._reading = True
            self.transport.resume_reading()

    def close(self) -> None:
        """Drop the connection; the handler hears nothing more."""
        self._handler = None
        self._phase = _CLOSED
        self.transport.abort()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has arrived that the loop has not read yet, an end above all: a look, no read.

        An upstream may close right behind its answer; the loop hears of that one round later.
        """
        if self._look is None:
            sock = self.transport.get_extra_info("socket")
            if sock is None:
                return True
            self._look = select.poll()
            self._look.register(sock.fileno(), select.POLLIN)
        return not self._look.poll(0)

    def forget_transport(self) -> None:
        """Cut the circle with a transport that never came to anything."""
        self.transport = NO_TRANSPORT

    def release(self) -> asyncio.Transport:
        """Hand the transport over (to a tunnel)."""
        self._handler = None
        self._phase = _CLOSED
        return self.transport

    # --- from the loop ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it

    def data_received(self, data: bytes) -> None:
        PROGRESS.note()
        try:
            phase = self._phase
            if phase == _HEAD:
                self._read_head(data)
            elif phase == _SIZED:
                self._read_sized(data)
            elif phase == _CHUNKED:
                self._read_chunked(data)
            elif phase == _UNTIL_CLOSE:
                assert self._handler is not None
                self._handler.on_response_body(data)
            elif phase == _IDLE:
                # Nobody asked for this, and nobody shall get it.
                self.pool.forget(self)
                self.close()
        except BadResponse as error:
            self._fail(error)

    def eof_received(self) -> None:
        """Only a body that the close delimits ends well here (RFC 9112 §8)."""
        if self._phase == _UNTIL_CLOSE:
            self._end([])

    def connection_lost(self, exc: Exception | None) -> None:
        phase, self._phase = self._phase, _CLOSED
        handler, self._handler = self._handler, None
        self.was_silent = phase == _HEAD and not self.reader.held
        self.reader.forget_held()
        if phase == _IDLE or (self.was_silent and self.is_young):
            self.pool.forget(self)
        if phase != _CLOSED and handler is not None:
            handler.on_upstream_lost(ResetMidway("the upstream closed the connection midway", sent=True))

    def pause_writing(self) -> None:
        self.writable = False
        if self._handler is not None:
            self._handler.on_upstream_writable(writable=False)

    def resume_writing(self) -> None:
        self.writable = True
        if self._handler is not None:
            self._handler.on_upstream_writable(writable=True)

    # --- reading ----------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        reader, handler = self.reader, self._handler
        assert handler is not None
        end = reader.feed(data)
        if end < 0:
            return
        rest = data[end:]
        status = reader.status
        if status < 200:
            self._interim(status, rest)
            return
        self._interims = 0
        self._reusable = reader.keep_alive
        length = reader.length
        if status in (204, 304) or self._method == b"HEAD":
            length = 0  # RFC 9112 §6.3, case 1
        if len(rest) == length:
            self._phase = _IDLE
            self._handler = None
            self.is_reusable = reader.keep_alive
            handler.on_response(rest, complete=True)
            return
        if length >= 0:
            self._begin_sized(handler, rest, length)
            return
        if length == UNTIL_CLOSE:
            self._phase = _UNTIL_CLOSE
            self._reusable = False
            handler.on_response(rest, complete=False)
            return
        assert length == CHUNKED_BODY
        self._decoder = ChunkedDecoder()
        self._phase = _CHUNKED
        handler.on_response(b"", complete=False)
        if rest and self._phase == _CHUNKED:
            self._read_chunked(rest)

    def _begin_sized(self, handler: ResponseHandler, rest: bytes, length: int) -> None:
        if len(rest) < length:
            self._phase = _SIZED
            self._left = length - len(rest)
            handler.on_response(rest, complete=False)
            return
        self._reusable = False  # bytes beyond the response: whatever they are, nobody gets them
        rest = rest[:length]
        self._phase = _IDLE
        self._handler = None
        handler.on_response(rest, complete=True)

    def _interim(self, status: int, rest: bytes) -> None:
        assert self._handler is not None
        if status == 101:
            self._handler.on_upgrade(rest)
            return
        self._interims += 1
        if self._interims > MAX_INTERIM:
            raise BadResponse("too many interim responses", sent=True)
        self._handler.on_interim()
        if rest and self._phase == _HEAD:
            self._read_head(rest)

    def _read_sized(self, data: bytes) -> None:
        assert self._handler is not None
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            self._handler.on_response_body(data)
            return
        if len(data) > left:
            self._reusable = False
            data = data[:left]
        self._left = 0
        self._handler.on_response_body(data)
        self._end([])

    def _read_chunked(self, data: bytes) -> None:
        decoder, handler = self._decoder, self._handler
        assert decoder is not None
        assert handler is not None
        try:
            content, end = decoder.feed(data)
        except ChunkError as exc:
            raise BadResponse(f"the response's chunks are malformed: {exc}", sent=True) from exc
        piece = content[0] if len(content) == 1 else b"".join(content)
        if piece:
            handler.on_response_body(piece)
        if decoder.done:
            if end < len(data):
                self._reusable = False
            self._end(decoder.trailers)

    def _end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The response is complete, unless the handler has given it up meanwhile."""
        handler, self._handler = self._handler, None
        self._decoder = None
        if handler is not None:
            self._phase = _IDLE
            self.is_reusable = self._reusable
            handler.on_response_end(trailers)

    def _fail(self, error: UpstreamError) -> None:
        handler = self._handler
        self.close()
        if handler is not None:
            handler.on_upstream_lost(error)
