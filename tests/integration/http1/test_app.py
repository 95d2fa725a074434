"""The application server: a handler's answers, on a real connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop

from gateway.errors import NoRoute
from gateway.http1.app import App, Request, Response


async def ask(app: App, data: bytes, *, until_close: bool = True) -> bytes:
    server = await asyncio.get_running_loop().create_server(app.protocol_factory, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        return answer
    finally:
        server.close()
        await app.close(5)


def run(app: App, data: bytes) -> bytes:
    return uvloop.run(ask(app, data))


async def echo(request: Request) -> Response:
    text = f"{request.method} {request.path}?{request.query} {request.fields['x-a']} ".encode()
    return Response(200, [("X-B", "2")], text + request.body)


def test_handler_gets_the_whole_request_and_its_answer_is_framed() -> None:
    head = b"POST /a/../b?c=d HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    answer = run(App(echo, name="t"), head + b"xyz")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
    assert b"\r\nX-B: 2\r\nContent-Length: 17\r\nConnection: close\r\n\r\nPOST /b?c=d 1 xyz" in answer


def test_pipelined_requests_are_answered_in_order() -> None:
    one = b"GET /%d HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n%b\r\n"
    answer = run(
        App(echo, name="t"),
        b"".join(one % (n, b"Connection: close\r\n" if n == 9 else b"") for n in range(10)),
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 10
    at = [answer.index(b"GET /%d" % n) for n in range(10)]
    assert at == sorted(at)


def test_body_over_the_limit_is_413_chunked_or_not() -> None:
    start = b"POST / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n"
    sized = run(App(echo, name="t", body_bytes=4), start + b"Content-Length: 5\r\n\r\nabcde")
    chunks = run(
        App(echo, name="t", body_bytes=4),
        start + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    )
    assert sized.startswith(b"HTTP/1.1 413 ")
    assert chunks.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_comes_byte_by_byte_for_too_long_is_408() -> None:
    async def trickle(app: App) -> bytes:
        server = await asyncio.get_running_loop().create_server(app.protocol_factory, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nContent-Length: 1000000\r\n\r\n")
        answer = asyncio.ensure_future(reader.read())
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait([answer], timeout=0.01)
        writer.close()
        server.close()
        await app.close(5)
        return answer.result()

    answer = uvloop.run(asyncio.wait_for(trickle(App(echo, name="t", body_s=0.1)), 20))
    assert answer.startswith(b"HTTP/1.1 408 ") and b"did not come within 0.1 s" in answer
    assert b"Connection: close" in answer


def test_gateway_error_of_a_handler_is_a_problem_document() -> None:
    async def refuse(request: Request) -> Response:
        raise NoRoute("nothing here")

    answer = run(App(refuse, name="t"), b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"application/problem+json" in answer
    assert b'"detail": "nothing here"' in answer


def test_iterator_is_streamed_chunked_and_to_http10_until_the_close() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(3):
            yield b"piece%d" % n
            await asyncio.sleep(0)

    async def stream(request: Request) -> Response:
        return Response(200, [("Content-Type", "text/event-stream")], pieces())

    new = run(App(stream, name="t"), b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert new.endswith(b"6\r\npiece0\r\n6\r\npiece1\r\n6\r\npiece2\r\n0\r\n\r\n")
    old = run(App(stream, name="t"), b"GET / HTTP/1.0\r\n\r\n")
    assert old.endswith(b"\r\n\r\npiece0piece1piece2")
    assert b"chunked" not in old


def test_stream_is_closed_when_its_client_leaves() -> None:
    closed = asyncio.Event()

    async def forever() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async def stream(request: Request) -> Response:
        return Response(200, [], forever())

    async def scenario() -> None:
        app = App(stream, name="t")
        server = await asyncio.get_running_loop().create_server(app.protocol_factory, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"tick")
        writer.close()
        await asyncio.wait_for(closed.wait(), 10)
        server.close()
        await app.close(5)

    uvloop.run(scenario())


@pytest.mark.parametrize(("status", "has_length"), [(200, True), (205, True), (204, False), (304, False)])
def test_an_answer_without_content_names_no_length_where_it_may_not(status: int, *, has_length: bool) -> None:
    """Guards (RFC 9110 §8.6): every DELETE and OPTIONS was a 204 with `Content-Length: 0`."""

    async def empty(_: Request) -> Response:
        return Response(status, [])

    asked = (
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 2 + b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    answer = run(App(empty, name="t"), asked)
    assert answer.count(b"HTTP/1.1 %d " % status) == 3, "the connection goes on"
    assert (b"Content-Length" in answer) == has_length
