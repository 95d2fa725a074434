"""Where a request's body ends, fed whole, byte by byte and with bytes to spare."""

import pytest

from gateway.errors import BadRequest, BodyTooLarge
from gateway.http1.incoming_body import IncomingBody
from gateway.http1.request import CHUNKED_BODY

CHUNKS = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX: 1\r\n\r\n"


def read(body: IncomingBody, data: bytes, step: int) -> tuple[bytes, bytes]:
    """Return the content, and what stands behind the body."""
    content = b""
    while data and not body.is_complete:
        piece, end = body.feed(data[:step])
        content += piece
        data = data[end:]
    return content, data


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_length_ends_the_body_and_leaves_what_follows(step: int) -> None:
    body = IncomingBody(5, 0)
    assert read(body, b"abcdeGET /", step) == (b"abcde", b"GET /")
    assert body.is_complete


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_the_last_chunk_ends_the_body_with_its_trailers(step: int) -> None:
    body = IncomingBody(CHUNKED_BODY, 5)
    assert read(body, CHUNKS + b"GET /", step) == (b"abcde", b"GET /")
    assert body.is_complete
    assert body.trailers == [(b"X", b"1")]


def test_a_length_beyond_the_limit_is_refused_before_a_byte_is_read() -> None:
    IncomingBody(5, 5)
    with pytest.raises(BodyTooLarge):
        IncomingBody(6, 5)


@pytest.mark.parametrize("step", [1, 1000])
def test_chunks_beyond_the_limit_are_refused(step: int) -> None:
    with pytest.raises(BodyTooLarge):
        read(IncomingBody(CHUNKED_BODY, 4), CHUNKS, step)


def test_what_is_no_chunk_is_the_clients_fault() -> None:
    with pytest.raises(BadRequest):
        IncomingBody(CHUNKED_BODY, 0).feed(b"zz\r\n")
