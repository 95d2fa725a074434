"""The life of an exchange beyond the plain case: who waits for whom, who leaves, what is tried again."""

import asyncio

import pytest

from gateway.core.routing.service import ConcurrencySettings, FallbackSettings
from gateway.core.settings.limits import UpstreamTimeouts
from gateway.core.settings.resilience import RetrySettings
from tests.integration.http1.proxying import (
    GET,
    OK,
    PATIENCE_S,
    Peer,
    Proxy,
    Upstream,
    eventually,
    proxying,
    service,
    version,
)

EXPECTING = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
LONG_POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def settled(proxy: Proxy, name: str = "v1") -> bool:
    """Return whether nothing runs at a version, in its counts and at its endpoints."""
    versions = [each for s in proxy.plane.live_table.current.services.values() for each in s.versions]
    endpoints = [each for v in versions for each in v.endpoints]
    return not proxy.counts(name).in_flight and not any(each.in_flight for each in endpoints)


# RFC 9110 §10.1.1: Expect


async def test_client_that_waits_gets_the_upstreams_100() -> None:
    async def script(peer: Peer) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in await peer.head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.exactly(3) == b"abc"
        peer.send(OK)
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(EXPECTING)
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert (await client.answer()).endswith(b"ok")


async def test_client_that_does_not_wait_is_served_too() -> None:
    async with proxying(Upstream()) as proxy:
        answer = await proxy.ask(EXPECTING + b"abc")
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_refusal_without_100_ends_the_connection_and_the_body_is_no_request() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
        await peer.rest()

    upstream = Upstream(script)
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(EXPECTING)
        answer = await client.answer()
        client.send(GET)
        assert await client.rest() == b""
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert upstream.connections == 1


# RFC 9112 §9.3.2: pipelining


async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(50)))
        for _ in range(50):
            assert (await client.answer()).endswith(b"ok")
    assert [each.split()[1] for each in upstream.seen] == [b"/%d" % n for n in range(50)]
    assert upstream.connections == 1


async def test_bad_request_behind_a_good_one_is_answered_after_it() -> None:
    async with proxying(Upstream()) as proxy:
        answer = await proxy.ask_to_the_end(GET + b"bad\r\n\r\n" + GET)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400 " in answer


async def test_data_after_connection_close_is_thrown_away() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        answer = await proxy.ask_to_the_end(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"ok")
    assert len(upstream.seen) == 1


# Early answers


async def test_early_answer_reaches_the_client_while_it_still_sends() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(10)
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        await peer.rest()

    upstream = Upstream(script)
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(LONG_POST + b"x" * 10)
        answer = await client.answer()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nConnection: close\r\n" in answer
        client.send(GET + b"x" * 1000)
        assert await client.rest() == b""
        upstream.script = upstream.serve
        assert (await proxy.ask(GET)).endswith(b"ok")
    assert upstream.connections == 2, "a connection with half a request on it is not used again"


async def test_answer_streams_down_while_the_request_streams_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            piece = await peer.until(b"!\r\n")
            peer.send(piece)
        peer.send(b"0\r\n\r\n")
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(CHUNKED_POST)
        await client.head()
        for _ in range(3):
            client.send(b"2\r\na!\r\n")
            assert await client.until(b"!\r\n") == b"2\r\na!\r\n"
        assert await client.exactly(5) == b"0\r\n\r\n"


# Clients that leave


async def test_half_closed_client_still_gets_its_answer() -> None:
    async with proxying(Upstream()) as proxy:
        client = await proxy.client()
        client.send(GET)
        client.writer.write_eof()
        assert (await client.rest()).endswith(b"\r\n\r\nok")


async def test_body_cut_by_the_client_never_looks_complete_upstream() -> None:
    got = []

    async def script(peer: Peer) -> None:
        got.append(await peer.rest())

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(CHUNKED_POST + b"3\r\nabc\r\n")
        client.writer.write_eof()
        answer = await client.rest()
        await eventually(lambda: bool(got))
        assert settled(proxy)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not got[0].endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_client_gone_while_it_waits_ends_the_upstreams_work(how: str) -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.rest()
        ended.set()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        await eventually(lambda: proxy.counts("v1").in_flight == 1)
        client.reset() if how == "reset" else client.close()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        await eventually(lambda: settled(proxy))
        counts = proxy.counts("v1")
        assert counts.attempts == {"client_gone": 1}
        assert counts.judged[1, 10000].errors == {"abandoned|GET /a": 1}, "a version that hangs has no other"
        assert counts.judged[1, 10000].answers == 1
        assert not counts.requests


