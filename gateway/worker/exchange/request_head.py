"""What the gateway says of itself and of the client to an upstream: forwarded fields, request ids, Via."""

import ipaddress
import itertools
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from gateway.core.routing.table import Route
from gateway.http1.message import CHUNKED, CRLF
from gateway.http1.request import CHUNKED_BODY, RequestReader

VIA: Final = b"1.1 gateway"
VIA_10: Final = b"1.0 gateway"
"""It names the version that was received (RFC 9110 §7.6.3)."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")
_PROTO: Final = re.compile(rb"https?", re.IGNORECASE)
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_AUTHORITY: Final = re.compile(rb"[A-Za-z0-9._~:\[\]-]{1,255}")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """A set of networks, asked for addresses. Answers are remembered: the same clients come back."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(text, strict=False) for text in texts]
        self.holds = lru_cache(maxsize=4096)(self._holds)

    def _holds(self, address: str) -> bool:
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


class RequestIds:
    """Ids for requests that bring none: a random part per process, and a count."""

    def __init__(self) -> None:
        self.prefix = os.urandom(8).hex().encode()
        self.count = itertools.count(1).__next__
        """The next one: an id is `prefix` and eight hexadecimal digits of it."""

    def __call__(self) -> bytes:
        return b"%b%08x" % (self.prefix, self.count())


class Forwarder:
    """Writes the heads of one client connection's requests anew, for upstreams."""

    __slots__ = (
        "_address",
        "_block",
        "_block_host",
        "_count",
        "_for",
        "_ids",
        "_is_trusted",
        "_port",
        "_scheme",
        "_start",
        "_start_route",
        "_start_serial",
    )

    def __init__(self, *, peer: str, scheme: bytes, port: bytes, is_trusted: bool, ids: RequestIds) -> None:
        """peer: the client's address, empty on a Unix socket. port: ours. is_trusted: it is our proxy."""
        self._address = (peer or "unknown").encode()
        self._for = b'"[%b]"' % self._address if b":" in self._address else self._address
        self._scheme = scheme
        self._port = port
        self._is_trusted = is_trusted
        self._ids = ids
        self._count = ids.count
        self._block_host: bytes | None = None
        self._block = b""
        """What is said of every request for `_block_host` that says nothing of the kind itself."""
        self._start = b""
        """The last head's start: used again while the client repeats itself."""
        self._start_serial = -1
        self._start_route: Route | None = None

    def head(self, request: RequestReader, route: Route | None, authority: bytes) -> bytes:
        """Return the head to send. authority: the Host of a request without one (HTTP/1.0)."""
        if request.serial != self._start_serial or route is not self._start_route:
            start = self._start_of(request, route, authority)
            # Used again only if it depends on nothing but the target, the fields passed on, and the host.
            self._start_serial, self._start_route = (request.serial if request.is_quiet else -1), route
            if not request.is_quiet:
                return b"".join((start, *self._special(request)))
            self._start = b"%bX-Request-ID: %b" % (start, self._ids.prefix)
        return b"%b%08x\r\n\r\n" % (self._start, self._count())

    def _start_of(self, request: RequestReader, route: Route | None, authority: bytes) -> bytes:
        """Return the head up to what differs from one request to the next."""
        special = request.special
        host = special.get(b"host", authority)
        path = request.path
        if route is not None and route.strip_prefix and route.path != "/":
            path = path[len(route.path) :] or b"/"
        if request.nominated:
            _drop_nominated(request)
        if request.lines.claims and not self._is_trusted:
            for name in request.lines.claims:
                request.drop(name)
        if not request.is_quiet:
            block = self._said(special, host, VIA_10 if request.http10 else VIA)
        else:
            if host != self._block_host:
                self._block_host, self._block = host, self._said({}, host, VIA)
            block = self._block
        line = (request.method, b" ", path, request.query, b" HTTP/1.1\r\nHost: ", host, CRLF)
        return b"".join((*line, request.passed_on(), block))

    def rest(self) -> None:
        """Give back what is only kept for speed."""
        self._start = self._block = b""
        self._start_serial = -1
        self._block_host = None

    def client_of(self, request: RequestReader) -> str:
        """Return the address of the client itself: what a trusted proxy says, else the peer's."""
        said = request.special.get(b"x-forwarded-for") if self._is_trusted else None
        if said is None:
            return self._address.decode()
        return said.rpartition(b",")[2].strip(b" \t").decode("latin-1")

    def _said(self, special: dict[bytes, bytes], host: bytes, via: bytes) -> bytes:
        """Return the fields about the client; what it says itself counts only if it is a trusted proxy."""
        said = special if self._is_trusted else {}
        forwarded = b"for=%b;host=%b;proto=%b" % (self._for, _quoted(host), self._scheme)
        return b"".join(
            (
                b"X-Forwarded-For: %b\r\n" % _appended(said.get(b"x-forwarded-for"), self._address),
                b"X-Forwarded-Proto: %b\r\n" % _kept(said, b"x-forwarded-proto", _PROTO, self._scheme),
                b"X-Forwarded-Host: %b\r\n" % _kept(said, b"x-forwarded-host", _AUTHORITY, host),
                b"X-Forwarded-Port: %b\r\n" % _kept(said, b"x-forwarded-port", _PORT, self._port),
                b"Forwarded: %b\r\n" % _appended(said.get(b"forwarded"), forwarded),
                b"Via: %b\r\n" % _appended(special.get(b"via"), via),
            )
        )

    def _special(self, request: RequestReader) -> list[bytes]:
        """Return framing, and the fields of the client's connection that go on in our own words."""
        special = request.special
        request_id = special.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = self._ids()
        pieces = [b"X-Request-ID: ", request_id, CRLF]
        if request.length == CHUNKED_BODY:
            pieces.append(CHUNKED)
        elif b"content-length" in special:
            pieces.append(b"Content-Length: %d\r\n" % request.length)
        if request.expects_continue and request.length:
            pieces.append(b"Expect: 100-continue\r\n")
        if b"max-forwards" in special:
            pieces += (b"Max-Forwards: ", special[b"max-forwards"], CRLF)
        if request.upgrade:
            pieces += (b"Connection: Upgrade\r\nUpgrade: ", request.upgrade, CRLF)
        elif b"trailers" in special.get(b"te", b"").lower():
            pieces.append(b"Connection: TE\r\nTE: trailers\r\n")
        pieces.append(CRLF)
        return pieces


def _drop_nominated(request: RequestReader) -> None:
    """Remove the fields Connection names (RFC 9110 §7.6.1); those we need are kept elsewhere."""
    for name in request.nominated:
        if name not in _USUAL_OPTIONS:
            request.drop(name)


_USUAL_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings"))


def _appended(before: bytes | None, value: bytes) -> bytes:
    return value if not before else before + b", " + value


def _kept(said: dict[bytes, bytes], name: bytes, form: re.Pattern[bytes], own: bytes) -> bytes:
    """Return what a trusted proxy said if it is well-formed, else our own."""
    value = said.get(name, b"")
    return value if form.fullmatch(value) else own


def _quoted(host: bytes) -> bytes:
    """Return a host as a Forwarded parameter: quoted if it holds a colon (RFC 7239 §4)."""
    return b'"%b"' % host if b":" in host else host
