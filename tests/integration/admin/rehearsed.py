"""A small service that is safe to deploy, or has one fault: `python rehearsed.py --fault NAME`.

Prints `listening on PORT`.
"""

import argparse
import asyncio
import os
import signal


class Service:
    """The service, with at most one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.turn = asyncio.Lock()
        self.stopping = asyncio.Event()
        self.running: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.running.add(task)
        try:
            if self.fault == "drops-new-ones" and self.stopping.is_set():
                writer.transport.abort()
                return
            for served in range(1_000_000):
                if not await self.answer(reader, writer):
                    return
                if self.fault == "closes-unannounced" and served >= 2:
                    return
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self.running.discard(task)
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Returns whether the connection goes on."""
        raw = await self.next_head(reader)
        if raw is None:
            return False
        if self.fault == "one-at-a-time":
            async with self.turn:
                return await self.reply(raw, reader, writer)
        return await self.reply(raw, reader, writer)

    async def next_head(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return the next head; None at the end: the client's, our idle time-out's, or ours."""
        head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        stopping = asyncio.ensure_future(self.stopping.wait())
        timeout_s = 0.4 if self.fault == "short-idle" else 75.0
        waits = {head, stopping} if self.fault not in ("never-ends", "drops-new-ones") else {head}
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if head.done():
            return head.result()
        head.cancel()
        return None

    async def reply(self, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        method, path, _ = raw.decode().split(" ", 2)
        fields = dict(line.lower().split(": ", 1) for line in raw.decode().split("\r\n")[1:] if ": " in line)
        length = int(fields.get("content-length", 0))
        if length > 1_000_000 and self.fault == "resets-uploads":
            writer.transport.abort()
            return False
        while length:
            length -= len(await reader.read(min(length, 65_536)))
            if reader.at_eof():
                return False
        if path == "/health" and self.fault == "slow-health":
            await asyncio.sleep(1.4)
        status = 503 if self.fault == "fails" or (path != "/health" and self.fault == "early-health") else 200
        last = self.stopping.is_set() or self.fault == "closes-each"
        close = "Connection: close\r\n" if last else ""
        body = b"hello"
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{close}\r\n".encode())
        if method != "HEAD" or self.fault == "head-with-body":
            writer.write(body)
        await writer.drain()
        return not last


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", default="")
    service = Service(parser.parse_args().fault)
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    on_term = (lambda: os._exit(1)) if service.fault == "dies-at-once" else service.stopping.set
    loop.add_signal_handler(signal.SIGTERM, on_term)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await service.stopping.wait()
    if service.fault in ("never-ends", "drops-new-ones"):
        await asyncio.sleep(60)
    server.close()
    while service.running:
        await asyncio.sleep(0.01)


asyncio.run(main())