async def test_client_gone_while_it_is_answered_ends_the_upstreams_work() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while not peer.reader.at_eof():
                peer.send(b"x" * 10000)
                await peer.writer.drain()
                await asyncio.sleep(0.001)
        except ConnectionError:
            pass
        ended.set()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.exactly(1000)
        client.reset()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        await eventually(lambda: settled(proxy))


# The idle keep-alive race (RFC 9112 §9.3.1)


def closing_on_reuse(upstream: Upstream) -> None:
    """Let the first connection answer once, and close when a second request comes."""

    async def script(peer: Peer) -> None:
        if upstream.connections > 1:
            await upstream.serve(peer)
            return
        await peer.head()
        peer.send(OK)
        await peer.head()

    upstream.script = script


async def test_race_costs_an_idempotent_request_nothing_even_without_retries() -> None:
    upstream = Upstream()
    closing_on_reuse(upstream)
    async with proxying(upstream, retry=False) as proxy:
        await proxy.ask(GET)
        assert (await proxy.ask(GET)).endswith(b"ok")
        assert proxy.counts("v1").attempts == {"answered": 2}
    assert upstream.connections == 2


async def test_race_is_a_502_for_a_post_which_is_never_sent_twice() -> None:
    upstream = Upstream()
    closing_on_reuse(upstream)
    async with proxying(upstream) as proxy:
        await proxy.ask(GET)
        answer = await proxy.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert upstream.connections == 1


# Retries


def failing(status: int = 503) -> Upstream:
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 %d Bad\r\nContent-Length: 3\r\n\r\nbad" % status
    return upstream


async def test_get_is_tried_at_another_endpoint_and_the_failure_is_charged() -> None:
    bad, good = failing(), Upstream()
    async with proxying(bad, good) as proxy:
        for _ in range(20):
            assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
        counts = proxy.counts("v1")
        assert counts.requests == {("GET", 200): 20}
        assert sum(each.answers for each in counts.judged.values()) == 20
        assert sum(each.errors.get("503|GET /a", 0) for each in counts.judged.values()) == len(bad.seen)
    assert 0 < len(bad.seen) <= 10
    assert len(good.seen) == 20


async def test_retry_goes_last_to_the_stable_version() -> None:
    good, bad = Upstream(), failing()
    async with proxying(good, bad) as proxy:
        proxy.apply(service(version("v1", good, weight=0), version("v2", bad, weight=100)))
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
        assert proxy.counts("v2").attempts == {"answered": 1}
        assert proxy.counts("v1").attempts == {"answered": 1}
        assert proxy.counts("v2").judged[1, 10000].errors == {"503|GET /a": 1}
        assert not proxy.counts("v1").judged, "a retry is nobody's evidence"


async def test_a_second_retry_leaves_a_version_that_has_more_endpoints() -> None:
    """Guards clients of a version whose three endpoints all fail: three tries were all spent there."""
    good, *bad = Upstream(), failing(), failing(), failing()
    async with proxying(good, *bad) as proxy:
        proxy.apply(service(version("v1", good, weight=0), version("v2", *bad, weight=100)))
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
        assert proxy.counts("v2").attempts == {"answered": 2}
    assert sum(len(each.seen) for each in bad) == 2


async def test_post_is_not_tried_again_once_it_was_sent() -> None:
    bad = failing()
    async with proxying(bad) as proxy:
        answer = await proxy.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert len(bad.seen) == 1


async def test_post_is_tried_again_if_nothing_was_sent() -> None:
    dead, good = Upstream(), Upstream()
    await dead.start()
    await dead.stop()
    async with proxying(good) as proxy:
        proxy.apply(service(version("v1", good, weight=0), version("v2", dead)))
        answer = await proxy.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        assert proxy.counts("v2").attempts == {"connect": 1}
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_put_is_tried_again_with_its_body() -> None:
    bodies = []

    async def script(peer: Peer) -> None:
        await peer.head()
        bodies.append(await peer.exactly(3))
        if len(bodies) == 2:
            peer.send(OK)
            await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        answer = await proxy.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert bodies == [b"abc", b"abc"]


