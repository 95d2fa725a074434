"""Testers reach the version their secret stands for; nobody else does, and nobody sees the secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.core.routing.service import FallbackSettings
from gateway.core.routing.testers import TesterSettings as Secrets
from gateway.core.settings.resilience import BreakerSettings
from gateway.link.snapshot import EndpointSnap, ProxySettings, VersionSnap
from tests.integration.http1.proxying import Proxy, Upstream, proxying, service, version

COOKIE = Secrets(cookie="release", values={"s3cret": "v2", "latest": "@new"})
HEADER = Secrets(header="X-Release", values={"s3cret": "v2", "latest": "@new"})


def ask(*fields: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} / HTTP/1.1", "Host: h", *fields, "", "")).encode()


def idle(name: str, upstream: Upstream, **changed: Any) -> VersionSnap:
    """A version before its rollout: registered, healthy, tested, without weight, not active."""
    healthy = changed.pop("healthy", True)
    address, _, port = upstream.url.removeprefix("http://").partition(":")
    endpoint = EndpointSnap(
        key=f"{name}|u", url=upstream.url, address=address, port=int(port), healthy=healthy
    )
    given = {"active": False, "tested": True, "endpoints": (endpoint,), **changed}
    return VersionSnap(id=name, name=name, **given)


class Pair:
    """A version that everybody gets and one that testers reach."""

    def __init__(self, proxy: Proxy, one: Upstream, two: Upstream) -> None:
        self.proxy, self.one, self.two = proxy, one, two

    def apply(self, testers: Secrets = COOKIE, *, settings: Any = None, **changed: Any) -> None:
        old, new = version("v1", self.one), idle("v2", self.two, **changed)
        self.proxy.apply(service(old, new, testers=testers, **(settings or {})))

    async def reached(self, *fields: str) -> str:
        """Return which version answers a request with these fields, or our own answer's detail."""
        before = len(self.one.seen), len(self.two.seen)
        answer = await self.proxy.ask(ask(*fields))
        if answer.startswith(b"HTTP/1.1 503 "):
            assert (len(self.one.seen), len(self.two.seen)) == before
            return str(json.loads(answer.partition(b"\r\n\r\n")[2])["detail"])
        assert answer.startswith(b"HTTP/1.1 200 ")
        return "v2" if len(self.two.seen) > before[1] else "v1"


@pytest.mark.parametrize(
    ("testers", "field"),
    [(COOKIE, "Cookie: release={}"), (HEADER, "x-release: {}")],
    ids=["cookie", "header"],
)
async def test_secret_reaches_a_version_before_its_rollout(testers: Secrets, field: str) -> None:
    one, two = Upstream(), Upstream()
    async with proxying(one, two) as proxy:
        pair = Pair(proxy, one, two)
        pair.apply(testers)
        assert await pair.reached(field.format("s3cret")) == "v2"
        assert await pair.reached(field.format("latest")) == "v2"
        assert await pair.reached(field.format("S3CRET")) == "v1"
        assert await pair.reached(field.format("")) == "v1"
        assert await pair.reached() == "v1"
        counts = proxy.counts("v2")
        assert counts.attempts == {"answered": 2}
        assert not counts.judged
    sent = b"".join(one.seen + two.seen).lower()
    assert b"s3cret" not in sent
    assert b"release" not in sent


async def test_other_cookies_pass_and_the_secret_is_taken_out_wherever_it_stands() -> None:
    one, two = Upstream(), Upstream()
    async with proxying(one, two) as proxy:
        pair = Pair(proxy, one, two)
        pair.apply()
        for cookies in (
            ["a=1; release=s3cret; b=2"],
            ["release=s3cret; a=1; b=2"],
            ["a=1; b=2;release=s3cret"],
            ["a=1; b=2", "release=s3cret"],
            ["release=wrong; a=1; b=2; release=s3cret"],
            ['a=1; release="s3cret"; b=2'],
        ):
            assert await pair.reached(*(f"Cookie: {each}" for each in cookies)) == "v2"
    for head in two.seen:
        assert b"release" not in head
        assert re.search(rb"\r\nCookie: a=1; ?b=2\r\n", head)


