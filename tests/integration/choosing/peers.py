"""Clients that keep order, and upstreams whose answers a test scripts."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, cast

from bench.harness import World

PATIENCE_S: Final = 60.0
BATCH: Final = 50
"""Requests sent before their answers are waited for."""
_VERSION: Final = re.compile(rb"X-Version: ([^\r]*)\r\n")


class Pipe(asyncio.Protocol):
    """One client connection that sends many requests at once, and notes which version answered each."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        """By request, in order."""
        self._tail = b""
        self._wanted = 0
        self._enough = asyncio.Event()

    @classmethod
    async def open(cls, port: int) -> Self:
        _, pipe = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        end = 0
        for found in _VERSION.finditer(data):
            self.versions.append(found[1].decode())
            end = found.end()
        self._tail = data[max(end, len(data) - 200) :]
        if len(self.versions) >= self._wanted:
            self._enough.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enough.set()

    async def ask(self, paths: Sequence[str]) -> None:
        """GET each of `paths`. Raises ConnectionError if the connection ends first."""
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            self._wanted = len(self.versions) + len(batch)
            self._enough.clear()
            heads = [f"GET {path} HTTP/1.1\r\nHost: choosing.test\r\n\r\n" for path in batch]
            self.transport.write("".join(heads).encode())
            async with asyncio.timeout(PATIENCE_S):
                await self._enough.wait()
            if len(self.versions) < self._wanted:
                raise ConnectionError("the gateway closed the connection")

    def close(self) -> None:
        self.transport.abort()


class Upstream:
    """An upstream in the test's own process. Its health check is answered apart from everything else."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.status = 200
        self.is_healthy = True
        self.delay_s = 0.0
        self.seen: list[str] = []
        """Request targets, health checks left out."""
        self.heads: list[bytes] = []
        self.failed_at: list[float] = []
        """Monotonic seconds of the answers other than 200."""
        self.running = 0
        self.most_running = 0
        self.port = 0
        self._connections: set[_Connection] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    def take(self, target: str, head: bytes) -> int:
        """Count a request; returns the status of its answer."""
        if target == "/api/health":
            return 200 if self.is_healthy else 500
        self.seen.append(target)
        self.heads.append(head)
        if self.status != 200:
            self.failed_at.append(time.monotonic())
        return self.status


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.upstream._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.upstream._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head, self.data = self.data[: end + 4], self.data[end + 4 :]
            target = head.split(b" ", 2)[1].decode()
            status = self.upstream.take(target, head)
            if not self.upstream.delay_s or target == "/api/health":
                self.answer(status)
                continue
            self.upstream.running += 1
            self.upstream.most_running = max(self.upstream.most_running, self.upstream.running)
            asyncio.get_running_loop().call_later(self.upstream.delay_s, self.late, status)

    def late(self, status: int) -> None:
        self.upstream.running -= 1
        self.answer(status)

    def answer(self, status: int) -> None:
        fields = f"Content-Length: 2\r\nX-Version: {self.upstream.version}\r\n"
        head = f"HTTP/1.1 {status} Scripted\r\n{fields}\r\nok"
        self.transport.write(head.encode())


@asynccontextmanager
async def upstreams(version: str, count: int = 1) -> AsyncIterator[list[Upstream]]:
    """Start so many upstreams of one version; end them after the block."""
    made = [Upstream(version) for _ in range(count)]
    for each in made:
        await each.start()
    try:
        yield made
    finally:
        for each in made:
            each.stop()


async def register(world: World, made: Sequence[Upstream], weight: int = 0) -> str:
    """Register the upstreams as one version of `auth`, wait until they are healthy; returns its id."""
    body = {
        "serviceName": "auth",
        "version": made[0].version,
        "url": made[0].url,
        "replicas": [each.url for each in made[1:]],
    }
    version_id = str((await world.api("POST", "deployment/versions", body, expect=201))["id"])

    async def all_healthy() -> bool:
        rows = await endpoints(world, made[0].version)
        return len(rows) == len(made) and all(row["healthy"] for row in rows)

    await world.until(all_healthy, f"{made[0].version} to be healthy")
    if weight:
        await give_weight(world, version_id, weight)
    return version_id


async def give_weight(world: World, version_id: str, weight: int) -> None:
    await world.api("PATCH", f"deployment/versions/{version_id}", {"weight": weight})


async def version_health(world: World, version: str) -> Any:
    """Return what `GET services/auth/health` says of a version."""
    rows = (await world.api("GET", "services/auth/health"))["versions"]
    return next(row for row in rows if row["version"] == version)


async def endpoints(world: World, version: str) -> list[Any]:
    return list((await version_health(world, version))["endpoints"])
