"""Responses: framing (RFC 9112 §6.3), bodiless ones (RFC 9110 §6.4.1), interim ones (§15.2), broken ones."""

import asyncio
import socket
import struct

import pytest

from tests.integration.http1.proxying import GET, OK, Peer, Upstream, eventually, proxying

HEAD_REQUEST = b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"

BAD = {
    "no response": b"hello\r\n\r\n",
    "two lengths (9112 §6.3)": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "two equal lengths (9112 §6.3)": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "length and coding (9112 §6.3)": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "length that overflows 63 bits (9112 §6.3)": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok"
    ),
    "length signed": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "length listed": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "length negative": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "length empty": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "length with a space inside": b"HTTP/1.1 200 OK\r\nContent-Length: 1 2\r\n\r\nok",
    "length hexadecimal": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "length that overflows": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
    "coding and length (9112 §6.3)": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n"
    ),
    "chunked not last (9112 §6.3)": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "chunked twice (9112 §6.1)": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "two coding fields (9112 §6.1)": (
        b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n"
    ),
    "coding misspelt (9112 §7)": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding with a vertical tab": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding empty": b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
    "coding identity (9112 §7)": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "unknown coding (9112 §6.1)": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding that is not chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "coding on HTTP/1.0 (9112 §6.1)": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "other version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "folded field (9112 §5.2)": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a field": b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 2\r\n\r\nok",
    "space before colon (9112 §5.1)": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
    "control character in a value (9110 §5.5)": (
        b"HTTP/1.1 200 OK\r\nX: a\x07b\r\nContent-Length: 2\r\n\r\nok"
    ),
    "bare CR in a value (9112 §2.2)": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "bare CR in the reason (9112 §4)": b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
    "empty name (9110 §5.1)": b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok",
    "name that is no token (9110 §5.1)": b"HTTP/1.1 200 OK\r\nX(: a\r\nContent-Length: 2\r\n\r\nok",
    "line without colon (9112 §5)": b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok",
    "leading space in the first field (9112 §2.2)": (
        b"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nok"
    ),
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 400 + b"Content-Length: 2\r\n\r\nok",
    "one field too long": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "reason too long": b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "unknown minor version (9112 §2.3)": b"HTTP/1.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "other protocol": b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "bare LF behind the status line": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "bare LF behind a field": b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok",
    "bare LF behind the last field": b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "bare LF for the empty line": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
    "head without end": b"HTTP/1.1 200 OK\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 4000,
    "interim responses without end (9110 §15.2)": b"HTTP/1.1 100 Continue\r\n\r\n" * 12_000,
    "unasked 101 (9110 §15.2.2)": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("response", BAD.values(), ids=BAD)
async def test_bad_response_is_a_502_and_ends_its_connection(response: bytes) -> None:
    ended = []

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(response)
        await peer.rest()
        ended.append(True)

    upstream = Upstream(script)
    async with proxying(upstream, retry=False) as proxy:
        answer = await proxy.ask(GET)
        assert answer.startswith(b"HTTP/1.1 502 "), answer
        await eventually(lambda: bool(ended))
        assert proxy.counts("v1").attempts == {"bad_response": 1}


