"""An upstream's response heads, written anew for the client."""

import re
from typing import Final

from gateway.http1.message import CHUNKED, CRLF, STATUS_LINES, date_line, members_of
from gateway.http1.response import CHUNKED_BODY, ResponseReader
from gateway.http1.trailers import announced

OUTCOME: Final = b"x-outcome"
_FAILED: Final = re.compile(rb"[ \t]*([A-Za-z0-9._-]{1,64})[ \t]*=[ \t]*failed[ \t]*", re.IGNORECASE)
EVENT_STREAM: Final = b"text/event-stream"


def whole_response(reader: ResponseReader, more: bytes, body: bytes, *, http10: bool) -> bytes:
    """Return a response that came whole. more: fields for this client alone."""
    # To HEAD, or in a 304, it says what a GET would have got.
    is_chunked = reader.length == CHUNKED_BODY and reader.status != 204 and not http10
    return _head(reader, more, body, is_chunked=is_chunked)


def begun_head(reader: ResponseReader, more: bytes, *, rechunks: bool) -> bytes:
    """Return the head of a response whose body is still coming. rechunks: it goes on in chunks of ours."""
    return _head(reader, more, b"", is_chunked=rechunks)


def _head(reader: ResponseReader, more: bytes, body: bytes, *, is_chunked: bool) -> bytes:
    """Return a head and what follows at once."""
    pieces = [STATUS_LINES[reader.status], reader.block]
    if not reader.has_date:
        pieces.append(date_line())
    if is_chunked:
        pieces += (CHUNKED, announced(reader.special.get(b"trailer", b"")))
    if reader.status == 426:
        pieces.append(_wanted_upgrade(reader))
    pieces += (more, CRLF, body)
    return b"".join(pieces)


def _wanted_upgrade(reader: ResponseReader) -> bytes:
    """Return the lines that say what to upgrade to (RFC 9110 §15.5.22); h2c is not passed on."""
    protocols = [each for each in members_of(reader.special.get(b"upgrade", b"")) if each.lower() != b"h2c"]
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % b", ".join(protocols) if protocols else b""


def interim_head(reader: ResponseReader) -> bytes:
    """Return a 1xx head (RFC 9110 §15.2)."""
    return b"".join((STATUS_LINES[reader.status], reader.block, CRLF))


def switching_head(reader: ResponseReader, protocol: bytes) -> bytes:
    """Return a 101's head (RFC 9110 §7.8)."""
    upgrade = (b"Connection: Upgrade\r\nUpgrade: ", protocol, CRLF, CRLF)
    return b"".join((STATUS_LINES[101], reader.block, *upgrade))


def failed_outcome(value: bytes) -> str | None:
    """Return the error kind of an `X-Outcome: NAME=failed` among its members; None if none failed."""
    for member in value.split(b","):
        failed = _FAILED.fullmatch(member)
        if failed is not None:
            return f"outcome:{failed[1].decode('ascii')}"
    return None


def is_event_stream(reader: ResponseReader) -> bool:
    """Tell whether a response is one that has no end to wait for."""
    content_type = reader.field(b"content-type")
    return content_type is not None and content_type.lower().startswith(EVENT_STREAM)
