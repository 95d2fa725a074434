"""Who may choose a version, and which they reach."""

from typing import Any

import msgspec
import pytest

from gateway.core.resilience.breaker import Breaker
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.core.routing.table import Service
from gateway.core.routing.testers import TesterSettings as Secrets
from gateway.core.routing.version import Version
from gateway.core.settings.resilience import BreakerSettings
from gateway.link.counts import VersionCounts


def endpoint(*, healthy: bool = True, draining: bool = False, open_breaker: bool = False) -> Endpoint:
    made = Endpoint("e", url="http://10.0.0.1:80")
    made.healthy, made.draining = healthy, draining
    made.breaker = Breaker(
        BreakerSettings(failure_threshold=1), slot=0, on_report=lambda *_: None, on_change=lambda _: None
    )
    if open_breaker:
        epoch = made.breaker.admit(0.0)
        assert epoch is not None
        made.breaker.settle(0.0, epoch, False)
    return made


def version(name: str, *endpoints: Endpoint, **given: Any) -> Version:
    return Version(
        name,
        name,
        endpoints=endpoints,
        settings=ServiceSettings(),
        counts=VersionCounts("s", name, name),
        chance=lambda: 0.0,
        **given,
    )


def service(*versions: Version, new: str | None = None) -> Service:
    made = Service("s", "s", settings=ServiceSettings(), versions=versions, new=new)
    made.refresh(0.0)
    return made


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (version("v", endpoint(), active=False, tested=True), ""),
        (version("v", endpoint(), active=True), ""),
        (version("v", endpoint(), endpoint(healthy=False), tested=True), ""),
        (version("v", endpoint(), active=False), "has not passed its health check yet"),
        (version("v", endpoint(healthy=False), active=False, tested=True), "is not healthy"),
        (version("v", endpoint(), draining=True), "is being drained, or has been"),
        (version("v"), "has no endpoint yet"),
        (version("v", endpoint(open_breaker=True)), "fails: the breakers of its endpoints are open"),
    ],
)
def test_reason_names_what_keeps_testers_away(found: Version, reason: str) -> None:
    assert found.why_not() == reason
    assert reason or found.pick_for_tester(0.0) is not None


def test_newest_is_the_rollouts_else_the_last_without_weight() -> None:
    old, one, two = (version(name, endpoint(), weight=w) for name, w in (("a", 100), ("b", 0), ("c", 0)))
    gone = version("d", endpoint(), draining=True)
    assert service(old, one, two, gone).newest() is two
    assert service(old, one, two, gone, new="b").newest() is one
    assert service(old).newest() is None
    assert service(old, gone).newest() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": {}},
        {"cookie": "a", "header": "b", "values": {}},
        {"cookie": "a b", "values": {}},
        {"cookie": "a\n", "values": {}},
        {"header": "X-Tést", "values": {}},
        {"header": "Host", "values": {}},
        {"header": "x-forwarded-for", "values": {}},
        {"cookie": "a", "values": {"": "v"}},
        {"cookie": "a", "values": {"a b": "v"}},
        {"cookie": "a", "values": {"a;b": "v"}},
        {"cookie": "a", "values": {"a\r\n": "v"}},
        {"cookie": "a", "values": {"a": "@old"}},
        {"cookie": "a", "values": {"a": "v\n"}},
    ],
)
def test_testers_that_could_never_be_met_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Secrets)


def test_testers_are_as_they_are_written() -> None:
    made = msgspec.convert({"cookie": "release", "values": {"s3cret": "v1.1", "t": "@new"}}, Secrets)
    assert (made.cookie, made.header, made.values) == ("release", None, {"s3cret": "v1.1", "t": "@new"})
