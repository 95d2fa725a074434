"""A small application server on the hardened connection: what the admin listener answers with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import msgspec

from gateway.errors import DownstreamError, GatewayError, TooSlow
from gateway.http1.chunked import chunk
from gateway.http1.connections import Connections, ServerSettings
from gateway.http1.handler import NEVER
from gateway.http1.message import CHUNK_END, CHUNKED, CRLF, has_no_body, response_head
from gateway.http1.server import ServerProtocol


@dataclass(slots=True)
class Request:
    """One request, complete."""

    method: str
    path: str
    """Normalised, without the query."""
    query: str
    """Without its question mark."""
    fields: dict[str, str]
    """By lower-case name; several of one name joined with a comma."""
    body: bytes
    peer: str
    """The client's address."""
    connection: ServerProtocol | None = None
    """What it came on; None in tests that have none."""


@dataclass(slots=True)
class Response:
    """An answer. Length, Date and Connection are added; an iterator is sent piece by piece as it yields."""

    status: int
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""


Handler = Callable[[Request], Awaitable[Response]]

DEFAULT_BODY_BYTES: Final = 1_048_576
DEFAULT_BODY_S: Final = 30.0
"""No body of a few kilobytes takes that on a line that works; at a byte a second the longest takes days."""


class App:
    """Runs `handler` once for each request, in a task of its own, cancelled when its client goes away."""

    def __init__(
        self,
        handler: Handler,
        *,
        name: str,
        settings: ServerSettings | None = None,
        body_bytes: int = DEFAULT_BODY_BYTES,
        body_s: float = DEFAULT_BODY_S,
    ) -> None:
        """name: prefixes the tasks' names. body_bytes: the longest body taken; a longer one is a 413.

        body_s: how long one may take to come, however steadily it does; then 408.
        """
        self.handler = handler
        self.name = name
        self.body_s = body_s
        settings = settings or ServerSettings()
        self.connections = Connections(msgspec.structs.replace(settings, body_bytes=body_bytes))
        self.tasks: set[asyncio.Task[None]] = set()

    def protocol_factory(self) -> ServerProtocol:
        """Return the protocol of one new connection; hand this method to the listener."""
        self.connections.start()
        return ServerProtocol(self.connections, self._make_handler)

    async def close(self, deadline_s: float) -> None:
        """Let what is being answered finish for up to `deadline_s` seconds, then close everything."""
        self.connections.draining = True
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=deadline_s)
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        for connection in list(self.connections.open):
            connection.abort()
        self.connections.stop()

    def _make_handler(self, connection: ServerProtocol) -> "_Call":
        return _Call(self, connection)


class _Call:
    """Collects a connection's requests and runs the handler on them."""

    __slots__ = ("_app", "_body", "_body_until", "_connection", "_task", "_writable")

    def __init__(self, app: App, connection: ServerProtocol) -> None:
        self._app = app
        self._connection = connection
        self._body: list[bytes] = []
        self._body_until = 0.0
        """Monotonic seconds: by then it has to be there."""
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # --- from the connection ----------------------------------------------------------------------

    def on_head(self, body: bytes, *, complete: bool) -> None:
        self._body = [body]
        self._connection.deadline = 0.0  # what was waited for before has come
        if complete:
            self._run()
        else:
            self._body_until = monotonic() + self._app.body_s
            self._connection.continue_body()

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        if monotonic() > self._body_until:
            self._connection.refuse(TooSlow(f"the body did not come within {self._app.body_s:g} s"))

    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self._run()

    def on_gone(self, error: DownstreamError) -> None:
        if self._task is not None:
            self._task.cancel()

    def on_closed(self) -> None:
        """Whatever is kept goes with the connection."""

    def on_writable(self, *, writable: bool) -> None:
        if writable:
            self._writable.set()
        else:
            self._writable.clear()

    def timeout_s(self) -> float:
        """A body must keep coming; a handler takes as long as it takes."""
        if self._connection.body_missing or not self._connection.writable:
            return self._connection.owner.settings.body_idle_s or NEVER
        return NEVER

    def on_timeout(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._connection.abort()

    # --- answering --------------------------------------------------------------------------------

    def _run(self) -> None:
        app, connection = self._app, self._connection
        request = _request_of(connection, b"".join(self._body))
        self._body = []
        task = asyncio.get_running_loop().create_task(
            self._answer(request), name=f"{app.name} {request.method} {request.path}"
        )
        self._task = task
        app.tasks.add(task)
        task.add_done_callback(app.tasks.discard)

    async def _answer(self, request: Request) -> None:
        connection = self._connection
        try:
            response = await self._app.handler(request)
            if isinstance(response.body, bytes):
                self._task = None
                connection.answer(response_head(response.status, response.fields), response.body)
            else:
                await self._stream(response, response.body)
        except asyncio.CancelledError:
            connection.abort()
            raise
        except GatewayError as error:
            self._fail(error)
        except Exception as exc:
            context = {"message": f"{self._app.name}: a handler failed", "exception": exc}
            asyncio.get_running_loop().call_exception_handler(context)
            self._fail(GatewayError("the request could not be carried out"))

    def _fail(self, error: GatewayError) -> None:
        self._task = None
        if self._connection.answer_begun:
            self._connection.abort()
        else:
            self._connection.refuse(error)

    async def _stream(self, response: Response, body: AsyncIterator[bytes]) -> None:
        """Send an answer of unknown length: chunked, or until the close for an HTTP/1.0 client."""
        connection = self._connection
        reader, transport = connection.reader, connection.transport
        if reader.http10:
            reader.keep_alive = False
        connection.begin_answer()
        pieces = response_head(response.status, response.fields)
        framing = b"" if reader.http10 else CHUNKED
        transport.write(b"".join((*pieces, framing, connection.connection_field(), CRLF)))
        if not has_no_body(reader.method, response.status):
            async for data in body:
                if data:
                    transport.write(data if reader.http10 else chunk(data))
                await self._writable.wait()
            if not reader.http10:
                transport.write(CHUNK_END)
        self._task = None
        connection.finish()


def _request_of(connection: ServerProtocol, body: bytes) -> Request:
    reader = connection.reader
    fields = {name.decode("ascii"): value.decode("latin-1") for name, value in reader.special.items()}
    for raw_name, raw_value in reader.pairs():
        name, value = raw_name.lower().decode("ascii"), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return Request(
        method=reader.method.decode("ascii"),
        path=reader.path.decode("ascii"),
        query=reader.query[1:].decode("ascii"),
        fields=fields,
        body=body,
        peer=connection.peer,
        connection=connection,
    )
