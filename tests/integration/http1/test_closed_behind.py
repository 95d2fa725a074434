"""An upstream that closes right behind its answer, without a word."""

import asyncio

from tests.integration.http1.proxying import OK, Peer, Upstream, proxying

POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
TIMES = 300


async def answer_and_close(peer: Peer) -> None:
    head = await peer.head()
    if b"POST" in head:
        await peer.exactly(2)
    peer.send(OK)
    peer.close()


async def test_connection_whose_end_has_arrived_is_not_used_for_what_cannot_be_repeated() -> None:
    """Guards 404 of 1,600 POSTs that got 502: the answer and the end came in one segment."""
    upstream = Upstream(answer_and_close)
    async with proxying(upstream, retry=False, breaker=False) as proxy:
        pool = next(iter(proxy.plane.live_table.endpoints())).pool
        peer = await proxy.client()
        for _ in range(TIMES):
            # Both requests are in the gateway before it hears of the end: the second comes from its buffer.
            peer.send(POST + POST)
            for _ in range(2):
                answer = await peer.answer()
                assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert pool.leaks() == []


async def answer_and_close_a_moment_later(peer: Peer) -> None:
    await peer.head()
    await peer.exactly(2)
    peer.send(OK)
    await asyncio.sleep(0.002)
    peer.close()


async def test_upstream_that_closes_behind_its_answers_is_found_out() -> None:
    """Guards a third of the POSTs to a server that closes in a segment of its own: no look can see that."""
    upstream = Upstream(answer_and_close_a_moment_later)
    async with proxying(upstream, breaker=False) as proxy:
        pool = next(iter(proxy.plane.live_table.endpoints())).pool
        peer = await proxy.client()
        lost = 0
        for _ in range(TIMES):
            peer.send(POST)
            lost += not (await peer.answer()).startswith(b"HTTP/1.1 200 ")
        assert lost <= TIMES // 10  # the first; others only where this machine stood still for long
        assert pool.leaks() == []


async def test_connection_that_was_told_to_end_is_seen_by_a_look() -> None:
    async def wait(peer: Peer) -> None:
        await peer.head()
        peer.send(OK)
        await peer.rest()

    upstream = Upstream(wait)
    async with proxying(upstream) as proxy:
        await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        pool = next(iter(proxy.plane.live_table.endpoints())).pool
        connection = pool.lease(0.0)
        assert connection.is_quiet
        upstream._peers[0].close()
        for _ in range(1000):
            if not connection.is_quiet or not connection.is_open:
                break
            await asyncio.sleep(0)
        assert not (connection.is_quiet and connection.is_open)
