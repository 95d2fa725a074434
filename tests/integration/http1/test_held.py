"""Requests held while their service is paused, or has as many as it may."""

import asyncio

from gateway.core.routing.service import ConcurrencySettings
from gateway.core.settings.limits import Timeouts
from gateway.link.snapshot import ProxySettings
from tests.integration.http1.proxying import Proxy, Upstream, eventually, proxying, service, version

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
CROWD = 400
PATIENT = ProxySettings(timeouts=Timeouts(connect=60_000, response_header=60_000))
"""A crowd that is let through at once connects at once; a busy machine takes its time over that."""


async def crowd(proxy: Proxy) -> "list[asyncio.Task[bytes]]":
    """Begin many requests, and return once all of them are under way."""
    asked = proxy.plane.context.requests
    tasks = [asyncio.get_running_loop().create_task(proxy.ask(GET), name=f"client {n}") for n in range(CROWD)]
    await eventually(lambda: proxy.plane.context.requests == asked + CROWD)
    return tasks


async def test_service_resumed_while_nothing_is_usable_answers_all_it_held() -> None:
    """Guards 400 requests that were never answered, and their places, lost for good."""
    upstream = Upstream()
    async with proxying(upstream, proxy=PATIENT) as proxy:
        good = version("v1", upstream)
        proxy.apply(service(good, paused=True))
        tasks = await crowd(proxy)
        assert not any(task.done() for task in tasks)
        proxy.apply(service(version("v1", upstream, weight=0)))
        answers = await asyncio.gather(*tasks)
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 503 "}
        await eventually(lambda: not proxy.plane.leaks())
        proxy.apply(service(good, concurrency=ConcurrencySettings(limit=1, queue=0)))
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 "), "the places are free again"


async def test_queue_behind_a_limit_is_answered_when_its_version_goes() -> None:
    release = asyncio.Event()

    async def wait(peer: object) -> None:
        await release.wait()

    upstream = Upstream(wait)
    limit = ConcurrencySettings(limit=1, queue=CROWD, queue_timeout=30_000)
    async with proxying(upstream, concurrency=limit, retry=False) as proxy:
        tasks = await crowd(proxy)
        proxy.apply(service(version("v1", upstream, weight=0), concurrency=limit))
        release.set()
        answers = await asyncio.gather(*tasks)
        assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in answers) == CROWD - 1
        await eventually(lambda: not proxy.plane.leaks())


async def test_removed_service_answers_all_it_held() -> None:
    async with proxying(Upstream(), paused=True) as proxy:
        tasks = await crowd(proxy)
        proxy.apply()
        answers = await asyncio.gather(*tasks)
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 404 "}


async def test_service_that_serves_on_serves_all_it_held() -> None:
    upstream = Upstream()
    async with proxying(upstream, proxy=PATIENT) as proxy:
        proxy.apply(service(version("v1", upstream), paused=True))
        tasks = await crowd(proxy)
        proxy.apply(service(version("v1", upstream)))
        answers = await asyncio.gather(*tasks)
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}
        await eventually(lambda: not proxy.plane.leaks())
