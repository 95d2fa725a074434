"""The chunked coding: decoded the same however it is cut, and like h11 decodes it."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.chunked import ChunkedDecoder, ChunkError, chunk, last_chunk


def decode(body: bytes, step: int) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Return content, what is behind the body, and trailers; fed in pieces of `step` bytes."""
    decoder, content, at = ChunkedDecoder(), b"", 0
    while at < len(body) and not decoder.done:
        pieces, used = decoder.feed(body[at : at + step])
        content += b"".join(pieces)
        at += used
    assert decoder.done
    return content, body[at:], decoder.trailers


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 30), st.binary(max_size=9))
def test_what_is_encoded_is_decoded_however_it_is_cut(pieces: list[bytes], step: int, surplus: bytes) -> None:
    body = b"".join(chunk(each) for each in pieces) + last_chunk([(b"X-A", b"1")])
    assert decode(body + surplus, step) == (b"".join(pieces), surplus, [(b"X-A", b"1")])


PARTS = st.sampled_from(
    [
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"\r\n",
        b"A: b\r\n",
        b"1;e=f\r\nx\r\n",
        b"g\r\n",
        b"\n",
        b"3\r\nab\r\n",
        b" ",
        b"00\r\n",
        b"fffffffffffffffff\r\n",
    ]
)


@given(st.lists(PARTS, max_size=6), st.integers(1, 9))
def test_nothing_is_accepted_that_h11_refuses(parts: list[bytes], step: int) -> None:
    body = b"".join(parts) + b"0\r\n\r\n"
    try:
        content, _, _ = decode(body, step)
    except ChunkError:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    connection.next_event()
    seen = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        seen += event.data
    assert seen == content


@pytest.mark.parametrize("size", [b"0x1", b"+1", b"-1", b" 1", b"", b"1_0", b"1" * 16, b"g"])
def test_size_must_be_plain_hexadecimal(size: bytes) -> None:
    with pytest.raises(ChunkError):
        ChunkedDecoder().feed(size + b"\r\n")


def test_extensions_are_bounded_over_the_whole_body() -> None:
    decoder = ChunkedDecoder()
    with pytest.raises(ChunkError):
        for _ in range(100):
            decoder.feed(b"1;" + b"x" * 1000 + b"\r\na\r\n")


def test_endless_line_is_refused_before_its_end() -> None:
    with pytest.raises(ChunkError):
        ChunkedDecoder().feed(b"1;" + b"x" * 5000)
