"""Request heads: the same reading however they come, and never more lenient than h11.

Known differences from h11, on purpose: we refuse what h11 takes (repeated Content-Length with one value, a
body's coding on HTTP/1.0, a Host that names no host, ambiguous paths, bare LF), never the reverse, but for
targets that hold more than ASCII: those are percent-encoded.
"""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, DownstreamError, HeadTooLarge, UriTooLong
from gateway.http1.request import RequestReader

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"GET /a?b HTTP/1.1",
        b"POST /%7e HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET  / HTTP/1.1",
        b"BREW / HTTP/1.1",
        b"GET / HTTP/2.0",
        b"OPTIONS * HTTP/1.1",
        b"GET http://x/y HTTP/1.1",
        b"GET /\xff HTTP/1.1",
    ]
)
FIELDS = st.sampled_from(
    [
        b"Host: h",
        b"host: H:80",
        b"Accept: */*",
        b"ACCEPT: a",
        b"X-A: 1",
        b"X-A:",
        b"X-A:\t1 \t",
        b"X A: 1",
        b"X-A : 1",
        b": 1",
        b" folded",
        b"X: \x01",
        b"X: a\rb",
        b"Content-Length: 3",
        b"Content-Length: 03",
        b"Content-Length: +3",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: xchunked",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"Connection: upgrade",
    ]
)


def read(data: bytes, step: int) -> tuple[object, ...] | str:
    """Return what a reader makes of `data`, or how it refuses it."""
    reader = RequestReader(4096, 50, 1024)
    at = 0
    try:
        while at < len(data):
            used = reader.feed(data[at : at + step])
            at += step if used < 0 else used
            if used >= 0:
                break
        else:
            return "incomplete"
    except DownstreamError as error:
        return type(error).__name__
    lines = reader.block
    values = (reader.method, reader.target, reader.path, reader.query, reader.host, dict(reader.special))
    return (*values, lines, reader.length, reader.keep_alive, reader.http10, reader.upgrade, at)


def head(line: bytes, fields: list[bytes]) -> bytes:
    return b"\r\n".join([line, b"Host: h", *fields, b"", b""])


@given(
    LINES,
    st.lists(FIELDS, max_size=6),
    st.integers(1, 40),
    st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"abc"]),
)
def test_head_reads_the_same_whole_in_pieces_and_with_more_behind_it(
    line: bytes, fields: list[bytes], step: int, surplus: bytes
) -> None:
    data = head(line, fields)
    whole = read(data, len(data))
    assert read(data, step) == whole
    assert read(data, 1) == whole
    assert read(data + surplus, len(data + surplus)) == whole


@given(LINES, st.lists(FIELDS, max_size=6))
def test_nothing_is_accepted_that_h11_refuses(line: bytes, fields: list[bytes]) -> None:
    data = head(line, fields)
    ours = read(data, len(data))
    if isinstance(ours, str):
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data.replace(b"\xff", b"~"))
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == ours[0]
    assert event.target == ours[1].replace(b"\xff", b"~")  # type: ignore[attr-defined]


@given(st.lists(st.tuples(LINES, st.lists(FIELDS, max_size=3)), min_size=2, max_size=5))
def test_reader_that_has_read_others_reads_like_a_fresh_one(heads: list[tuple[bytes, list[bytes]]]) -> None:
    """Guards against anything that one request leaves to the next."""
    reader = RequestReader(4096, 50, 1024)
    for line, fields in (*heads, *heads[-1:], *heads):
        data = head(line, fields)
        fresh = RequestReader(4096, 50, 1024)
        try:
            assert fresh.feed(data) == len(data)
        except DownstreamError as error:
            try:
                reader.feed(data)
            except type(error):
                pass
            else:
                raise AssertionError(f"{data!r} was accepted the second time") from error
            reader = RequestReader(4096, 50, 1024)
            continue
        assert reader.feed(data) == len(data)
        for name in (
            "method",
            "target",
            "path",
            "query",
            "host",
            "special",
            "length",
            "keep_alive",
            "http10",
            "upgrade",
        ):
            assert getattr(reader, name) == getattr(fresh, name), name
        assert reader.block == fresh.block


