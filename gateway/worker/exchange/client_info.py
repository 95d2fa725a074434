"""Who a request comes from, and how the gateway says so: X-Forwarded-* and Forwarded (RFC 7239).

What a trusted proxy says is understood once, here, and everybody goes by it: cohorts, allow lists, limits,
the access log, and both families of fields, which tell one story. Anyone else's words count for nothing.
"""

import re
from collections.abc import Callable
from typing import Final

from gateway.errors import BadRequest
from gateway.http1.message import CRLF, members_of
from gateway.http1.target import host_of
from gateway.net.networks import canonical_address, ipv4_number

UNKNOWN: Final = "unknown"
"""A node that cannot be named (RFC 7239 §6.2)."""
_NODE: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
"""An address that may have a port (RFC 7239 §6)."""
_PARAMETER: Final = re.compile(
    rb'[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))[ \t]*([;,]|$)'
)
_COMMA: Final = ord(",")
_COLON: Final = ord(":")
_PROTO: Final = re.compile(rb"https?", re.IGNORECASE)
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_DEFAULT_PORT: Final = {b"http": b"80", b"https": b"443"}


class ClientInfo:
    """What is known of a request's client. No struct: compiled, a class is read at a tenth of the price."""

    __slots__ = ("address", "fields", "host", "port", "proto")

    def __init__(self, address: str, proto: bytes, host: bytes, port: bytes, fields: bytes) -> None:
        self.address: Final = address
        """Its own, numeric; empty on a Unix socket."""
        self.proto: Final = proto
        """How it came: `http` or `https`."""
        self.host: Final = host
        """What it asked for, with a port if it gave one; empty: it named none."""
        self.port: Final = port
        """The one it used."""
        self.fields: Final = fields
        """The same as the lines of a head."""


_Said = tuple[bytes, list[bytes], list[bytes], list[bytes], list[bytes]]
"""What a proxy says: X-Forwarded-For, then nodes, protocols, hosts, ports, each from the farthest hop to the
nearest, as far as it says so."""


def client_info(
    special: dict[bytes, bytes], peer: str, scheme: bytes, is_trusted: Callable[[str], bool]
) -> ClientInfo:
    """Return who a request comes from.

    special: the fields of its head. peer: who is connected to us, empty on a Unix socket. scheme: of that
    connection. is_trusted: whether an address is that of a proxy of ours.
    """
    if is_trusted(peer):
        return proxied_client(special, peer, scheme, is_trusted)
    return direct_client(special, peer, scheme)


def direct_client(special: dict[bytes, bytes], peer: str, scheme: bytes) -> ClientInfo:
    """Return who a request comes from that is the peer's own."""
    host = special.get(b"host", b"")
    port = _port_of(host) or _DEFAULT_PORT[scheme]
    return ClientInfo(peer, scheme, host, port, _fields(b"", [], peer, scheme, host, port))


def proxied_client(
    special: dict[bytes, bytes], peer: str, scheme: bytes, is_trusted: Callable[[str], bool]
) -> ClientInfo:
    """Return who a request comes from that a proxy of ours has brought."""
    x_for, nodes, protos, hosts, ports = _said(special)
    hops = [address_of(node) for node in nodes]
    distance = _client_distance(hops, is_trusted)
    proto = _nearest(protos, distance, _is_proto).lower() or scheme
    host = special.get(b"host", b"")
    if len(hosts) != 1 or hosts[0] != host:  # most often it is the same, and known to be sound
        host = _nearest(hosts, distance, _is_host) or host
    port = _nearest(ports, distance, _is_port) or _port_of(host) or _DEFAULT_PORT[proto]
    address = hops[-distance] if distance else peer
    return ClientInfo(address, proto, host, port, _fields(x_for, hops, peer, proto, host, port))


def _client_distance(hops: list[str], is_trusted: Callable[[str], bool]) -> int:
    """Return how many hops in front of the peer the client is: the nearest that is no proxy of ours.

    hops: addresses, the nearest last. One that is no address, or that nobody we trust vouches for, ends the
    walk; if all are trusted it is the farthest. 0: the peer itself.
    """
    distance = 0
    while distance < len(hops):
        hop = hops[len(hops) - 1 - distance]
        if not hop:
            break
        distance += 1
        if not is_trusted(hop):
            break
    return distance


def address_of(node: bytes) -> str:
    """Return the address of a node as proxies write it, with or without a port; empty if it is none."""
    address = node.decode("latin-1")
    if ipv4_number(address) >= 0:
        return address
    match = _NODE.fullmatch(node)
    text = (match[1] or match[2]) if match else node
    return canonical_address(text.decode("latin-1"))


