"""An upstream's failure that nobody can make good is passed on as it is."""

from gateway.core.settings.resilience import BreakerSettings, RetrySettings
from tests.integration.http1.proxying import Upstream, eventually, proxying, service, version

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy"


def busy() -> Upstream:
    upstream = Upstream()
    upstream.answer = BUSY
    return upstream


async def test_answer_is_passed_on_if_its_failure_opens_the_only_breaker() -> None:
    """Guards a 503 with Retry-After that became our 502: it was dropped for a retry nobody admitted."""
    upstream = busy()
    async with proxying(upstream, breaker=BreakerSettings(failure_threshold=1)) as proxy:
        answer = await proxy.ask(GET)
        counts = proxy.counts("v1")
        assert counts.attempts == {"answered": 1}
        assert counts.requests == {("GET", 503): 1}
        await eventually(lambda: not proxy.plane.leaks())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 7\r\n" in answer
    assert answer.endswith(b"busy")


async def test_answer_is_passed_on_if_both_versions_breakers_open() -> None:
    old, new = busy(), busy()
    settings = {"breaker": BreakerSettings(failure_threshold=1)}
    async with proxying(old, new, **settings) as proxy:
        proxy.apply(service(version("v1", old, weight=0), version("v2", new), **settings))
        answer = await proxy.ask(GET)
        assert proxy.counts("v2").attempts == proxy.counts("v1").attempts == {"answered": 1}
    assert answer.endswith(b"busy")
    assert (len(old.seen), len(new.seen)) == (1, 1)


async def test_long_answer_that_is_passed_on_arrives_whole() -> None:
    """Its attempt goes on although its breaker knows already that it has failed."""
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    async with proxying(upstream, breaker=BreakerSettings(failure_threshold=1)) as proxy:
        answer = await proxy.ask(GET)
        assert proxy.counts("v1").attempts == {"answered": 1}
        endpoint = next(iter(proxy.plane.live_table.endpoints()))
        assert endpoint.breaker is not None
        assert endpoint.breaker.epoch == 1, "one failure opened it, once"
    assert answer.endswith(b"x" * 300_000)


async def test_retry_that_nobody_admits_is_not_paid_for() -> None:
    bad, good = busy(), Upstream()
    settings = {"retry": RetrySettings(budget_percent=0, budget_min_per_second=1)}
    async with proxying(bad, good) as proxy:
        proxy.apply(service(version("v2", bad), **settings, breaker=BreakerSettings(failure_threshold=1)))
        budget = proxy.plane.live_table.current.services["s"].budget
        assert budget is not None
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 503 ")
        proxy.apply(service(version("v1", good, weight=0), version("v2", bad), **settings, breaker=False))
        assert proxy.plane.live_table.current.services["s"].budget is budget
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
