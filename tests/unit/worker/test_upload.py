"""A body that comes with its head goes up with it: each write is a system call, and a packet of its own."""

import asyncio
from typing import Any

import pytest

from bench.path import Bare

POST = b"POST /a HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = POST + b"Content-Length: 3\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(data)


def contents(*pieces: bytes) -> list[bytes]:
    """Return what of a request was written upstream at a time, without the head."""
    bare, wire = Bare(), Wire()
    for upstream in bare.upstreams.values():
        upstream.transport = wire
    for piece in pieces:
        bare.client.data_received(piece)
    assert wire.writes[0].startswith(b"POST /a HTTP/1.1\r\nHost: h\r\n")
    return [wire.writes[0].partition(b"\r\n\r\n")[2], *wire.writes[1:]]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([SIZED + b"abc"], [b"abc"]),
        ([SIZED, b"abc"], [b"", b"abc"]),
        ([SIZED + b"a", b"bc"], [b"a", b"bc"]),
        ([CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"], [b"3\r\nabc\r\n0\r\n\r\n"]),
        ([CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"], [b"3\r\nabc\r\n0\r\n\r\n"]),
        ([CHUNKED + b"0\r\n\r\n"], [b"0\r\n\r\n"]),
        ([CHUNKED + b"3\r\nabc\r\n", b"0\r\n\r\n"], [b"3\r\nabc\r\n", b"0\r\n\r\n"]),
        ([CHUNKED + b"3\r\nabc\r\n0\r\nX: 1\r\n\r\n"], [b"3\r\nabc\r\n", b"0\r\nX: 1\r\n\r\n"]),
    ],
)
def test_what_came_with_the_head_is_written_with_it(pieces: list[bytes], expected: list[bytes]) -> None:
    assert contents(*pieces) == expected


def test_what_is_pipelined_behind_a_body_is_no_part_of_it() -> None:
    assert contents(SIZED + b"abcGET / HTTP/1.1\r\n") == [b"abc"]
