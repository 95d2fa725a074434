"""Clients that do not read, do not stop sending, or ask for what does not go together."""

import asyncio

import pytest

from gateway.core.settings.limits import Limits, Timeouts
from gateway.link.snapshot import ProxySettings
from tests.integration.http1.proxying import GET, OK, Peer, Proxy, Upstream, eventually, proxying

MB = 1_048_576
HELD_BYTES = MB
"""What a worker may hold of one connection: a read of the loop's, the transport's mark, and a bit."""


def held_bytes(proxy: Proxy) -> int:
    """Return the most that is held for one client: answers not yet sent, and requests not yet read."""
    return max(
        (each.transport.get_write_buffer_size() + len(each._pending) for each in proxy.plane.clients.open),
        default=0,
    )


async def refusing_to_read(proxy: Proxy, data: bytes) -> Peer:
    """Send on a new connection that is then not read from."""
    client = await proxy.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send(data)
    await eventually(lambda: any(not each.writable for each in proxy.plane.clients.open))
    return client


def big(megabytes: int) -> Upstream:
    """An upstream that answers with a large body."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (megabytes * MB))
        for _ in range(megabytes):
            peer.send(bytes(MB))
            await peer.writer.drain()
        await peer.rest()

    return Upstream(script)


async def test_body_of_50_megabytes_for_a_client_that_does_not_read_is_not_held() -> None:
    async with proxying(big(50)) as proxy:
        await refusing_to_read(proxy, GET)
        for _ in range(50):
            await asyncio.sleep(0.01)
            assert held_bytes(proxy) < HELD_BYTES


async def test_requests_and_answers_of_a_client_that_only_sends_are_not_held() -> None:
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000)
    async with proxying(upstream) as proxy:
        await refusing_to_read(proxy, GET * 100_000)
        for _ in range(50):
            await asyncio.sleep(0.01)
            assert held_bytes(proxy) < HELD_BYTES


async def test_client_that_does_not_read_is_cut_and_so_is_its_upstream() -> None:
    upstream = big(50)
    async with proxying(upstream, proxy=ProxySettings(timeouts=Timeouts(body_idle=100))) as proxy:
        await refusing_to_read(proxy, GET)
        await eventually(lambda: not proxy.plane.connections)
        counts = proxy.counts("v1")
        assert counts.in_flight == 0
        assert counts.attempts == {"client_gone": 1}


async def test_client_that_reads_none_of_its_whole_answers_is_cut() -> None:
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000)
    async with proxying(upstream, proxy=ProxySettings(timeouts=Timeouts(body_idle=100))) as proxy:
        await refusing_to_read(proxy, GET * 2000)
        await eventually(lambda: not proxy.plane.connections)
        assert proxy.counts("v1").in_flight == 0


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 8000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n7a1200\r\n"]
)
async def test_refusal_of_a_body_is_read_by_a_client_that_sends_all_of_it_first(framing: bytes) -> None:
    """RFC 9112 §9.6: a close with bytes unread would reset the connection, and the answer with it."""
    async with proxying(Upstream(), proxy=ProxySettings(limits=Limits(body_bytes=10))) as proxy:
        client = await proxy.client()
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing)
        client.send(bytes(8_000_000))
        await client.writer.drain()
        assert (await client.rest()).startswith(b"HTTP/1.1 413 ")


async def test_upgrade_with_a_body_that_is_not_granted_is_an_ordinary_request() -> None:
    """llhttp ends such a message at its head; whoever believed that would take the body for a request."""
    bodies = []

    async def script(peer: Peer) -> None:
        bodies.append(await peer.head() + await peer.exactly(len(GET)))
        peer.send(OK)
        bodies.append(await peer.rest())

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: %d\r\n\r\n"
            % len(GET)
            + GET
        )
        assert (await client.answer()).endswith(b"ok")
        await eventually(lambda: len(bodies) == 2)
    assert bodies[0].endswith(GET)
    assert b"\r\nConnection: Upgrade\r\nUpgrade: x\r\n" in bodies[0]
    assert bodies[1] == b"", "the connection carries no other request: who knows where that body ended"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
)
async def test_upgrade_with_a_body_becomes_a_tunnel_when_granted(framing: bytes) -> None:
    """`docker exec` asks so: POST with a Content-Length and Upgrade: tcp."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.until(b"}" if b"Length" in framing else b"0\r\n\r\n")
        peer.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello")
        peer.send(b"echo " + await peer.exactly(4))
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(b"POST /exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" + framing)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nUpgrade: tcp\r\n" in head
        client.send(b"ping")
        assert await client.exactly(14) == b"helloecho ping"


async def test_rest_of_a_body_of_known_length_follows_an_early_101() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        peer.send(b"got " + await peer.exactly(8))
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            b"Content-Length: 4\r\n\r\nab"
        )
        await client.head()
        client.send(b"cdping")
        assert await client.exactly(12) == b"got abcdping"


async def test_101_amid_a_chunked_body_is_a_bad_response() -> None:
    """The chunks still to come would reach the upstream as bytes of the new protocol."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
        )
        assert (await client.rest()).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n", b"Connection: keep-alive, close\r\n"])
async def test_http10_client_that_does_not_ask_is_not_kept(fields: bytes) -> None:
    async with proxying(Upstream()) as proxy:
        answer = await proxy.ask_to_the_end(b"GET / HTTP/1.0\r\n" + fields + b"\r\n" + GET)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer


async def test_expectation_of_an_http10_client_is_not_passed_on() -> None:
    """RFC 9110 §10.1.1."""
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        answer = await proxy.ask(
            b"POST / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab"
        )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"expect" not in upstream.seen[0].lower()


async def test_post_whose_answer_comes_before_its_body_is_taken_leaves_nothing_behind() -> None:
    """The rest of the body must not come before the next request on the upstream's connection."""
    answered = asyncio.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        if head.startswith(b"POST"):
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
            await answered.wait()
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await peer.rest()
            return
        peer.send(OK)
        await peer.rest()

    upstream = Upstream(script)
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30000000\r\n\r\n" + bytes(30_000_000))
        assert (await client.answer()).startswith(b"HTTP/1.1 401 ")
        answered.set()
        assert (await proxy.ask(GET)).endswith(b"ok")
    assert upstream.connections == 2
