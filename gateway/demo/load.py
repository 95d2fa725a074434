"""A steady load: a few keep-alive connections, a constant rate, everything counted.

`python -m gateway.demo.load http://127.0.0.1:4200/path --rate 100` sends until it is stopped, and then says
what was answered.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

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

    def summary(self) -> str:
        """Say what was answered, in one line a kind."""
        lines = [f"{self.statuses.total() + self.broken} requests"]
        lines += [f"  status {status}: {count}" for status, count in sorted(self.statuses.items())]
        lines += [f"  from {version}: {count}" for version, count in sorted(self.versions.items())]
        return "\n".join([*lines, f"  without a whole answer: {self.broken}"])


async def _run(load: Load) -> None:
    """Send until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    sending = loop.create_task(load.run(), name="load")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sending.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await sending


def main(argv: Sequence[str] | None = None) -> int:
    """Send a load until stopped; returns the exit code: 1 if a request had no whole answer."""
    parser = argparse.ArgumentParser(prog="gateway.demo.load", description=__doc__)
    parser.add_argument("url", help="http only")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args(argv)
    parts = urlsplit(options.url)
    if parts.scheme != "http" or not parts.hostname or options.rate <= 0 or options.connections < 1:
        parser.error(f"cannot send to {options.url!r} at this rate")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    load = Load(parts.hostname, parts.port or 80, target, rate=options.rate, connections=options.connections)
    asyncio.run(_run(load))
    print(load.summary(), flush=True)
    return 1 if load.broken else 0


if __name__ == "__main__":
    sys.exit(main())
