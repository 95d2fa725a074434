"""The path policy: one normal form, or a refusal."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.http1.target import ascii_target, host_of, normal_path, sent_path, split_absolute

NORMAL = {
    b"/": b"/",
    b"/a/b": b"/a/b",
    b"/a//b": b"/a/b",
    b"//a": b"/a",
    b"/a/./b": b"/a/b",
    b"/a/../b": b"/b",
    b"/a/..": b"/",
    b"/a/b/..": b"/a/",
    b"/a/.": b"/a/",
    b"/../../a": b"/a",
    b"/%2e%2E/a": b"/a",
    b"/a/%2e/b": b"/a/b",
    b"/%61%2f%7e": b"/a%2F~",
    b"/a%2fb": b"/a%2Fb",
    b"/a%5cb": b"/a%5Cb",
    b"/%c3%a9": b"/%C3%A9",
    b"/a.b/..c/d..": b"/a.b/..c/d..",
    b"/a/": b"/a/",
    b"/a//": b"/a/",
    b"/%252e%252e/": b"/%252e%252e/",
}


@pytest.mark.parametrize(("raw", "normal"), NORMAL.items())
def test_path_is_made_normal(raw: bytes, normal: bytes) -> None:
    assert normal_path(raw) == normal
    assert normal_path(normal) == normal


@pytest.mark.parametrize(
    "raw",
    [
        b"/a\\b",
        b"/a#b",
        b"/a%00",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/..%2fa",
        b"/a%2f..",
        b"/a/..%5Cb",
        b"/%2e%2e%2fa",
        b"/a/..;x/b",
        b"/.;/b",
    ],
)
def test_what_two_servers_could_read_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        normal_path(raw)


@given(
    st.lists(st.sampled_from([b"/", b".", b"..", b"a", b"%2e", b"%2E", b"%2f", b"%5c", b"%41", b"b;c", b"~"]))
)
def test_normal_form_is_stable_and_holds_no_dot_segment(pieces: list[bytes]) -> None:
    try:
        normal = normal_path(b"/" + b"".join(pieces))
    except BadRequest:
        return
    assert normal_path(normal) == normal
    segments = normal.split(b"/")
    assert not {b".", b".."} & set(segments)
    assert b"" not in segments[1:-1]


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"H.example", "h.example"),
        (b"h:80", "h"),
        (b"h.:80", "h"),
        (b"[::1]:80", "[::1]"),
        (b"a_b-c", "a_b-c"),
    ],
)
def test_host_is_lower_case_without_port_and_trailing_dot(authority: bytes, host: str) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    "authority",
    [
        b"",
        b"a b",
        b"a/b",
        b"u@h",
        b"h:p",
        b"h:70000",
        b"[::1",
        b"h,i",
        b"h:1:2",
        b"\xe9",
        b"h" * 262,
        b"[::::]",
        b"[1:2]",
        b"[1.2.3.4]",
    ],
)
def test_malformed_host_is_refused(authority: bytes) -> None:
    with pytest.raises(BadRequest):
        host_of(authority)


def test_absolute_form_is_split() -> None:
    assert split_absolute(b"http://h:1/a?b") == (b"h:1", b"/a?b")
    assert split_absolute(b"HTTPS://h?b") == (b"h", b"/?b")
    with pytest.raises(BadRequest):
        split_absolute(b"ftp://h/")


SENT = {
    b"/a/%7Eb": b"/a/%7Eb",
    b"/a%0d%2F/": b"/a%0d%2F/",
    b"/fetch/https://example.org/x": b"/fetch/https://example.org/x",
    b"//a//": b"//a//",
    b"/a.b/..c/d..": b"/a.b/..c/d..",
    b"/%41/./b": b"/A/b",
    b"/a//b/../c": b"/a/c",
    b"/a/%2e%2E/%7E//b": b"/~/b",
}


@pytest.mark.parametrize(("raw", "sent"), SENT.items())
def test_service_gets_the_clients_bytes_unless_they_hold_dot_segments(raw: bytes, sent: bytes) -> None:
    """Signatures, nested urls and keys of object stores live in those bytes."""
    assert sent_path(raw) == sent


STRIPPED = {
    (b"/strip/x", "/strip"): b"/x",
    (b"/strip", "/strip"): b"/",
    (b"/strip/", "/strip"): b"/",
    (b"/strip//evil.example", "/strip"): b"/evil.example",
    (b"//strip///evil.example/x//y", "/strip"): b"/evil.example/x//y",
    (b"/s%74rip/%7E//x", "/strip"): b"/%7E//x",
    (b"/a//b/c%2Fd", "/a/b"): b"/c%2Fd",
    (b"/x/../strip//evil.example", "/strip"): b"/evil.example",
    (b"/strip/..//evil.example", "/"): b"/evil.example",
    (b"/a", "/"): b"/a",
    (b"//a", "/"): b"//a",
}


@pytest.mark.parametrize(("given", "sent"), STRIPPED.items())
def test_prefix_is_cut_off_by_segments(given: tuple[bytes, str], sent: bytes) -> None:
    assert sent_path(*given) == sent


PIECES = st.sampled_from(
    [
        b"/",
        b"/",
        b".",
        b"..",
        b"a",
        b"%2e",
        b"%2E",
        b"%2f",
        b"%5C",
        b"%41",
        b"b;c",
        b"~",
        b"%7e",
        b"\xc3\xbc",
        b"%0d",
    ]
)


@given(st.lists(PIECES, max_size=12), st.integers(0, 4))
def test_what_is_sent_is_what_was_routed_less_its_prefix(pieces: list[bytes], depth: int) -> None:
    raw = ascii_target(b"/" + b"".join(pieces))
    try:
        normal = normal_path(raw)
    except BadRequest:
        return
    segments = [each for each in normal.split(b"/") if each]
    prefix = b"".join(b"/" + each for each in segments[:depth])
    sent = sent_path(raw, prefix.decode())
    assert normal_path(sent) == (normal[len(prefix) :] or b"/")
    assert sent.startswith(b"/")
    if prefix:
        assert not sent.startswith(b"//")


@given(st.binary(max_size=20))
def test_target_of_any_bytes_is_ascii_and_means_the_same(raw: bytes) -> None:
    encoded = ascii_target(raw)
    assert encoded.isascii()
    assert unquote_to_bytes(encoded) == unquote_to_bytes(raw)
