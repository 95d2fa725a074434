"""The load that the fault rows rest on sees every kind of loss, and none where there is none."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from bench.client import Connection, Lost, call, request_head
from bench.load import KEPT, NEW, UPLOAD, Load, LoadReport, LoadSettings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Version: v1.0\r\n\r\nok"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """Run a scripted server on a free port; leaves no connection behind."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def answering(answer: bytes, *, then_close: bool = False, requests: list[bytes] | None = None) -> Handler:
    """Return a handler that gives every request, read to its end, the same answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if requests is not None:
                    requests.append(head)
                _, _, length = head.partition(b"Content-Length: ")
                await reader.readexactly(int(length.split(b"\r\n")[0]) if length else 0)
                writer.write(answer)
                if then_close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return handle


async def load(handler: Handler, requests: int = 40, **settings: object) -> LoadReport:
    async with serving(handler) as port:
        chosen = {"rate": 2_000.0, "connections": 4, "timeout_s": 10.0} | settings
        return await Load(LoadSettings(port=port, **chosen)).run(requests)  # type: ignore[arg-type]


async def test_healthy_server_loses_nothing() -> None:
    report = await load(answering(OK))
    assert (report.sent, report.ok, report.failures) == (40, 40, 0)
    assert report.versions == {"v1.0": 40}
    assert report.share("v1.0") == 1.0
    assert 0 < report.p50_ms <= report.p99_ms <= report.max_ms


async def test_kinds_are_mixed_as_the_cycle_says() -> None:
    requests: list[bytes] = []
    await load(answering(OK, requests=requests), requests=30)
    assert sum(head.startswith(b"POST") for head in requests) == 3
    assert sum(b"Connection: close" in head for head in requests) == 3


@pytest.mark.parametrize("kind", [KEPT, NEW, UPLOAD])
@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\n", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "truncated"),
        (b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"SMTP ready\r\n\r\n", "malformed"),
    ],
    ids=["nothing", "half-a-head", "short-body", "no-last-chunk", "503", "not-http"],
)
async def test_every_loss_is_counted_by_kind(kind: str, answer: bytes, lost: str) -> None:
    report = await load(answering(answer, then_close=True), requests=10, cycle=(kind,))
    assert report.ok == 0
    assert report.lost == {lost: 10}
    assert len(report.examples) == 10


async def test_refused_connection_is_a_loss() -> None:
    async with serving(answering(OK)) as port:
        pass
    report = await Load(LoadSettings(port=port, connections=0, rate=2_000.0)).run(5)
    assert report.lost == {"refused": 5}


async def test_silence_is_a_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    report = await load(silent, requests=3, timeout_s=0.2)
    assert report.lost == {"timeout": 3}


async def test_rate_does_not_wait_for_answers() -> None:
    """Open loop: every request is on its way before the first answer."""
    all_asked = asyncio.Event()
    asked = 0

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked == 20:
            all_asked.set()
        await all_asked.wait()
        writer.write(OK)
        writer.close()

    report = await load(patient, requests=20, cycle=(KEPT,), connections=0)
    assert report.ok == 20


async def test_load_goes_on_until_it_is_told() -> None:
    over = asyncio.Event()
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(seen) > 50:
            over.set()
        await answering(OK, requests=seen)(reader, writer)

    async with serving(answer) as port:
        report = await Load(LoadSettings(port=port, rate=2_000.0, connections=2)).run(10, until=over)
    assert report.sent > 50
    assert report.failures == 0


async def test_backlog_is_a_loss_and_not_sent() -> None:
    report = await load(answering(OK), requests=5, in_flight=0)
    assert report.lost == {"backlog": 5}


async def test_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    report = await load(answering(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), then_close=True))
    assert report.failures == 0


async def test_interim_answers_are_not_the_answer() -> None:
    async with serving(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)) as port:
        answer = await call(port, "GET", "/")
    assert (answer.status, answer.body) == (200, b"ok")


async def test_answer_nobody_asked_for_ends_the_connection() -> None:
    async with serving(answering(OK + OK)) as port:
        connection = await Connection.open("127.0.0.1", port)
        await connection.exchange(request_head("GET", "/"))
        with pytest.raises(Lost):
            await connection.exchange(request_head("GET", "/"))
        connection.close()
