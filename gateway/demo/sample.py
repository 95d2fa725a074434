"""A small HTTP service with a version, to deploy: `python -m gateway.demo.sample --port 0 --version v1.0`.

Prints `listening on PORT` when it accepts. GET /api/health answers 200; POST /shutdown ends it in order; any
other path answers a line of JSON with the version, or what the flags ask for: a delay, a broken health
check, failures. Those are errors, failed outcomes (`--outcome`) or requests never answered (`--hang`), at a
rate, for one path, or as long as a file exists. A request may ask for itself: `?status=503`, `?delay_ms=50`,
`?bytes=100000`.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import httptools
import uvloop

NEVER_S = 3_600.0
"""A request that hangs: whoever waits longer than this sees the connection close."""
UNFAILING = ("/api/health", "/shutdown")
REASONS = {
    200: "OK",
    202: "Accepted",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Sample:
    """What the service does: shared by its connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.version: str = options.version
        self.error_rate: float = options.error_rate
        self.error_status: int = options.error_status
        self.error_path: str = options.error_path
        self.error_while: Path | None = options.error_while
        self.hang: bool = options.hang
        self.outcome: str = options.outcome
        self.delay_s: float = options.delay_ms / 1000
        self.unhealthy: bool = options.unhealthy
        self.chance = random.Random(options.seed)
        self.stop = asyncio.Event()
        self.connections: set[Connection] = set()
        self.left = asyncio.Event()
        """A connection ended."""
        self.served = 0

    def fails(self, path: str) -> bool:
        """Decide by chance whether a request is made to fail."""
        if not self.error_rate or not path.endswith(self.error_path) or path in UNFAILING:
            return False
        if self.error_while is not None and not self.error_while.exists():
            return False
        return self.chance.random() < self.error_rate

    def answer(self, method: str, path: str, body_bytes: int, *, fails: bool) -> tuple[int, bytes]:
        """Return (status, body) for one request. fails: what `fails` said of it."""
        if path == "/api/health":
            return (503, b'{"status":"sick"}') if self.unhealthy else (200, b'{"status":"ok"}')
        if path == "/shutdown" and method == "POST":
            self.stop.set()
            return 202, b'{"status":"stopping"}'
        self.served += 1
        if fails:
            return self.error_status, json.dumps({"version": self.version, "error": "made to fail"}).encode()
        return 200, json.dumps({"version": self.version, "path": path, "received": body_bytes}).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection; answers in order."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body_bytes = 0
        self.waiting: list[tuple[str, str, int, bool]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.receiving = False
        """A request has begun, and its body is not all here."""
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.sample.connections.add(self)

    def close_when_idle(self) -> None:
        """Close now, or after the answers under way."""
        self.closing = True
        if not self.waiting and not self.receiving:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.sample.connections.discard(self)
        self.sample.left.set()
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            self.transport.close()

    def on_message_begin(self) -> None:
        self.url, self.body_bytes, self.receiving = b"", 0, True

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)

    def on_message_complete(self) -> None:
        self.receiving = False
        keep_alive = self.parser.should_keep_alive()
        method = self.parser.get_method().decode()
        self.waiting.append((method, self.url.decode("latin-1"), self.body_bytes, keep_alive))
        if self.timer is None:
            self.next()

    def next(self) -> None:
        """Answer what waits, in order, up to the first request that is to take its time."""
        self.timer = None
        while self.waiting:
            method, target, _, _ = self.waiting[0]
            parts = urlsplit(target)
            asked = dict(parse_qsl(parts.query))
            fails = self.sample.fails(parts.path)
            loop = asyncio.get_running_loop()
            if fails and self.sample.hang:
                self.timer = loop.call_later(NEVER_S, self.transport.close)
                return
            delay_s = float(asked.get("delay_ms", self.sample.delay_s * 1000)) / 1000
            if delay_s and parts.path not in UNFAILING:
                late = partial(self.late, method, parts.path, asked, fails=fails)
                self.timer = loop.call_later(delay_s, late)
                return
            self.write(method, parts.path, asked, fails=fails)

    def late(self, method: str, path: str, asked: dict[str, str], *, fails: bool) -> None:
        """Answer the request that took its time, then what waited behind it."""
        self.write(method, path, asked, fails=fails)
        self.next()

    def write(self, method: str, path: str, asked: dict[str, str], *, fails: bool) -> None:
        """Write the answer to the request at the head of the line."""
        _, _, body_bytes, keep_alive = self.waiting.pop(0)
        keep_alive = keep_alive and not self.closing
        status, body = self.sample.answer(method, path, body_bytes, fails=fails)
        outcome = f"X-Outcome: {self.sample.outcome}\r\n" if fails and self.sample.outcome else ""
        status = int(asked.get("status", status))
        body = b"x" * int(asked["bytes"]) if "bytes" in asked else body
        head = (
            f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Version: {self.sample.version}\r\n{outcome}"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
        )
        self.transport.write(head.encode() + (b"" if method == "HEAD" else body))
        if not keep_alive:
            self.transport.close()


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM, SIGINT or POST /shutdown; then let what runs finish for up to 5 s."""
    sample = Sample(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(sample), options.host, options.port, backlog=4096)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sample.stop.set)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await sample.stop.wait()
    server.close()
    for connection in list(sample.connections):
        connection.close_when_idle()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while sample.connections:
                sample.left.clear()
                await sample.left.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sample service; returns the exit code."""
    parser = argparse.ArgumentParser(prog="gateway.demo.sample", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", default="v1.0")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of requests to fail, 0 to 1")
    parser.add_argument("--error-status", type=int, default=500)
    parser.add_argument("--error-path", default="", help="fail only requests whose path ends so")
    parser.add_argument("--error-while", type=Path, help="fail only as long as this file exists")
    parser.add_argument("--hang", action="store_true", help="never answer the requests that are to fail")
    parser.add_argument(
        "--outcome", default="", help="X-Outcome of the requests that are to fail: pay=failed"
    )
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--unhealthy", action="store_true", help="fail the health check")
    parser.add_argument("--seed", type=int, default=None)
    uvloop.run(serve(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
