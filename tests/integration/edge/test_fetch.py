"""The small client against scripted servers, over real sockets."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadResponse, ConnectFailed, Exhausted, ResetMidway, UpstreamTimeout
from gateway.http1.fetch import FetchResult, fetch, tcp_check
from gateway.net.tls import Certificate, CertificateFiles, ServerTls, upstream_context
from tests.integration.descriptors import no_descriptors_left

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(answer: bytes, asked: list[bytes] | None = None) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(head)
        writer.write(answer)

    return script


def serve_once(
    script: Script, use: Callable[[int], Awaitable[FetchResult]], tls: ssl.SSLContext | None = None
) -> FetchResult:
    """Run `use(port)` against a server whose connection runs `script` and is then closed."""

    async def run() -> FetchResult:
        served = asyncio.Event()

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await script(reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                served.set()

        async with await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=tls) as server:
            try:
                return await use(server.sockets[0].getsockname()[1])
            finally:
                await asyncio.wait_for(served.wait(), 20)

    return asyncio.run(run())


def get(script: Script, **options: object) -> FetchResult:
    def use(port: int) -> Awaitable[FetchResult]:
        return fetch(f"http://127.0.0.1:{port}/p?q=1", timeout_s=20, **options)  # type: ignore[arg-type]

    return serve_once(script, use)


def test_answer_is_returned_with_lower_case_fields_and_joined_repeats() -> None:
    result = get(answering(b"HTTP/1.1 418 Odd\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nhi"))
    assert (result.status, result.body, result.fields["x-a"]) == (418, b"hi", "1, 2")
    assert result.elapsed_s > 0
    assert not result.truncated


def test_request_names_host_and_asks_for_one_answer() -> None:
    asked: list[bytes] = []
    get(
        answering(b"HTTP/1.1 204 No Content\r\n\r\n", asked),
        fields=[("X-B", "1"), ("Connection", "keep-alive")],
    )
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"GET /p?q=1 HTTP/1.1"
    assert lines[1].startswith(b"Host: 127.0.0.1:")
    assert b"X-B: 1" in lines
    assert [line for line in lines if line.lower().startswith(b"connection")] == [b"Connection: close"]


def test_unix_socket_is_reached(tmp_path: Path) -> None:
    async def run() -> FetchResult:
        path = str(tmp_path / "s")
        script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await script(reader, writer)
            writer.close()

        async with await asyncio.start_unix_server(on_connection, path):
            return await fetch(f"unix:{path}", path="/live", timeout_s=20)

    assert asyncio.run(run()).status == 200


def test_address_replaces_the_name_lookup() -> None:
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    result = serve_once(
        script, lambda port: fetch(f"http://nowhere.invalid:{port}/", address="127.0.0.1", timeout_s=20)
    )
    assert result.status == 200


def test_connection_cut_midway_is_a_reset() -> None:
    with pytest.raises(ResetMidway) as caught:
        get(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"))
    assert caught.value.sent


def test_body_delimited_by_close_is_complete() -> None:
    assert get(answering(b"HTTP/1.1 200 OK\r\n\r\nall of it")).body == b"all of it"


def test_body_beyond_the_bound_is_not_read() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b"x" * 65_536)
                await writer.drain()
        except ConnectionError:
            pass

    result = get(endless, max_bytes=10)
    assert result.truncated
    assert result.body == b"x" * 10


def test_endless_head_is_refused() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while not writer.is_closing():
                writer.write(b"X-A: " + b"x" * 1000 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass

    with pytest.raises(BadResponse):
        get(endless)


def test_silence_is_a_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(UpstreamTimeout):
        serve_once(silent, lambda port: fetch(f"http://127.0.0.1:{port}/", timeout_s=0.05))


def test_nobody_listening_is_a_failed_connect() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        for attempt in (fetch, tcp_check):
            with pytest.raises(ConnectFailed) as caught:
                await attempt(f"http://127.0.0.1:{port}", timeout_s=20)
            assert not caught.value.sent

    asyncio.run(run())


def test_no_descriptor_for_a_connection_is_not_the_other_ends_failure() -> None:
    async def run() -> None:
        async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with no_descriptors_left():
                for attempt in (fetch, tcp_check):
                    with pytest.raises(Exhausted):
                        await attempt(f"http://127.0.0.1:{port}", timeout_s=20)
            await tcp_check(f"http://127.0.0.1:{port}", timeout_s=20)

    asyncio.run(run())


def test_tcp_check_tells_how_long_a_connect_takes() -> None:
    async def run() -> float:
        async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0) as server:
            return await tcp_check(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=20)

    assert 0 < asyncio.run(run()) < 20


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_https_is_verified_against_the_name_that_counts(authority: Any) -> None:
    tls = ServerTls([Certificate.read(CertificateFiles(*authority.issue("a.example")))]).context
    trust = upstream_context(ca=str(authority.ca))

    def use(port: int) -> Awaitable[FetchResult]:
        return fetch(f"https://a.example:{port}/", address="127.0.0.1", ssl=trust, timeout_s=20)

    def use_name(port: int) -> Awaitable[FetchResult]:
        return fetch(f"https://127.0.0.1:{port}/", server_name="a.example", ssl=trust, timeout_s=20)

    assert serve_once(answering(OK), use, tls).body == b"ok"
    assert serve_once(answering(OK), use_name, tls).body == b"ok"


@pytest.mark.parametrize("url", ["https://b.example", "https://127.0.0.1"])
def test_https_with_another_name_or_authority_is_a_failed_connect(authority: Any, url: str) -> None:
    tls = ServerTls([Certificate.read(CertificateFiles(*authority.issue("a.example")))]).context

    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=tls)
        async with server:
            where = f"{url}:{server.sockets[0].getsockname()[1]}/"
            for trust in (upstream_context(ca=str(authority.ca)), None):
                with pytest.raises(ConnectFailed, match="certificate verify failed") as caught:
                    await fetch(where, address="127.0.0.1", ssl=trust, timeout_s=20)
                assert not caught.value.sent

    asyncio.run(run())
