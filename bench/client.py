"""A plain HTTP/1.1 client for loads and for the admin API: one connection, one request at a time, no retries.

It hides nothing: a connection that ends where an answer was due is an error, also on a reused connection,
because a gateway that drops nothing never closes one without saying so in the answer before.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final, cast

import httptools
import msgspec

PIECE_PAUSE_S: Final = 0.002
"""Between two pieces of an upload, so that uploads are under way when something happens."""


class Lost(Exception):
    """No complete answer. kind: `refused`, `reset`, `truncated`, `malformed`, `timeout`, or a status."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


class Answer(msgspec.Struct):
    """A complete response. fields: by lower-case name, the last one of a name."""

    status: int
    fields: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] | None = None
        self.reusable = True
        self.closed = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.reset_parser()

    @classmethod
    async def open(cls, host: str, port: int, timeout_s: float = 5.0) -> "Connection":
        """Connect. Raises Lost (`refused`)."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(cls, host, port)
        except (OSError, TimeoutError) as exc:
            raise Lost("refused", str(exc) or "connect timed out") from exc
        return connection

    async def exchange(self, head: bytes, pieces: Sequence[bytes] = (), timeout_s: float = 15.0) -> Answer:
        """Send a request and return its complete answer. Raises Lost; the connection is closed then."""
        if self.closed:
            raise Lost("reset", "closed before the request")
        self.reset_parser()
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(head)
        try:
            async with asyncio.timeout(timeout_s):
                for piece in pieces:
                    if self.answer.done():
                        self.reusable = False
                        break
                    await self.writable.wait()
                    self.transport.write(piece)
                    await asyncio.sleep(PIECE_PAUSE_S)
                return await self.answer
        except TimeoutError as exc:
            raise Lost("timeout", f"no answer in {timeout_s} s") from exc
        except Lost:
            self.close()
            raise
        finally:
            answer, self.answer = self.answer, None
            if answer.cancelled() or not self.reusable:
                self.close()

    def close(self) -> None:
        self.closed = True
        self.transport.abort()

    def reset_parser(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.fields: dict[str, str] = {}
        self.body: list[bytes] = []
        self.head_seen = False

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self.lose(Lost("malformed", str(exc)))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.writable.set()
        self.lose(Lost("truncated" if self.head_seen else "reset", str(exc or "closed by the peer")))

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def lose(self, exc: Lost) -> None:
        self.reusable = False
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc)

    # httptools calls these

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.head_seen = self.parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status < 200:
            self.fields = {}
            return
        self.reusable = self.reusable and self.parser.should_keep_alive()
        if self.answer is None or self.answer.done():
            self.reusable = False
            return
        self.answer.set_result(Answer(status, self.fields, b"".join(self.body)))


def request_head(
    method: str, path: str, fields: Sequence[tuple[str, str]] = (), *, host: str = "bench.test"
) -> bytes:
    """Return the bytes of a request head."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        *(f"{name}: {value}" for name, value in fields),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


async def call(
    port: int, method: str, path: str, *, token: str = "", body: object | None = None, timeout_s: float = 15.0
) -> Answer:
    """Send one request over a connection of its own, its body as JSON. Raises Lost."""
    content = b"" if body is None else json.dumps(body).encode()
    fields = [
        ("Content-Length", str(len(content))),
        ("Content-Type", "application/json"),
        ("Connection", "close"),
    ]
    if token:
        fields.append(("Authorization", f"Bearer {token}"))
    connection = await Connection.open("127.0.0.1", port)
    try:
        head = request_head(
            method, path, fields, host=f"127.0.0.1:{port}"
        )  # the admin listener has no other name
        return await connection.exchange(head + content, timeout_s=timeout_s)
    finally:
        connection.close()