def test_field_that_was_dropped_is_there_again_in_the_next_head() -> None:
    """Guards against a repeated head that has lost its field: a tester's second request would go astray."""
    reader = RequestReader(4096, 50, 1024)
    for target in (b"/", b"/", b"/other"):
        head = b"GET %b HTTP/1.1\r\nHost: h\r\nX-Version: 2\r\nAccept: a\r\n\r\n" % target
        assert reader.feed(head) == len(head)
        assert reader.field(b"x-version") == b"2"
        reader.drop(b"x-version")
        assert reader.field(b"x-version") is None
        assert reader.field(b"accept") == b"a"


def test_fields_seen_before_do_not_hide_a_body_announced_in_front_of_them() -> None:
    """A reader that took what follows for that body would read a request hidden in a field, with no body."""
    reader = RequestReader(4096, 50, 1024)
    reader.feed(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
    start = b"GET /a HTTP/1.1\r\nContent-Length: 41\r\nX: y"
    reader.feed(start + b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
    assert len(start) == 41
    assert (reader.target, reader.length) == (b"/a", 41)


@pytest.mark.parametrize(
    "method", [b"LIST", b"LABEL", b"VERSION-CONTROL", b"BAN", b"RPC_IN_DATA", b"BITS_POST", b"get", b"!"]
)
@pytest.mark.parametrize("step", [1, 1000])
def test_any_token_is_a_method(method: bytes, step: int) -> None:
    """RFC 9110 §9.1. llhttp knows a few dozen, and refuses the others."""
    data = b"%b /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n" % method
    reader = RequestReader(4096, 50, 1024)
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    assert (reader.method, reader.path, reader.length, reader.held) == (method, b"/a", 3, b"")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"G@T", BadRequest),
        (b"\x16\x03\x01", BadRequest),
        (b"GET /\x7f", BadRequest),
        (b"GET  ", BadRequest),
        (b" GET", BadRequest),
        (b"GET /\n", BadRequest),
        (b"GET /\rX", BadRequest),
        (b"GET /" + b"a" * 1024, UriTooLong),
        (b"M" * 5000, HeadTooLarge),
        (b"GET / HTTP/1.1\r\nX\r\n", BadRequest),
    ],
)
def test_what_can_become_no_head_is_refused_before_its_end(data: bytes, error: type[Exception]) -> None:
    """Guards against garbage that would wait for the time a head may take."""
    with pytest.raises(error):
        RequestReader(4096, 50, 1024).feed(data)


def test_raw_utf8_in_a_target_is_percent_encoded() -> None:
    reader = RequestReader(4096, 50, 1024)
    reader.feed("GET /Zürich/%7e?q=Zürich HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert reader.raw_path == b"/Z%C3%BCrich/%7e"
    assert reader.path == b"/Z%C3%BCrich/~"
    assert reader.query == b"?q=Z%C3%BCrich"


@pytest.mark.parametrize(
    ("protocols", "kept"),
    [(b"tcp", b"tcp"), (b"h2c", b""), (b"H2C, tcp", b"tcp"), (b"h2c,websocket", b"websocket")],
)
@pytest.mark.parametrize("body", [b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_any_protocol_but_h2c_may_be_upgraded_to(protocols: bytes, kept: bytes, body: bytes) -> None:
    reader = RequestReader(4096, 50, 1024)
    reader.feed(
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n" % (protocols, body)
    )
    assert reader.upgrade == kept


@pytest.mark.parametrize("name", [b"x_real_ip", b"X-Real_IP", b"x-real-ip"])
def test_field_is_dropped_with_all_that_a_service_might_take_for_it(name: bytes) -> None:
    reader = RequestReader(4096, 50, 1024)
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\n%b: 6.6.6.6\r\nX: y\r\n\r\n" % name)
    assert reader.passes_on(b"x-real-ip")
    reader.drop(b"x-real-ip")
    assert reader.block == b"X: y\r\n"
