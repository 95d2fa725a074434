"""A client's request heads, written anew for upstreams."""

import os
import re
from collections.abc import Callable
from random import random
from typing import Final

from gateway.core.routing.table import Route
from gateway.http1.heads import plain_name
from gateway.http1.message import CHUNKED, CRLF
from gateway.http1.request import CHUNKED_BODY, RequestReader, is_claim
from gateway.http1.target import sent_path
from gateway.http1.trailers import announced
from gateway.structs import Value
from gateway.worker.exchange.cdn_loop import entry
from gateway.worker.exchange.client_info import ClientInfo, direct_client, proxied_client
from gateway.worker.exchange.cookies import take_session
from gateway.worker.exchange.trace_context import parsed_parent, sound_state, usual_parent

VIA: Final = b"1.1 gateway"
VIA_10: Final = b"1.0 gateway"
"""It names the version that was received (RFC 9110 §7.6.3)."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")


ID_DIGITS: Final = 48
"""Of what `RequestIds` gives: a trace id, which is a request's own id too, and behind it a span id."""
TRACE_DIGITS: Final = 32
_ZERO: Final = ord("0")


class RequestIds:
    """Random hexadecimal digits, ID_DIGITS for each request; drawn for many at a time."""

    __slots__ = ("_at", "_drawn")

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def next(self) -> bytes:
        at = self._at
        if at == len(self._drawn):
            self._drawn = os.urandom(128 * ID_DIGITS // 2).hex().encode()
            at = 0
        self._at = at + ID_DIGITS
        return self._drawn[at : at + ID_DIGITS]


class ForwardSettings(Value, frozen=True):
    """What holds for every request that is passed on."""

    gateway: bytes = b""
    """Our id in CDN-Loop; empty: we have none, and the field is passed on as it came."""
    via: bool = False
    """Whether to write a Via field."""
    sample: float = 0.0
    """Percentage of requests whose trace is sampled, of those no trusted proxy has decided on."""


DEFAULTS: Final = ForwardSettings()


def trusts_nobody(_address: str) -> bool:
    """Tell whether an address is a proxy of ours, where there are none."""
    return False


class Forwarder:
    """Writes the heads of one client connection's requests anew, for upstreams."""

    __slots__ = (
        "_client",
        "_client_said",
        "_gateway",
        "_ids",
        "_is_trusted",
        "_loop",
        "_loop_service",
        "_peer",
        "_sample",
        "_scheme",
        "_via",
        "is_of_proxy",
        "is_sampled",
        "parent_id",
        "request_id",
        "span_id",
        "trace_id",
    )

    def __init__(
        self,
        *,
        peer: str,
        scheme: bytes,
        ids: RequestIds,
        is_trusted: Callable[[str], bool] = trusts_nobody,
        settings: ForwardSettings = DEFAULTS,
    ) -> None:
        """peer: the address connected to us, empty on a Unix socket. is_trusted: is it a proxy of ours."""
        self._peer = peer
        self._scheme = scheme
        self._ids = ids
        self._is_trusted = is_trusted
        self._gateway = settings.gateway
        self._via = settings.via
        self._sample = settings.sample
        self.is_of_proxy = is_trusted(peer)
        """Whether the peer is a proxy of ours, who brings the requests of many clients."""
        self._client: ClientInfo | None = None
        """Of the last request: a peer that is believed nothing is the same for every request to one host."""
        self._client_said: dict[bytes, bytes] | None = None
        """The fields of a proxy's request that it was understood from."""
        self._loop_service = ""
        self._loop = b""
        """Our CDN-Loop line for that service."""
        self.request_id = b""
        """Of the request that was identified last; the same holds for what follows."""
        self.trace_id = b""
        self.span_id = b""
        """Of the attempt that is made for it: what an upstream takes for its parent."""
        self.parent_id = b""
        """The client's own span; empty: the trace begins here."""
        self.is_sampled = False
        """Whether the trace is to be recorded."""

    def client_of(self, request: RequestReader) -> ClientInfo:
        """Return who a request comes from."""
        special, client = request.special, self._client
        if self.is_of_proxy:
            if client is None or self._client_said is not special:
                self._client_said = special
                client = self._client = proxied_client(special, self._peer, self._scheme, self._is_trusted)
            return client
        host = special.get(b"host")
        if client is None or client.host != (b"" if host is None else host):
            client = self._client = direct_client(special, self._peer, self._scheme)
        return client

    def identify(self, request: RequestReader) -> None:
        """Give a request its ids: its own ones as far as they are sound, else new ones."""
        special, made = request.special, self._ids.next()
        given = special.get(b"x-request-id")
        self.trace_id = self.request_id = made[:TRACE_DIGITS]
        if given is not None and (
            (given.isalnum() and len(given) <= 128) or _REQUEST_ID.fullmatch(given) is not None
        ):  # letters and digits alone are what most are
            self.request_id = given
        self.span_id = made[TRACE_DIGITS:]
        self.parent_id = b""
        sample = self._sample
        self.is_sampled = sample > 0.0 and random() * 100.0 < sample
        parent = special.get(b"traceparent")
        if parent is not None:
            self._join(usual_parent(parent) if request.is_traced else parsed_parent(parent))

    def _join(self, parent: tuple[bytes, bytes, bool] | None) -> None:
        """Take the request for a part of the trace its client names."""
        if parent is None:
            return
        self.trace_id, self.parent_id, is_sampled = parent
        if self.is_of_proxy:  # anyone else would decide for us what is recorded
            self.is_sampled = is_sampled

    def renewed(self, head: bytes) -> bytes:
        """Return the head for another attempt: another span of the same trace."""
        before, self.span_id = self.span_id, self.new_span()
        return head.replace(before, self.span_id, 1)

    def new_span(self) -> bytes:
        """Return an id for another span."""
        return self._ids.next()[TRACE_DIGITS:]

    def head(self, request: RequestReader, route: Route | None, authority: bytes) -> bytes:
        """Return the head to send. authority: the Host of a request without one (HTTP/1.0)."""
        if request.nominated:
            for name in request.nominated:  # RFC 9110 §7.6.1; those we need are kept elsewhere
                request.drop(name)
        if request.has_claims and not self.is_of_proxy:
            for name in {plain_name(each) for each, _ in request.pairs()}:
                if is_claim(name):
                    request.drop(name)
        take_session(request)
        self.identify(request)
        special = request.special
        host = special.get(b"host")
        pieces = [
            request.method,
            b" ",
            _target(request, route),
            b" HTTP/1.1\r\nHost: ",
            authority if host is None else host,
            CRLF,
            request.block,
            self.client_of(request).fields,
            self._hops(request, route.service.name if route is not None else ""),
            b"X-Request-ID: ",
            self.request_id,
            b"\r\ntraceparent: 00-",
            self.trace_id,
            b"-",
            self.span_id,
            b"-01\r\n" if self.is_sampled else b"-00\r\n",
        ]
        if self.parent_id and b"tracestate" in special:
            state = sound_state(special[b"tracestate"])
            if state:
                pieces += (b"tracestate: ", state, CRLF)
        if b"content-length" in special:
            pieces += (b"Content-Length: ", _in_digits(special[b"content-length"]), CRLF)
        if not request.is_usual:
            self._add_unusual(pieces, request)
        pieces.append(CRLF)
        return b"".join(pieces)

    def _hops(self, request: RequestReader, service: str) -> bytes:
        """Return the fields that say where a request has been."""
        if service != self._loop_service:
            own_loop = entry(self._gateway, service) if self._gateway and service else b""
            self._loop_service, self._loop = service, _appended(b"CDN-Loop: ", b"", own_loop)
        special = request.special
        if not self._via and (request.is_usual or b"cdn-loop" not in special):
            return _appended(b"Via: ", special.get(b"via", b""), b"") + self._loop
        own_via = (VIA_10 if request.http10 else VIA) if self._via else b""
        own_loop = entry(self._gateway, service) if self._gateway and service else b""
        return _appended(b"Via: ", special.get(b"via", b""), own_via) + _appended(
            b"CDN-Loop: ", special.get(b"cdn-loop", b""), own_loop
        )

    def _add_unusual(self, pieces: list[bytes], request: RequestReader) -> None:
        """Add chunks, and the fields of the client's connection that go on in our own words."""
        special = request.special
        if request.length == CHUNKED_BODY:
            pieces += (CHUNKED, announced(special.get(b"trailer", b"")))
        if request.expects_continue and request.length:
            pieces.append(b"Expect: 100-continue\r\n")
        if b"max-forwards" in special:
            pieces += (b"Max-Forwards: ", special[b"max-forwards"], CRLF)
        if request.upgrade:
            pieces += (b"Connection: Upgrade\r\nUpgrade: ", request.upgrade, CRLF)
        elif b"te" in special and b"trailers" in special[b"te"].lower():
            pieces.append(b"Connection: TE\r\nTE: trailers\r\n")


def _target(request: RequestReader, route: Route | None) -> bytes:
    """Return the target a service gets: the client's own bytes, less the route's prefix if it says so."""
    raw = request.raw_path
    prefix = route.path if route is not None and route.strip_prefix else ""
    if not prefix and request.is_usual:  # the codec has read it: there are no dot segments in it
        return request.target
    if raw == b"*":
        return b"*"
    if not prefix and raw is request.path:  # its own normal form
        return raw + request.query
    return sent_path(raw, prefix) + request.query


def _in_digits(length: bytes) -> bytes:
    """Return a length without zeros in front."""
    return length if length[0] != _ZERO else length.lstrip(b"0") or b"0"


def _appended(name: bytes, before: bytes, own: bytes) -> bytes:
    """Return a field's line, if there is anything to say in it."""
    if not before and not own:
        return b""
    return b"".join((name, before, b", " if before and own else b"", own, CRLF))