# What proxies say


def _nothing() -> _Said:
    return b"", [], [], [], []


def _said(special: dict[bytes, bytes]) -> _Said:
    """Return what the fields say: X-Forwarded-* if there are any, for they are what most proxies send."""
    x_for, x_proto = special.get(b"x-forwarded-for"), special.get(b"x-forwarded-proto")
    x_host, x_port = special.get(b"x-forwarded-host"), special.get(b"x-forwarded-port")
    if x_for is not None or x_proto is not None or x_host is not None or x_port is not None:
        return x_for or b"", _members(x_for), _members(x_proto), _members(x_host), _members(x_port)
    elements = forwarded_elements(special.get(b"forwarded", b""))
    if not elements:
        return _nothing()
    nodes = [element.get(b"for", b"") for element in elements]
    addresses = b", ".join([(address_of(node) or UNKNOWN).encode() for node in nodes])
    protos = [element.get(b"proto", b"") for element in elements]
    hosts = [element.get(b"host", b"") for element in elements]
    return addresses, nodes, protos, hosts, []


def _members(value: bytes | None) -> list[bytes]:
    """Return the members of a field, most often one."""
    if value is None:
        return []
    return members_of(value) if not value or _COMMA in value else [value]


def forwarded_elements(value: bytes) -> list[dict[bytes, bytes]]:
    """Return the elements of a Forwarded field by lower-case parameter; none if it is malformed."""
    elements: list[dict[bytes, bytes]] = [{}]
    at = 0
    while at < len(value):
        match = _PARAMETER.match(value, at)
        if match is None:
            return []
        name, quoted, token, separator = match.groups()
        text = token if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        elements[-1].setdefault(name.lower(), text)
        if separator == b",":
            elements.append({})
        at = match.end()
    return elements if all(elements) else []


def _nearest(values: list[bytes], distance: int, is_sound: Callable[[bytes], bool]) -> bytes:
    """Return what was said of the client: at its own hop, else by the next nearer one; empty: nothing."""
    at = max(len(values) - max(distance, 1), 0)
    while at < len(values):
        if is_sound(values[at]):
            return values[at]
        at += 1
    return b""


def _is_proto(value: bytes) -> bool:
    return value == b"https" or value == b"http" or _PROTO.fullmatch(value) is not None


def _is_port(value: bytes) -> bool:
    return value == b"443" or (_PORT.fullmatch(value) is not None and 0 < int(value) < 65_536)


def _is_host(value: bytes) -> bool:
    try:
        host_of(value)
    except BadRequest:
        return False
    return True


def _port_of(authority: bytes) -> bytes:
    """Return the port of a well-formed authority; empty: it has none."""
    if _COLON not in authority:
        return b""
    colon = authority.rfind(b":")
    port = authority[colon + 1 :]
    return port if _is_port(port) else b""


# What we say


def _fields(x_for: bytes, hops: list[str], peer: str, proto: bytes, host: bytes, port: bytes) -> bytes:
    """Return the lines that tell an upstream about the client.

    Of Forwarded, one element for each hop; the first tells how the client came (RFC 7239 §4).
    """
    lines = [
        b"X-Forwarded-For: ",
        x_for,
        b", " if x_for else b"",
        (peer or UNKNOWN).encode(),
        b"\r\nX-Forwarded-Proto: ",
        proto,
        b"\r\nX-Forwarded-Host: " if host else b"",
        host,
        b"\r\nX-Forwarded-Port: ",
        port,
        b"\r\nForwarded: for=",
        _node(hops[0] if hops else peer),
        b";host=" if host else b"",
        _quoted(host),
        b";proto=",
        proto,
    ]
    if hops:
        for address in hops[1:]:
            lines += (b", for=", _node(address))
        lines.append(b", for=")
        lines.append(_node(peer))
    lines.append(CRLF)
    return b"".join(lines)


def _node(address: str) -> bytes:
    """Return an address as a Forwarded parameter: an IPv6 one in brackets and quotes (RFC 7239 §6)."""
    if ":" in address:
        return b'"[%b]"' % address.encode()
    return (address or UNKNOWN).encode()


def _quoted(host: bytes) -> bytes:
    """Return a host as a Forwarded parameter: quoted if it holds a colon (RFC 7239 §4)."""
    return b'"%b"' % host if _COLON in host else host
