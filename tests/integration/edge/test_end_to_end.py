"""The edge with the real data plane behind it: TLS, PROXY protocol, limits, WebSockets, drains, log."""

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.core.routing.service import RouteSettings, ServiceSettings, UpstreamTlsSettings
from gateway.core.settings.limits import Limits
from gateway.http1.fetch import fetch
from gateway.link.snapshot import EndpointSnap, ProxySettings, ServiceSnap, Snapshot, VersionSnap
from gateway.net.listener import Listener
from gateway.net.tls import Certificate, CertificateFiles, ServerTls, upstream_context
from gateway.worker.plane import Plane

WAIT_S = 20
V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


class Gateway:
    """A plane behind a listener, with one service that has one version at `url`."""

    def __init__(self, url: str, proxy: ProxySettings, settings: dict[str, Any], **options: Any) -> None:
        self.plane = Plane(seed=1, sweep_s=0.02)
        self.capacity = self.plane.capacity
        self.capacity.set_limits(100, proxy.limits.connections_per_client)
        self.apply(url, settings, proxy)
        sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = sock.getsockname()[1]
        factory = self.plane.factory(tls="tls" in options)
        refused = self.plane.clients.count_refusal
        is_proxy = partial(self.plane.context.is_proxy, 0)
        self.listener = Listener(
            sock, factory, self.capacity, is_proxy=is_proxy, on_refused=refused, **options
        )
        self.plane.draining.arriving = lambda: self.capacity.open > self.plane.connections

    def apply(self, url: str, settings: dict[str, Any], proxy: ProxySettings | None = None) -> None:
        """Serve by these settings from now on."""
        port = int(url.rpartition(":")[2])
        endpoint = EndpointSnap(key="e", url=url, address="127.0.0.1", port=port)
        version = VersionSnap(id="v1", name="v1", weight=100, active=True, endpoints=(endpoint,))
        checked = ServiceSettings(routes=(RouteSettings(),), **settings)
        service = ServiceSnap(
            id="s", name="s", generation=1, settings=checked, versions=(version,), current="v1"
        )
        number = self.plane.live_table.current.number + 1
        self.plane.apply(Snapshot(number=number, whole=True, services={"s": service}, proxy=proxy))

    @contextlib.asynccontextmanager
    async def client(
        self, **options: Any
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        try:
            async with asyncio.timeout(WAIT_S):
                yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def gateway(
    url: str, proxy: ProxySettings | None = None, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Gateway]:
    running = Gateway(url, proxy or ProxySettings(), settings or {}, **options)
    running.plane.start()
    running.listener.start()
    try:
        yield running
    finally:
        running.listener.abort()
        running.plane.close_now()
        await until(lambda: running.plane.connections == 0)


@contextlib.asynccontextmanager
async def upstream(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers each request with the head it got, and its body behind it."""

    active = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal active
        active += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = head + await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        active -= 1

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await until(lambda: active == 0)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one response with a Content-Length: its status and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(head.split()[1]), await reader.readexactly(int(line.split(b":")[1]))
    raise AssertionError(head)


def server_tls(authority: Any) -> ServerTls:
    return ServerTls([Certificate.read(CertificateFiles(*authority.issue("a.example", "127.0.0.1")))])


# TLS on the listener


@contextlib.asynccontextmanager
async def tls_client(
    authority: Any, proxy: ProxySettings | None = None
) -> AsyncIterator[tuple[Gateway, asyncio.StreamReader, asyncio.StreamWriter]]:
    options: dict[str, Any] = {
        "ssl": upstream_context(ca=str(authority.ca)),
        "server_hostname": "a.example",
    }
    async with (
        upstream() as url,
        gateway(url, proxy, tls=server_tls(authority)) as running,
        running.client(**options) as (reader, writer),
    ):
        yield running, reader, writer


async def test_requests_come_in_through_tls_one_after_another(authority: Any) -> None:
    async with tls_client(authority) as (_, reader, writer):
        for _ in range(3):
            writer.write(GET)
            status, seen = await answer_of(reader)
            assert status == 200
            assert b"X-Forwarded-Proto: https\r\n" in seen
        writer.write(GET + GET)
        assert [(await answer_of(reader))[0] for _ in range(2)] == [200, 200]
        body = b"x" * 3_000_000
        writer.write(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        status, seen = await answer_of(reader)
        assert seen.endswith(b"\r\n\r\n" + body)


async def test_early_refusal_is_read_through_tls_by_a_client_that_still_sends(authority: Any) -> None:
    limited = ProxySettings(limits=Limits(body_bytes=1000))
    async with tls_client(authority, limited) as (_, reader, writer):
        writer.write(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n" + b"x" * 300_000)
        status, _ = await answer_of(reader)
        assert status == 413


async def test_plain_request_on_a_tls_port_disturbs_nobody(authority: Any) -> None:
    async with tls_client(authority) as (running, reader, writer):
        async with running.client() as (plain, other):
            other.write(GET)
            with contextlib.suppress(ConnectionError):
                assert await plain.read() == b""
        writer.write(GET)
        assert (await answer_of(reader))[0] == 200


async def test_client_that_leaves_without_goodbye_frees_its_place(authority: Any) -> None:
    async with tls_client(authority) as (running, reader, writer):
        writer.write(GET)
        await answer_of(reader)
        writer.transport.abort()
        await until(lambda: running.capacity.open == 0)


# TLS to the upstream


async def status_through(url: str, tls: UpstreamTlsSettings) -> int:
    async with gateway(url, settings={"tls": tls, "retry": False}) as running:
        return (await fetch(f"http://127.0.0.1:{running.port}/a", timeout_s=WAIT_S)).status


@pytest.mark.parametrize(
    ("trusted", "verify", "server_name", "status"),
    [
        (True, True, None, 200),
        (True, True, "a.example", 200),
        (True, True, "b.example", 502),
        (False, True, None, 502),
        (False, False, "b.example", 200),
    ],
)
async def test_upstreams_certificate_is_verified(
    authority: Any, trusted: bool, verify: bool, server_name: str | None, status: int
) -> None:
    tls = UpstreamTlsSettings(
        verify=verify, ca=str(authority.ca) if trusted else None, server_name=server_name
    )
    async with upstream(server_tls(authority).context) as url:
        assert await status_through(url, tls) == status


async def test_changed_tls_settings_still_verify_the_urls_name(authority: Any) -> None:
    """The name is the url's, not the address it was looked up to."""
    trusting = UpstreamTlsSettings(ca=str(authority.ca))
    tls = ServerTls([Certificate.read(CertificateFiles(*authority.issue("a.example")))]).context
    async with upstream(tls) as url:
        named = url.replace("127.0.0.1", "a.example")
        async with gateway(named, settings={"tls": UpstreamTlsSettings(), "retry": False}) as running:
            ask = f"http://127.0.0.1:{running.port}/a"
            assert (await fetch(ask, timeout_s=WAIT_S)).status == 502
            running.apply(named, settings={"tls": trusting})
            assert (await fetch(ask, timeout_s=WAIT_S)).status == 200


async def test_upstream_is_shown_our_certificate(authority: Any) -> None:
    context = server_tls(authority).context
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the handshake itself fails without one
    certificate, key = authority.issue("gateway.example", client=True)
    async with upstream(context) as url:
        ca = str(authority.ca)
        assert await status_through(url, UpstreamTlsSettings(ca=ca)) == 502
        shown = UpstreamTlsSettings(ca=ca, certificate=certificate, key=key)
        assert await status_through(url, shown) == 200


# PROXY protocol


@pytest.mark.parametrize("through_tls", [False, True], ids=["plain", "tls"])
async def test_upstream_and_log_hear_of_the_client_in_the_proxy_header(
    through_tls: bool, authority: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    proxy = ProxySettings(access_log_format="json", access_log_path=str(log))
    options: dict[str, Any] = {"tls": server_tls(authority)} if through_tls else {}
    async with upstream() as url, gateway(url, proxy, proxy_protocol=True, **options) as running:
        sock = socket.create_connection(("127.0.0.1", running.port))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(sock, V1)
        tls: dict[str, Any] = {}
        if through_tls:
            tls = {"ssl": upstream_context(ca=str(authority.ca)), "server_hostname": "a.example"}
        reader, writer = await asyncio.open_connection(sock=sock, **tls)
        writer.write(GET)
        status, seen = await answer_of(reader)
        assert status == 200
        assert b"X-Forwarded-For: 192.0.2.7\r\n" in seen
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert json.loads(log.read_text())["client"] == "192.0.2.7"


async def test_trust_is_for_whom_the_proxy_header_names() -> None:
    proxy = ProxySettings(trusted_proxies=(("127.0.0.1/32",),))
    async with upstream() as url, gateway(url, proxy, proxy_protocol=True) as running:
        for header, found in ((V1, b"192.0.2.7"), (b"PROXY UNKNOWN\r\n", b"10.9.9.9, 127.0.0.1")):
            async with running.client() as (reader, writer):
                writer.write(header + b"GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n")
                _, seen = await answer_of(reader)
                assert b"X-Forwarded-For: " + found + b"\r\n" in seen


async def test_request_without_the_header_is_not_answered() -> None:
    async with (
        upstream() as url,
        gateway(url, proxy_protocol=True) as running,
        running.client() as (reader, writer),
    ):
        writer.write(GET)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


# Limits


async def test_share_of_a_client_is_freed_by_every_way_a_connection_ends() -> None:
    limited = ProxySettings(limits=Limits(connections_per_client=1))

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GET)
        assert (await answer_of(reader))[0] == 200

    async with upstream() as url, gateway(url, limited) as running:
        for way in ("close", "abort", "last answer", "bad request"):
            async with running.client() as (reader, writer):
                await ask(reader, writer)
                async with running.client() as (other, _):
                    with contextlib.suppress(ConnectionError):
                        assert await other.read() == b""
                if way == "abort":
                    writer.transport.abort()
                elif way == "last answer":
                    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                    await reader.read()
                elif way == "bad request":
                    writer.write(b"nonsense\r\n\r\n")
                    assert b"400" in await reader.read()
            await until(lambda: running.capacity.open == 0)
        assert running.plane.clients.refused["connections_per_client"] == 4


BEHIND_PROXY = ProxySettings(
    limits=Limits(connections_per_client=2), trusted_proxies=(("127.0.0.0/8", "198.51.100.0/24"),)
)


def asked_for(client: str, path: str = "/hang", fields: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n{fields}\r\n".encode()


@contextlib.asynccontextmanager
async def upstream_that_hangs() -> AsyncIterator[str]:
    """An upstream that answers all but `/hang`, and changes to another protocol at `/tunnel`."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while b" /hang " not in (head := await reader.readuntil(b"\r\n\r\n")):
                if b" /tunnel " in head:
                    writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_behind_a_proxy_each_clients_requests_count_and_not_the_proxys_connections() -> None:
    """Guards a limit that shut out everybody who stood behind one balancer."""
    async with upstream_that_hangs() as url, gateway(url, BEHIND_PROXY) as running:
        async with contextlib.AsyncExitStack() as held:
            lines = [await held.enter_async_context(running.client()) for _ in range(5)]
            for _, writer in lines[:2]:
                writer.write(asked_for("203.0.113.5, 198.51.100.7"))
            await until(lambda: running.plane.context.requests == 2)
            reader, writer = lines[2]
            writer.write(asked_for("203.0.113.5:4001"))
            refusal = await reader.readuntil(b"}")
            assert refusal.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nRetry-After: 1\r\n" in refusal
            for other in ("203.0.113.6", "203.0.113.5, 203.0.113.7", "unknown"):
                writer.write(asked_for(other, "/"))
                assert (await answer_of(reader))[0] == 200
            assert running.plane.clients.refused == {"connections_per_client": 1}
        async with running.client() as (reader, writer):
            await until(lambda: running.capacity.open == 1)
            for _ in range(3):  # whatever ended gave its share back
                writer.write(asked_for("203.0.113.5", "/"))
                assert (await answer_of(reader))[0] == 200


async def test_tunnel_a_proxy_brings_counts_for_its_client_until_it_ends() -> None:
    change = "Connection: upgrade\r\nUpgrade: x\r\n"
    async with upstream_that_hangs() as url, gateway(url, BEHIND_PROXY) as running:
        async with running.client() as (reader, writer), running.client() as (other, its_writer):
            for each, line in ((writer, reader), (its_writer, other)):
                each.write(asked_for("203.0.113.5", "/tunnel", change))
                assert b" 101 " in await line.readuntil(b"\r\n\r\n")
            async with running.client() as (third, its):
                its.write(asked_for("203.0.113.5", "/"))
                assert (await answer_of(third))[0] == 429
        await until(lambda: running.capacity.open == 0)
        async with running.client() as (reader, writer):
            writer.write(asked_for("203.0.113.5", "/"))
            assert (await answer_of(reader))[0] == 200


# WebSockets


@contextlib.asynccontextmanager
async def websockets(
    handler: Callable[[ServerConnection], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, ssl=tls) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"


async def echo(peer: ServerConnection) -> None:
    async for message in peer:
        await peer.send(message)


async def test_websocket_passes_and_frees_everything_it_held() -> None:
    async with websockets(echo) as url, gateway(url) as running:
        async with connect(f"ws://127.0.0.1:{running.port}/chat") as client:
            for size in (1, 200, 70_000, 1_000_000):
                await client.send(b"x" * size)
                assert await client.recv() == b"x" * size
            (counts,) = running.plane.live_table.counts.values()
            assert counts.streams == 1
            assert running.capacity.open == 1
        await until(lambda: running.capacity.open == 0)
        assert running.plane.connections == 0
        assert (counts.streams, counts.in_flight) == (0, 0)
        assert counts.requests == {("GET", 101): 1}


async def test_websocket_through_tls(authority: Any) -> None:
    client = upstream_context(ca=str(authority.ca))
    async with websockets(echo) as url, gateway(url, tls=server_tls(authority)) as running:
        where = f"wss://127.0.0.1:{running.port}/chat"
        async with connect(where, ssl=client, server_hostname="a.example") as peer:
            await peer.send("x" * 300_000)
            assert await peer.recv() == "x" * 300_000
        await until(lambda: running.capacity.open == 0)


async def test_websocket_to_an_upstream_through_tls_and_its_goodbye(authority: Any) -> None:
    settings = {"tls": UpstreamTlsSettings(ca=str(authority.ca))}
    async with (
        websockets(echo, server_tls(authority).context) as url,
        gateway(url, settings=settings) as running,
        connect(f"ws://127.0.0.1:{running.port}/chat") as peer,
    ):
        await peer.send("x" * 300_000)
        assert await peer.recv() == "x" * 300_000
        running.plane.draining.begin(1.0)
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(peer.recv(), WAIT_S)
        assert caught.value.rcvd is not None
        await asyncio.wait_for(running.plane.draining.drained.wait(), WAIT_S)
        assert running.plane.draining.forced == 0


async def test_websocket_whose_client_vanishes_is_closed_upstream() -> None:
    gone = asyncio.Event()

    async def stay(peer: ServerConnection) -> None:
        await peer.wait_closed()
        gone.set()

    async with websockets(stay) as url, gateway(url) as running:
        peer = await connect(f"ws://127.0.0.1:{running.port}/chat")
        peer.transport.abort()
        await asyncio.wait_for(gone.wait(), WAIT_S)
        await until(lambda: running.capacity.open == 0)


async def test_websocket_whose_upstream_vanishes_is_closed() -> None:
    async def vanish(peer: ServerConnection) -> None:
        peer.transport.abort()

    async with websockets(vanish) as url, gateway(url) as running:
        async with connect(f"ws://127.0.0.1:{running.port}/chat") as peer:
            with pytest.raises(ConnectionClosed) as caught:
                await asyncio.wait_for(peer.recv(), WAIT_S)
            assert caught.value.rcvd is None
        await until(lambda: running.capacity.open == 0)


async def test_refused_websocket_is_an_ordinary_answer() -> None:
    async with upstream() as url, gateway(url) as running, running.client() as (reader, writer):
        writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await answer_of(reader))[0] == 200
        writer.write(GET)
        assert (await answer_of(reader))[0] == 200


async def test_drain_of_the_worker_says_goodbye_to_websockets_and_ends() -> None:
    async with websockets(echo) as url, gateway(url) as running:
        peers = [await connect(f"ws://127.0.0.1:{running.port}/chat") for _ in range(5)]
        await peers[0].send("before")
        assert await peers[0].recv() == "before"
        running.listener.stop()
        running.plane.draining.begin(3.0)
        for peer in peers:
            with pytest.raises(ConnectionClosed) as caught:
                await asyncio.wait_for(peer.recv(), WAIT_S)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code in (1001, 1012)
        await asyncio.wait_for(running.plane.draining.drained.wait(), WAIT_S)
        assert running.plane.draining.forced == 0


async def test_drain_of_an_endpoint_says_goodbye_to_its_websockets() -> None:
    async with websockets(echo) as url, gateway(url) as running:
        async with connect(f"ws://127.0.0.1:{running.port}/chat") as peer:
            running.plane.draining.begin_endpoints(("e",), 1.0)
            with pytest.raises(ConnectionClosed) as caught:
                await asyncio.wait_for(peer.recv(), WAIT_S)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code in (1001, 1012)
        await until(lambda: running.capacity.open == 0)
        assert running.plane.draining.forced == 0


async def test_websocket_opened_while_the_worker_drains_is_said_goodbye_to() -> None:
    async with websockets(echo) as url, gateway(url) as running:
        sock = socket.create_connection(("127.0.0.1", running.port))
        await until(lambda: running.capacity.open == 1)
        running.listener.stop()
        running.plane.draining.begin(WAIT_S)
        async with connect(f"ws://127.0.0.1:{running.port}/chat", sock=sock) as peer:
            with pytest.raises(ConnectionClosed) as caught:
                await asyncio.wait_for(peer.recv(), WAIT_S)
            assert caught.value.rcvd is not None
        await asyncio.wait_for(running.plane.draining.drained.wait(), WAIT_S)
        assert running.plane.draining.forced == 0


@pytest.mark.parametrize("through_tls", [False, True], ids=["proxy", "tls"])
async def test_connection_still_shaking_hands_when_a_drain_begins_is_served(
    through_tls: bool, authority: Any
) -> None:
    options: dict[str, Any] = {"tls": server_tls(authority)} if through_tls else {"proxy_protocol": True}
    async with upstream() as url, gateway(url, **options) as running:
        sock = socket.create_connection(("127.0.0.1", running.port))
        await until(lambda: running.capacity.open == 1)
        running.listener.stop()
        running.plane.draining.begin(WAIT_S)
        running.plane.sweep(time.monotonic())
        assert not running.plane.draining.drained.is_set()
        tls: dict[str, Any] = {}
        if through_tls:
            tls = {"ssl": upstream_context(ca=str(authority.ca)), "server_hostname": "a.example"}
        else:
            sock.sendall(V1)
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, **tls)
        writer.write(GET)
        assert (await answer_of(reader))[0] == 200
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await asyncio.wait_for(running.plane.draining.drained.wait(), WAIT_S)


async def test_handshake_without_an_end_does_not_outlast_the_drain(authority: Any) -> None:
    async with upstream() as url, gateway(url, tls=server_tls(authority)) as running, running.client():
        await until(lambda: running.capacity.open == 1)
        running.listener.stop()
        running.plane.draining.begin(0.1)
        await asyncio.wait_for(running.plane.draining.drained.wait(), WAIT_S)


# The access log


@pytest.mark.parametrize("format", ["json", "combined"])
async def test_each_request_is_one_line(format: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    proxy = ProxySettings(access_log_format=format, access_log_path=str(log))
    async with upstream() as url, gateway(url, proxy) as running, running.client() as (reader, writer):
        for target in (b"/a?x=1", b"/b"):
            writer.write(b"GET " + target + b' HTTP/1.1\r\nHost: h\r\nUser-Agent: "q\x80"\r\n\r\n')
            await answer_of(reader)
        writer.write(b"GARBAGE\r\n\r\n")
        await reader.read()
    lines = log.read_text().splitlines()
    assert len(lines) >= 2
    if format == "json":
        first = json.loads(lines[0])
        assert (first["path"], first["status"], first["service"], first["version"]) == (
            "/a?x=1",
            200,
            "s",
            "v1",
        )
        assert first["user_agent"] == '"q\\x80"'
        assert first["bytes_out"] > 0
        assert first["duration_ms"] > 0
    else:
        assert '"GET /a?x=1 HTTP/1.1" 200 ' in lines[0]
        assert lines[0].endswith('"-" "\\"q\\\\x80\\""')
