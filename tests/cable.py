"""A TCP connection that can be cut, stopped, and listened to, between a client and the server it means."""

import asyncio
from collections.abc import Callable
from contextlib import suppress


class Cable:
    """Passes bytes both ways. `from_client` and `from_server` see each piece first: they may change it, hold
    it back (empty), or cut the cable (None).
    """

    def __init__(self, port: int) -> None:
        """port: the server's, on 127.0.0.1."""
        self.from_client: Callable[[bytes], bytes | None] = lambda piece: piece
        self.from_server: Callable[[bytes], bytes | None] = lambda piece: piece
        self.passes = asyncio.Event()
        """Unset: nothing arrives, and nobody is told."""
        self.passes.set()
        self.refuses = False
        """Whether new connections are cut at once."""
        self.lets_in: Callable[[int], bool] = lambda port: True
        """Whether a new connection is not cut at once, by the client's port."""
        self.port = 0
        self._server_port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Cable":
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.passes.set()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End every connection now, without a word."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if not self.refuses and self.lets_in(writer.get_extra_info("peername")[1]):
                await self._join(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            return
        self._writers.add(forth)
        ways = [
            asyncio.ensure_future(self._pass(reader, forth, lambda piece: self.from_client(piece))),
            asyncio.ensure_future(self._pass(back, writer, lambda piece: self.from_server(piece))),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            forth.transport.abort()
            self._writers.discard(forth)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Callable[[bytes], bytes | None]
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                await self.passes.wait()
                seen = see(piece)
                if seen is None:
                    return
                writer.write(seen)
                await writer.drain()
