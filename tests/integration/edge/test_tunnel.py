"""Tunnels over real sockets, between the websockets library and scripted peers."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.net.tls import Certificate, CertificateFiles, ServerTls, upstream_context
from gateway.worker.tunnel.tunnel import Tunnel

WAIT_S = 20


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


class Upstream(asyncio.Protocol):
    """Passes the handshake on by hand, then leaves both connections to a tunnel."""

    def __init__(self, joiner: "Joiner", client: asyncio.Transport, head: bytes) -> None:
        self.joiner = joiner
        self.client = client
        self.sent = head
        self.answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.sent)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, end, rest = self.answer.partition(b"\r\n\r\n")
        if end:
            self.client.write(head + end)
            self.joiner.join(
                self.client, self.transport, rest, websocket=b"upgrade: websocket" in head.lower()
            )


class Client(asyncio.Protocol):
    """Reads the client's handshake and connects to the upstream."""

    def __init__(self, joiner: "Joiner") -> None:
        self.joiner = joiner
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.head += data
        if self.head.endswith(b"\r\n\r\n"):
            self.transport.pause_reading()
            self.joiner.group.create_task(self.connect(), name="connect")

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(
            lambda: Upstream(self.joiner, self.transport, self.head), "127.0.0.1", self.joiner.upstream_port
        )


class Joiner:
    """The least a proxy must do to reach the point where a tunnel begins."""

    def __init__(self, group: asyncio.TaskGroup, upstream_port: int) -> None:
        self.group = group
        self.upstream_port = upstream_port
        self.tunnels: set[Tunnel] = set()
        self.ended: list[Tunnel] = []
        self.port = 0

    def join(
        self, client: asyncio.Transport, upstream: asyncio.Transport, rest: bytes, *, websocket: bool
    ) -> None:
        tunnel = Tunnel(client, upstream, websocket=websocket, on_end=self.on_end, key="e")
        self.tunnels.add(tunnel)
        tunnel.start(from_upstream=rest)

    def on_end(self, tunnel: Tunnel) -> None:
        self.tunnels.discard(tunnel)
        self.ended.append(tunnel)

    def drain(self, deadline_s: float, code: int = 1001) -> None:
        """Begin a drain, and let the clock run: 10 ms at a time, as a worker's sweep would."""
        now = time.monotonic()
        for tunnel in self.tunnels:
            tunnel.drain(now, now + deadline_s, code)
        self.group.create_task(self._sweep(), name="sweep")

    async def _sweep(self) -> None:
        while self.tunnels:
            for tunnel in tuple(self.tunnels):
                tunnel.sweep(time.monotonic())
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def joiner(upstream_port: int, ssl: Any = None) -> AsyncIterator[Joiner]:
    async with asyncio.TaskGroup() as group:
        joined = Joiner(group, upstream_port)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Client(joined), "127.0.0.1", 0, ssl=ssl)
        joined.port = server.sockets[0].getsockname()[1]
        async with server:
            yield joined
            for tunnel in tuple(joined.tunnels):
                tunnel.abort()
            await until(lambda: not joined.tunnels)


@contextlib.asynccontextmanager
async def websocket(
    handler: Callable[[ServerConnection], Awaitable[None]], compression: str | None = "deflate"
) -> AsyncIterator[tuple[Joiner, ClientConnection]]:
    async with (
        serve(handler, "127.0.0.1", 0) as server,
        joiner(next(iter(server.sockets)).getsockname()[1]) as joined,
        connect(f"ws://127.0.0.1:{joined.port}/", compression=compression) as client,
    ):
        yield joined, client


async def echo(peer: ServerConnection) -> None:
    async for message in peer:
        await peer.send(message)


async def test_messages_of_all_sizes_come_back() -> None:
    async with websocket(echo) as (joined, client):
        for size in (0, 1, 125, 126, 65_535, 65_536, 1_000_000):
            await client.send("x" * size)
            assert await client.recv() == "x" * size
        await (await client.ping())
    await until(lambda: len(joined.ended) == 1)
    assert not joined.ended[0].forced
    assert joined.ended[0].bytes_down > 0


async def test_close_of_either_end_travels_with_its_code() -> None:
    async def leave(peer: ServerConnection) -> None:
        await peer.close(4001, "bye")

    async with websocket(leave) as (_, client):
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "bye")
    codes: list[int | None] = []

    async def stay(peer: ServerConnection) -> None:
        await peer.wait_closed()
        codes.append(peer.close_code)

    async with websocket(stay) as (_, client):
        await client.close(4002)
    await until(lambda: codes == [4002])


async def test_drain_closes_in_order_at_both_ends() -> None:
    codes: list[int | None] = []

    async def stay(peer: ServerConnection) -> None:
        await peer.wait_closed()
        codes.append(peer.close_code)

    async with websocket(stay) as (joined, client):
        joined.drain(30, 1012)
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
        await until(lambda: codes == [1012])
        await until(lambda: len(joined.ended) == 1)
        assert not joined.ended[0].forced


