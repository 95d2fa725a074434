"""Every limit and every timeout, each with its own status; and back-pressure, which is a limit too."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from gateway.core.settings.limits import Limits, Timeouts
from gateway.link.snapshot import ProxySettings
from tests.integration.http1.proxying import (
    GET,
    OK,
    Peer,
    Upstream,
    eventually,
    proxying,
    service,
    version,
)


def limits(**values: int) -> ProxySettings:
    return ProxySettings(limits=Limits(**values))


def timeouts(**values: int) -> ProxySettings:
    return ProxySettings(timeouts=Timeouts(**values))


LIMITS = {
    "uri_bytes (9110 §15.5.15)": (
        limits(uri_bytes=64),
        b"GET /" + b"a" * 64 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        414,
    ),
    "uri_bytes, endless": (limits(uri_bytes=64), b"GET /" + b"a" * 65536, 414),
    "header_bytes (6585 §5)": (limits(header_bytes=1024), GET[:-2] + b"X: " + b"a" * 1024 + b"\r\n\r\n", 431),
    "header_bytes, endless": (limits(header_bytes=1024), GET[:-2] + b"X: " + b"a" * 65536, 431),
    "header_fields (6585 §5)": (limits(header_fields=8), GET[:-2] + b"X: a\r\n" * 8 + b"\r\n", 431),
    "body_bytes, announced (9110 §15.5.14)": (
        limits(body_bytes=10),
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n",
        413,
    ),
    "body_bytes, chunked (9110 §15.5.14)": (
        limits(body_bytes=10),
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\n",
        413,
    ),
}


@pytest.mark.parametrize(("settings", "request_bytes", "status"), LIMITS.values(), ids=LIMITS)
async def test_limit(settings: ProxySettings, request_bytes: bytes, status: int) -> None:
    async with proxying(Upstream(), proxy=settings) as proxy:
        answer = await proxy.ask_to_the_end(request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nConnection: close\r\n" in answer


async def test_slow_head_is_cut_although_bytes_trickle() -> None:
    async with proxying(Upstream(), proxy=timeouts(client_header=200)) as proxy:
        client = await proxy.client()
        client.send(b"GET / HTTP/1.1\r\n")
        trickle = asyncio.get_running_loop().create_task(_trickle(client, b"X: a\r\n"), name="trickle")
        answer = await client.rest()
        trickle.cancel()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def _trickle(client: Peer, data: bytes) -> None:
    while not client.writer.transport.is_closing():
        client.send(data)
        await asyncio.sleep(0.02)


async def test_idle_connection_is_closed_without_a_word() -> None:
    async with proxying(Upstream(), proxy=timeouts(client_idle=50)) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.answer()
        assert await client.rest() == b""


async def test_empty_lines_do_not_keep_an_idle_connection_open() -> None:
    async with proxying(Upstream(), proxy=timeouts(client_idle=200)) as proxy:
        client = await proxy.client()
        trickle = asyncio.get_running_loop().create_task(_trickle(client, b"\r\n"), name="trickle")
        assert await client.rest() == b""
        trickle.cancel()


async def test_body_that_stops_is_408() -> None:
    async with proxying(Upstream(), proxy=timeouts(body_idle=50)) as proxy:
        answer = await proxy.ask_to_the_end(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
        assert proxy.counts("v1").attempts == {"client_gone": 1}
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_upstream_that_does_not_answer_is_504() -> None:
    async def script(peer: Peer) -> None:
        await peer.rest()

    async with proxying(Upstream(script), proxy=timeouts(response_header=50)) as proxy:
        answer = await proxy.ask(GET)
        counts = proxy.counts("v1")
        assert counts.attempts == {"timeout": 1}
        assert next(iter(counts.judged.values())).errors == {"timeout|GET /a": 1}
    assert answer.startswith(b"HTTP/1.1 504 ")


async def test_upstream_that_says_nothing_to_a_client_that_waits_for_a_100_is_504() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.rest()

    async with proxying(Upstream(script), proxy=timeouts(response_header=50)) as proxy:
        answer = await proxy.ask(
            b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert proxy.counts("v1").attempts == {"timeout": 1}


async def test_upstream_whose_queue_is_full_is_504_after_the_connect_timeout() -> None:
    import socket

    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    async with proxying(proxy=timeouts(connect=100)) as proxy:
        proxy.apply(service(version("v1", f"http://127.0.0.1:{full.getsockname()[1]}"), retry=False))
        answer = await proxy.ask(GET)
    for each in (*fillers, full):
        each.close()
    assert answer.startswith(b"HTTP/1.1 504 ")


async def test_response_that_stops_is_cut() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await peer.rest()

    async with proxying(Upstream(script), proxy=timeouts(body_idle=50)) as proxy:
        answer = await proxy.ask_to_the_end(GET)
    assert answer.endswith(b"\r\n\r\nabc")


async def test_event_stream_outlives_the_body_timeout_and_is_counted() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await eventually(go.is_set)
        peer.send(b"1\r\na\r\n0\r\n\r\n")
        await peer.rest()

    go = asyncio.Event()
    async with proxying(Upstream(script), proxy=timeouts(body_idle=40)) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.head()
        counts = proxy.counts("v1")
        assert counts.streams == 1
        await asyncio.sleep(0.2)
        go.set()
        assert (await client.until(b"0\r\n\r\n")).startswith(b"1\r\na\r\n")
        await eventually(lambda: counts.streams == 0)


async def test_quiet_event_stream_is_cut_after_its_own_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.send(b"1\r\na\r\n")
        ended.append(await peer.rest())

    ended: list[bytes] = []
    async with proxying(Upstream(script), proxy=timeouts(body_idle=0, stream_idle=50)) as proxy:
        answer = await proxy.ask_to_the_end(GET)
        await eventually(lambda: bool(ended))
    assert answer.endswith(b"1\r\na\r\n"), "without the last chunk"


async def test_quiet_tunnel_is_closed_after_the_timeout_of_streams() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello")
        ended.append(await peer.rest())

    ended: list[bytes] = []
    async with proxying(Upstream(script), proxy=timeouts(body_idle=0, stream_idle=50)) as proxy:
        client = await proxy.client()
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\nhello")
        await eventually(lambda: bool(ended) and proxy.plane.connections == 0)


async def test_idle_upstream_connection_is_closed_in_time() -> None:
    upstream = Upstream()
    async with proxying(upstream, proxy=timeouts(upstream_idle=50)) as proxy:
        await proxy.ask(GET)
        await asyncio.sleep(0.1)
        await proxy.ask(GET)
    assert upstream.connections == 2


async def test_keep_alive_hint_of_the_upstream_is_honoured() -> None:
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok"
    async with proxying(upstream) as proxy:
        await proxy.ask(GET)
        await proxy.ask(GET)
    assert upstream.connections == 2


# Back-pressure


async def test_slow_reader_holds_the_upstream_back() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (400 * 65536))
        for _ in range(400):
            peer.send(b"x" * 65536)
            await peer.writer.drain()
            sent += 65536
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET)
        await eventually(lambda: any(not each.writable for each in proxy.plane.clients.open))
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 24 * 1024 * 1024
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.head()
        assert len(await client.exactly(400 * 65536)) == 400 * 65536


async def test_slow_upstream_holds_the_client_back() -> None:
    go = asyncio.Event()
    total = 300 * 65536

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        for _ in range(300):
            await peer.exactly(65536)
        peer.send(OK)
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % total)
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(300):
                client.send(b"x" * 65536)
                await client.writer.drain()
                sent += 65536

        uploading = asyncio.get_running_loop().create_task(upload(), name="upload")
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < total
        go.set()
        assert (await client.answer()).endswith(b"ok")
        await uploading


async def test_client_that_pipelines_without_reading_is_not_read_from_for_ever() -> None:
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET * 2000)
        before = -1
        while len(upstream.seen) != before:
            before = len(upstream.seen)
            await asyncio.sleep(0.2)
        assert before < 1500
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(2000):
            assert len(await client.answer()) > 60000


async def test_unix_upstream() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "u")
        upstream = Upstream()
        server = await asyncio.start_unix_server(upstream._accept, path)
        async with proxying() as proxy:
            proxy.apply(service(version("v1", f"unix:{path}")))
            assert (await proxy.ask(GET)).endswith(b"ok")
            await upstream.stop()
        server.close()
