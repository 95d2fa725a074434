"""One request, one answer, one connection: the small client for probes, smoke tests and webhooks.

It follows no redirect, keeps no connection, decodes no content coding, and holds at most `max_bytes` of
an answer's body.
"""

import asyncio
import re
import ssl as ssl_module
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote, urlsplit

import httptools
import msgspec

from gateway.errors import (
    BadRequest,
    BadResponse,
    ConfigError,
    ConnectFailed,
    Exhausted,
    ResetMidway,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.http1.client import OUR_FAULT
from gateway.net.tls import default_upstream_context

HEAD_BYTES: Final = 65_536
"""How much an answer may hold that is not body, in one piece: a head, or chunk extensions, or trailers."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
_TARGET_SAFE: Final = "".join(map(chr, range(0x21, 0x7F)))


class FetchResult(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    fields: dict[str, str]
    """Lower-case names; repeated fields are joined by a comma (RFC 9110 §5.3)."""
    body: bytes
    elapsed_s: float
    """From before the connect to the answer's end."""
    truncated: bool = False
    """There was more body than `max_bytes`; the rest was not read."""


class _Place(NamedTuple):
    """Where a url leads: `unix_path` if it is a socket file, else `host` and `port`."""

    tls: bool
    host: str
    port: int
    unix_path: str
    authority: str
    """For the Host field."""
    path: str
    """Path and query; `/` if the url has none."""


def _parse_url(url: str) -> _Place:
    """Take an `http:`, `https:` or `unix:/path` url apart.

    Raises BadRequest on anything else, and on credentials.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise BadRequest(f"not an absolute socket path: {url!r}")
        return _Place(tls=False, host="", port=0, unix_path=path, authority="localhost", path="/")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise BadRequest(f"not a url: {url!r}") from exc
    if parts.scheme not in ("http", "https") or parts.username is not None or not _HOST.fullmatch(host or ""):
        raise BadRequest(f"not an http(s) or unix url without credentials: {url!r}")
    assert host is not None
    tls = parts.scheme == "https"
    name = f"[{host}]" if ":" in host else host
    return _Place(
        tls=tls,
        host=host,
        port=port or (443 if tls else 80),
        unix_path="",
        authority=name if port is None else f"{name}:{port}",
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


async def fetch(
    url: str,
    *,
    method: str = "GET",
    path: str | None = None,
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    timeout_s: float,
    address: str | None = None,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | None = None,
    max_bytes: int = 65_536,
    may_reach: Callable[[str], None] | None = None,
) -> FetchResult:
    """Send one request and return its answer, whatever its status.

    path: replaces the url's own path and query. fields: may replace Host and User-Agent, never the framing.
    timeout_s: for everything, name lookup included. address: connect here instead of looking the host up.
    server_name: TLS name to send and to verify, instead of the host. ssl: instead of a verifying context
    with the system's CAs. may_reach: called with the address connected to, before anything is asked of it;
    raises ConfigError to refuse it, whatever name led there.

    Raises ConnectFailed, UpstreamTimeout, ResetMidway or BadResponse; BadRequest if this cannot be asked,
    Exhausted if we have no descriptor to ask with.
    """
    target = _parse_url(url)
    request = _request(target, method, path if path is not None else target.path, tuple(fields), body)
    loop = asyncio.get_running_loop()
    answer = _Answer(loop, method, max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            transport = await _connect(lambda: answer, target, address, server_name, ssl)
            _check_peer(transport, may_reach)
            answer.sent = True
            transport.write(request)
            return await answer.done
    except TimeoutError as exc:
        raise UpstreamTimeout(f"no answer within {timeout_s:g} s", sent=answer.sent) from exc
    finally:
        answer.abort()


async def tcp_check(
    url: str,
    *,
    timeout_s: float,
    address: str | None = None,
) -> float:
    """Connect to where a url leads and hang up; no TLS, no byte sent.

    Returns the seconds it took. Raises ConnectFailed, UpstreamTimeout or Exhausted.
    """
    target = _parse_url(url)._replace(tls=False)
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            transport = await _connect(asyncio.Protocol, target, address, None, None)
    except TimeoutError as exc:
        raise UpstreamTimeout(f"no connection within {timeout_s:g} s") from exc
    transport.abort()
    return time.monotonic() - started


async def _connect(
    factory: Callable[[], asyncio.Protocol],
    target: _Place,
    address: str | None,
    server_name: str | None,
    ssl: ssl_module.SSLContext | None,
) -> asyncio.WriteTransport:
    """Open the connection. Raises ConnectFailed or Exhausted; leaves an outer TimeoutError alone."""
    loop = asyncio.get_running_loop()
    try:
        if target.unix_path:
            transport, _ = await loop.create_unix_connection(factory, target.unix_path)
            return transport
        tls: dict[str, Any] = {}
        if target.tls:
            tls = {"ssl": ssl or default_upstream_context(), "server_hostname": server_name or target.host}
        transport, _ = await loop.create_connection(factory, address or target.host, target.port, **tls)
    except TimeoutError:
        # 1. Our own deadline arrives as a cancellation, never as this: 2. the kernel gave up (ETIMEDOUT).
        raise ConnectFailed(f"connecting to {target.authority} timed out") from None
    except (OSError, ssl_module.CertificateError, UnicodeError) as exc:
        if isinstance(exc, OSError) and exc.errno in OUR_FAULT:
            raise Exhausted(f"the gateway cannot make another connection: {exc}") from exc
        raise ConnectFailed(f"cannot connect to {target.unix_path or target.authority}: {exc}") from exc
    return transport


def _check_peer(transport: asyncio.WriteTransport, may_reach: Callable[[str], None] | None) -> None:
    """Raise ConnectFailed if the other end is where `may_reach` lets nobody go."""
    peer = transport.get_extra_info("peername")
    if may_reach is None or not isinstance(peer, tuple):
        return
    try:
        may_reach(peer[0])
    except ConfigError as exc:
        raise ConnectFailed(exc.reason) from exc


def _request(
    target: _Place, method: str, path: str, fields: tuple[tuple[str, str], ...], body: bytes
) -> bytes:
    """Return the request's bytes (RFC 9112 §3). Raises BadRequest if something in it cannot be written."""
    path = quote(path, safe=_TARGET_SAFE, encoding="utf-8")
    if _TOKEN.fullmatch(method) is None:
        raise BadRequest(f"not a method: {method!r}")
    if _TARGET.fullmatch(path) is None or not (path.startswith("/") or path == "*"):
        raise BadRequest(f"not a path: {path!r}")
    given = {name.lower() for name, _ in fields}
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"Host: {target.authority}"] if "host" not in given else []
    lines += ["User-Agent: gateway"] if "user-agent" not in given else []
    for name, value in fields:
        if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise BadRequest(f"not a field: {name!r}: {value!r}")
        if name.lower() not in ("connection", "content-length", "transfer-encoding"):
            lines.append(f"{name}: {value}")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: close\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1") + body


