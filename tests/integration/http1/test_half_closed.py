"""Clients that close their sending side and wait for their answer (RFC 9112 §9.6), or are gone."""

import asyncio
import re
import socket
import struct
from time import monotonic

import pytest

from tests.integration.http1.proxying import (
    GET,
    OK,
    PATIENCE_S,
    Peer,
    Upstream,
    eventually,
    proxying,
)


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD / HTTP/1.1"])
@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno",
        b"not HTTP at all\r\n\r\n",
    ],
    ids=["sized", "interim", "until-close", "503", "nonsense"],
)
async def test_half_closed_client_gets_a_slow_answer_as_everybody_does(line: bytes, answer: bytes) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go_on.wait()
        peer.send(answer)

    request = line + b"\r\nHost: h\r\n\r\n"
    date = re.compile(rb"Date: [^\r]*\r\n|Connection: [^\r]*\r\n")
    async with proxying(Upstream(script), breaker=False, retry=False) as proxy:
        open_client, half_closed = await proxy.client(), await proxy.client()
        half_closed.send(request)
        half_closed.writer.write_eof()
        assert await half_closed.exactly(9) == b"HTTP/1.1 ", "the start of every answer tells who is there"
        open_client.send(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        # Longer than a client amid its answer may close its side and hear nothing.
        proxy.plane.clients.sweep(monotonic() + 1.6)
        proxy.plane.clients.sweep(monotonic() + 1.6)
        go_on.set()
        whole = await open_client.rest()
        assert date.sub(b"", b"HTTP/1.1 " + await half_closed.rest()) == date.sub(b"", whole)


async def test_half_closed_client_that_pipelined_gets_all_its_slow_answers() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.head():
            await go_on.wait()
            peer.send(OK)

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(3 * GET)
        client.writer.write_eof()
        await client.exactly(9)
        go_on.set()
        answers = b"HTTP/1.1 " + await client.rest()
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == answers.count(b"\r\n\r\nok") == 3


async def test_client_that_half_closes_amid_a_stream_hears_its_end() -> None:
    went = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na")
        await went.wait()
        peer.send(b"b")
        await asyncio.sleep(0.1)
        peer.send(b"cd")

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.until(b"\r\n\r\na")
        client.writer.write_eof()
        went.set()
        assert await client.until(b"b") == b"b"
        # A byte came after it closed its side, and no reset: it is there, however long the rest takes.
        proxy.plane.clients.sweep(monotonic() + 1.6)
        proxy.plane.clients.sweep(monotonic() + 1.6)
        assert await client.rest() == b"cd"


async def test_half_closed_client_that_is_reset_ends_the_upstreams_work() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.rest()
        ended.set()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        client.writer.write_eof()
        await client.exactly(9)
        linger = struct.pack("ii", 1, 0)
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.reset()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        await eventually(lambda: not proxy.counts("v1").in_flight)
        assert proxy.counts("v1").attempts == {"client_gone": 1}


async def test_client_that_closes_amid_a_quiet_answer_is_not_waited_for() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na")
        await peer.rest()
        ended.set()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.until(b"\r\n\r\na")
        client.close()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        await eventually(lambda: proxy.plane.connections == 0)
        assert proxy.counts("v1").attempts == {"client_gone": 1}
