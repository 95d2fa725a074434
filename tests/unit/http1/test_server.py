"""A client connection under any bytes at all, without sockets."""

import asyncio
import gc
import weakref
from typing import Any, Final, NamedTuple

import h11
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError, NoRoute
from gateway.http1.connections import Connections, ServerSettings
from gateway.http1.handler import NEVER
from gateway.http1.message import response_head
from gateway.http1.server import REST_S, ServerProtocol

HEAD: Final = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closing_now = False
        self.has_eof = False
        self.is_read_from = True

    def write(self, data: Any) -> None:
        assert not self.has_eof
        self.written += data

    def write_eof(self) -> None:
        self.has_eof = True

    def can_write_eof(self) -> bool:
        return True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("10.0.0.1", 1) if name == "peername" else default

    def pause_reading(self) -> None:
        self.is_read_from = False

    def resume_reading(self) -> None:
        self.is_read_from = True

    def close(self) -> None:
        self.is_closing_now = True

    def abort(self) -> None:
        self.is_closing_now = True


class Echo:
    """Answers each request when it is complete, with how much body it had."""

    def __init__(self, connection: ServerProtocol) -> None:
        self.connection = connection
        self.calls: list[str] = []
        self.bytes = 0

    def on_head(self, body: bytes, *, complete: bool) -> None:
        self.calls.append("head")
        self.bytes = len(body)
        if complete:
            self.calls += ["end"] if self.connection.reader.length else []
            self._answer()

    def on_body(self, data: bytes) -> None:
        assert self.calls[-1] in ("head", "body")
        self.calls.append("body")
        self.bytes += len(data)

    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.calls.append("end")
        self._answer()

    def on_gone(self, error: DownstreamError) -> None:
        self.calls.append("gone")

    def on_closed(self) -> None:
        self.calls.append("closed")

    def on_writable(self, *, writable: bool) -> None:
        """The wire takes everything."""

    def timeout_s(self) -> float:
        return NEVER

    def on_timeout(self) -> None:
        raise AssertionError("there is no timeout")

    def _answer(self) -> None:
        self.connection.answer(response_head(200, ()), b"%d" % self.bytes)


def converse(pieces: list[bytes]) -> tuple[bytes, list[str]]:
    """Feed a connection and return what it wrote, and what its handler heard."""

    async def scenario() -> tuple[bytes, list[str]]:
        handlers: list[Echo] = []

        def make_handler(connection: ServerProtocol) -> Echo:
            handlers.append(Echo(connection))
            return handlers[0]

        wire = Wire()
        protocol = ServerProtocol(Connections(ServerSettings(header_bytes=2048)), make_handler)
        protocol.connection_made(wire)
        for piece in pieces:
            if piece and not wire.is_closing_now:
                protocol.data_received(piece)
        protocol.connection_lost(None)
        return wire.written, handlers[0].calls

    return asyncio.run(scenario())


WORDS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"\r\n",
        b"GET",
        b" / HTTP/1.1",
        b"Host: h\r\n",
        b"Upgrade: x\r\nConnection: upgrade\r\n",
        b"\x00\xff",
    ]
)


@given(st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=12), st.integers(1, 60))
def test_any_bytes_are_answered_alike_however_they_are_cut(words: list[bytes], step: int) -> None:
    data = b"".join(words)
    whole, heard = converse([data])
    cut, heard_cut = converse([data[at : at + step] for at in range(0, len(data), step)])
    assert statuses(cut) == statuses(whole)
    assert [call for call in heard if call != "body"] == [call for call in heard_cut if call != "body"]


