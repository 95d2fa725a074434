"""PROXY protocol headers, whole, byte by byte and with bytes to spare."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.net.proxy_protocol import V1_BYTES, V2_BYTES, HeaderReader, Source

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
TCP4, TCP6 = 0x11, 0x21


def v2(command: int, family: int, payload: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


def tcp4(source: str, port: int, tlvs: bytes = b"") -> bytes:
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address("10.0.0.1").packed
    return v2(0x21, TCP4, addresses + struct.pack("!HH", port, 443) + tlvs)


def tcp6(source: str, port: int) -> bytes:
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address("::1").packed
    return v2(0x21, TCP6, addresses + struct.pack("!HH", port, 443))


GOOD = [
    (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n", Source("192.0.2.1", 56324)),
    (b"PROXY TCP6 2001:DB8::1 ::1 1 65535\r\n", Source("2001:db8::1", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f whatever comes here\r\n", None),
    (tcp4("192.0.2.1", 56324), Source("192.0.2.1", 56324)),
    (tcp4("192.0.2.1", 0, tlvs=b"\x03\x00\x04crc!"), Source("192.0.2.1", 0)),
    (tcp6("2001:db8::1", 7), Source("2001:db8::1", 7)),
    (tcp6("::ffff:192.0.2.1", 7), Source("192.0.2.1", 7)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Source("192.0.2.1", 1)),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, TCP4, b"\0" * 12), None),
    (v2(0x20, 0x99, b"anything"), None),
    (v2(0x21, 0x00, b""), None),
]


@pytest.mark.parametrize(("header", "source"), GOOD, ids=range(len(GOOD)))
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_header_ends_where_it_ends(header: bytes, source: Source | None, rest: bytes) -> None:
    reader = HeaderReader()
    assert reader.feed(header + rest) == len(header)
    assert reader.done
    assert reader.source == source


@pytest.mark.parametrize(("header", "source"), GOOD, ids=range(len(GOOD)))
def test_header_is_the_same_byte_by_byte(header: bytes, source: Source | None) -> None:
    reader = HeaderReader()
    for i in range(len(header)):
        assert not reader.done
        assert reader.feed(header[i : i + 1]) == 1
    assert reader.done
    assert reader.source == source


@pytest.mark.parametrize(("header", "source"), GOOD, ids=range(len(GOOD)))
def test_header_is_the_same_cut_anywhere_with_bytes_to_spare(header: bytes, source: Source | None) -> None:
    for cut in range(1, len(header)):
        reader = HeaderReader()
        assert reader.feed(header[:cut]) == cut
        assert reader.feed(header[cut:] + b"more") == len(header) - cut
        assert reader.source == source


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY\tTCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 ١ 1\r\n".encode(),
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 " + b"1" * V1_BYTES,
        SIGNATURE + b"\x11\x11\x00\x00",
        SIGNATURE + b"\x22\x11\x00\x00",
        v2(0x21, TCP4, b"\0" * 11),
        v2(0x21, TCP6, b"\0" * 35),
        v2(0x21, 0x12, b"\0" * 12),
        v2(0x21, 0x31, b"\0" * 216),
        v2(0x21, 0x99, b""),
        SIGNATURE + struct.pack("!BBH", 0x21, TCP4, V2_BYTES),
    ],
)
def test_anything_else_is_refused_whole_and_byte_by_byte(header: bytes) -> None:
    with pytest.raises(BadRequest):
        HeaderReader().feed(header)
    reader = HeaderReader()
    with pytest.raises(BadRequest):
        for i in range(len(header)):
            reader.feed(header[i : i + 1])


def test_what_cannot_become_a_header_is_refused_at_its_first_byte() -> None:
    with pytest.raises(BadRequest):
        HeaderReader().feed(b"G")


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]),
)
def test_no_input_raises_anything_else_or_holds_more_than_the_bound(data: bytes, start: bytes) -> None:
    reader = HeaderReader()
    try:
        taken = reader.feed(start + data)
    except BadRequest:
        return
    assert taken <= len(start + data)
    assert reader.done or taken == len(start + data)