BAD_CHUNKS = {
    "size that overflows": b"ffffffffffffffff1\r\n",
    "size without digits": b"\r\nabc\r\n0\r\n\r\n",
    "size with a sign": b"-3\r\nabc\r\n0\r\n\r\n",
    "size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size line ends with LF": b"3\nabc\r\n0\r\n\r\n",
    "chunk longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk ends with LF": b"3\r\nabc\n0\r\n\r\n",
    "extension too long": b"3;" + b"x" * 2000 + b"\r\nabc\r\n0\r\n\r\n",
    "extensions without end": b"".join(b"1;" + b"x" * 900 + b"\r\na\r\n" for _ in range(100)) + b"0\r\n\r\n",
    "trailers without end": b"0\r\n" + b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n" * 400 + b"\r\n",
    "trailer folded (9112 §5.2)": b"0\r\nA: b\r\n c\r\n\r\n",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_malformed_chunks_of_a_response_never_look_complete(chunks: bytes) -> None:
    """RFC 9112 §7.1; whoever gets it must be able to tell that it is broken (§8)."""
    ended = []

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        await peer.rest()
        ended.append(True)

    async with proxying(Upstream(script)) as proxy:
        answer = await proxy.ask_to_the_end(GET)
        await eventually(lambda: bool(ended))
        assert proxy.counts("v1").attempts == {"bad_response": 1}
    assert not answer.endswith(b"0\r\n\r\n")


BODILESS = {
    "HEAD with a length": (HEAD_REQUEST, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    "HEAD chunked": (HEAD_REQUEST, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "HEAD with neither": (HEAD_REQUEST, b"HTTP/1.1 200 OK\r\n\r\n"),
    "204": (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": (GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    "304 with a length": (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    "304 chunked": (GET, b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
}


@pytest.mark.parametrize(("request_bytes", "response"), BODILESS.values(), ids=BODILESS)
async def test_response_without_a_body_leaves_both_connections_usable(
    request_bytes: bytes, response: bytes
) -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        upstream.answer = response
        client.send(request_bytes)
        head = await client.head()
        assert head.split()[1] == response.split()[1]
        upstream.answer = OK
        client.send(GET)
        assert (await client.answer()).endswith(b"\r\n\r\nok")
    assert upstream.connections == 1
    if response.startswith(b"HTTP/1.1 204"):
        assert b"Content-Length" not in head


async def test_error_of_our_own_to_head_has_no_body() -> None:
    upstream = Upstream()
    async with proxying(upstream, routes=()) as proxy:
        answer = await proxy.ask_to_the_end(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\n")


SURPLUS = {
    "after a length": (GET, OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    "after the last chunk": (
        GET,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
    ),
    "after HEAD": (HEAD_REQUEST, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    "after 204": (GET, b"HTTP/1.1 204 No Content\r\n\r\nevil"),
    "after 304": (GET, b"HTTP/1.1 304 Not Modified\r\n\r\nevil"),
}


@pytest.mark.parametrize(("request_bytes", "response"), SURPLUS.values(), ids=SURPLUS)
async def test_surplus_bytes_reach_nobody(request_bytes: bytes, response: bytes) -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        upstream.answer = response
        client.send(request_bytes)
        await client.head()
        upstream.answer = OK
        if b"chunked" in response:
            await client.until(b"0\r\n\r\n")
        elif response.startswith(OK):
            await client.exactly(2)
        client.send(GET)
        assert (await client.answer()).endswith(b"\r\n\r\nok")
    assert upstream.connections == 2


async def test_bytes_on_an_idle_connection_end_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(OK)
        await eventually(lambda: answered.__len__() == 1)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        answered.append(await peer.rest())

    answered: list[bytes] = []
    upstream = Upstream(script)
    async with proxying(upstream) as proxy:
        await proxy.ask(GET)
        answered.append(b"")
        await eventually(lambda: len(answered) == 2)
        upstream.script = upstream.serve
        assert (await proxy.ask(GET)).endswith(b"\r\n\r\nok")
    assert upstream.connections == 2


async def test_body_that_the_close_ends_is_passed_on_in_chunks() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        assert b"Transfer-Encoding: chunked" in await client.head()
        assert await client.until(b"0\r\n\r\n") == b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ],
    ids=["short length", "chunks cut between", "chunk cut inside", "chunks malformed"],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_response_cut_midway_never_looks_complete(response: bytes, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(response)
        await peer.writer.drain()
        if how == "reset":
            peer.reset()

    async with proxying(Upstream(script)) as proxy:
        answer = await proxy.ask_to_the_end(GET)
        await eventually(lambda: proxy.counts("v1").in_flight == 0)
        counts = proxy.counts("v1")
        assert counts.attempts in ({"reset": 1}, {"bad_response": 1}, {"reset": 3})
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"Content-Length: 3\r\n" not in answer


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"X: 1\r\n\r\nabc"])
async def test_cut_response_ends_in_a_reset_where_only_the_close_would_tell(framing: bytes) -> None:
    """RFC 9112 §8: an HTTP/1.0 client takes a plain close for the end of the body."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n" + framing)
        await go_on.wait()
        linger = struct.pack("ii", 1, 0)
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.reset()

    go_on = asyncio.Event()
    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        await client.until(b"\r\n\r\nabc")
        go_on.set()
        with pytest.raises(ConnectionResetError):
            await client.exactly(1)


async def test_interim_responses_are_passed_on_but_not_to_http10() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            peer.send(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + b"HTTP/1.1 100 Continue\r\n\r\n" + OK
            )

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        assert await client.head() == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        assert (await client.answer()).startswith(b"HTTP/1.1 200 OK\r\n")
        old = await proxy.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http10_client_gets_no_chunks_and_the_close_ends_its_body() -> None:
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    async with proxying(upstream) as proxy:
        answer = await proxy.ask_to_the_end(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"chunked" not in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nabc")
    assert b" HTTP/1.1\r\nHost: 127.0.0.1:" in upstream.seen[0]


async def test_http10_client_is_kept_alive_if_it_asks() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"\r\nConnection: keep-alive\r\n" in await client.answer()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in await client.rest()


async def test_connection_close_of_the_upstream_is_not_passed_on() -> None:
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        for _ in range(2):
            client.send(GET)
            assert b"Connection" not in await client.answer()
    assert upstream.connections == 2
