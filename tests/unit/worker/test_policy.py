"""Sticky keys, forwarded fields and networks, without sockets."""

import pytest

from gateway.http1.request import RequestReader
from gateway.net.networks import Networks
from gateway.worker.exchange.request_head import RequestIds
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


def test_request_ids_differ() -> None:
    ids = RequestIds()
    assert len({ids.next() for _ in range(1000)}) == 1000
