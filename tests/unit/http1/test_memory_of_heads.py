"""Readers remember the last head, and the shapes of heads, to read less: that must never show.

Seeded mutations of heads that share fields go to one reader after the other, and to a fresh one each: both
must read the same, whatever came before.
"""

from random import Random
from typing import Any, Final

import pytest

from gateway.errors import GatewayError
from gateway.http1.request import RequestReader
from gateway.http1.response import ResponseReader

COMMON: Final = b"Host: h\r\nAccept: x\r\n\r\n"
REQUESTS: Final = (
    b"GET /a HTTP/1.1\r\n" + COMMON,
    b"POST /b?c HTTP/1.1\r\n" + COMMON,
    b"GET /c HTTP/1.0\r\n" + COMMON,
    b"GET http://h/d HTTP/1.1\r\n" + COMMON,
    b"PUT /e HTTP/1.1\r\nContent-Length: 41\r\n" + COMMON,
    # What is read as a body of this length ends in front of the hidden GET.
    b"PUT /e HTTP/1.1\r\nContent-Length: 41\r\nX: yGET /b HTTP/1.1\r\n" + COMMON,
    b"PUT /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + COMMON,
    b"GET /g HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
)
RESPONSES: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
)
SPICES: Final = (
    *(b"\r\n", b"\n", b" ", b"#", b"?", b"\r\n\r\n", b"\0"),
    b"Content-Length: 41\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
)


def spoilt(head: bytes, chance: Random) -> bytes:
    """Return `head` with up to three random changes, its end mostly left alone."""
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
        at = chance.randrange(len(head) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            head = head[:at] + chance.choice(SPICES) + head[at:]
        elif kind == 1:
            head = head[:at] + head[at + 1 :]
        elif kind == 2:
            head = head[:at] + bytes((chance.randrange(256),)) + head[at + 1 :]
        else:
            line = head.find(b"\r\n", at) + 2
            head = head[:line] + chance.choice(SPICES) + head[line:]
    return head


def read(reader: Any, head: bytes) -> tuple[object, ...]:
    """Return all that a reader says of `head`; an empty line behind it may be part of it or not."""
    try:
        used = reader.feed(head)
    except GatewayError as error:
        return (type(error).__name__,)
    if used < 0:
        return ("incomplete",)
    said = {name: getattr(reader, name) for name in PUBLIC if hasattr(reader, name)}
    return (head[used:].strip(b"\r\n"), repr(said), repr(sorted(reader.special.items())), reader.passed_on())


PUBLIC: Final = [
    name
    for name in dict.fromkeys((*RequestReader.__slots__, *ResponseReader.__slots__))
    if not name.startswith("_") and name not in ("serial", "rewritten")
]


@pytest.mark.parametrize(
    ("make", "heads"),
    [(lambda: RequestReader(4096, 50, 1024), REQUESTS), (ResponseReader, RESPONSES)],
    ids=["requests", "responses"],
)
def test_what_a_reader_has_read_before_does_not_show(make: Any, heads: tuple[bytes, ...]) -> None:
    chance = Random(1)
    reader = make()
    for _ in range(4000):
        head = spoilt(chance.choice(heads), chance)
        said = read(reader, head)
        assert said == read(make(), head), head
        if len(said) == 1:
            reader = make()
