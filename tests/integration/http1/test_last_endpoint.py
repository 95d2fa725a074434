"""A service with one endpoint goes on although one path of it fails."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from gateway.core.routing.service import FallbackSettings
from gateway.core.settings.limits import Timeouts
from gateway.core.settings.resilience import BreakerSettings
from gateway.link.snapshot import ProxySettings
from tests.integration.http1.proxying import Peer, Proxy, Upstream, eventually, proxying, service, version

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
HANGING = b"GET /hanging HTTP/1.1\r\nHost: h\r\n\r\n"
CLIENTS = 20
IMPATIENT = ProxySettings(timeouts=Timeouts(response_header=300))


def state_of(proxy: Proxy) -> str:
    breaker = next(iter(proxy.plane.live_table.endpoints())).breaker
    assert breaker is not None
    return str(breaker.state)


async def one_path_hangs(peer: Peer) -> None:
    while True:
        if b" /hanging " in await peer.head():
            await peer.rest()
        await asyncio.sleep(0.005)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def test_path_that_hangs_opens_the_breaker_for_a_moment_only() -> None:
    """Guards a whole service that was 503 for a minute because five requests of one path took too long."""
    upstream = Upstream(one_path_hangs)
    breaker = BreakerSettings(failure_threshold=5, reset_timeout=60_000)
    async with proxying(upstream, proxy=IMPATIENT, breaker=breaker, retry=False) as proxy:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(proxy.ask(HANGING), name=f"hanging {number}")
        assert state_of(proxy) == "OPEN"
        answers = [await proxy.ask(GET) for _ in range(10)]
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
        assert state_of(proxy) == "CLOSED"


async def test_nine_in_ten_of_the_others_are_answered_while_one_path_hangs() -> None:
    """A hundred clients at once, a tenth of them at the path that hangs, five breakers' worth of failures."""
    upstream = Upstream(one_path_hangs)
    breaker = BreakerSettings(failure_threshold=5, reset_timeout=60_000)
    patient = ProxySettings(timeouts=Timeouts(response_header=1_500))  # a busy machine answers within it
    async with proxying(upstream, proxy=patient, breaker=breaker, retry=False) as proxy:
        async with asyncio.TaskGroup() as group:
            hanging = [group.create_task(ask_often(proxy, HANGING, lambda: False, 2)) for _ in range(10)]
            others = [group.create_task(ask_often(proxy, GET, lambda: all_done(hanging))) for _ in range(90)]
        assert sum(task.result()[0] for task in hanging) == 0
        good, asked = (sum(column) for column in zip(*(task.result() for task in others), strict=True))
        assert asked > 90 * 2
        assert good >= 0.9 * asked


def all_done(tasks: Iterable[asyncio.Task[Any]]) -> bool:
    return all(task.done() for task in tasks)


async def ask_often(
    proxy: Proxy, request: bytes, is_over: Callable[[], bool], times: int = 1_000
) -> tuple[int, int]:
    """Return how many requests, each a moment after the last one's answer, get a 200, and of how many."""
    good = asked = 0
    while asked < times and not is_over():
        good += (await proxy.ask(request)).startswith(b"HTTP/1.1 200 ")
        asked += 1
        await asyncio.sleep(0.1)
    return good, asked


async def test_recovered_endpoint_serves_again_at_once() -> None:
    upstream = Upstream()
    good, upstream.answer = upstream.answer, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    settings = BreakerSettings(failure_threshold=1, reset_timeout=60_000)
    async with proxying(upstream, breaker=settings, fallback=FallbackSettings(status=418)) as proxy:
        await proxy.ask(GET)
        assert state_of(proxy) == "OPEN"
        upstream.answer = good
        answers = [await proxy.ask(GET) for _ in range(4)]
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
        assert state_of(proxy) == "CLOSED"
        counts = proxy.counts("v1")
        assert sum(each.answers for each in counts.judged.values()) == 2, "the split chose two of five"


async def test_endpoint_that_is_down_gets_no_storm() -> None:
    async def never_answer(peer: Peer) -> None:
        await peer.rest()

    upstream = Upstream(never_answer)
    settings = BreakerSettings(failure_threshold=1)
    async with proxying(upstream, proxy=IMPATIENT, breaker=settings, retry=False) as proxy:
        await proxy.ask(GET)
        assert state_of(proxy) == "OPEN"
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(proxy.ask(GET) for _ in range(50)))
        passed_s = asyncio.get_running_loop().time() - began
        attempts = sum(proxy.counts("v1").attempts.values()) - 1
        assert 1 <= attempts <= 2 + passed_s / 0.1
        assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in answers) == 50 - attempts
        await eventually(lambda: not next(iter(proxy.plane.live_table.endpoints())).in_flight)


async def test_version_that_is_usable_takes_all_while_another_s_breaker_is_open() -> None:
    bad, good = Upstream(), Upstream()
    bad.answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    settings = {"breaker": BreakerSettings(failure_threshold=1), "retry": False}
    async with proxying(bad, good) as proxy:
        proxy.apply(service(version("v1", good, weight=50), version("v2", bad, weight=50), **settings))
        answers = [await proxy.ask(GET) for _ in range(20)]
    assert len(bad.seen) == 1
    assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == 19
