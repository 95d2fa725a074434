"""Who a request comes from: one answer, and one story in both families of fields."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.request import RequestReader
from gateway.net.networks import Networks, ipv4_number
from gateway.worker.exchange.client_info import ClientInfo, address_of, client_info, forwarded_elements
from gateway.worker.exchange.request_head import Forwarder, RequestIds

TRUSTED = Networks(("10.0.0.0/8", "2001:db8::/32", "127.0.0.1"))


def told(*fields: tuple[str, str], peer: str = "127.0.0.1", scheme: bytes = b"http") -> ClientInfo:
    special = {name.encode(): value.encode() for name, value in fields}
    special.setdefault(b"host", b"h")
    return client_info(special, peer, scheme, TRUSTED.holds)


@pytest.mark.parametrize(
    ("x_for", "client"),
    [
        ("6.6.6.6", "6.6.6.6"),
        ("6.6.6.6, 7.7.7.7", "7.7.7.7"),
        ("6.6.6.6, 7.7.7.7, 10.0.0.1", "7.7.7.7"),
        ("6.6.6.6,7.7.7.7 ,\t10.0.0.1, 10.0.0.2", "7.7.7.7"),
        ("10.0.0.3, 10.0.0.2, 10.0.0.1", "10.0.0.3"),
        ("203.0.113.5:4001", "203.0.113.5"),
        ("203.0.113.5:4001, 10.0.0.1:80", "203.0.113.5"),
        ("[2001:db9::1]:4001", "2001:db9::1"),
        ("[2001:DB9:0::1]", "2001:db9::1"),
        ("2001:db9::1, 2001:db8::7", "2001:db9::1"),
        ("::ffff:6.6.6.6", "6.6.6.6"),
        ("6.6.6.6, unknown, 10.0.0.1", "10.0.0.1"),
        ("6.6.6.6, _hidden", "127.0.0.1"),
        ("6.6.6.6, 1.2.3", "127.0.0.1"),
        ("6.6.6.6, 7.7.7.7:x", "127.0.0.1"),
        ("6.6.6.6, fe80::1%eth0", "127.0.0.1"),
        ("", "127.0.0.1"),
        (" , ", "127.0.0.1"),
        ("6.6.6.6,", "6.6.6.6"),
    ],
)
def test_client_is_the_last_that_is_no_proxy_of_ours(x_for: str, client: str) -> None:
    assert told(("x-forwarded-for", x_for)).address == client


@pytest.mark.parametrize("peer", ["6.6.6.6", "2001:db9::1", ""])
def test_stranger_speaks_for_nobody(peer: str) -> None:
    info = told(
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=1.1.1.1;proto=https"),
        peer=peer,
    )
    assert (info.address, info.proto, info.host, info.port) == (peer, b"http", b"h", b"80")
    assert b"1.1.1.1" not in info.fields


@pytest.mark.parametrize(
    ("host", "scheme", "port"),
    [
        ("h", b"http", b"80"),
        ("h", b"https", b"443"),
        ("h:8080", b"https", b"8080"),
        ("h:", b"http", b"80"),
        ("[::1]", b"http", b"80"),
        ("[::1]:81", b"http", b"81"),
    ],
)
def test_port_is_the_one_the_client_used(host: str, scheme: bytes, port: bytes) -> None:
    """Guards redirects where the listener's port is mapped: `-p 80:4200`."""
    assert told(("host", host), scheme=scheme).port == port


def test_trusted_proxys_port_counts_unless_it_is_none() -> None:
    assert told(("x-forwarded-port", "8443")).port == b"8443"
    assert told(("x-forwarded-proto", "https")).port == b"443"
    assert told(("x-forwarded-host", "shop:99"), ("x-forwarded-port", "0")).port == b"99"
    assert told(("x-forwarded-port", "65536")).port == b"80"


@pytest.mark.parametrize(
    ("protos", "x_for", "proto"),
    [
        ("https", "6.6.6.6", b"https"),
        ("HTTPS", "6.6.6.6, 10.0.0.1", b"https"),
        ("http, https", "1.1.1.1, 6.6.6.6", b"https"),
        ("https, http", "6.6.6.6, 10.0.0.1", b"https"),
        ("ftp", "6.6.6.6", b"http"),
        ("https", "", b"https"),
        ("http, https", "", b"https"),
    ],
)
def test_proto_is_that_of_the_clients_own_hop(protos: str, x_for: str, proto: bytes) -> None:
    assert told(("x-forwarded-proto", protos), ("x-forwarded-for", x_for)).proto == proto


