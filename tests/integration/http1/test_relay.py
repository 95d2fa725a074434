"""Requests and responses on their way through: RFC 9112 §9.3 (reuse), RFC 9110 §7.6 (forwarding)."""

from gateway.core.routing.service import RouteSettings
from tests.integration.http1.proxying import GET, OK, Peer, Upstream, eventually, proxying, service, version


async def test_get_is_relayed_and_both_connections_are_used_again() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        for _ in range(3):
            client.send(GET)
            answer = await client.answer()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nok")
    assert upstream.connections == 1
    assert len(upstream.seen) == 3


async def test_body_with_a_length_is_relayed_with_that_length() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        await proxy.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    assert b"\r\nContent-Length: 3\r\n" in upstream.seen[0]
    assert b"chunked" not in upstream.seen[0]


async def test_chunked_body_is_relayed_in_chunks_of_our_own() -> None:
    bodies = []

    async def script(peer: Peer) -> None:
        await peer.head()
        bodies.append(await peer.until(b"0\r\n\r\n"))
        peer.send(OK)
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        await proxy.ask(head + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert bodies == [b"5\r\nabcde\r\n0\r\n\r\n"]


async def test_chunked_response_keeps_its_pieces_apart() -> None:
    pieces: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await eventually(lambda: len(pieces) == 1)
        peer.send(b"3\r\ncde\r\n")
        await eventually(lambda: len(pieces) == 2)
        peer.send(b"0\r\n\r\n")
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        assert b"Transfer-Encoding: chunked" in await client.head()
        pieces.append(await client.exactly(7))
        pieces.append(await client.exactly(8))
        assert await client.exactly(5) == b"0\r\n\r\n"
    assert pieces == [b"2\r\nab\r\n", b"3\r\ncde\r\n"]


async def test_unknown_route_is_a_404_problem() -> None:
    upstream = Upstream()
    async with proxying(upstream, routes=(RouteSettings(path="/api"),)) as proxy:
        answer = await proxy.ask(b"GET /apix HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/problem+json" in answer


async def test_upstream_that_cannot_be_reached_is_a_502_problem() -> None:
    upstream = Upstream()
    await upstream.start()
    await upstream.stop()
    async with proxying() as proxy:
        proxy.apply(service(version("v1", upstream)))
        answer = await proxy.ask(GET)
    assert answer.startswith(b"HTTP/1.1 502 ")


async def test_traffic_is_split_by_weight_and_counted_by_version() -> None:
    one, two = Upstream(), Upstream()
    async with proxying(one, two) as proxy:
        proxy.apply(service(version("v1", one, weight=75), version("v2", two, weight=25)))
        client = await proxy.client()
        for _ in range(100):
            client.send(GET)
            await client.answer()
        assert proxy.counts("v2").requests == {("GET", 200): 25}
        assert proxy.counts("v1").attempts == {"answered": 75}
        assert proxy.counts("v2").judged[1, 2500].answers == 25
        assert proxy.counts("v1").in_flight == 0
    assert (len(one.seen), len(two.seen)) == (75, 25)
