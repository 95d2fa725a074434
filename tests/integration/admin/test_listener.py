"""The admin listener on a real socket: framing, streams, shutdown."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

from gateway.admin.call import BASE
from gateway.admin.sse import EventFeed
from gateway.control.rollouts.unstored import Ordered
from gateway.store.api import Page
from gateway.store.records import DeploymentRecord, EventRecord
from tests.unit.admin.bench import AT, Bench


@asynccontextmanager
async def listening(bench: Bench) -> AsyncIterator[int]:
    sock = socket.create_server(("127.0.0.1", 0))
    await bench.server.start(sock)
    try:
        yield sock.getsockname()[1]
    finally:
        await bench.server.close(1.0)


async def exchange(port: int, request: bytes) -> bytes:
    """Send `request` and return everything up to the close."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


def ask(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_metrics_are_open_on_a_loopback_listener() -> None:
    bench = Bench()
    async with listening(bench) as port:
        answer = await exchange(port, ask("GET", "/metrics"))
        assert status(answer) == 200
        assert b"gateway_build_info" in answer


async def test_head_has_the_length_and_no_body() -> None:
    bench = Bench()
    async with listening(bench) as port:
        get = await exchange(port, ask("GET", "/openapi.json"))
        head = await exchange(port, ask("HEAD", "/openapi.json"))
    assert status(head) == 200
    assert head.endswith(b"\r\n\r\n")
    length = b"Content-Length: %d\r\n" % len(get.partition(b"\r\n\r\n")[2])
    assert length.lower() in head.lower()


async def test_a_body_over_a_mebibyte_is_413() -> None:
    bench = Bench()
    token = bench.token("admin")
    async with listening(bench) as port:
        request = ask("POST", f"{BASE}/tokens", f"Authorization: Bearer {token}", body=b"x" * (1_048_576 + 1))
        answer = await exchange(port, request)
    assert status(answer) == 413
    assert b"application/problem+json" in answer
    assert bench.actions.calls == []


async def test_events_stream_and_end_in_order_at_shutdown() -> None:
    bench = Bench()
    token = bench.token("viewer")
    bench.store.event_records = [EventRecord(id=1, at=AT, kind="service.paused", service="auth")]
    async with listening(bench) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("GET", f"{BASE}/events?after=0", f"Authorization: Bearer {token}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        await reader.readuntil(b"id: 1\n")
        bench.store.event_records.append(EventRecord(id=2, at=AT, kind="service.resumed", service="auth"))
        bench.server.feed.wake()
        await reader.readuntil(b"id: 2\n")
        closing = asyncio.ensure_future(bench.server.close(10.0))
        rest = await reader.read()
        assert rest.endswith(b"0\r\n\r\n")
        await closing
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_leaves_frees_its_stream() -> None:
    bench = Bench()
    token = bench.token("viewer")
    async with listening(bench) as port, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("GET", f"{BASE}/events", f"Authorization: Bearer {token}"))
        await _until(bench.server.feed, 1)
        writer.close()
        await writer.wait_closed()
        await _until(bench.server.feed, 0)


async def _until(feed: EventFeed, streams: int) -> None:
    while feed.open != streams:
        await asyncio.sleep(0.005)


async def test_a_change_runs_to_its_end_when_its_client_hangs_up() -> None:
    bench = Bench()
    token = bench.token("deployer")
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def rollback(*_: object, **__: object) -> None:
        begun.set()
        await may_end.wait()
        ended.set()

    bench.actions.deployments = SimpleNamespace(rollback=rollback)  # type: ignore[attr-defined]
    async with listening(bench) as port, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("POST", f"{BASE}/deployment/dep-1/rollback", f"Authorization: Bearer {token}"))
        await begun.wait()
        writer.transport.abort()
        await asyncio.sleep(0.05)
        may_end.set()
        await ended.wait()


async def test_one_connection_serves_several_calls() -> None:
    bench = Bench()
    token = bench.token("viewer")
    bench.actions.answers["services.list_all"] = Page([])
    async with listening(bench) as port:
        one = ask("GET", f"{BASE}/services", f"Authorization: Bearer {token}").replace(
            b"Connection: close\r\n", b""
        )
        answer = await exchange(port, one + one + ask("GET", "/livez"))
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert answer.count(json.dumps({"items": [], "next": None}, separators=(",", ":")).encode()) == 2


async def test_what_an_idle_connection_waited_for_does_not_cut_its_next_answer() -> None:
    bench = Bench()
    token = bench.token("viewer")
    async with listening(bench) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("GET", "/livez").replace(b"Connection: close\r\n", b""))
        await reader.readuntil(b"alive\n")
        connections = bench.server.connections
        now = time.monotonic()
        connections.sweep(now)
        writer.write(ask("GET", f"{BASE}/events", f"Authorization: Bearer {token}"))
        await reader.readuntil(b"retry: ")
        connections.sweep(now + 1_000.0)
        bench.store.event_records.append(EventRecord(id=1, at=AT, kind="service.paused", service="auth"))
        bench.server.feed.wake()
        await reader.readuntil(b"id: 1\n")
        writer.close()
        await writer.wait_closed()


async def test_idle_connections_lock_nobody_out() -> None:
    """Guards a rollback from whoever can connect: 512 idle connections locked the listener."""
    bench = Bench()
    token = bench.token("deployer")
    deployment = DeploymentRecord(
        id="dep-1", service_name="auth", to_version_id="v", to_version="v1", created_at=AT, updated_at=AT
    )
    bench.actions.answers["deployments.rollback"] = Ordered(deployment)
    async with listening(bench) as port, asyncio.timeout(60):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(641)]
        for _, writer in idle[::2]:
            writer.write(b"POST /api/v1/admin/deployment/x/rollback HTTP/1.1\r\nHost: lo")
        reader, streaming = await asyncio.open_connection("127.0.0.1", port)
        streaming.write(ask("GET", f"{BASE}/events", f"Authorization: Bearer {token}"))
        assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
        more = [await asyncio.open_connection("127.0.0.1", port) for _ in range(600)]
        began = time.monotonic()
        answer = await exchange(port, ask("GET", "/livez"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        path = f"{BASE}/deployment/dep-1/rollback"
        answer = await exchange(
            port, ask("POST", path, f"Authorization: Bearer {token}", "Content-Length: 0")
        )
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 10.0
        bench.store.event_records.append(EventRecord(id=1, at=AT, kind="service.paused", service="auth"))
        bench.server.feed.wake()
        await reader.readuntil(b"id: 1\n")
        for _, writer in (*idle, *more, (reader, streaming)):
            writer.close()
