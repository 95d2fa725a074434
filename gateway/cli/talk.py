"""A plain HTTP/1.1 client that says exactly what happened to a request: for `rehearse`, which judges servers.

It is strict where a proxy has to be, and remembers what a proxy would forgive.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

MAX_HEAD: Final = 65_536


class Place(NamedTuple):
    """Where a service answers. path: of a Unix socket; empty: host and port."""

    host: str
    port: int
    tls: bool = False
    socket: str = ""

    @classmethod
    def of(cls, url: str) -> "Place":
        """Take a url apart. Raises ValueError for one that is no place of a service."""
        if url.startswith("unix:"):
            return cls("localhost", 0, socket=url.removeprefix("unix:"))
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError(f"{url!r} is not a url such as http://127.0.0.1:7200")
        return cls(
            parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), parts.scheme == "https"
        )

    @property
    def host_field(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


class Answer(NamedTuple):
    """A whole answer. closes: it says that it is the connection's last."""

    status: int
    fields: Mapping[str, str]
    closes: bool


class Lost(Exception):
    """A request without a whole answer. began: whether a part of one came."""

    def __init__(self, reason: str, *, began: bool = False) -> None:
        super().__init__(reason)
        self.began = began


class Refused(Lost):
    """Nobody accepts connections: nothing was sent, so nothing is lost."""


class Line:
    """One connection to a service."""

    def __init__(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._place = place
        self._reader = reader
        self._writer = writer
        self._early: asyncio.Task[bytes] | None = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body_bytes: int | None = None,
        pause_s: float = 0.0,
        pieces: int = 1,
    ) -> Answer:
        """Send a request and return its answer. body_bytes: of a body of that length, sent in `pieces` with a
        pause after each.

        Raises Lost.
        """
        length = "" if body_bytes is None else f"Content-Length: {body_bytes}\r\nContent-Type: text/plain\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._place.host_field}\r\nAccept: */*\r\n{length}\r\n"
        try:
            self._writer.write(head.encode())
            if body_bytes is None:
                return await self._answer(method)
            return await self._send_while_reading(method, body_bytes, pause_s, pieces)
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise Lost(_said(exc)) from exc

    async def _send_while_reading(self, method: str, body_bytes: int, pause_s: float, pieces: int) -> Answer:
        """Send a body; an answer that comes before its end counts, as a proxy passes it on."""
        sending = asyncio.ensure_future(self._send(body_bytes, pause_s, pieces))
        try:
            return await self._answer(method)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await sending

    async def _send(self, body_bytes: int, pause_s: float, pieces: int) -> None:
        each, rest = divmod(body_bytes, pieces)
        for index in range(pieces):
            self._writer.write(b"x" * (each + (rest if index == pieces - 1 else 0)))
            try:
                await self._writer.drain()
            except ConnectionError:  # it wants no more; what it answered may still be read
                return
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _answer(self, method: str) -> Answer:
        status, fields = 100, dict[str, str]()
        while status < 200 and status != 101:
            status, fields = await self._head()
        try:
            closes = await self._skip_body(method, status, fields)
        except (OSError, asyncio.IncompleteReadError, ValueError) as exc:
            raise Lost(f"the answer ends midway ({_said(exc)})", began=True) from exc
        return Answer(status, fields, closes or fields.get("connection", "").lower() == "close")

    async def _head(self) -> tuple[int, dict[str, str]]:
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as exc:
            where = "midway in the head of its answer" if exc.partial else "without an answer"
            raise Lost(f"the connection was closed {where}", began=bool(exc.partial)) from exc
        except asyncio.LimitOverrunError as exc:
            raise Lost("the head of the answer has no end", began=True) from exc
        first, *lines = raw.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise Lost(
                f"{first[:40]!r} is no status line: the answer before had more bytes than it said", began=True
            )
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
        }
        if words[0] == "HTTP/1.0" and fields.get("connection", "").lower() != "keep-alive":
            fields["connection"] = "close"
        return int(words[1]), fields

    async def _skip_body(self, method: str, status: int, fields: Mapping[str, str]) -> bool:
        """Read the body to its end (RFC 9112 §6.3). Returns whether its end is the connection's."""
        if method == "HEAD" or status in (204, 304) or status == 101:
            return False
        if "chunked" in fields.get("transfer-encoding", "").lower():
            while (size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)) > 0:
                await self._reader.readexactly(size + 2)
            while await self._reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return False
        if "content-length" in fields:
            await self._reader.readexactly(int(fields["content-length"]))
            return False
        await self._reader.read()
        return True

    async def closed_within(self, seconds: float) -> bool:
        """Return whether the other side closes, or sends what nobody asked for, within some time."""
        if self._early is None:
            self._early = asyncio.ensure_future(self._reader.read(1))
        done, _ = await asyncio.wait({self._early}, timeout=seconds)
        return bool(done)

    def stop_listening(self) -> None:
        """Forget a `closed_within` that saw nothing: the line may be asked again."""
        if self._early is not None:
            self._early.cancel()
            self._early = None

    def close(self) -> None:
        """Close at once, whatever state it is in: who does not read what was sent need not be waited for."""
        self.stop_listening()
        self._writer.transport.abort()


async def dial(place: Place) -> Line:
    """Connect. Raises Refused if nobody listens, Lost for anything else."""
    try:
        if place.socket:
            reader, writer = await asyncio.open_unix_connection(place.socket, limit=MAX_HEAD)
        else:
            context = ssl.create_default_context() if place.tls else None
            reader, writer = await asyncio.open_connection(
                place.host, place.port, ssl=context, limit=MAX_HEAD
            )
    except (ConnectionRefusedError, FileNotFoundError) as exc:
        raise Refused("connection refused") from exc
    except OSError as exc:
        raise Lost(f"cannot connect: {_said(exc)}") from exc
    return Line(place, reader, writer)


@asynccontextmanager
async def line_to(place: Place) -> AsyncIterator[Line]:
    """Give a connection, and close it."""
    line = await dial(place)
    try:
        yield line
    finally:
        line.close()


async def once(place: Place, method: str, path: str) -> Answer:
    """Ask once on a connection of its own. Raises Lost."""
    async with line_to(place) as line:
        return await line.ask(method, path)


def _said(exc: BaseException) -> str:
    if isinstance(exc, asyncio.IncompleteReadError):
        return "the connection was closed"
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