async def test_likeness_of_a_cookies_name_is_left_alone() -> None:
    one, two = Upstream(), Upstream()
    async with proxying(one, two) as proxy:
        pair = Pair(proxy, one, two)
        pair.apply()
        assert await pair.reached("Cookie: xrelease=s3cret; a=release=s3cret") == "v1"
    assert b"\r\nCookie: xrelease=s3cret; a=release=s3cret\r\n" in one.seen[0]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tested": False}, "version v2 has not passed its health check yet"),
        ({"healthy": False}, "version v2 is not healthy"),
        ({"draining": True}, "version v2 is being drained, or has been"),
        ({"endpoints": ()}, "version v2 has no endpoint yet"),
        ({"active": True, "tested": False}, "v2"),
    ],
)
async def test_version_that_cannot_be_reached_is_503_that_says_why(changed: Any, reason: str) -> None:
    """Guards testers who took the old version for the new one; a fallback is not for them either."""
    one, two = Upstream(), Upstream()
    async with proxying(one, two) as proxy:
        pair = Pair(proxy, one, two)
        pair.apply(settings={"fallback": FallbackSettings(version="v1")}, **changed)
        assert await pair.reached("Cookie: release=s3cret") == reason
        assert await pair.reached("X-Service-Version: v2") == reason


async def test_version_that_is_not_registered_is_503_and_a_newest_that_is_not_there_is_nobodys() -> None:
    one = Upstream()
    async with proxying(one, testers=COOKIE) as proxy:
        pair = Pair(proxy, one, Upstream())
        assert await pair.reached("Cookie: release=s3cret") == "version v2 is not registered"
        assert await pair.reached("X-Service-Version: nope") == "version nope is not registered"
        assert await pair.reached("Cookie: release=latest") == "v1"


async def test_testers_failures_move_no_breaker_and_their_retries_stay() -> None:
    one, two = Upstream(), Upstream()
    two.answer = b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"
    async with proxying(one, two) as proxy:
        pair = Pair(proxy, one, two)
        pair.apply(settings={"breaker": BreakerSettings(failure_threshold=2)})
        for _ in range(5):
            assert (await proxy.ask(ask("Cookie: release=s3cret"))).startswith(b"HTTP/1.1 502 ")
        (endpoint,) = proxy.plane.live_table.current.services["s"].versions[1].endpoints
        assert endpoint.breaker is not None
        assert (endpoint.breaker.state, endpoint.breaker.failures) == ("CLOSED", 0)
        assert not proxy.counts("v2").judged
    assert not one.seen, "never silently the old version"
    assert len(two.seen) > 5, "it is tried again where it was asked for"


async def test_open_breaker_keeps_testers_away_and_they_use_up_no_trial_call() -> None:
    one, two = Upstream(), Upstream()
    two.answer = b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"
    settings = {"breaker": BreakerSettings(failure_threshold=1), "retry": False}
    async with proxying(one, two) as proxy:
        proxy.apply(service(version("v1", one, weight=0), version("v2", two), testers=COOKIE, **settings))
        await proxy.ask(ask())
        pair = Pair(proxy, one, two)
        reason = "version v2 fails: the breakers of its endpoints are open"
        assert await pair.reached("Cookie: release=s3cret") == reason


async def test_secret_is_in_no_log_and_in_no_echo(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    one, two = Upstream(), Upstream()
    settings = ProxySettings(access_log_format="json", access_log_path=str(log))
    async with proxying(one, two, proxy=settings) as proxy:
        pair = Pair(proxy, one, two)
        pair.apply(HEADER)
        await pair.reached("X-Release: s3cret")
        trace = await proxy.ask(ask("X-Release: s3cret", "Max-Forwards: 0", method="TRACE"))
    assert b"s3cret" not in trace
    lines = log.read_text()
    assert '"version":"v2"' in lines
    assert "s3cret" not in lines
