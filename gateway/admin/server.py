"""The admin listener: takes a request through login, table, allowance and role to its handler."""

import asyncio
import ipaddress
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Protocol

from msgspec.structs import replace

from gateway import __version__
from gateway.actions.access import Actor, ApprovalNeeded, allows
from gateway.actions.actions import Actions
from gateway.actions.problems import Problem, forbidden
from gateway.actions.second_person import Asked
from gateway.admin import docs, openapi
from gateway.admin.answers import JSON, MethodRefused, answer, compressed, refusal
from gateway.admin.auth import Authenticator
from gateway.admin.call import BASE, Call, Reply, Route
from gateway.admin.calls.approvals import kept
from gateway.admin.eviction import Eviction
from gateway.admin.exposition import OPEN_METRICS, TEXT, wants_open_metrics
from gateway.admin.hosts import OwnNames
from gateway.admin.metrics import Metrics, StoreWatched, Watched
from gateway.admin.parse import decode_body, decode_query
from gateway.admin.queries import EventsQuery
from gateway.admin.ratelimit import RateLimiter
from gateway.admin.routes import EVENTS, ROUTES, Methods, Table
from gateway.admin.sessions import SIGN_IN, opening_field
from gateway.admin.site import Site
from gateway.admin.sse import EventFeed
from gateway.control.catalog.catalog import Catalog
from gateway.control.processes.hub import Hub
from gateway.control.tally import Tally
from gateway.errors import GatewayError
from gateway.http1.app import App, Request, Response
from gateway.http1.connections import Connections, ServerSettings
from gateway.http1.server import ServerProtocol
from gateway.net.capacity import Capacity
from gateway.net.listener import Listener
from gateway.net.tls import ServerTls
from gateway.store.api import Store
from gateway.store.records import ApprovalRecord