class _Answer(asyncio.Protocol):
    """Collects one response. `done` ends with it, or with the UpstreamError that came instead."""

    def __init__(self, loop: asyncio.AbstractEventLoop, method: str, max_bytes: int) -> None:
        self.done: asyncio.Future[FetchResult] = loop.create_future()
        self.sent = False
        self._started = time.monotonic()  # uvloop rounds its own clock to milliseconds
        self._status = 0
        self._fields: dict[str, str] = {}
        self._body: list[bytes] = []
        self._room = max_bytes
        self._is_head = method == "HEAD"
        self._head_complete = False
        self._not_body_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def abort(self) -> None:
        """Drop the connection: the answer is complete, or of no more use."""
        if not self.done.done():
            self.done.cancel()
        elif not self.done.cancelled():
            self.done.exception()  # seen, even if nobody came to await it
        if self._transport is not None:
            self._transport.abort()

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        if self.done.done():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        self._not_body_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BadResponse("switched protocols unasked", sent=True))
        except httptools.HttpParserError as exc:
            self._fail(BadResponse(f"not an HTTP response: {exc}", sent=True))
        else:
            if self._not_body_bytes > HEAD_BYTES:
                self._fail(BadResponse(f"a head or trailers above {HEAD_BYTES} bytes", sent=True))

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    def _ended(self, exc: Exception | None) -> None:
        if exc is None and self._head_complete and self._is_close_delimited():
            self._finish()
            return
        self._fail(
            ResetMidway(f"connection ended before the answer did{f': {exc}' if exc else ''}", sent=self.sent)
        )

    # The parser

    def on_message_begin(self) -> None:
        self._fields = {}
        self._head_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_complete:
            return  # a trailer never joins the head (RFC 9110 §6.5.1)
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._fields.get(key)
        self._fields[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status == 101:
            self._fail(BadResponse("switched protocols unasked", sent=True))
        if self._status < 200:
            return
        self._head_complete = True
        if self._is_head or self._status in (204, 304):
            self._finish()

    def on_body(self, data: bytes) -> None:
        self._not_body_bytes = 0
        if self.done.done():
            return
        self._body.append(data[: self._room])
        self._room -= len(data)
        if self._room < 0:
            self._finish(truncated=True)

    def on_message_complete(self) -> None:
        if self._head_complete:
            self._finish()

    def _is_close_delimited(self) -> bool:
        """Whether the body ends where the connection does (RFC 9112 §6.3, item 8)."""
        coding = self._fields.get("transfer-encoding", "").lower().rpartition(",")[2].strip()
        return coding != "chunked" and "content-length" not in self._fields

    def _finish(self, *, truncated: bool = False) -> None:
        if self.done.done():
            return
        elapsed_s = time.monotonic() - self._started
        result = FetchResult(self._status, self._fields, b"".join(self._body), elapsed_s, truncated)
        self.done.set_result(result)

    def _fail(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
