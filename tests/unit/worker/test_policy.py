"""Sticky keys, forwarded fields and networks, without sockets."""

import pytest

from gateway.http1.request import RequestReader
from gateway.worker.exchange.request_head import Forwarder, Networks, RequestIds
from gateway.worker.policy import sticky_key


def request(fields: bytes) -> RequestReader:
    reader = RequestReader(4096, 50, 1024)
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
    return reader


@pytest.mark.parametrize(
    ("by", "fields", "key"),
    [
        ("cookie:uid", b"Cookie: uid=7\r\n", b"7"),
        ("cookie:uid", b"Cookie: a=b; uid=7; c=d\r\n", b"7"),
        ("cookie:uid", b"Cookie: xuid=7\r\n", None),
        ("cookie:uid", b"Cookie: uid=\r\n", None),
        ("cookie:uid", b"", None),
        ("header:X-User", b"x-user: 9\r\n", b"9"),
        ("header:X-User", b"", None),
        ("client_ip", b"", b"10.0.0.1"),
    ],
)
def test_sticky_key(by: str, fields: bytes, key: bytes | None) -> None:
    assert sticky_key(by, request(fields), "10.0.0.1") == key


def test_networks_hold_addresses_of_both_families() -> None:
    networks = Networks(("10.0.0.0/8", "::1", "192.168.1.7"))
    assert networks.holds("10.1.2.3")
    assert networks.holds("::1")
    assert networks.holds("192.168.1.7")
    assert not networks.holds("11.0.0.1")
    assert not networks.holds("")
    assert not Networks(()).holds("10.0.0.1")


def test_ipv6_client_is_bracketed_in_forwarded() -> None:
    """RFC 7239 §6."""
    forwarder = Forwarder(
        peer="2001:db8::1", scheme=b"https", port=b"443", is_trusted=False, ids=RequestIds()
    )
    head = forwarder.head(request(b""), None, b"u")
    assert b'\r\nForwarded: for="[2001:db8::1]";host=h;proto=https\r\n' in head
    assert b"\r\nX-Forwarded-For: 2001:db8::1\r\n" in head


def test_request_ids_differ() -> None:
    ids = RequestIds()
    assert len({ids() for _ in range(1000)}) == 1000


def test_repeated_request_gets_the_same_head_but_for_its_id() -> None:
    forwarder = Forwarder(peer="10.0.0.1", scheme=b"http", port=b"80", is_trusted=False, ids=RequestIds())
    reader = request(b"Accept: x\r\n")
    one = forwarder.head(reader, None, b"u")
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\nAccept: x\r\n\r\n")
    two = forwarder.head(reader, None, b"u")
    assert one != two
    assert one.partition(b"X-Request-ID: ")[0] == two.partition(b"X-Request-ID: ")[0]
