"""The words both sides of a proxy share: field names, status lines, dates, problems, options."""

import json
import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from gateway.errors import GatewayError

CRLF: Final = b"\r\n"
HEAD_END: Final = b"\r\n\r\n"
CHUNK_END: Final = b"0\r\n\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
CONNECTION_CLOSE: Final = b"Connection: close\r\n"
CONNECTION_KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

MAX_LENGTH: Final = 2**63 - 1
"""The longest Content-Length: in the 64 bits of a peer, a longer one would frame another message."""

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FIELD_VALUE: Final = re.compile(rb"[\t \x21-\x7e\x80-\xff]*")
"""What a field value may hold (RFC 9110 §5.5): no control character but the tab."""

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
"""Fields of one connection, never passed on (RFC 9110 §7.6.1, RFC 7540 §3.2.1)."""


def reason_of(status: int) -> str:
    """Return the standard reason phrase, or nothing for a status without one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


STATUS_LINES: Final = [f"HTTP/1.1 {status} {reason_of(status)}\r\n".encode() for status in range(1000)]
"""Indexed by status. An upstream's own reason phrase is not passed on: it has no meaning (RFC 9112 §4)."""


def has_no_body(method: bytes, status: int) -> bool:
    """Tell whether a response ends with its head whatever its fields say (RFC 9112 §6.3, cases 1 and 2)."""
    return method == b"HEAD" or status == 204 or status == 304 or status < 200


def members_of(value: bytes) -> list[bytes]:
    """Return the members of a list of tokens, without empty ones (RFC 9110 §5.6.1)."""
    return [member for part in value.split(b",") if (member := part.strip(b" \t"))]


def options_of(connection: bytes) -> frozenset[bytes]:
    """Return the lower-case connection options of a Connection field (RFC 9110 §7.6.1)."""
    return frozenset(members_of(connection.lower()))


class _DateLine:
    """The Date field, made once a second (RFC 9110 §6.6.1)."""

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def __call__(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._line


date_line: Final = _DateLine()


def response_head(status: int, fields: Iterable[tuple[str, str]]) -> list[bytes]:
    """Return the pieces of a head of our own, up to where framing and connection fields follow.

    Raises ValueError for a field that RFC 9110 §5 does not allow: a handler must not be able to split a
    response.
    """
    pieces = [STATUS_LINES[status], date_line()]
    for name, value in fields:
        raw_name, raw_value = name.encode("latin-1"), value.encode("latin-1")
        if not TOKEN.fullmatch(raw_name) or not FIELD_VALUE.fullmatch(raw_value):
            raise ValueError(f"not a field: {name!r}: {value!r}")
        pieces += (raw_name, b": ", raw_value, CRLF)
    return pieces


def length_field(status_line: bytes, body: bytes) -> bytes:
    """Return the Content-Length of a whole answer; nothing where it may not stand (RFC 9110 §8.6): a 204 has
    none, and what a 304 would have had is not known here.
    """
    return b"" if status_line[9:12] in (b"204", b"304") else b"Content-Length: %d\r\n" % len(body)


def problem(error: GatewayError) -> bytes:
    """Return the body of an error as application/problem+json (RFC 9457)."""
    document = {"type": "about:blank", "title": error.title, "status": error.status, "detail": str(error)}
    return json.dumps(document, ensure_ascii=False).encode()


def final_answer(error: GatewayError) -> bytes:
    """Return a whole answer of our own, after which the connection is closed."""
    head, body = problem_response(error)
    return b"".join((*head, b"Content-Length: %d\r\n" % len(body), CONNECTION_CLOSE, CRLF, body))


def problem_response(
    error: GatewayError, fields: Iterable[tuple[str, str]] = ()
) -> tuple[list[bytes], bytes]:
    """Return an error's head, up to framing, and its body."""
    head = response_head(error.status, (("Content-Type", "application/problem+json"), *fields))
    return head, problem(error)
