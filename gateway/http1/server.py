"""The client's side of a connection: requests in, answers out, one exchange at a time (RFC 9112 §9.3.2)."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.errors import BadRequest, BodyTooLarge, ClientGone, DownstreamError, GatewayError, TooSlow
from gateway.http1.client import NO_TRANSPORT
from gateway.http1.connections import Connections, ServerSettings, reason_label, reset_on_close
from gateway.http1.half_closed import HalfClosed
from gateway.http1.handler import NEVER, NO_HANDLER, RequestHandler
from gateway.http1.incoming_body import IncomingBody, begun
from gateway.http1.message import (
    CONNECTION_CLOSE,
    CONNECTION_KEEP_ALIVE,
    CONTINUE,
    CRLF,
    length_field,
    problem_response,
)
from gateway.http1.request import RequestReader
from gateway.net.progress import PROGRESS

MAX_PENDING_BYTES: Final = 65_536
"""How far a client may pipeline ahead before it is not read from any more."""
LINGER_S: Final = 2.0
"""How long a client may take to read its last answer and close."""
HALF_CLOSED_S: Final = 1.5
"""How long to wait for the next byte of an answer when its client closes its sending side amid it.

Whether such a client is gone altogether shows when it is written to, and there is nothing to write.
"""

REST_S: Final = 1.0
"""After how long an idle connection gives back what reads and answers requests."""

_HEAD: Final = 0  # between two requests, or in a head
_BODY: Final = 1  # the handler has the head, the body is coming
_ANSWERING: Final = 2  # the request is complete, its answer is not
_FLUSHING: Final = 3  # the answer is complete, but the client does not read
_LINGERING: Final = 4  # sending side closed; what still comes is thrown away
_CLOSED: Final = 5


class ServerProtocol:
    """One client connection: an `asyncio.Protocol` in all but name, see `UpstreamConnection`.

    Whoever answers writes to `transport` itself, in this order: `begin_answer()` tells whether the
    connection goes on, then the head, the body, then `finish()`. `deadline` is cleared (0.0) whenever
    something moves; the sweep sets it anew, so that no clock is read on the way.
    """

    __slots__ = (
        "_body",
        "_half",
        "_make_handler",
        "_pending",
        "_phase",
        "_reading",
        "_rests",
        "answer_begun",
        "closing",
        "deadline",
        "half_closed",
        "handler",
        "on_lost",
        "owner",
        "peer",
        "reader",
        "scheme",
        "transport",
        "writable",
    )

    def __init__(
        self,
        owner: Connections,
        make_handler: Callable[["ServerProtocol"], RequestHandler],
        *,
        scheme: bytes = b"http",
    ) -> None:
        self.owner = owner
        self.scheme = scheme
        self.reader = _NO_READER
        self.transport: asyncio.Transport = NO_TRANSPORT
        self.peer = ""
        """The client's address, without its port; empty on a Unix socket."""
        self.deadline = 0.0
        """Monotonic seconds; 0.0: to be set by the next sweep."""
        self.answer_begun = False
        """Whether a byte of a final answer to the present request has been written."""
        self.closing = False
        """The present answer is the connection's last."""
        self.half_closed = False
        """The client has closed its sending side."""
        self.writable = True
        self.handler: RequestHandler = NO_HANDLER
        self.on_lost: Callable[[], None] = _nothing
        """Called when the connection has ended; whoever takes the transport over calls it instead."""
        self._make_handler = make_handler
        self._phase = _HEAD
        self._reading = True
        self._rests = False
        self._pending = b""
        self._half: HalfClosed | None = None
        self._body: IncomingBody | None = None

    # --- from the loop ----------------------------------------------------------------------------

    def accepted(self, host: str, on_lost: Callable[[], None]) -> None:
        """Learn the client's address from the listener, which knows it behind a PROXY protocol too."""
        self.peer = host
        self.on_lost = on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        if not self.peer:
            peer = transport.get_extra_info("peername")
            self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._wake()
        self.owner.accepted += 1
        self.owner.open.add(self)

    def data_received(self, data: bytes) -> None:
        PROGRESS.note()
        if self._rests:
            self._wake()
        if self._pending:
            self._hold(data)
            return
        while data:
            phase = self._phase
            if phase == _HEAD:
                data = self._read_head(data)
            elif phase == _BODY:
                data = self._read_body(data)
            elif phase <= _FLUSHING:
                self._hold(data)
                return
            else:
                return

    def eof_received(self) -> bool:
        """Keep the sending side open for an answer that is still owed (RFC 9112 §9.6)."""
        self.half_closed = True
        if self._phase == _BODY:
            self._break(BadRequest("the body ended before its length"))
            return self._phase == _LINGERING
        if (self._phase == _ANSWERING or self._pending) and self.transport.can_write_eof():
            self.deadline = 0.0
            self._half = HalfClosed(self.transport, self._put_transport_back, self._on_reset)
            self._ask_half()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_half()
        self.owner.open.discard(self)
        busy = self._phase in (_BODY, _ANSWERING)
        self._phase = _CLOSED
        self._pending = b""
        self.on_lost()
        if busy:
            self.handler.on_gone(ClientGone("the client closed the connection"))
        self._forget_handler()

    def pause_writing(self) -> None:
        self.writable = False
        if self._phase in (_BODY, _ANSWERING):
            self.handler.on_writable(writable=False)

    def resume_writing(self) -> None:
        self.writable = True
        self.deadline = 0.0
        if self._phase in (_BODY, _ANSWERING):
            self.handler.on_writable(writable=True)
        elif self._phase == _FLUSHING:
            self._next()

    # --- for the handler -----------------------------------------------------------------------------

    def begin_answer(self) -> bool:
        """Tell whether the connection goes on after this answer; its head must say so."""
        self.answer_begun = True
        self.closing = not self.reader.keep_alive or self._phase != _ANSWERING or self.owner.draining
        return not self.closing

    def connection_field(self) -> bytes:
        """Return the Connection field an answer needs, after `begin_answer` (RFC 9112 §9.3, §9.6)."""
        if self.closing:
            return CONNECTION_CLOSE
        return CONNECTION_KEEP_ALIVE if self.reader.http10 else b""

    def finish(self) -> None:
        """The answer is complete: go on with the next request, or close."""
        if self.closing or self._phase != _ANSWERING:
            self.linger()
        elif not self.writable:
            self._phase = _FLUSHING
        elif self._pending or self.half_closed:
            self._next()
        else:
            self._phase = _HEAD
            self.answer_begun = False
            self._rests = False
            self.deadline = 0.0
            if not self._reading:
                self.resume()  # paused for an upstream that did not take the body, and answered all the same

    def answer(self, pieces: list[bytes], body: bytes) -> None:
        """Give a whole answer: `pieces` of its head up to framing and connection fields, and its content."""
        self.begin_answer()
        pieces += (length_field(pieces[0], body), self.connection_field(), CRLF)
        if self.reader.method != b"HEAD":
            pieces.append(body)
        self.transport.write(b"".join(pieces))
        self.finish()

    def refuse(self, error: GatewayError, fields: tuple[tuple[str, str], ...] = ()) -> None:
        """Answer with a problem document (RFC 9457). The connection goes on if the request is complete."""
        self.answer(*problem_response(error, fields))

    def continue_body(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110 §10.1.1)."""
        if self.reader.expects_continue and self._phase == _BODY and not self.answer_begun:
            self.reader.expects_continue = False
            self.transport.write(CONTINUE)

    def pause(self) -> None:
        """Stop reading from the client."""
        if self._reading and self._phase < _LINGERING:
            self._reading = False
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and self._phase < _LINGERING:
            self._reading = True
            self.transport.resume_reading()

    def linger(self) -> None:
        """Close so that the client can read its answer: unread bytes would reset it (RFC 9112 §9.6)."""
        if self._phase >= _LINGERING:
            return
        self.resume()
        self._phase = _LINGERING
        self._pending = b""
        self.deadline = 0.0
        if self.half_closed or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()

    def abort(self) -> None:
        """Cut the connection, so that an unfinished answer is never taken for a complete one."""
        if self.answer_begun and self.reader.http10:
            reset_on_close(self.transport)  # the close may be what ends its body (RFC 9112 §8)
        self.owner.open.discard(self)
        self._phase = _CLOSED
        self.transport.abort()

    def take_pending(self) -> bytes:
        """Return, and forget, what the client sent beyond its request."""
        pending, self._pending = self._pending, b""
        return pending

    def release(self) -> asyncio.Transport:
        """Hand the transport over (to a tunnel): this protocol has no more part in the connection."""
        self._forget_half()
        self.owner.open.discard(self)
        self._phase = _CLOSED
        self._forget_handler()
        return self.transport

    def close_if_idle(self) -> None:
        """Close a connection that carries no request now."""
        if self.is_idle and not self._pending:
            self._phase = _CLOSED
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self._phase == _HEAD and not self.reader.held

    @property
    def awaits_continue(self) -> bool:
        """Whether the client holds its body back until it is asked to go on."""
        return self._phase == _BODY and self.reader.expects_continue

    @property
    def body_missing(self) -> bool:
        """Whether the present request's body is not yet complete."""
        return self._phase == _BODY

    # --- deadlines --------------------------------------------------------------------------------

    def timeout_s(self) -> float:
        """How long the present wait may last."""
        phase, settings = self._phase, self.owner.settings
        if phase == _HEAD:
            return settings.client_header_s if self.reader.held else self._idle_s(settings)
        if phase == _FLUSHING:
            return settings.body_idle_s or NEVER
        if phase == _LINGERING:
            return LINGER_S
        timeout_s = self.handler.timeout_s()
        return min(timeout_s, HALF_CLOSED_S) if self._is_doubtful else timeout_s

    def _idle_s(self, settings: ServerSettings) -> float:
        """Return how long to idle on: first until it rests, then until it ends."""
        if self._rests:
            return settings.client_idle_s - REST_S
        return min(REST_S, settings.client_idle_s)

    def on_deadline(self) -> None:
        self.deadline = 0.0
        if self._phase == _HEAD and self.reader.held:
            self._refuse_head(TooSlow("the head did not come in time"))
        elif self._phase == _HEAD:
            self._idle_on()
        elif self._phase in (_FLUSHING, _LINGERING):
            self.abort()
        elif self._is_doubtful:
            self._break(ClientGone("the client closed its side and no more of its answer came"))
        else:
            self.handler.on_timeout()

    def _idle_on(self) -> None:
        """No request has come: rest, and at last close."""
        if self._rests or self.owner.settings.client_idle_s <= REST_S:
            self._phase = _CLOSED
            self.transport.close()
            return
        self._rests = True
        self._forget_handler()
        self.reader = _NO_READER

    def _wake(self) -> None:
        """Get what reads and answers requests, if it is not there."""
        if self.reader is not _NO_READER:
            return
        settings = self.owner.settings
        self.reader = RequestReader(settings.header_bytes, settings.header_fields, settings.uri_bytes)
        self.handler = self._make_handler(self)

    # --- reading ----------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> bytes:
        """Read a head and return what is behind it."""
        reader = self.reader
        held = reader.held
        try:
            end = reader.feed(data)
        except DownstreamError as error:
            self._refuse_head(error)
            return b""
        if end < 0:
            if reader.held and not held:
                self.deadline = 0.0
            return b""
        self.deadline = 0.0  # what was waited for has come
        if reader.length:
            return self._begin_body(data[end:])
        self._phase = _ANSWERING
        self.handler.on_head(b"", complete=True)
        return data[end:] if end < len(data) else b""

    def _begin_body(self, rest: bytes) -> bytes:
        """Pass on a head with what has come of its body, most often all. Returns what is behind that."""
        try:
            body, piece, end = begun(self.reader.length, self.owner.settings.body_bytes, rest)
        except BodyTooLarge as error:
            self._refuse_head(error)
            return b""
        is_whole = body.is_complete and not body.trailers
        self._phase = _ANSWERING if is_whole else _BODY
        self._body = None if is_whole else body
        self.handler.on_head(piece, complete=is_whole)
        if end and self._phase == _BODY:
            self.reader.expects_continue = False  # it does not wait
            if body.is_complete:
                self._end_body(body.trailers)
        return rest[end:]

    def _read_body(self, data: bytes) -> bytes:
        """Pass on what `data` holds of the body, and return what is behind it."""
        self.deadline = 0.0
        self.reader.expects_continue = False  # it does not wait
        body = self._body
        assert body is not None
        try:
            piece, end = body.feed(data)
        except DownstreamError as error:
            self._break(error)
            return b""
        if piece:
            self.handler.on_body(piece)
        if body.is_complete:
            self._end_body(body.trailers)
        return data[end:]

    def _end_body(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self._body = None
        if self._phase == _BODY:
            self._phase = _ANSWERING
            self.handler.on_end(trailers)

    def _refuse_head(self, error: DownstreamError) -> None:
        """Answer a request that no handler has heard of, and close: what follows it cannot be trusted."""
        self.owner.on_refused(self, error)
        self._refuse_and_close(error)

    def _refuse_and_close(self, error: DownstreamError) -> None:
        self.owner.count_refusal(reason_label(error))
        self._phase = _BODY
        self.refuse(error)

    def _break(self, error: DownstreamError) -> None:
        """End an exchange the client itself has spoilt."""
        self._body = None
        self._phase = _FLUSHING  # whatever the handler does now, it hears nothing more
        self.handler.on_gone(error)
        if self._phase != _FLUSHING:
            return
        if self.answer_begun or isinstance(error, ClientGone):
            self.abort()
            return
        self._refuse_and_close(error)

    def _hold(self, data: bytes) -> None:
        """Keep what a client sent ahead of its answer."""
        self._pending += data
        if len(self._pending) > MAX_PENDING_BYTES:
            self.pause()

    def _next(self) -> None:
        """Go on with the next request, from a fresh stack: a client may pipeline thousands."""
        self._phase = _FLUSHING
        asyncio.get_running_loop().call_soon(self._read_pending)

    def _read_pending(self) -> None:
        if self._phase != _FLUSHING:
            return
        self._phase = _HEAD
        self.answer_begun = False
        self._rests = False
        self.deadline = 0.0
        pending, self._pending = self._pending, b""
        self.resume()
        self.data_received(pending)
        if self.half_closed and self._phase == _HEAD:
            self.transport.close()
        elif self._is_doubtful:
            self._ask_half()

    # --- a client that has closed its sending side ------------------------------------------------

    @property
    def _is_doubtful(self) -> bool:
        """Whether the client may be gone altogether."""
        return self._half is not None and self._half.is_doubtful

    def _ask_half(self) -> None:
        """Find out whether such a client is still there, if its answer has not begun."""
        half = self._half
        if half is None or self.transport is half or self._phase != _ANSWERING:
            return
        self.transport = half
        if not self.answer_begun:
            half.start_answer()

    def _put_transport_back(self) -> None:
        assert self._half is not None
        self.transport = self._half.transport

    def _on_reset(self) -> None:
        if self._phase in (_BODY, _ANSWERING):
            self._break(ClientGone("the client closed the connection"))
        else:
            self.abort()

    def _forget_handler(self) -> None:
        """Cut the circle of a connection and what answers it: both are freed at once, not by a collection."""
        handler, self.handler = self.handler, NO_HANDLER
        handler.on_closed()
        self.reader.close()

    def _forget_half(self) -> None:
        half, self._half = self._half, None
        if half is not None:
            half.stop()
            self.transport = half.transport


def _nothing() -> None:
    """Nobody counts this connection."""


_NO_READER: Final = RequestReader(0, 0, 0)
"""Stands in while a connection rests: nothing is read with it."""
