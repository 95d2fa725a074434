"""IPv6 at both ends: who the client is, whom a listener trusts, and how an address is written down."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.link.snapshot import EndpointSnap, ProxySettings, ServiceSnap, Snapshot, VersionSnap
from gateway.net.capacity import Capacity
from gateway.net.listener import Listener
from gateway.worker.plane import Plane
from tests.integration.edge.test_end_to_end import WAIT_S, until


def has_ipv6() -> bool:
    """Return whether this machine can talk to itself over IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            socket.create_connection(server.getsockname()[:2], timeout=5).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """A server on ::1 that answers each request with its head. Yields its port."""

    active = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal active
        active += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        active -= 1

    server = await asyncio.start_server(answer, "::1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await until(lambda: active == 0)


@contextlib.asynccontextmanager
async def gateway(address: str, *, trusted: tuple[str, ...] = (), per_client: int = 0) -> AsyncIterator[int]:
    """A gateway on `address` before an upstream on ::1. Yields its port."""
    async with echoing() as port:
        plane = Plane(seed=1, sweep_s=0.02)
        endpoint = EndpointSnap(key="e", url=f"http://[::1]:{port}", address="::1", port=port)
        version = VersionSnap(id="v", name="v", weight=100, active=True, endpoints=(endpoint,))
        settings = ServiceSettings(routes=(RouteSettings(host="[::1]"), RouteSettings(host="h")))
        service = ServiceSnap(
            id="s", name="s", generation=1, settings=settings, versions=(version,), current="v"
        )
        proxy = ProxySettings(trusted_proxies=(trusted,))
        plane.apply(Snapshot(number=1, whole=True, services={"s": service}, proxy=proxy))
        sock = socket.create_server((address, 0), family=socket.AF_INET6, dualstack_ipv6=address == "::")
        own_port: int = sock.getsockname()[1]
        listener = Listener(sock, plane.factory(), Capacity(100, per_client))
        plane.start()
        listener.start()
        try:
            yield own_port
        finally:
            listener.abort()
            plane.close_now()
            await until(lambda: plane.connections == 0)


async def seen_of(port: int, fields: bytes = b"", *, host: bytes = b"[::1]:80", to: str = "::1") -> bytes:
    """Return the head the upstream gets; empty if the gateway closes instead."""
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(to, port)
        writer.write(b"GET /a HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n" + fields + b"\r\n")
        answer = await reader.read()
        writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def test_address_is_written_as_each_field_wants_it() -> None:
    """RFC 7239 §6: an IPv6 address stands in brackets, and they in quotes."""
    async with gateway("::1") as port:
        seen = await seen_of(port)
    assert b"\r\nHost: [::1]:80\r\n" in seen
    assert b"\r\nX-Forwarded-For: ::1\r\n" in seen
    assert b"\r\nX-Forwarded-Host: [::1]:80\r\n" in seen
    assert b"\r\nX-Forwarded-Port: 80\r\n" in seen
    assert b'\r\nForwarded: for="[::1]";host="[::1]:80";proto=http\r\n' in seen


@pytest.mark.parametrize(
    ("trusted", "is_trusted"),
    [
        (("::1/128",), True),
        (("::/0",), True),
        (("2001:db8::/32",), False),
        (("127.0.0.0/8", "0.0.0.0/0"), False),
    ],
)
async def test_ipv6_networks_are_trusted_as_they_say(trusted: tuple[str, ...], is_trusted: bool) -> None:
    said = b'X-Forwarded-For: 2001:db8::7\r\nForwarded: for="[2001:db8::7]"\r\n'
    async with gateway("::1", trusted=trusted) as port:
        seen = await seen_of(port, said)
    assert (b"\r\nX-Forwarded-For: 2001:db8::7, ::1\r\n" in seen) is is_trusted
    story = b'\r\nForwarded: for="[2001:db8::7]";host="[::1]:80";proto=http, for="[::1]"\r\n'
    assert (story in seen) is is_trusted
    assert (b"2001:db8::7" in seen) is is_trusted


@pytest.mark.parametrize("host", [b"[::1]", b"[::1]:", b"[::1]:65535"])
async def test_route_of_an_ipv6_host_is_found_whatever_the_port(host: bytes) -> None:
    async with gateway("::1") as port:
        assert b"\r\nHost: " + host + b"\r\n" in await seen_of(port, host=host)


@pytest.mark.parametrize("host", [b"::1", b"[::1", b"[::1]x", b"[::1]:65536", b"[::1%25lo]", b"[v1.x]"])
async def test_host_that_is_no_ipv6_literal_is_refused(host: bytes) -> None:
    async with gateway("::1") as port:
        assert b'"status": 400' in await seen_of(port, host=host)


async def test_ipv4_client_of_a_listener_for_both_is_an_ipv4_client() -> None:
    async with gateway("::", trusted=("127.0.0.0/8",)) as port:
        seen = await seen_of(port, b"X-Forwarded-For: 192.0.2.1\r\n", host=b"h", to="127.0.0.1")
    assert b"\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n" in seen
    assert b"\r\nForwarded: for=192.0.2.1;host=h;proto=http, for=127.0.0.1\r\n" in seen


async def test_limit_per_client_holds_for_ipv6() -> None:
    async with gateway("::1", per_client=1) as port, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        try:
            second = await seen_of(port)
        except ConnectionError:
            second = b""
        assert second == b""
        writer.close()