async def test_drain_under_fire_never_breaks_a_message() -> None:
    """Every message the client gets is whole, and the last thing it hears is the Close."""
    payloads = [bytes([65 + i % 26]) * (1 + i * 37 % 70_000) for i in range(200)]

    async def fire(peer: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                for payload in payloads:
                    await peer.send(payload)

    async with websocket(fire, compression=None) as (joined, client):
        received = [await client.recv() for _ in range(300)]
        joined.drain(30, 1001)
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                received.append(await client.recv())
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
        assert received == [payloads[i % len(payloads)] for i in range(len(received))]
        await until(lambda: len(joined.ended) == 1)
        assert not joined.ended[0].forced


async def test_many_goodbyes_reach_everybody() -> None:
    async with websocket(echo) as (joined, first):
        url = f"ws://127.0.0.1:{joined.port}/"
        clients = [first, *[await connect(url) for _ in range(20)]]
        joined.drain(5.2, 1012)
        await asyncio.wait_for(asyncio.gather(*(client.wait_closed() for client in clients)), WAIT_S)
        assert {client.close_code for client in clients} == {1012}
        await until(lambda: len(joined.ended) == len(clients))
        assert not any(tunnel.forced for tunnel in joined.ended)


# Scripted peers


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n"


@contextlib.asynccontextmanager
async def scripted(script: Script, ssl: Any = None) -> AsyncIterator[Joiner]:
    """A joiner in front of an upstream that runs `script` after reading the head."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    async with server, joiner(server.sockets[0].getsockname()[1], ssl) as joined:
        yield joined


@contextlib.asynccontextmanager
async def opened(
    joined: Joiner, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has sent its request for an upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", joined.port, **options)
    writer.write(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n")
    try:
        async with asyncio.timeout(WAIT_S):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_bytes_glued_to_the_101_are_delivered() -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH + b"glued")

    async with scripted(script) as joined, opened(joined) as (reader, _):
        assert await reader.read() == SWITCH + b"glued"


async def test_half_closed_client_still_gets_its_answer() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        writer.write(b"<" + await reader.read() + b">")

    async with scripted(script) as joined, opened(joined) as (reader, writer):
        assert await reader.readexactly(len(SWITCH)) == SWITCH
        writer.write(b"all of it")
        writer.write_eof()
        assert await reader.read() == b"<all of it>"


async def test_half_closed_upstream_still_hears_the_client() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        writer.write_eof()
        heard.set_result(await reader.read())

    async with scripted(script) as joined, opened(joined) as (reader, writer):
        assert await reader.read() == SWITCH
        writer.write(b"still here")
        writer.write_eof()
        assert await heard == b"still here"


async def test_reset_travels_to_the_other_end() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        await writer.drain()
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with scripted(script) as joined, opened(joined) as (reader, writer):
        assert await reader.readexactly(len(SWITCH)) == SWITCH
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await until(lambda: len(joined.ended) == 1)


@pytest.mark.parametrize("downward", [True, False], ids=["down", "up"])
async def test_end_that_does_not_read_stops_the_other_and_holds_little(downward: bool) -> None:
    """The sender is stopped by sockets and buffers, then everything arrives once the reader reads."""
    total = 64 * 1024 * 1024
    sent = 0
    may_read = asyncio.Event()
    finished = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        piece = b"x" * 65_536
        while sent < total:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        writer.write_eof()

    async def receive(reader: asyncio.StreamReader) -> int:
        await may_read.wait()
        received = 0
        while data := await reader.read(1 << 20):
            received += len(data)
        return received

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        if downward:
            await send(writer)
            await reader.read()
        else:
            assert await receive(reader) == total
        finished.set()

    async with scripted(script) as joined, opened(joined, limit=65_536) as (reader, writer):
        assert await reader.readexactly(len(SWITCH)) == SWITCH
        async with asyncio.TaskGroup() as group:
            if not downward:
                group.create_task(send(writer))
            await until(lambda: sent > 0)
            before = -1
            while before != sent:  # until nothing moves any more
                before = sent
                await asyncio.sleep(0.2)
            assert sent < total
            (tunnel,) = joined.tunnels
            held = max(
                tunnel._client.get_write_buffer_size(),
                tunnel._upstream.get_write_buffer_size(),
            )
            assert held < 1024 * 1024
            may_read.set()
            if downward:
                assert await receive(reader) == total
                writer.write_eof()
        await finished.wait()


async def test_deadline_cuts_what_is_no_websocket_and_counts_it() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        with contextlib.suppress(OSError):
            await reader.read()

    async with scripted(script) as joined, opened(joined) as (reader, _):
        assert await reader.readexactly(len(SWITCH)) == SWITCH
        joined.drain(0.1)
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        await until(lambda: len(joined.ended) == 1)
        assert joined.ended[0].forced


async def test_tls_client_is_tunnelled_and_its_end_is_the_end(authority: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH + b"hello")
        assert await reader.readexactly(100_000) == b"x" * 100_000
        assert await reader.read() == b""
        gone.set()

    gone = asyncio.Event()
    tls = ServerTls([Certificate.read(CertificateFiles(*authority.issue("a.example")))])
    client = upstream_context(ca=str(authority.ca))
    async with scripted(script, tls.context) as joined:
        async with opened(joined, ssl=client, server_hostname="a.example") as (reader, writer):
            assert await reader.readexactly(len(SWITCH) + 5) == SWITCH + b"hello"
            writer.write(b"x" * 100_000)
            await writer.drain()
        await asyncio.wait_for(gone.wait(), WAIT_S)
        await until(lambda: len(joined.ended) == 1)
