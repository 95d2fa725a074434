"""WebSockets and event streams while things come and go: an orderly close, or nothing at all."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bench.harness import World

PATIENCE_S: Final = 60.0
GOODBYES: Final = {1001, 1012}
"""Close codes of a server that goes away, or restarts (RFC 6455 §7.4, and its registry)."""
DRAIN_MS: Final = 3_000
CLIENTS: Final = 8
SERVICES: Final = """
[[service]]
name = "chat"
routes = [{{ path = "/chat" }}]
[[service.version]]
version = "v1"
url = "http://127.0.0.1:{chat}"
weight = 100
[[service]]
name = "feed"
routes = [{{ path = "/feed" }}]
[[service.version]]
version = "v1"
url = "http://127.0.0.1:{feed}"
weight = 100
"""
HEALTHY: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def chat(name: str) -> AsyncIterator[int]:
    """Serve WebSockets that answer each message with `name` and the message; gives the port."""

    async def answer(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(f"{name} {message!s}")

    def health(connection: ServerConnection, request: Request) -> Response | None:
        is_probe = request.path == "/api/health"
        return connection.respond(HTTPStatus.OK, "well\n") if is_probe else None

    async with serve(answer, "127.0.0.1", 0, process_request=health) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def feed() -> AsyncIterator[int]:
    """Serve an event stream with twenty events a second; gives the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            if b" /api/health " in head:
                writer.write(HEALTHY)
                return
            writer.write(STREAM)
            while not reader.at_eof() and not writer.is_closing():
                writer.write(b"9\r\ndata: t\n\n\r\n")
                await asyncio.sleep(0.05)
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Talk:
    """A WebSocket client that says something all the time."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard = 0
        self.by = ""
        """Who answered last."""

    async def run(self) -> int | None:
        """Talk until it is over; returns the code of the Close, None if the connection ended without one."""
        try:
            for number in range(1_000_000):
                await self.connection.send(str(number))
                self.by, _, echo = str(await self.connection.recv()).partition(" ")
                assert echo == str(number)
                self.heard += 1
                await asyncio.sleep(0.02)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None
        return None


class Listening:
    """A client of the event stream."""

    def __init__(self) -> None:
        self.heard = 0

    async def run(self, port: int) -> bytes:
        """Listen until the stream ends; returns what came after the last whole chunk. Raises OSError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /feed HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        try:
            while True:
                size = int(await reader.readuntil(b"\r\n"), 16)
                assert size, "the last chunk would say that the upstream had ended the stream"
                assert (await reader.readexactly(size + 2)).count(b"data: t\n\n") == size // 9
                self.heard += 1
        except asyncio.IncompleteReadError as exc:
            return exc.partial
        finally:
            writer.close()


