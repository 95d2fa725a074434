"""Fields behind a body: which of them are passed on, and how they are announced (RFC 9110 §6.5, §6.6.2)."""

from typing import Final

from gateway.http1.heads import plain_name
from gateway.http1.message import HOP_BY_HOP, members_of
from gateway.http1.request import is_claim

_BARRED: Final = HOP_BY_HOP | frozenset(
    (
        b"host",
        b"content-length",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"expect",
        b"max-forwards",
        b"cache-control",
        b"range",
        b"if-match",
        b"if-none-match",
        b"forwarded",
        b"via",
        b"cdn-loop",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
        b"date",
        b"location",
        b"retry-after",
        b"vary",
        b"www-authenticate",
    )
)
"""Fields that frame, route, authenticate or control a message: never in a trailer (RFC 9110 §6.5.1)."""


def may_trail(name: bytes) -> bool:
    """Tell whether a field may stand in a trailer, whatever its spelling: some services merge them in.

    What a trusted proxy says of its client it says in the head.
    """
    plain = plain_name(name)
    return not (plain in _BARRED or plain == b"proxy" or plain.startswith(b"proxy-") or is_claim(plain))


def announced(trailer: bytes) -> bytes:
    """Return the line that announces trailers, of those we pass on; empty: none are."""
    names = [name for name in members_of(trailer) if may_trail(name)]
    return b"Trailer: %b\r\n" % b", ".join(names) if names else b""
