"""A plain TCP balancer in front of several gateways: each new connection goes to the next one."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress


class Splitter:
    """Passes bytes both ways, ends included, and looks at none."""

    def __init__(self, ports: Sequence[int]) -> None:
        """ports: of the gateways, on 127.0.0.1."""
        self.port = 0
        self._ports = ports
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Splitter":
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        port = self._ports[self._next % len(self._ports)]
        self._next += 1
        try:
            with suppress(OSError):
                back, forth = await asyncio.open_connection("127.0.0.1", port)
                try:
                    await asyncio.gather(_pass(reader, forth), _pass(back, writer))
                finally:
                    forth.transport.abort()
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on until the sender has no more, and say so."""
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()
