"""A real data plane between a scripted client and scripted upstreams: bytes in, bytes out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.link.counts import VersionCounts
from gateway.link.snapshot import EndpointSnap, ProxySettings, ServiceSnap, Snapshot, VersionSnap
from gateway.worker.plane import Plane

PATIENCE_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """One end of a connection, read and written by the script of a test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
        except RuntimeError as exc:  # uvloop's word for a connection that was lost a moment ago
            raise ConnectionResetError("the connection is closed") from exc

    async def until(self, mark: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(mark), PATIENCE_S)

    async def head(self) -> bytes:
        return await self.until(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), PATIENCE_S)

    async def rest(self) -> bytes:
        """Read to the end; a reset is an end too."""
        data = b""
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), PATIENCE_S):
                data += piece
        except ConnectionError:
            pass
        return data

    async def answer(self) -> bytes:
        """Read one response with a Content-Length."""
        head = await self.head()
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                return head + await self.exactly(int(line.split(b":")[1]))
        return head

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    """A server that plays `script` on each connection it gets; `seen` holds the heads it read."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or self.serve
        self.connections = 0
        self.seen: list[bytes] = []
        self.answer = OK
        self.port = 0
        self._peers: list[Peer] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for peer in self._peers:
            peer.reset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, peer: Peer) -> None:
        """Answer every request with `answer`."""
        while True:
            head = await peer.head()
            self.seen.append(head)
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    await peer.exactly(int(line.split(b":")[1]))
                elif line.lower() == b"transfer-encoding: chunked":
                    await peer.until(b"0\r\n\r\n")
            peer.send(self.answer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Peer(reader, writer)
        self._peers.append(peer)
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            peer.close()


class Proxy:
    """A plane serving on a port of its own."""

    def __init__(self) -> None:
        self.plane = Plane(seed=1, sweep_s=0.02)
        self.number = 0
        self.port = 0
        self.clients: list[Peer] = []

    def apply(self, *services: ServiceSnap, proxy: ProxySettings | None = None) -> None:
        self.number += 1
        self.plane.apply(
            Snapshot(
                number=self.number,
                whole=True,
                services={each.name: each for each in services},
                proxy=proxy or self.plane.live_table.proxy,
            )
        )

    def counts(self, version: str) -> VersionCounts:
        """Return what was counted of a version up to now."""
        counts = self.plane.live_table.counts[version]
        counts.fold()
        return counts

    async def client(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(peer)
        return peer

    async def ask(self, data: bytes) -> bytes:
        """Send on a new connection and read one answer."""
        peer = await self.client()
        peer.send(data)
        answer = await peer.answer()
        peer.close()
        return answer

    async def ask_to_the_end(self, data: bytes) -> bytes:
        """Send on a new connection and read until it ends."""
        peer = await self.client()
        peer.send(data)
        return await peer.rest()


def version(name: str, *upstreams: Upstream | str, weight: float = 100, **more: Any) -> VersionSnap:
    urls = [each if isinstance(each, str) else each.url for each in upstreams]
    endpoints = []
    for url in urls:
        host, _, port = url.rpartition("//")[2].partition(":")
        is_unix = url.startswith("unix:")
        endpoints.append(
            EndpointSnap(
                key=f"{name}|{url}",
                url=url,
                address="" if is_unix else host,
                port=0 if is_unix else int(port),
            )
        )
    return VersionSnap(id=name, name=name, weight=weight, active=True, endpoints=tuple(endpoints), **more)


def service(*versions: VersionSnap, paused: bool = False, name: str = "s", **settings: Any) -> ServiceSnap:
    settings.setdefault("routes", (RouteSettings(),))
    return ServiceSnap(
        id=name,
        name=name,
        generation=1,
        settings=ServiceSettings(**settings),
        versions=versions,
        current=versions[0].id if versions else None,
        paused=paused,
    )


@asynccontextmanager
async def proxying(
    *upstreams: Upstream, proxy: ProxySettings | None = None, **settings: Any
) -> AsyncIterator[Proxy]:
    """Run a plane whose one service has one version with the given upstreams."""
    running = Proxy()
    for upstream in upstreams:
        await upstream.start()
    if upstreams:
        running.apply(service(version("v1", *upstreams), **settings), proxy=proxy)
    elif proxy is not None:
        running.apply(proxy=proxy)
    running.plane.start()
    server = await asyncio.get_running_loop().create_server(
        running.plane.factory(), "127.0.0.1", 0, backlog=1024
    )
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for client in running.clients:
            client.close()
        running.plane.close_now()
        for upstream in upstreams:
            await upstream.stop()
        await asyncio.sleep(0)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until `holds` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
