"""A steady load on the demo's gateway: a few keep-alive connections, a constant rate, everything counted."""

import asyncio
from collections import Counter
from collections.abc import Callable

from gateway.errors import GatewayError


class LoadError(GatewayError):
    """An answer that is no answer."""


class Load:
    """Asks for `path` at `rate` requests a second until stopped."""

    def __init__(self, host: str, port: int, path: str, *, rate: float, connections: int = 8) -> None:
        self._host = host
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        self._interval_s = connections / rate
        self._connections = connections
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self.broken = 0
        """Requests without a whole answer."""
        self.on_answer: Callable[[int, str], None] = lambda status, version: None

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for index in range(self._connections):
                group.create_task(self._drive(index), name=f"load {index}")

    async def _drive(self, index: int) -> None:
        await asyncio.sleep(self._interval_s * index / self._connections)
        loop = asyncio.get_running_loop()
        due = loop.time()
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                try:
                    streams = streams or await asyncio.open_connection(self._host, self._port)
                    if not await self._ask(*streams):
                        streams[1].close()
                        streams = None
                except (OSError, asyncio.IncompleteReadError, LoadError):
                    self.broken += 1
                    if streams is not None:
                        streams[1].close()
                    streams = None
                due = max(due + self._interval_s, loop.time() - 1)
                await asyncio.sleep(max(0.0, due - loop.time()))
        finally:
            if streams is not None:
                streams[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once. Returns whether the connection may be used again."""
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "content-length" not in fields:
            raise LoadError("an answer without a length")
        await reader.readexactly(int(fields["content-length"]))
        status, version = int(first.split()[1]), fields.get("x-version", "-")
        self.statuses[status] += 1
        self.versions[version] += 1
        self.on_answer(status, version)
        return fields.get("connection", "").lower() != "close"
