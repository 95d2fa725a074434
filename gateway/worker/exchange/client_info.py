"""Who a request comes from, and how the gateway says so: X-Forwarded-* and Forwarded (RFC 7239).

What a trusted proxy says is understood once, here, and everybody goes by it: cohorts, allow lists, limits,
the access log, and both families of fields, which tell one story. Anyone else's words count for nothing.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.errors import BadRequest
from gateway.http1.message import CRLF, members_of
from gateway.http1.target import host_of
from gateway.net.networks import canonical_address

UNKNOWN: Final = "unknown"
"""A node that cannot be named (RFC 7239 §6.2)."""
_X_FIELDS: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
_NODE: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
"""An address that may have a port (RFC 7239 §6)."""
_PARAMETER: Final = re.compile(
    rb'[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))[ \t]*([;,]|$)'
)
_PROTO: Final = re.compile(rb"https?", re.IGNORECASE)
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_DEFAULT_PORT: Final = {b"http": b"80", b"https": b"443"}


class ClientInfo(msgspec.Struct, frozen=True, gc=False):
    """What is known of a request's client."""

    address: str
    """Its own, numeric; empty on a Unix socket."""
    proto: bytes
    """How it came: `http` or `https`."""
    host: bytes
    """What it asked for, with a port if it gave one; empty: it named none."""
    port: bytes
    """The one it used."""
    fields: bytes
    """The same as the lines of a head."""


class _Said(msgspec.Struct, frozen=True, gc=False):
    """What a proxy says: each from the farthest hop to the nearest, as far as it says so."""

    x_for: bytes
    nodes: Sequence[bytes]
    protos: Sequence[bytes] = ()
    hosts: Sequence[bytes] = ()
    ports: Sequence[bytes] = ()


_NOTHING: Final = _Said(b"", ())


def client_info(
    special: dict[bytes, bytes], peer: str, scheme: bytes, is_trusted: Callable[[str], bool]
) -> ClientInfo:
    """Return who a request comes from.

    special: the fields of its head. peer: who is connected to us, empty on a Unix socket. scheme: of that
    connection. is_trusted: whether an address is that of a proxy of ours.
    """
    said = _said(special) if is_trusted(peer) else _NOTHING
    hops = [address_of(node) for node in said.nodes]
    distance = _client_distance(hops, is_trusted)
    proto = _nearest(said.protos, distance, _is_proto).lower() or scheme
    host = _nearest(said.hosts, distance, _is_host) or special.get(b"host", b"")
    port = _nearest(said.ports, distance, _is_port) or _port_of(host) or _DEFAULT_PORT[proto]
    address = hops[-distance] if distance else peer
    return ClientInfo(address, proto, host, port, _fields(said.x_for, hops, peer, proto, host, port))


def _client_distance(hops: list[str], is_trusted: Callable[[str], bool]) -> int:
    """Return how many hops in front of the peer the client is: the nearest that is no proxy of ours.

    hops: addresses, the nearest last. One that is no address, or that nobody we trust vouches for, ends the
    walk; if all are trusted it is the farthest. 0: the peer itself.
    """
    distance = 0
    for hop in reversed(hops):
        if not hop:
            break
        distance += 1
        if not is_trusted(hop):
            break
    return distance


def address_of(node: bytes) -> str:
    """Return the address of a node as proxies write it, with or without a port; empty if it is none."""
    match = _NODE.fullmatch(node)
    text = (match[1] or match[2]) if match else node
    return canonical_address(text.decode("latin-1"))


# What proxies say


def _said(special: dict[bytes, bytes]) -> _Said:
    """Return what the fields say: X-Forwarded-* if there are any, for they are what most proxies send."""
    if any(name in special for name in _X_FIELDS):
        each = [members_of(special.get(name, b"")) for name in _X_FIELDS]
        return _Said(special.get(b"x-forwarded-for", b""), *each)
    elements = forwarded_elements(special.get(b"forwarded", b""))
    if not elements:
        return _NOTHING
    nodes = [element.get(b"for", b"") for element in elements]
    x_for = b", ".join((address_of(node) or UNKNOWN).encode() for node in nodes)
    protos, hosts = ([element.get(name, b"") for element in elements] for name in (b"proto", b"host"))
    return _Said(x_for, nodes, protos, hosts)


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


def _nearest(values: Sequence[bytes], distance: int, is_sound: Callable[[bytes], bool]) -> bytes:
    """Return what was said of the client: at its own hop, else by the next nearer one; empty: nothing."""
    start = max(len(values) - max(distance, 1), 0)
    return next((value for value in values[start:] if is_sound(value)), b"")


def _is_proto(value: bytes) -> bool:
    return _PROTO.fullmatch(value) is not None


def _is_port(value: bytes) -> bool:
    return _PORT.fullmatch(value) is not None and 0 < int(value) < 65_536


def _is_host(value: bytes) -> bool:
    try:
        host_of(value)
    except BadRequest:
        return False
    return True


def _port_of(authority: bytes) -> bytes:
    """Return the port of a well-formed authority; empty: it has none."""
    _, colon, port = authority.rpartition(b":")
    return port if colon and _is_port(port) else b""


# What we say


def _fields(x_for: bytes, hops: list[str], peer: str, proto: bytes, host: bytes, port: bytes) -> bytes:
    """Return the lines that tell an upstream about the client."""
    nearest = (peer or UNKNOWN).encode()
    lines = [
        b"X-Forwarded-For: ",
        x_for + b", " + nearest if x_for else nearest,
        b"\r\nX-Forwarded-Proto: ",
        proto,
    ]
    if host:
        lines += (b"\r\nX-Forwarded-Host: ", host)
    lines += (b"\r\nX-Forwarded-Port: ", port, b"\r\nForwarded: ", _forwarded(hops, peer, proto, host), CRLF)
    return b"".join(lines)


def _forwarded(hops: list[str], peer: str, proto: bytes, host: bytes) -> bytes:
    """Return one element for each hop; the first tells how the client came (RFC 7239 §4)."""
    first, *more = [b"for=" + _node(address) for address in (*hops, peer)]
    if host:
        first += b";host=" + _quoted(host)
    return b", ".join((first + b";proto=" + proto, *more))


def _node(address: str) -> bytes:
    """Return an address as a Forwarded parameter: an IPv6 one in brackets and quotes (RFC 7239 §6)."""
    if ":" in address:
        return b'"[%b]"' % address.encode()
    return (address or UNKNOWN).encode()


def _quoted(host: bytes) -> bytes:
    """Return a host as a Forwarded parameter: quoted if it holds a colon (RFC 7239 §4)."""
    return b'"%b"' % host if b":" in host else host