def test_forwarded_alone_is_understood() -> None:
    info = told(
        (
            "forwarded",
            'for=1.1.1.1;proto=http;host=evil, For="[2001:db9::1]:17" ; Host="s:1";proto=https, for=10.0.0.1',
        )
    )
    assert (info.address, info.proto, info.host, info.port) == ("2001:db9::1", b"https", b"s:1", b"1")
    assert b"X-Forwarded-For: 1.1.1.1, 2001:db9::1, 10.0.0.1, 127.0.0.1\r\n" in info.fields


@pytest.mark.parametrize(
    "value", ["for", "for=1.1.1.1,,", 'for="1.1.1.1', "for=1.1.1.1; ;", "=", ", for=1.1.1.1", 'for="a"b']
)
def test_malformed_forwarded_says_nothing(value: str) -> None:
    assert forwarded_elements(value.encode()) == []
    assert told(("forwarded", value)).address == "127.0.0.1"


def test_what_is_no_address_is_unknown_to_others() -> None:
    """RFC 7239 §6.2. A quote or a comma of a client's must not end ours."""
    info = told(("x-forwarded-for", '6.6.6.6, ";proto=https'))
    assert b"Forwarded: for=6.6.6.6;host=h;proto=http, for=unknown, for=127.0.0.1\r\n" in info.fields
    assert told(("x-forwarded-host", 'a";proto=https')).host == b"h"


def test_unix_socket_has_no_address() -> None:
    info = told(peer="")
    assert info.address == ""
    assert b"X-Forwarded-For: unknown\r\n" in info.fields
    assert b"Forwarded: for=unknown;host=h;proto=http\r\n" in info.fields


NODES = st.sampled_from(
    ["6.6.6.6", "10.0.0.1", "[2001:db9::1]:80", "2001:db8::2", "unknown", "_x", "1.2.3.4:5", "junk", '"', ""]
)
HOSTS = st.sampled_from(["shop", "shop:8443", "[::1]:9", "a b", 'x"y', ""])
PROTOS = st.sampled_from(["http", "https", "HTTPS", "ftp", ""])


@given(st.lists(NODES, max_size=4), HOSTS, PROTOS, st.sampled_from(["forwarded", "x"]))
def test_both_families_tell_one_story(nodes: list[str], host: str, proto: str, form: str) -> None:
    if form == "forwarded":
        elements = [f'for="{node}";host="{host}";proto="{proto}"' for node in nodes if '"' not in node + host]
        info = told(("forwarded", ", ".join(elements)))
    else:
        fields = [
            ("x-forwarded-for", ", ".join(nodes)),
            ("x-forwarded-host", host),
            ("x-forwarded-proto", proto),
        ]
        info = told(*fields)
    lines = dict(re.findall(rb"([^:\r\n]+): ([^\r\n]*)\r\n", info.fields))
    elements_out = forwarded_elements(lines[b"Forwarded"])
    x_for = [address_of(each.strip()) for each in lines[b"X-Forwarded-For"].split(b",") if each.strip()]
    assert [address_of(each[b"for"]) for each in elements_out] == x_for
    assert elements_out[0][b"proto"] == lines[b"X-Forwarded-Proto"] == info.proto
    assert elements_out[0][b"host"] == lines[b"X-Forwarded-Host"] == info.host
    # A gateway behind this one, which trusts it, finds the same client by either.
    for name in (b"Forwarded", b"X-Forwarded-For"):
        behind = client_info(
            {name.lower(): lines[name], b"host": info.host}, "10.9.9.9", b"http", TRUSTED.holds
        )
        assert behind.address == info.address


def test_each_request_of_a_proxy_has_its_own_client() -> None:
    """Guards what is kept of a proxy's last request: the next brings somebody else."""
    forwarder = Forwarder(peer="10.0.0.1", scheme=b"http", ids=RequestIds(), is_trusted=TRUSTED.holds)
    reader = RequestReader(4096, 40, 512)
    for client in ("6.6.6.6", "7.7.7.7", "6.6.6.6"):
        reader.feed(f"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n\r\n".encode())
        assert forwarder.client_of(reader).address == client
        assert forwarder.client_of(reader) is forwarder.client_of(reader)


@given(st.ip_addresses(v=4).map(str) | st.text("0123456789.", max_size=16))
def test_an_address_is_a_number_in_its_one_spelling_alone(text: str) -> None:
    try:
        number = int(ipaddress.IPv4Address(text))
    except ValueError:
        number = -1
    assert ipv4_number(text) == number
