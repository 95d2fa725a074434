"""Requests the gateway answers itself because they may go no further: OPTIONS and TRACE with Max-Forwards."""

from collections.abc import Iterable
from typing import Final

from gateway.http1.message import CRLF, response_head
from gateway.http1.server import ServerProtocol

ALLOWED: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"
_SECRETS: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization"))


def end(client: ServerProtocol, asking: Iterable[bytes]) -> tuple[list[bytes], bytes] | None:
    """Count a hop off Max-Forwards. Returns our answer, its head and its content, if none was left.

    asking: fields that hold secrets of ours: they are not echoed.
    """
    hops = hops_left(client)
    if hops is None:
        return None
    if hops:
        client.reader.special[b"max-forwards"] = b"%d" % (hops - 1)
        return None
    for name in asking:
        client.reader.drop(name)
    return answer(client)


def hops_left(client: ServerProtocol) -> int | None:
    """Return how many hops are left, or None if the request does not say (RFC 9110 §7.6.2)."""
    value = client.reader.special.get(b"max-forwards", b"")
    if client.reader.method not in (b"OPTIONS", b"TRACE") or not value.isdigit() or len(value) > 9:
        return None
    return int(value)


def answer(client: ServerProtocol) -> tuple[list[bytes], bytes]:
    """Return the head and the content with which the last recipient answers (RFC 9110 §9.3.7, §9.3.8)."""
    if client.reader.method == b"OPTIONS":
        return response_head(200, (("Allow", ALLOWED),)), b""
    request = client.reader
    kept = [b"%b: %b\r\n" % pair for pair in request.pairs() if pair[0].lower() not in _SECRETS]
    echo = b"TRACE %b HTTP/1.1\r\n%b%b" % (request.target, b"".join(kept), CRLF)
    return response_head(200, (("Content-Type", "message/http"),)), echo
