"""Request heads: the same reading however they come, and never more lenient than h11.

Known differences from h11, on purpose: we refuse what h11 takes (repeated Content-Length with one value, a
body's coding on HTTP/1.0, unknown methods, a Host that names no host, ambiguous paths, bare LF), never the
reverse.
"""

import h11
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError
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
    lines = reader.passed_on()
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
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == ours[0]
    assert event.target == ours[1]


@given(st.lists(st.tuples(LINES, st.lists(FIELDS, max_size=3)), min_size=2, max_size=5))
def test_reader_that_has_read_others_reads_like_a_fresh_one(heads: list[tuple[bytes, list[bytes]]]) -> None:
    """Guards the memory of the last head: a repeated one, or repeated fields, must change nothing."""
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
        assert reader.passed_on() == fresh.passed_on()


def test_same_fields_with_another_target_are_the_same_request_but_for_that() -> None:
    reader = RequestReader(4096, 50, 1024)
    reader.feed(b"GET /a HTTP/1.1\r\nHost: h\r\nAccept: x\r\n\r\n")
    first = reader.serial
    reader.feed(b"POST /b?c HTTP/1.1\r\nHost: h\r\nAccept: x\r\n\r\n")
    assert (reader.method, reader.path, reader.query) == (b"POST", b"/b", b"?c")
    assert reader.passed_on() == b"Accept: x\r\n"
    assert reader.serial != first


def test_repeated_head_with_a_field_of_the_clients_own_is_not_read_again() -> None:
    reader = RequestReader(4096, 50, 1024)
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX-Api-Key: 1\r\n\r\n"
    assert reader.feed(head) == len(head)
    serial = reader.serial
    assert reader.feed(head) == len(head)
    assert reader.serial == serial
    assert reader.field(b"x-api-key") == b"1"


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
