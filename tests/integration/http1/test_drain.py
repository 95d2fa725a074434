"""Ends: upgrades that become tunnels (RFC 9110 §7.8), endpoints that drain, a plane that drains."""

import asyncio
import time

import msgspec
import pytest

from gateway.core.settings.limits import Timeouts
from gateway.link.snapshot import ProxySettings, VersionSnap
from tests.integration.http1.proxying import (
    GET,
    OK,
    PATIENCE_S,
    Peer,
    Upstream,
    eventually,
    proxying,
    service,
    version,
)

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: y\r\n\r\n"
)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"


def draining(snap: VersionSnap) -> VersionSnap:
    """Return the version as a snapshot shows it while it drains."""
    endpoints = tuple(msgspec.structs.replace(each, draining=True) for each in snap.endpoints)
    return msgspec.structs.replace(snap, draining=True, weight=0, endpoints=endpoints)


async def test_accepted_upgrade_becomes_a_tunnel_with_the_bytes_glued_to_the_101() -> None:
    heads = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        peer.send(SWITCH + b"\x81\x02hi")
        peer.send(b"\x81\x04" + await peer.exactly(4))
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(UPGRADE)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
        assert await client.exactly(4) == b"\x81\x02hi"
        counts = proxy.counts("v1")
        assert (counts.in_flight, counts.streams) == (1, 1)
        assert proxy.plane.connections == 1
        client.send(b"echo")
        assert await client.exactly(6) == b"\x81\x04echo"
        client.close()
        await eventually(lambda: (counts.in_flight, counts.streams) == (0, 0))
        assert counts.requests == {("GET", 101): 1}
        assert counts.attempts == {"answered": 1}
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in heads[0]


async def test_refused_upgrade_leaves_both_connections_http() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(UPGRADE)
        assert (await client.answer()).endswith(b"ok")
        client.send(GET)
        assert (await client.answer()).endswith(b"ok")
    assert upstream.connections == 1


async def test_draining_endpoint_finishes_what_runs_and_takes_no_more() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        peer.send(OK)
        await peer.rest()

    old, new = Upstream(script), Upstream()
    async with proxying(old, new) as proxy:
        one, two = version("v1", old), version("v2", new)
        proxy.apply(service(one))
        client = await proxy.client()
        client.send(GET)
        await eventually(lambda: proxy.counts("v1").in_flight == 1)
        proxy.apply(service(draining(one), two))
        proxy.plane.draining.begin_endpoints((one.endpoints[0].key,), 60.0)
        assert (await proxy.ask(GET)).endswith(b"ok")
        load = proxy.plane.draining.report()[0]
        assert (load.key, load.in_flight) == (one.endpoints[0].key, 1)
        go.set()
        assert (await client.answer()).endswith(b"ok")
        await eventually(lambda: proxy.plane.draining.report()[0].in_flight == 0)
        assert proxy.plane.draining.report()[0].forced == 0
    assert len(new.seen) == 1


async def test_a_report_of_what_drains_looks_at_connections_only_while_something_runs_there() -> None:
    """It is made ten times a second, for as long as the worker lives, and may have 20,000 connections."""
    old = Upstream()
    async with proxying(old) as proxy:
        proxy.apply(service(version("v1", old)))
        assert (await proxy.ask(GET)).endswith(b"ok")
        proxy.apply(service(draining(version("v1", old))))
        proxy.plane.draining.exchanges = lambda: pytest.fail("connections were looked at")  # type: ignore[method-assign]
        (load,) = proxy.plane.draining.report()
        del proxy.plane.draining.exchanges  # type: ignore[attr-defined]
    assert (load.in_flight, load.oldest_ms) == (0, 0)


async def test_what_still_runs_at_the_deadline_is_cut_and_counted() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await peer.rest()

    upstream = Upstream(script)
    async with proxying(upstream) as proxy:
        only = version("v1", upstream)
        client = await proxy.client()
        client.send(GET)
        await client.until(b"abc")
        proxy.apply(service(draining(only)))
        proxy.plane.draining.begin_endpoints((only.endpoints[0].key,), 0.05)
        assert await client.rest() == b""
        await eventually(lambda: proxy.plane.draining.report()[0].in_flight == 0)
        assert proxy.plane.draining.report()[0].forced == 1
        assert proxy.plane.draining.forced == 1


async def test_event_stream_ends_before_the_deadline_without_a_last_chunk() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(STREAM)
        await peer.rest()

    upstream = Upstream(script)
    async with proxying(upstream) as proxy:
        only = version("v1", upstream)
        client = await proxy.client()
        client.send(GET)
        await client.until(b"1\r\na\r\n")
        proxy.apply(service(draining(only)))
        proxy.plane.draining.begin_endpoints((only.endpoints[0].key,), 0.2)
        assert await client.rest() == b""
        await eventually(lambda: proxy.plane.draining.report()[0].streams == 0)
        assert proxy.plane.draining.forced == 0


async def test_a_request_that_becomes_a_stream_during_the_drain_ends_as_one() -> None:
    """It was not there when the drain chose when each stream ends, and was cut and counted as forced."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        peer.send(STREAM)
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        await eventually(lambda: proxy.counts("v1").in_flight == 1)
        proxy.plane.draining.begin(4.0)
        go.set()
        await client.until(b"1\r\na\r\n")
        assert await client.rest() == b""
        await asyncio.wait_for(proxy.plane.draining.drained.wait(), PATIENCE_S)
        assert proxy.plane.draining.forced == 0


async def test_draining_plane_answers_with_connection_close_and_ends() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(GET)
        assert b"Connection" not in await client.answer()
        proxy.plane.draining.begin(60.0)
        client.send(GET)
        answer = await client.rest()
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"ok")
        client.close()
        await asyncio.wait_for(proxy.plane.draining.drained.wait(), PATIENCE_S)
        assert proxy.plane.draining.forced == 0


async def test_idle_connections_are_closed_before_the_deadline_of_a_drain() -> None:
    async with proxying(Upstream()) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.answer()
        proxy.plane.draining.begin(1.0)
        assert await client.rest() == b""
        await asyncio.wait_for(proxy.plane.draining.drained.wait(), PATIENCE_S)
        assert proxy.plane.draining.forced == 0


async def test_a_short_drain_leaves_idle_connections_time_to_ask_once_more() -> None:
    """Five seconds before its deadline is at once, and the request that was on its way would be reset."""
    async with proxying(Upstream()) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.answer()
        proxy.plane.draining.begin(5.0)
        proxy.plane.sweep(time.monotonic())
        client.send(GET)
        assert b"\r\nConnection: close\r\n" in await client.rest()


async def test_pooled_connections_to_a_draining_endpoint_are_closed() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(OK)
        await peer.rest()
        ended.set()

    upstream = Upstream(script)
    async with proxying(upstream, proxy=ProxySettings(timeouts=Timeouts(upstream_idle=60_000))) as proxy:
        await proxy.ask(GET)
        proxy.apply(service(draining(version("v1", upstream))))
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
