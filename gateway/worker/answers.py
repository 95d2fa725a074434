"""An upstream's response heads, written anew for the client."""

from typing import Final

from gateway.http1.message import CHUNKED, CRLF, STATUS_LINES, date_line
from gateway.http1.response import CHUNKED_BODY, ResponseReader

EVENT_STREAM: Final = b"text/event-stream"


def whole_head(reader: ResponseReader, more: bytes, *, http10: bool) -> bytes:
    """Return the head of a response that came whole. more: fields for this client alone."""
    special = reader.special
    pieces = _start(reader)
    if reader.status != 204 and (length := special.get(b"content-length")) is not None:
        pieces += (b"Content-Length: ", length, CRLF)
    elif reader.length == CHUNKED_BODY and reader.status != 204 and not http10:
        pieces.append(CHUNKED)  # to HEAD, or a 304: what a GET would have got
    pieces += (more, CRLF)
    return b"".join(pieces)


def begun_head(reader: ResponseReader, more: bytes, *, rechunks: bool) -> bytes:
    """Return the head of a response whose body is still coming. rechunks: it goes on in chunks of ours."""
    pieces = _start(reader)
    if rechunks:
        pieces.append(CHUNKED)
    elif reader.length >= 0:
        pieces += (b"Content-Length: ", reader.special[b"content-length"], CRLF)
    pieces += (more, CRLF)
    return b"".join(pieces)


def interim_head(reader: ResponseReader) -> bytes:
    """Return a 1xx head (RFC 9110 §15.2)."""
    return b"".join((STATUS_LINES[reader.status], reader.passed_on(), CRLF))


def switching_head(reader: ResponseReader, protocol: bytes) -> bytes:
    """Return a 101's head (RFC 9110 §7.8)."""
    upgrade = (b"Connection: Upgrade\r\nUpgrade: ", protocol, CRLF, CRLF)
    return b"".join((STATUS_LINES[101], reader.passed_on(), *upgrade))


def is_event_stream(reader: ResponseReader) -> bool:
    """Tell whether a response is one that has no end to wait for."""
    content_type = reader.field(b"content-type")
    return content_type is not None and content_type.lower().startswith(EVENT_STREAM)


def _start(reader: ResponseReader) -> list[bytes]:
    date = reader.special.get(b"date")
    pieces = [STATUS_LINES[reader.status], reader.passed_on()]
    pieces += (date_line(),) if date is None else (b"Date: ", date, CRLF)
    return pieces
