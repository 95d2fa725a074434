"""What is asked, and how an answer is read: bytes in, result out."""

import asyncio

import pytest

from gateway.errors import BadRequest, BadResponse, ResetMidway
from gateway.http1.fetch import FetchResult, _Answer, _parse_url, _request


def read(*pieces: bytes, method: str = "GET", eof: bool = False, max_bytes: int = 1000) -> FetchResult:
    """Feed an answer's pieces; return the result, or raise what ended it. Fails if it is still incomplete."""

    async def run() -> FetchResult:
        answer = _Answer(asyncio.get_running_loop(), method, max_bytes)
        answer.sent = True
        for piece in pieces:
            answer.data_received(piece)
        if eof:
            answer.eof_received()
        assert answer.done.done(), "the answer is not complete"
        return answer.done.result()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a", (False, "a", 80, "", "a", "/")),
        ("https://A.example/x?y=1", (True, "a.example", 443, "", "a.example", "/x?y=1")),
        ("http://[::1]:81/x", (False, "::1", 81, "", "[::1]:81", "/x")),
        ("unix:/run/s", (False, "", 0, "/run/s", "localhost", "/")),
        ("unix:///run/s", (False, "", 0, "/run/s", "localhost", "/")),
    ],
)
def test_url_is_taken_apart(url: str, expected: tuple[object, ...]) -> None:
    assert tuple(_parse_url(url)) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a",
        "http://",
        "http://u:p@a",
        "http://a:99999",
        "http://a:x",
        "unix:run/s",
        "a",
        "http://[::1",
        "http://a b/",
        "http://例.jp/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        _parse_url(url)


def test_path_is_escaped_so_that_it_cannot_end_the_line() -> None:
    head = _request(_parse_url("http://a"), "GET", "/a b\r\nX: y/ü%20", (), b"")
    assert head.startswith(b"GET /a%20b%0D%0AX:%20y/%C3%BC%20 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GE T", "/", ("a", "b")),
        ("GET", "x", ("a", "b")),
        ("GET", "/", ("a b", "c")),
        ("GET", "/", ("a", "b\r\nc")),
    ],
)
def test_what_would_break_the_head_is_refused(method: str, path: str, field: tuple[str, str]) -> None:
    with pytest.raises(BadRequest):
        _request(_parse_url("http://a"), method, path, (field,), b"")


def test_body_has_a_length_and_callers_cannot_frame() -> None:
    fields = (("Content-Length", "99"), ("Transfer-Encoding", "chunked"), ("Host", "b"))
    head, _, body = _request(_parse_url("http://a"), "POST", "/", fields, b"xyz").partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[1:] == [
        b"User-Agent: gateway",
        b"Host: b",
        b"Content-Length: 3",
        b"Connection: close",
    ]
    assert body == b"xyz"


ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"a"),
]


@pytest.mark.parametrize(("answer", "body"), ANSWERS)
def test_answer_is_the_same_whole_and_byte_by_byte(answer: bytes, body: bytes) -> None:
    for pieces in ((answer,), tuple(answer[i : i + 1] for i in range(len(answer)))):
        result = read(*pieces)
        assert (result.status, result.body) == (200, body)
        assert "link" not in result.fields


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_answer_to_head_has_no_body(framing: bytes) -> None:
    assert read(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n", method="HEAD").body == b""


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_bodiless_statuses_are_complete_at_their_head(status: bytes) -> None:
    assert read(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n").body == b""


def test_trailers_do_not_join_the_head() -> None:
    result = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n")
    assert "x-t" not in result.fields


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_no_response_is_a_bad_response(answer: bytes) -> None:
    with pytest.raises(BadResponse):
        read(answer)


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_end_of_connection_does_not_complete_a_framed_body(framing: bytes) -> None:
    with pytest.raises(ResetMidway):
        read(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n1", eof=True)


def test_answer_is_cut_at_the_bound() -> None:
    result = read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", max_bytes=4)
    assert (result.body, result.truncated) == (b"1234", True)
    result = read(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1234", max_bytes=4)
    assert (result.body, result.truncated) == (b"1234", False)