async def test_put_with_a_body_too_long_to_keep_is_not_tried_again() -> None:
    tries = []

    async def script(peer: Peer) -> None:
        await peer.head()
        tries.append(await peer.exactly(30))

    async with proxying(Upstream(script), retry=RetrySettings(body_bytes=20)) as proxy:
        answer = await proxy.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\n" + b"x" * 30)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert len(tries) == 1


async def test_attempts_end_and_the_last_answer_is_passed_on() -> None:
    bad = failing(502)
    async with proxying(bad, retry=RetrySettings(attempts=2)) as proxy:
        answer = await proxy.ask(GET)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert answer.endswith(b"bad")
    assert len(bad.seen) == 2


async def test_retry_storm_stays_within_the_budget() -> None:
    bad = failing()
    retry = RetrySettings(budget_percent=20, budget_min_per_second=0)
    async with proxying(bad, retry=retry, breaker=False) as proxy:
        client = await proxy.client()
        for _ in range(100):
            client.send(GET)
            await client.answer()
    assert 100 <= len(bad.seen) <= 120


# Fallbacks


async def test_without_a_usable_version_the_answer_is_503_with_retry_after() -> None:
    async with proxying() as proxy:
        proxy.apply(service())
        answer = await proxy.ask(GET)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in answer
    assert b"application/problem+json" in answer


async def test_fallback_status_answers_with_its_body() -> None:
    async with proxying() as proxy:
        proxy.apply(service(fallback=FallbackSettings(status=200, body="later")))
        answer = await proxy.ask(GET)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"later")


async def test_fallback_version_and_url_answer() -> None:
    spare = Upstream()
    async with proxying(spare) as proxy:
        proxy.apply(service(version("v0", spare, weight=0), fallback=FallbackSettings(version="v0")))
        assert (await proxy.ask(GET)).endswith(b"ok")
        proxy.apply(service(fallback=FallbackSettings(url=spare.url)))
        assert (await proxy.ask(GET)).endswith(b"ok")
    assert len(spare.seen) == 2


# Pause and concurrency


async def test_paused_service_holds_requests_and_lets_them_go_in_order() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        proxy.apply(service(version("v1", upstream), paused=True))
        clients = []
        for n in range(5):
            clients.append(await proxy.client())
            clients[-1].send(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n)
            await eventually(lambda n=n: proxy.plane.context.requests == n + 1)  # type: ignore[misc]
        assert upstream.seen == []
        proxy.apply(service(version("v1", upstream)))
        for client in clients:
            assert (await client.answer()).endswith(b"ok")
    assert sorted(each.split()[1] for each in upstream.seen) == [b"/%d" % n for n in range(5)]


async def test_client_gone_while_held_is_forgotten() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        proxy.apply(service(version("v1", upstream), paused=True))
        client = await proxy.client()
        client.send(GET)
        await eventually(lambda: proxy.plane.context.requests == 1)
        client.reset()
        await eventually(lambda: not proxy.plane.connections)
        proxy.apply(service(version("v1", upstream)))
        assert (await proxy.ask(GET)).endswith(b"ok")
    assert len(upstream.seen) == 1


async def test_requests_over_the_limit_queue_and_the_rest_is_shed() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await release.wait()
            peer.send(OK)

    limit = ConcurrencySettings(limit=2, queue=1, queue_timeout=60_000)
    async with proxying(Upstream(script), concurrency=limit) as proxy:
        clients = []
        for n in range(4):
            clients.append(await proxy.client())
            clients[-1].send(GET)
            await eventually(lambda n=n: proxy.plane.context.requests == n + 1)  # type: ignore[misc]
        shed = await clients[3].answer()
        assert shed.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in shed
        assert proxy.counts("v1").in_flight == 2
        release.set()
        for client in clients[:3]:
            assert (await client.answer()).endswith(b"ok")


async def test_queued_request_is_shed_when_its_time_is_over() -> None:
    async def script(peer: Peer) -> None:
        await peer.rest()

    limit = ConcurrencySettings(limit=1, queue=1, queue_timeout=50)
    timeouts = UpstreamTimeouts(response_header=60_000)
    async with proxying(Upstream(script), concurrency=limit, timeouts=timeouts) as proxy:
        first = await proxy.client()
        first.send(GET)
        await eventually(lambda: proxy.counts("v1").in_flight == 1)
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 503 ")