CONNECTIONS: Final = 512
"""Open at once; who comes then ends another that nobody would miss."""
NEWCOMERS: Final = 128
"""So many more are accepted before others have made room for them."""
TIMES: Final = ServerSettings(client_header_s=5.0, client_idle_s=10.0)
"""Short: whoever has a request sends it at once."""
HANDSHAKE_S: Final = 5.0
PLAIN: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 42\r\nConnection: close\r\n\r\n"
    b"this listener speaks TLS: ask by https://\n"
)
"""The answer to whoever speaks plain text to a listener with TLS."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
REPLACED: Final = "the gateway is being replaced; ask again"
PROBES: Final = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/session"})


class RateLimits(Protocol):
    """The `[rate_limit]` table of the configuration."""

    @property
    def starts_per_minute(self) -> int: ...
    @property
    def changes_per_minute(self) -> int: ...


class ProcessState(Protocol):
    """What the control process says of itself and its workers."""

    restarts: Mapping[str, int]
    """Workers that had to be replaced, by cause."""
    is_reloaded: bool
    """Whether the configuration that was read last is in force."""

    def unready(self) -> str | None:
        """Return why the gateway should get no traffic now; None: it should."""

    def certificate_expiries(self) -> Mapping[tuple[str, str], float]:
        """Return when the certificates in force expire, Unix seconds, by listen address and name."""


class AdminServer:
    """Everything the admin listener serves.

    `/livez`, `/readyz` and the dashboard's files need no token: they tell nothing that a port scan would
    not. Nor does `/metrics` while the listener is on a loopback address; on any other it needs a viewer's.
    """

    def __init__(
        self,
        *,
        actions: Actions,
        auth: Authenticator,
        store: Store,
        catalog: Catalog,
        tally: Tally,
        hub: Hub,
        state: ProcessState,
        watch: StoreWatched,
        limits: RateLimits,
        hosts: Iterable[str] = (),
        watched: Watched | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.feed = EventFeed(store)
        store.on_event = self.feed.wake
        self._actions = actions
        self._auth = auth
        self._hub = hub
        self._state = state
        self._watch = watch
        self._metrics = Metrics(
            catalog=catalog,
            tally=tally,
            hub=hub,
            store=store,
            restarts=state.restarts,
            unready=state.unready,
            watch=watch,
            expiries=state.certificate_expiries,
            is_reloaded=lambda: state.is_reloaded,
            watched=watched,
            release=__version__,
        )
        self._limiter = RateLimiter(
            starts_per_minute=limits.starts_per_minute, changes_per_minute=limits.changes_per_minute
        )
        self._names = OwnNames(hosts)
        self._clock = clock
        self._table = Table(ROUTES)
        self._site = Site()
        self._app = App(self.handle, name="admin", settings=TIMES)
        self._eviction = Eviction(CONNECTIONS)
        self._listener: Listener | None = None
        self._changes: set[asyncio.Task[Reply]] = set()
        self._is_loopback = False
        self._are_changes_held = False

    @property
    def connections(self) -> Connections:
        """Return the listener's connections, with their deadlines."""
        return self._app.connections

    async def start(self, sock: socket.socket, tls: ServerTls | None = None) -> None:
        """Accept on a bound TCP socket; it is closed with the server. tls: the owner may change it."""
        self._is_loopback = ipaddress.ip_address(sock.getsockname()[0]).is_loopback
        capacity = Capacity(CONNECTIONS + NEWCOMERS)
        self._listener = Listener(
            sock, self._connected, capacity, tls=tls, handshake_s=HANDSHAKE_S, plain_answer=lambda: PLAIN
        )
        self._listener.start()

    def _connected(self) -> ServerProtocol:
        connection = self._app.protocol_factory()
        self._eviction.enter(connection)
        return connection

    def hold_changes(self, *, held: bool) -> None:
        """Answer changes with 503 while another process is taking over: what they did could be lost on it."""
        self._are_changes_held = held

    async def close(self, deadline_s: float) -> None:
        """Accept no more, end the event streams, let running calls finish for up to `deadline_s` seconds."""
        if self._listener is not None:
            self._listener.stop()
        self.feed.close()
        await self._app.close(deadline_s)
        if self._changes:
            await asyncio.wait(self._changes, timeout=deadline_s)
        await self._auth.close()

    async def handle(self, request: Request) -> Response:
        """Answer one request. Never raises but for bugs."""
        started = self._clock()
        try:
            self._names.check(request.fields)
            response = await self._dispatch(request)
        except GatewayError as error:
            response = refusal(error)
        if request.method in ("GET", "HEAD"):
            response = compressed(response, request.fields.get("accept-encoding", ""))
        self._metrics.admin_request(request.method, response.status, self._clock() - started)
        return response

    async def _dispatch(self, request: Request) -> Response:
        if request.path == BASE or request.path.startswith(BASE + "/"):
            return await self._call(request)
        if request.path == SIGN_IN and request.method == "GET":
            return self._sign_in(request)
        if request.path not in PROBES and not self._site.has(request.path):
            detail = f"nothing is at {request.path}; the API is under {BASE}"
            raise Problem(404, "Not Found", detail, next_step="/docs lists all calls")
        if request.method == "OPTIONS":
            return Response(204, [("Allow", "GET, HEAD, OPTIONS")])
        if request.method not in ("GET", "HEAD"):
            raise MethodRefused(request.method, "GET, HEAD, OPTIONS")
        if request.path in PROBES:
            return await self._probe(request)
        return self._site.answer(request.path, request.fields.get("if-none-match"))

    def _sign_in(self, request: Request) -> Response:
        """Follow a sign-in link: to the dashboard, with a session if the link still opens one."""
        value = self._auth.sessions.redeem(request.query.removeprefix("code="))
        fields = [("Location", "/"), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")]
        return Response(303, fields if value is None else [*fields, opening_field(value, secure=False)])

    async def _probe(self, request: Request) -> Response:
        if request.path == "/livez":
            return _text(200, "alive")
        if request.path == "/readyz":
            reason = self._state.unready()
            troubles = [f"store: {self._watch.problem}"] if self._watch.problem else []
            troubles += [] if self._watch.audit.ok else [f"audit: {self._watch.audit.reason}"]
            troubles += [self._metrics.isolation] if self._metrics.isolation else []
            head = "ready" if reason is None else f"not ready: {reason}"
            return _text(200 if reason is None else 503, "\n".join((head, *troubles)))
        if request.path == "/openapi.json":
            return Response(200, [("Content-Type", JSON)], openapi.document())
        if request.path == "/docs":
            return docs.answer(request.fields.get("if-none-match"))
        if request.path == "/session":
            return await self._has_session(request)
        if not self._is_loopback:
            await self._login(request)
        is_open = wants_open_metrics(request.fields.get("accept", ""))
        kind = OPEN_METRICS if is_open else TEXT
        return Response(200, [("Content-Type", kind)], await self._metrics.exposition(is_open=is_open))

    async def _has_session(self, request: Request) -> Response:
        """Say whether the browser's cookie opens a session: asking the API, a page would get a 401 first."""
        has = await self._auth.has_session(request.fields)
        body = b'{"signedIn": true}' if has else b'{"signedIn": false}'
        return Response(200, [("Content-Type", JSON), ("Cache-Control", "no-store")], body)

    async def _call(self, request: Request) -> Response:
        """Answer a call of the API: login, table, role, allowance, parse, handle — in that order."""
        actor = await self._login(request)
        with self._eviction.hold(request.connection):
            return await self._carry_out(request, actor)

    async def _carry_out(self, request: Request, actor: Actor) -> Response:
        path = request.path.removeprefix(BASE).strip("/")
        methods, params = self._table.match(path)
        if request.method == "OPTIONS":
            return Response(204, [("Allow", _allowed(methods))])
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            raise MethodRefused(request.method, _allowed(methods))
        if route.is_change and self._are_changes_held:
            raise Problem(503, "Service Unavailable", REPLACED, retry_after_s=1)
        await self._admit(route, actor, params)
        call = await self._parse(request, route, actor, params)
        if route is EVENTS and "application/json" not in request.fields.get("accept", ""):
            return await self._stream(request, call.query)
        try:
            reply = await (self._finish(route.handler(call)) if route.is_change else route.handler(call))
        except ApprovalNeeded as needed:
            reply = await self._finish(self._keep(request, route, actor, needed))
        if route.is_change:
            await self._hub.sent()
        return answer(reply.status or route.status, reply, request.fields.get("if-none-match"))

    async def _keep(self, request: Request, route: Route, actor: Actor, needed: ApprovalNeeded) -> Reply:
        """Keep a call until a second person has confirmed it: 202, with the approval."""
        asked = Asked(
            id=str(uuid.uuid4()),
            action=route.action,
            role=route.role,
            method=request.method,
            path=request.path.removeprefix(BASE).strip("/"),
            body=request.body,
            if_match=request.fields.get("if-match"),
            idempotency_key=request.fields.get("idempotency-key"),
        )
        record = await self._actions.approvals.ask(actor, asked, service=needed.service, what=needed.what)
        return kept(record)

    async def _perform(self, record: ApprovalRecord, actor: Actor) -> Reply:
        """Carry out a kept call as it came, by every rule there is now."""
        methods, params = self._table.match(record.path)
        route = methods[record.method]
        given = {"if-match": record.if_match, "idempotency-key": record.idempotency_key}
        call = Call(
            actions=self._actions,
            actor=actor,
            params=params,
            fields={name: value for name, value in given.items() if value is not None},
            query=decode_query("", route.query),
            body=decode_body({}, record.body, route.body),
            sessions=self._auth.sessions,
        )
        reply = await route.handler(call)
        return replace(reply, status=reply.status or route.status)

    async def _parse(self, request: Request, route: Route, actor: Actor, params: dict[str, str]) -> Call:
        """Return the call as its action takes it. Raises Problem; a change refused here is audited too."""
        try:
            return Call(
                actions=self._actions,
                actor=actor,
                params=params,
                fields=request.fields,
                query=decode_query(request.query, route.query),
                body=decode_body(request.fields, request.body, route.body),
                sessions=self._auth.sessions,
                perform=self._perform,
            )
        except Problem as problem:
            await self._note_refusal(route, actor, params, str(problem)[:200])
            raise

    async def _note_refusal(self, route: Route, actor: Actor, params: dict[str, str], reason: str) -> None:
        """Audit a change that never reached its action: so many of one token, and no more."""
        if (
            route.is_change
            and self._limiter.admit("refusals", (f"token:{actor.name}",), self._clock()) == 0.0
        ):
            await self._auth.note_refusal(actor, route.action, next(iter(params.values()), ""), reason)

    async def _login(self, request: Request) -> Actor:
        try:
            is_safe = request.method in SAFE
            return await self._auth.identify(request.fields, request.peer, is_safe=is_safe)
        except Problem:
            self._metrics.refused("login")
            raise

    async def _admit(self, route: Route, actor: Actor, params: dict[str, str]) -> None:
        """Raise Problem 403 or 429 unless the actor may make this call now.

        The role comes first: what a token may not do says so however often it asks, and costs the others
        behind its address nothing.
        """
        if not allows(actor.role, route.role):
            self._metrics.refused("role")
            await self._note_refusal(route, actor, params, f"needs the role {route.role}, has {actor.role}")
            raise forbidden(f"{route.action} needs the role {route.role}; {actor.name} is {actor.role}")
        if not route.is_change or route.budget is None:
            return
        keys = (f"token:{actor.name}", f"address:{actor.address}")
        wait_s = self._limiter.admit(route.budget, keys, self._clock())
        if wait_s > 0:
            self._metrics.refused("rate_limit")
            detail = f"too many {route.budget} in the last minute"
            raise Problem(429, "Too Many Requests", detail, retry_after_s=int(wait_s) + 1)

    async def _finish(self, change: Coroutine[Any, Any, Reply]) -> Reply:
        """Run a change to its end even if its client hangs up halfway."""
        task = asyncio.get_running_loop().create_task(change, name="admin change")
        self._changes.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Reply]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # seen by the client if it stayed; if not, the refusal is in the audit trail

    async def _stream(self, request: Request, query: EventsQuery) -> Response:
        if self.feed.is_closed or self.feed.is_full:
            raise Problem(
                503, "Service Unavailable", "no further event stream can be opened", retry_after_s=5
            )
        after = _last_event_id(request.fields.get("last-event-id"))
        if after is None:
            after = query.after
        if after is None:
            after = await self.feed.newest()
        fields = [
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store"),
            ("X-Accel-Buffering", "no"),
        ]
        return Response(200, fields, self._held(request, self._events(request, query, after)))

    def _events(self, request: Request, query: EventsQuery, after: int) -> AsyncIterator[bytes]:
        return self.feed.stream(after, query.service_name, lambda: self._auth.is_valid(request.fields))

    async def _held(self, request: Request, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what `body` does; its connection is in use meanwhile."""
        with self._eviction.hold(request.connection):
            async for data in body:
                yield data


def _last_event_id(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise Problem(400, "Bad Request", f"Last-Event-ID {text!r} is no event id of ours")
    return int(text)


def _allowed(methods: Methods) -> str:
    names = set(methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(names))


def _text(status: int, line: str) -> Response:
    return Response(
        status,
        [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")],
        f"{line}\n".encode(),
    )
