"""Urls are taken apart strictly, and lead nowhere they must not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.settings.targets import Listener, Target, check_target, parse_target, parse_url
from gateway.errors import ConfigError

OWN = (Listener("0.0.0.0", 4200), Listener("127.0.0.1", 4201), Listener("::1", 4202))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:7200", Target("http", "127.0.0.1", 7200, "", "127.0.0.1")),
        ("http://Auth.Example/", Target("http", "auth.example", 80, "/")),
        ("https://auth.example", Target("https", "auth.example", 443, "")),
        ("http://[::1]:8080", Target("http", "::1", 8080, "", "::1")),
        ("unix:/run/auth.sock", Target("unix", "", 0, "/run/auth.sock")),
        ("unix:///run/auth.sock", Target("unix", "", 0, "/run/auth.sock")),
    ],
)
def test_a_version_url_is_taken_apart(url: str, expected: Target) -> None:
    assert parse_target(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "auth",
        "127.0.0.1:80",
        "ftp://x",
        "file:///etc/passwd",
        "http://",
        "http://:80",
        "http://x:0",
        "http://x:99999",
        "http://x:a",
        "http://[::1",
        "http://user@x",
        "http://user:secret@x",
        "http://x/path",
        "http://x?query",
        "http://x/#fragment",
        "http://x y",
        "http://x\n",
        "http://x\\@evil",
        "http://exämple",
        "unix:relative",
        "unix:",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_target(url)


@pytest.mark.parametrize(
    "host", ["127.1", "0", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "a.0X1."]
)
def test_address_that_only_a_resolver_would_know_is_refused(host: str) -> None:
    """Guards against the gateway itself under no name. A store that holds such a url can still be read."""
    assert parse_target(f"http://{host}:1").is_named
    with pytest.raises(ConfigError, match="four numbers"):
        check_target(f"http://{host}:1")


@pytest.mark.parametrize(
    "host", ["a..b", "-x.example", "x-.example", "x.example..", f"{'x' * 64}.example", "a!b"]
)
def test_what_no_host_is_called_is_refused(host: str) -> None:
    """A store that holds such a url can still be read."""
    assert parse_target(f"http://{host}:1").is_named
    with pytest.raises(ConfigError, match="no host has this name"):
        check_target(f"http://{host}:1")


@pytest.mark.parametrize(
    "host", ["app", "my_app", "a-b.example.", "xn--caf-dma.example", f"{'x' * 63}.example"]
)
def test_what_hosts_are_called_is_let_through(host: str) -> None:
    check_target(f"http://{host}:1")


@pytest.mark.parametrize("rest", ["x", "x:bad", "", "[::1", "x/path"])
def test_credentials_are_not_repeated_in_the_refusal(rest: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_target(f"http://user:hunter2@{rest}")
    assert "hunter2" not in str(refused.value)


def test_a_url_to_call_may_have_path_and_query() -> None:
    assert parse_url("http://x:1/stop?now=1") == Target("http", "x", 1, "/stop?now=1")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "[::1]", "[fd12::1]", "93.184.216.34"]
)
def test_ordinary_addresses_are_let_through(host: str) -> None:
    check_target(f"http://{host}:7200", own=OWN)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
        "255.255.255.255",
        "metadata.google.internal",
        "metadata.google.internal.",
    ],
)
def test_forbidden_addresses_are_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(ConfigError):
        check_target(f"http://{host}")


def test_a_name_is_judged_by_what_it_resolves_to() -> None:
    check_target("http://innocent.example")
    check_target("http://innocent.example", "10.0.0.1")
    with pytest.raises(ConfigError, match="metadata service"):
        check_target("http://innocent.example", "169.254.169.254")


def test_allowed_networks_bound_every_address() -> None:
    allowed = ("10.0.0.0/8", "127.0.0.1")
    check_target("http://10.9.9.9", allowed=allowed)
    check_target("unix:/run/x", allowed=allowed)
    check_target("http://name.example", allowed=allowed)
    for url, address in (("http://11.0.0.1", ""), ("http://name.example", "11.0.0.1"), ("http://[::1]", "")):
        with pytest.raises(ConfigError, match="outside the allowed targets"):
            check_target(url, address, allowed=allowed)
    with pytest.raises(ConfigError, match="outside"):
        check_target("unix:/run/x", allowed=("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("url", "address", "is_own"),
    [
        ("http://127.0.0.1:4200", "", True),
        ("http://[::1]:4200", "", True),
        ("http://localhost:4200", "127.0.0.1", True),
        ("http://127.0.0.1:4201", "", True),
        ("http://127.0.0.2:4201", "", False),
        ("http://[::ffff:127.0.0.1]:4201", "", True),
        ("http://[::1]:4202", "", True),
        ("http://127.0.0.1:4202", "", False),
        ("http://127.0.0.1:7200", "", False),
    ],
)
def test_the_gateway_is_not_its_own_upstream(url: str, address: str, is_own: bool) -> None:
    if not is_own:
        check_target(url, address, own=OWN)
        return
    with pytest.raises(ConfigError, match="the gateway itself"):
        check_target(url, address, own=OWN)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"unix:{text}"):
        try:
            check_target(url)
        except ConfigError:
            continue
        assert parse_url(url).host or url.startswith("unix:")


@pytest.mark.parametrize("url", ["http://localhost:4200", "http://LOCALHOST.:4201", "http://localhost:4201/"])
def test_localhost_needs_no_name_server_to_be_known_for_the_gateway(url: str) -> None:
    with pytest.raises(ConfigError, match="back to the gateway"):
        check_target(url, own=OWN)


def test_localhost_is_judged_by_its_address_where_that_is_known() -> None:
    check_target("http://localhost:4201", "::1", own=OWN)
    check_target("http://localhost:7200", own=OWN, allowed=("127.0.0.0/8",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:4200", ("0.0.0.0", 4200)),
        ("[::1]:80", ("::1", 80)),
        ("[::]:0", ("::", 0)),
        ("localhost:80", ("127.0.0.1", 80)),
    ],
)
def test_a_listening_address_is_numeric_with_v6_in_brackets(text: str, expected: tuple[str, int]) -> None:
    assert Listener.of(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not host:port"),
        ("host", "not host:port"),
        ("127.0.0.1:", "not host:port"),
        ("127.0.0.1:x", "not host:port"),
        ("127.0.0.1:²", "not host:port"),
        ("1.2.3.4:70000", "not host:port"),
        (":80", "not a numeric address"),
        ("host:80", "not a numeric address"),
    ],
)
def test_another_listening_address_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Listener.of(text)


@pytest.mark.parametrize("bare", ["127.0.0.1:3000", "app:3000", "app", "[::1]:3000"])
def test_an_address_without_a_scheme_is_refused_with_what_was_meant(bare: str) -> None:
    """Other tools take it, so that is what people type first."""
    with pytest.raises(ConfigError, match="unix: url; http://" + re.escape(bare)):
        parse_url(bare)
    with pytest.raises(ConfigError) as refused:
        parse_url(f"ftp://{bare}")
    assert "unix: url;" not in str(refused.value)
