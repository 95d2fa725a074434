"""Accepting over real sockets: limits, exhaustion, stopping, PROXY protocol, TLS."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from gateway.net.capacity import Capacity
from gateway.net.listener import Listener, connections_within, raise_descriptor_limit
from gateway.net.tls import Certificate, CertificateFiles, ServerTls, upstream_context

WAIT_S = 20


class Handler(asyncio.Protocol):
    """Says who it was told its client is, then echoes."""

    def __init__(self, handlers: list["Handler"]) -> None:
        self.handlers = handlers
        self.host = "?"
        self.on_lost: Callable[[], None] | None = None

    def accepted(self, host: str, on_lost: Callable[[], None]) -> None:
        self.host = host
        self.on_lost = on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.handlers.append(self)
        self.transport.write(f"<{self.host}>".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.handlers.remove(self)
        assert self.on_lost is not None
        self.on_lost()


class Party:
    """A listener on a port of its own, and its handlers."""

    def __init__(self, **options: Any) -> None:
        self.capacity: Capacity = options.pop("capacity", Capacity(1000))
        self.handlers: list[Handler] = []
        self.refused: list[str] = []
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.sock.getsockname()[1]
        self.copy = self.sock.dup()
        self.listener = Listener(
            self.sock,
            lambda: Handler(self.handlers),
            self.capacity,
            on_refused=self.refused.append,
            **options,
        )

    async def __aenter__(self) -> "Party":
        self.listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.abort()
        self.copy.close()
        for handler in tuple(self.handlers):
            handler.transport.abort()
        await until(lambda: self.capacity.open == 0)

    @contextlib.asynccontextmanager
    async def client(
        self, **options: Any
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


async def greeting(reader: asyncio.StreamReader) -> bytes:
    """Read what the handler says first; empty if the connection ends instead."""
    try:
        return await asyncio.wait_for(reader.readuntil(b">"), WAIT_S)
    except (asyncio.IncompleteReadError, OSError):
        return b""


async def test_handler_learns_its_client_and_gives_its_place_back() -> None:
    async with Party() as party:
        async with party.client() as (reader, writer):
            assert await greeting(reader) == b"<127.0.0.1>"
            assert party.capacity.open == 1
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            (handler,) = party.handlers
            sock = handler.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await until(lambda: party.capacity.open == 0)
        assert party.capacity.accepted == 1


async def test_full_worker_leaves_clients_in_the_queue_until_one_goes() -> None:
    async with Party(capacity=Capacity(1)) as party, party.client() as (first, _):
        assert await greeting(first)
        async with party.client() as (second, _), party.client() as (third, _):
            assert len(party.handlers) == 1
            party.handlers[0].transport.close()
            assert await greeting(second)
            party.handlers[0].transport.close()
            assert await greeting(third)


async def test_wider_limit_lets_the_queue_in() -> None:
    async with Party(capacity=Capacity(1)) as party, party.client() as (first, _):
        assert await greeting(first)
        async with party.client() as (second, _):
            party.capacity.set_limits(2, 0)
            assert await greeting(second)


async def test_client_with_its_share_is_closed_and_others_are_not_disturbed() -> None:
    async with Party(capacity=Capacity(10, per_client=1)) as party:
        async with party.client() as (first, writer):
            assert await greeting(first)
            async with party.client() as (second, _):
                assert await greeting(second) == b""
            assert party.refused == ["connections_per_client"]
            writer.write(b"x")
            assert await first.readexactly(1) == b"x"
        await until(lambda: party.capacity.open == 0)
        async with party.client() as (third, _):
            assert await greeting(third)


async def test_stop_takes_the_queue_and_leaves_the_socket_to_others() -> None:
    async with Party() as party:
        clients = [socket.create_connection(("127.0.0.1", party.port)) for _ in range(5)]
        party.listener.stop(take_queue=True)
        assert party.capacity.open == 5
        late = socket.create_connection(("127.0.0.1", party.port))
        await until(lambda: len(party.handlers) == 5)
        for client in [*clients, late]:
            client.close()
        party.copy.setblocking(False)
        conn, _ = party.copy.accept()
        conn.close()


async def test_stop_at_once_leaves_the_queue_to_others() -> None:
    async with Party() as party:
        client = socket.create_connection(("127.0.0.1", party.port))
        party.listener.stop()
        assert party.capacity.open == 0
        party.copy.setblocking(False)
        conn, _ = party.copy.accept()
        conn.close()
        client.close()


async def test_out_of_descriptors_clients_wait_and_are_served_when_some_are_free() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told: list[OSError] = []
    async with Party(on_exhausted=told.append) as party:
        client = socket.socket()
        client.setblocking(False)
        taken = [os.dup(client.fileno())]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(client.fileno()))
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", party.port))
            await until(lambda: bool(told))
            assert told[0].errno == errno.EMFILE
            assert party.handlers == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        await until(lambda: len(party.handlers) == 1)
        client.close()


def test_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
        assert raise_descriptor_limit() == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_leave_descriptors_for_their_upstreams() -> None:
    assert connections_within(1024) == 480
    assert connections_within(20_000) == 11_744, "10,000 idle clients and 8,192 requests at once"
    assert connections_within(10) == 1


# PROXY protocol

V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n"
V2_SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
V2 = V2_SIGNATURE + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, bytes([192, 0, 2, 7]), b"\x0a\0\0\1", 1, 2)
LOCAL = V2_SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (V1, b"<192.0.2.7>"),
        (V2, b"<192.0.2.7>"),
        (LOCAL, b"<127.0.0.1>"),
        (b"PROXY UNKNOWN\r\n", b"<127.0.0.1>"),
    ],
    ids=["v1", "v2", "local", "unknown"],
)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
async def test_proxy_header_names_the_client_and_what_follows_is_untouched(
    header: bytes, host: bytes, split: bool
) -> None:
    async with Party(proxy_protocol=True) as party, party.client() as (reader, writer):
        if split:
            for i in range(len(header)):
                writer.write(header[i : i + 1])
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"rest")
        else:
            writer.write(header + b"rest")
        assert await greeting(reader) == host
        assert await reader.readexactly(4) == b"rest"


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 x y 1 2\r\n", b"PROX"])
async def test_bad_proxy_header_ends_the_connection(sent: bytes) -> None:
    async with Party(proxy_protocol=True) as party, party.client() as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await greeting(reader) == b""
        assert party.refused == ["handshake"]
        assert (party.handlers, party.capacity.open) == ([], 0)


async def test_silent_client_of_a_proxy_listener_is_cut() -> None:
    async with Party(proxy_protocol=True, handshake_s=0.05) as party, party.client() as (reader, _):
        assert await greeting(reader) == b""
        assert party.refused == ["handshake"]


async def test_limit_per_client_counts_whom_the_header_names() -> None:
    party = Party(proxy_protocol=True, capacity=Capacity(10, per_client=1))
    async with party, party.client() as (first, writer), party.client() as (second, other):
        writer.write(V1)
        assert await greeting(first) == b"<192.0.2.7>"
        other.write(b"PROXY TCP4 192.0.2.8 10.0.0.1 1 2\r\n")
        assert await greeting(second) == b"<192.0.2.8>"
        async with party.client() as (third, again):
            again.write(V2)
            assert await greeting(third) == b""


async def test_abort_cuts_connections_that_still_owe_their_header() -> None:
    async with Party(proxy_protocol=True) as party, party.client() as (reader, writer):
        writer.write(b"PROXY ")
        await until(lambda: party.capacity.open == 1)
        party.listener.abort()
        assert await greeting(reader) == b""
        assert party.capacity.open == 0


# TLS


def server_tls(authority: Any, *names: str) -> ServerTls:
    return ServerTls([Certificate.read(CertificateFiles(*authority.issue(*names)))])


async def test_tls_handler_reads_plain_bytes(authority: Any) -> None:
    client = upstream_context(ca=str(authority.ca))
    async with Party(tls=server_tls(authority, "a.example")) as party:
        async with party.client(ssl=client, server_hostname="a.example") as (reader, writer):
            assert await greeting(reader) == b"<127.0.0.1>"
            writer.write(b"x" * 100_000)
            assert await reader.readexactly(100_000) == b"x" * 100_000
        await until(lambda: party.capacity.open == 0)


async def test_proxy_header_goes_in_front_of_tls(authority: Any) -> None:
    client = upstream_context(ca=str(authority.ca))
    async with Party(tls=server_tls(authority, "a.example"), proxy_protocol=True) as party:
        sock = socket.create_connection(("127.0.0.1", party.port))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(sock, V2)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=client, server_hostname="a.example")
        assert await greeting(reader) == b"<192.0.2.7>"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_failed_handshakes_give_their_places_back(authority: Any) -> None:
    tls = server_tls(authority, "a.example")
    async with Party(tls=tls, handshake_s=0.2, capacity=Capacity(10, per_client=1)) as party:
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""):
            async with party.client() as (reader, writer):
                await until(lambda: party.capacity.open == 1)
                writer.write(sent)
                assert await greeting(reader) == b""
            await until(lambda: party.capacity.open == 0)
        async with party.client():
            await until(lambda: party.capacity.open == 1)
        await until(lambda: party.capacity.open == 0)
        assert party.refused == ["handshake"] * 4
        assert party.handlers == []
        client = upstream_context(ca=str(authority.ca))
        async with party.client(ssl=client, server_hostname="a.example") as (reader, _):
            assert await greeting(reader)


async def test_other_certificates_serve_new_connections_and_leave_old_ones(authority: Any) -> None:
    tls = server_tls(authority, "old.example")
    client = upstream_context(ca=str(authority.ca))
    party = Party(tls=tls)
    async with party, party.client(ssl=client, server_hostname="old.example") as (old, old_writer):
        assert await greeting(old)
        tls.use([Certificate.read(CertificateFiles(*authority.issue("new.example")))])
        async with party.client(ssl=client, server_hostname="new.example") as (new, _):
            assert await greeting(new)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with party.client(ssl=client, server_hostname="old.example"):
                pass
        old_writer.write(b"x")
        assert await old.readexactly(1) == b"x"


@pytest.mark.parametrize("header", [b"", V2], ids=["bare", "behind a PROXY header"])
@pytest.mark.parametrize("body", [b"", b"x" * 3_000_000], ids=["no body", "long body"])
async def test_plain_text_on_a_tls_port_is_answered_and_closed(
    authority: Any, header: bytes, body: bytes
) -> None:
    """The answer must be readable although nobody reads what the client goes on sending."""
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    options: dict[str, Any] = {"plain_answer": lambda: answer, "proxy_protocol": bool(header)}
    async with Party(tls=server_tls(authority, "a.example"), **options) as party:
        async with party.client() as (reader, writer):
            writer.write(header + b"POST / HTTP/1.1\r\n\r\n" + body)
            assert await reader.readexactly(len(answer)) == answer
        await until(lambda: party.capacity.open == 0)
        assert (party.refused, party.handlers) == (["handshake"], [])