class Stage(msgspec.Struct):
    """A gateway with clients of both kinds, talking and listening."""

    world: World
    chat_port: int
    talks: list[Talk]
    listeners: list[Listening]
    said: "list[asyncio.Task[int | None]]"
    listened: list[asyncio.Task[bytes]]

    async def goes_on(self) -> None:
        """Wait until every client has heard something more."""
        clients: list[Talk | Listening] = [*self.talks, *self.listeners]
        before = {each: each.heard for each in clients}
        await self.world.until(lambda: all(each.heard > heard for each, heard in before.items()), "an echo")

    async def said_goodbye(self) -> None:
        """Wait until every WebSocket has ended, each in order."""
        async with asyncio.timeout(PATIENCE_S):
            assert set(await asyncio.gather(*self.said)) <= GOODBYES

    async def ended_whole(self) -> None:
        """Wait until every event stream has ended, none inside of a chunk."""
        async with asyncio.timeout(PATIENCE_S):
            assert set(await asyncio.gather(*self.listened)) == {b""}


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        chat_port = await stack.enter_async_context(chat("v1"))
        feed_port = await stack.enter_async_context(feed())
        services = SERVICES.format(chat=chat_port, feed=feed_port)
        world = await stack.enter_async_context(World(folder, drain_ms=DRAIN_MS, extra=services))
        await world.until(lambda: all_active(world), "all versions to be active")
        talks = [Talk(await open_chat(stack, world)) for _ in range(CLIENTS)]
        listeners = [Listening() for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            said = [group.create_task(talk.run(), name="talk") for talk in talks]
            listened = [group.create_task(each.run(world.port), name="listen") for each in listeners]
            playing = Stage(world, chat_port, talks, listeners, said, listened)
            await playing.goes_on()
            yield playing
            for task in (*said, *listened):
                task.cancel()


async def open_chat(stack: AsyncExitStack, world: World) -> ClientConnection:
    url = f"ws://127.0.0.1:{world.port}/chat"
    return await stack.enter_async_context(connect(url, open_timeout=PATIENCE_S, ping_interval=None))


async def reload(world: World) -> None:
    control = world.control
    world.write_config(extra=f"[limits]\nheader_bytes = 32000\n{world.extra}")
    await world.reload()
    await world.until(lambda: control.has_said('"reloaded"'), "the reload")


async def kill_control(world: World) -> None:
    await world.kill_control()


@pytest.mark.parametrize("deed", [reload, kill_control])
async def test_nothing_is_noticed_of(deed: Callable[[World], Awaitable[None]], tmp_path: Path) -> None:
    async with stage(tmp_path) as playing:
        await deed(playing.world)
        for _ in range(10):
            await playing.goes_on()
        assert not any(task.done() for task in (*playing.said, *playing.listened))


async def test_an_upgrade_says_goodbye_and_the_next_one_serves(tmp_path: Path) -> None:
    async with stage(tmp_path) as playing, AsyncExitStack() as stack:
        await playing.world.api("POST", "gateway/upgrade")
        await playing.said_goodbye()
        await playing.ended_whole()
        again = Talk(await open_chat(stack, playing.world))
        await again.connection.send("x")
        assert await again.connection.recv() == "v1 x"


async def test_the_next_control_says_goodbye_for_a_killed_one(tmp_path: Path) -> None:
    async with stage(tmp_path) as playing:
        await playing.world.kill_control()
        await playing.goes_on()
        await asyncio.to_thread(playing.world.start_gateway)
        await playing.said_goodbye()
        await playing.ended_whole()


async def test_a_stop_says_goodbye(tmp_path: Path) -> None:
    async with stage(tmp_path) as playing:
        control = playing.world.control.process
        control.send_signal(signal.SIGTERM)
        await playing.said_goodbye()
        await playing.ended_whole()
        assert await asyncio.to_thread(control.wait, PATIENCE_S) == 0


async def test_a_drained_version_says_goodbye_and_the_other_one_answers(tmp_path: Path) -> None:
    async with stage(tmp_path) as playing, chat("v2") as port, AsyncExitStack() as stack:
        world = playing.world
        rows = (await world.api("GET", "deployment/versions?serviceName=chat"))["items"]
        old = rows[0]["id"]
        body = {"serviceName": "chat", "version": "v2", "url": f"http://127.0.0.1:{port}"}
        new = (await world.api("POST", "deployment/versions", body, expect=201))["id"]
        await world.until(lambda: world.is_healthy(new), "v2 to be healthy")
        await world.api("PATCH", f"deployment/versions/{new}", {"weight": 100})
        await world.until(lambda: world.is_active(new), "v2 to be active")
        await world.api("PATCH", f"deployment/versions/{old}", {"weight": 0})
        await world.api("POST", f"deployment/versions/{old}/drain", {"timeout": DRAIN_MS})
        assert (await drain_state(world, old))["state"] == "draining"
        await playing.said_goodbye()
        await world.until(lambda: is_safe(world, old), "v1 to be drained")
        state = await drain_state(world, old)
        assert (state["inFlight"], state["streams"]) == (0, 0)
        drained = '"version": "v1", "forced": 0, "event": "version_drained"'
        await world.until(lambda: world.control.has_said(drained), "nobody to have been cut off")
        again = Talk(await open_chat(stack, world))
        await again.connection.send("x")
        assert await again.connection.recv() == "v2 x"
        assert not any(task.done() for task in playing.listened), "another service's streams"


async def all_active(world: World) -> bool:
    rows = (await world.api("GET", "deployment/versions"))["items"]
    return all(row["isActive"] for row in rows) and await world.workers_follow()


async def drain_state(world: World, version_id: str) -> Any:
    return await world.api("GET", f"deployment/versions/{version_id}/drain")


async def is_safe(world: World, version_id: str) -> bool:
    return bool((await drain_state(world, version_id))["safeToStop"])