@given(st.integers(0, 30), st.lists(st.binary(max_size=30), max_size=4), st.integers(1, 50))
def test_sound_requests_are_answered_one_by_one_in_order(gets: int, bodies: list[bytes], step: int) -> None:
    data = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * gets
    for body in bodies:
        data += b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    written, _ = converse([data[at : at + step] for at in range(0, len(data), step)])
    contents = [each.rpartition(b"\r\n\r\n")[2] for each in written.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert contents == [b"0"] * gets + [b"%d" % len(body) for body in bodies]


def test_client_held_back_for_an_upstream_is_read_from_again_after_its_answer() -> None:
    """An upstream may answer without taking the whole body: the next request must not wait for it."""

    class Holding(Echo):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            self.connection.pause()

    async def scenario() -> None:
        wire = Wire()
        protocol = ServerProtocol(Connections(ServerSettings()), Holding)
        protocol.connection_made(wire)
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n")
        protocol.data_received(b"abc")
        assert wire.written.startswith(b"HTTP/1.1 200 ")
        assert wire.is_read_from

    asyncio.run(scenario())


class Rested(NamedTuple):
    protocol: ServerProtocol
    wire: Wire
    handlers: list[weakref.ref[Echo]]
    """All that were made, whether or not they are there still."""


def rested() -> Rested:
    """Return a connection that has had one request, and idled on until it rests."""
    handlers: list[weakref.ref[Echo]] = []

    def make_handler(connection: ServerProtocol) -> Echo:
        handler = Echo(connection)
        handlers.append(weakref.ref(handler))
        return handler

    wire = Wire()
    protocol = ServerProtocol(Connections(ServerSettings()), make_handler)
    protocol.connection_made(wire)
    protocol.data_received(HEAD)
    protocol.on_deadline()
    return Rested(protocol, wire, handlers)


def test_connection_that_rests_keeps_nothing_of_its_requests() -> None:
    """Guards the memory of idle clients, who are most of them; no collection has to come by."""
    gc.disable()
    try:
        protocol, wire, handlers = rested()
        assert [each() for each in handlers] == [None]
    finally:
        gc.enable()
    assert not wire.is_closing_now
    assert protocol.is_idle
    assert protocol.timeout_s() == ServerSettings().client_idle_s - REST_S


def test_request_after_a_rest_is_answered_whole_or_byte_by_byte() -> None:
    for step in (1, 7, len(HEAD)):
        protocol, wire, handlers = rested()
        before = len(wire.written)
        for at in range(0, len(HEAD), step):
            protocol.data_received(HEAD[at : at + step])
        assert statuses(wire.written[before:]) == [200]
        assert len(handlers) == 2


def test_head_begun_after_a_rest_has_the_time_of_a_head() -> None:
    protocol, wire, _ = rested()
    protocol.data_received(HEAD[:-1])
    assert protocol.timeout_s() == ServerSettings().client_header_s
    before = len(wire.written)
    protocol.on_deadline()
    assert statuses(wire.written[before:]) == [408]


def test_empty_lines_buy_no_more_idle_time() -> None:
    """Guards against clients who keep a connection with two bytes a minute."""
    protocol, wire, _ = rested()
    protocol.data_received(b"\r\n")
    assert protocol.timeout_s() == ServerSettings().client_idle_s - REST_S
    protocol.on_deadline()
    assert wire.is_closing_now


def test_connection_that_rests_may_be_closed_from_either_side() -> None:
    for close in (ServerProtocol.close_if_idle, ServerProtocol.abort, lambda it: it.eof_received()):
        protocol, _, handlers = rested()
        assert not close(protocol)
        protocol.connection_lost(None)
        assert not protocol.owner.open
        assert len(handlers) == 1


def test_handler_hears_of_a_head_before_what_spoils_its_body() -> None:
    """It counts and logs the request: a body cut elsewhere must make no other story of it."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    for pieces in ([head + b"x\r\n"], [head, b"x\r\n"], [head + b"1\r\nax"], [head + b"1\r\n", b"ax"]):
        written, heard = converse(pieces)
        assert written.startswith(b"HTTP/1.1 400 ")
        assert [call for call in heard if call != "body"] == ["head", "gone", "closed"]


def test_refusal_of_a_whole_request_leaves_the_connection_open() -> None:
    """Nothing of it is still to come that could be taken for another request (RFC 9112 §9.6)."""

    class Refusing(Echo):
        def on_head(self, body: bytes, *, complete: bool) -> None:
            self.connection.refuse(NoRoute("nobody is here"))

    def answers(data: bytes) -> bytes:
        wire = Wire()
        protocol = ServerProtocol(Connections(ServerSettings()), Refusing)
        protocol.connection_made(wire)
        protocol.data_received(data)
        return wire.written

    whole = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    assert answers(whole * 2).count(b"HTTP/1.1 404 ") == 2
    assert b"Connection: close" not in answers(whole)
    assert b"Connection: close" in answers(whole[:-1])


def statuses(written: bytes) -> list[int]:
    """Return the statuses of the answers, read by h11."""
    found = []
    while written:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
        connection.send(h11.EndOfMessage())
        head, _, rest = written.partition(b"\r\n\r\n")
        connection.receive_data(head + b"\r\n\r\n")
        event = connection.next_event()
        assert isinstance(event, h11.Response)
        # A method llhttp refuses at its first letter may be a token (501) or not (400): it depends on how
        # much has come.
        found.append(400 if event.status_code == 501 else event.status_code)
        is_head_answer = not rest or rest.startswith(b"HTTP/1.1")
        length = 0 if is_head_answer else int(dict(event.headers.raw_items())[b"Content-Length"])
        written = rest[length:]
    return found
