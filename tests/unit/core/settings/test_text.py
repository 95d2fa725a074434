"""Strings that reach the wire: one type a kind, and routes in the form requests are matched in."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.service import (
    FallbackSettings,
    RouteSettings,
    UpstreamTlsSettings,
    VersionHeaderSettings,
)
from gateway.core.settings.faults import fault_of
from gateway.core.settings.smoke import SmokeEndpoint
from gateway.core.settings.sticky import StickySettings
from gateway.core.settings.text import normal_route_host, normal_route_path
from gateway.errors import BadRequest
from gateway.http1.target import normal_path

BREAKS = ("a\r\nX-Evil: 1", "a\n", "a\r", "a\0b", "naïve")


def place(kind: Any, value: dict[str, Any]) -> str:
    """Return where a value is refused, as a pointer."""
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(value, kind)
    return "/".join(fault_of(refused.value).steps)


@pytest.mark.parametrize("text", BREAKS)
@pytest.mark.parametrize(
    ("kind", "make", "where"),
    [
        (StickySettings, lambda text: {"by": f"cookie:{text}"}, "by"),
        (StickySettings, lambda text: {"by": f"header:{text}"}, "by"),
        (FallbackSettings, lambda text: {"status": 503, "contentType": text}, "contentType"),
        (HealthSettings, lambda text: {"path": f"/{text}"}, "path"),
        (HealthSettings, lambda text: {"host": text}, "host"),
        (HealthSettings, lambda text: {"headers": {"X-Key": text}}, "headers"),
        (HealthSettings, lambda text: {"headers": {text: "x"}}, "headers"),
        (SmokeEndpoint, lambda text: {"path": f"/{text}"}, "path"),
        (SmokeEndpoint, lambda text: {"path": "/", "headers": {"X-Key": text}}, "headers"),
        (VersionHeaderSettings, lambda text: {"name": text}, "name"),
        (UpstreamTlsSettings, lambda text: {"serverName": text}, "serverName"),
        (RouteSettings, lambda text: {"methods": [text]}, "methods/0"),
    ],
)
def test_what_breaks_a_message_is_refused_by_its_path(kind: Any, make: Any, where: str, text: str) -> None:
    assert place(kind, make(text)) == where


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_fallback_without_a_body_has_none(status: int) -> None:
    """Guards the next answer on the connection: the body would be read as its beginning."""
    assert place(FallbackSettings, {"status": status, "body": "x"}) == "body"
    assert FallbackSettings(status=status).body == ""


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection"])
def test_no_setting_says_where_a_message_ends(name: str) -> None:
    assert place(HealthSettings, {"headers": {name: "1"}}) == "headers"
    assert place(SmokeEndpoint, {"path": "/", "headers": {name: "1"}}) == "headers"
    assert place(VersionHeaderSettings, {"name": name}) == "name"


def test_a_network_that_is_none_is_refused() -> None:
    assert place(VersionHeaderSettings, {"allowFrom": ["10.0.0.0/8", "nonsense"]}) == "allowFrom/1"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("/café", "/caf%C3%A9"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a b", "/a%20b"),
        ("/%61pi", "/api"),
        ("/a%2fb", "/a%2Fb"),
        ("/api/", "/api/"),
        ("/", "/"),
    ],
)
def test_a_routes_path_is_kept_as_requests_are_matched(written: str, kept: str) -> None:
    assert RouteSettings(path=written).path == kept == normal_path(kept.encode()).decode()


@pytest.mark.parametrize(
    "path", ["//", "/a//b", "/a/../b", "/./a", "/a?b=c", "/a#b", "/a\\b", "/%zz", "/%00", "/a\n"]
)
def test_a_path_no_request_has_is_refused(path: str) -> None:
    assert place(RouteSettings, {"path": path}) == "path"


@given(st.text(max_size=12).map(lambda text: f"/{text}"))
def test_the_normal_form_of_a_route_is_that_of_requests(path: str) -> None:
    try:
        normal = normal_route_path(path)
    except (ValueError, UnicodeEncodeError):
        return
    try:
        assert normal_path(normal.encode("ascii")) == normal.encode("ascii")
    except BadRequest as refused:
        assert "dot segment" in str(refused)  # `/.;x` and its like are nobody's requests
    assert normal_route_path(normal) == normal


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ("Shop.Example.", "shop.example"),
        ("[::1]", "[::1]"),
        ("*", "*"),
    ],
)
def test_a_routes_host_is_kept_as_requests_name_it(written: str, kept: str) -> None:
    assert RouteSettings(host=written).host == kept == normal_route_host(kept)


@pytest.mark.parametrize("host", ["example.com:8080", "a b", "*.", "a..b", "*x", "-", "a\n", "a" * 64 + ".b"])
def test_a_host_no_request_has_is_refused(host: str) -> None:
    assert place(RouteSettings, {"host": host}) == "host"


def test_usual_methods_are_in_capitals_and_others_as_they_are() -> None:
    assert RouteSettings(methods=("get", "GET", "List")).methods == ("GET", "List")
