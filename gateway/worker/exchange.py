"""One request, end to end: head -> route -> version -> endpoint -> breaker -> connection -> relay -> settled.

An exchange belongs to its client connection and serves its requests one after the other. It is moved by what
the two connections hear; on the common path (a pooled connection at hand) nothing waits and no task, future
or timer is made.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.core.retry import IDEMPOTENT
from gateway.core.table import Endpoint, Route, RoutingTable, Service, Version
from gateway.errors import (
    BadResponse,
    ClientGone,
    ConnectFailed,
    DownstreamError,
    Draining,
    GatewayError,
    NoEndpoint,
    NoRoute,
    Refused,
    TooSlow,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.http1.chunked import chunk, last_chunk
from gateway.http1.client import UpstreamConnection
from gateway.http1.message import problem_response, response_head
from gateway.http1.request import CHUNKED_BODY
from gateway.http1.server import NEVER, ServerProtocol, reason_label
from gateway.link.counts import ANSWERED, VersionCounts
from gateway.worker import answers, asides
from gateway.worker.gate import Gate
from gateway.worker.policy import Policy, sticky_key
from gateway.worker.tunnels import TunnelHold
from gateway.worker.upload import Upload

if TYPE_CHECKING:
    from gateway.worker.plane import Plane

CLIENT_GONE: Final = "client_gone"
RETRY_AFTER_S: Final = "1"
MAX_COHORT_ERRORS: Final = 1_000
KINDS: Final = [None if status < 400 else str(status) for status in range(1000)]
"""What an answer of each status is to retry, breaker and judge: None is a good one."""
METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
}

_IDLE: Final = 0
_QUEUED: Final = 1  # at the gate
_CONNECTING: Final = 2
_SENT: Final = 3  # the head is with the upstream, no final response yet
_RELAYING: Final = 4  # the client has the response's head
_ANSWERED: Final = 5  # the response came whole, and is being passed on whole


class Exchange:
    """The sink of a client connection and of whatever upstream it uses."""

    __slots__ = (
        "answered_us",
        "attempts",
        "began",
        "breaker_epoch",
        "client",
        "connecting",
        "content_bytes",
        "endpoint",
        "forwarder",
        "gate",
        "head",
        "is_chosen_by_split",
        "is_stream",
        "key",
        "last_endpoint",
        "method",
        "outcome",
        "phase",
        "plane",
        "policy",
        "rechunks",
        "request",
        "route",
        "serial",
        "service",
        "set_cookie",
        "share",
        "stage",
        "status",
        "table",
        "tried",
        "upload",
        "upstream",
        "version",
    )

    def __init__(self, plane: "Plane", client: ServerProtocol) -> None:
        self.plane = plane
        self.client = client
        self.request = client.reader
        self.forwarder = plane.nobody
        self.phase = _IDLE
        self.began = 0.0
        """Monotonic seconds."""
        self.answered_us = 0
        """How long the client waited for the head of its answer."""
        self.method = ""
        self.serial = -1
        """Of the request that `route`, `service`, `policy` and `method` were found for, in `table`."""
        self.table: RoutingTable | None = None
        self.route: Route | None = None
        self.service: Service | None = None
        self.policy: Policy | None = None
        self.gate: Gate | None = None
        """The gate passed, to be left at the end."""
        self.head = b""
        """What is sent upstream, the same at every attempt."""
        self.key: bytes | None = None
        """What identifies the user of a sticky service."""
        self.set_cookie = b""
        self.stage = 0
        self.share = 0
        self.is_chosen_by_split = False
        self.attempts = 0
        self.tried: list[Endpoint] = []
        self.version: Version | None = None
        self.endpoint: Endpoint | None = None
        self.last_endpoint: Endpoint | None = None
        """Of the last attempt, also when it has ended."""
        self.outcome = ""
        """What went wrong, if something did."""
        self.breaker_epoch = 0
        self.connecting: asyncio.Task[None] | None = None
        self.upstream: UpstreamConnection | None = None
        self.upload = Upload()
        self.status = 0
        self.content_bytes = 0
        """Of the answer's content, so far."""
        self.rechunks = False
        """Whether the client gets the body in chunks."""
        self.is_stream = False

    # --- 1. the request's head: which version of which service ------------------------------------

    def on_head(self) -> None:
        """Route a request, and attempt it."""
        self.began = now = monotonic()
        self.attempts = 0
        plane = self.plane
        plane.requests += 1
        table = plane.live.table
        if (self.request.serial != self.serial or table is not self.table) and not self._find_route(table):
            return
        policy = self.policy
        assert policy is not None
        if policy.gate is not None:
            self._knock(policy.gate)
            return
        self._choose(policy, now)

    def _find_route(self, table: RoutingTable) -> bool:
        """Find the route, or answer. What is found holds for the same request to the same table again."""
        request = self.request
        self.method = method = METHODS.get(request.method) or request.method.decode("ascii")
        path = request.path
        route = table.match(request.host, path.decode("ascii") if path != b"*" else "/", method)
        if route is None:
            self.serial = -1
            self._refuse(NoRoute("no route names this host and path"))
            return False
        self.serial, self.table = request.serial, table
        self.route = route
        self.service = service = route.service
        self.policy = self.plane.policies.get(service) or self.plane.policy_of(service)
        return b"max-forwards" not in request.special or not self._ends_here()

    def _ends_here(self) -> bool:
        """Count a hop off Max-Forwards, and answer if none is left."""
        hops = asides.hops_left(self.client)
        if hops == 0:
            self.status = 200
            self._answer(*asides.answer(self.client))
            return True
        if hops is not None:
            self.request.special[b"max-forwards"] = b"%d" % (hops - 1)
        return False

    def _knock(self, gate: Gate) -> None:
        """Pass the gate of a service that is paused or limited."""
        self.phase = _QUEUED
        self.client.deadline = 0.0
        try:
            may_go_on = gate.enter(self)
        except Refused as error:
            self._refuse(error)
            return
        if may_go_on:
            self.on_admitted(gate)

    def on_admitted(self, gate: Gate) -> None:
        """The gate is passed; the table may have changed while the request was held."""
        self.phase = _CONNECTING
        self.gate = gate
        plane = self.plane
        service = plane.live.table.services.get(self.service.name) if self.service else None
        if service is None:
            self._refuse(NoRoute("the service has been removed"))
            return
        self.service = service
        self.policy = policy = plane.policies.get(service) or plane.policy_of(service)
        self.serial = -1
        self._choose(policy, monotonic())

    def _choose(self, policy: Policy, now: float) -> None:
        """Find the version: a tester's, the cohort's, or by weight."""
        request, service = self.request, self.service
        assert service is not None
        if service.budget is not None:
            service.budget.on_request(now)
        version = None
        if request.others and policy.version_header in request.others:
            version = self._asked_for(service, policy)
        self.is_chosen_by_split = version is None
        if version is None:
            if policy.sticky:
                self._find_key(service, policy)
            version = service.choose(now, self.key)
        if version is None:
            self._fall_back(now, policy)
            return
        self.stage = service.stage
        self.share = version.share
        if not self._attempt(version, now):
            self._fall_back(now, policy)

    def _asked_for(self, service: Service, policy: Policy) -> Version | None:
        """Return the version a tester names, if this client may; nobody's field is passed on."""
        name = self.request.field(policy.version_header) or b""
        self.request.drop(policy.version_header)
        if not policy.version_allow.holds(self.client.peer):
            return None
        return service.by_name(name.decode("latin-1"))

    def _find_key(self, service: Service, policy: Policy) -> None:
        assert service.sticky is not None
        by = service.sticky.by
        self.key = sticky_key(by, self.request, self.forwarder.client_of(self.request))
        if self.key is None and policy.issues_cookie and by.startswith("cookie:"):
            self.key = self.plane.request_ids()
            self.set_cookie = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % (
                by[7:].encode(),
                self.key,
            )

    # --- 2. an attempt: endpoint, breaker, connection ---------------------------------------------

    def _attempt(self, version: Version, now: float) -> bool:
        """Try `version` at an endpoint not tried yet. Returns False if it has none that admits us."""
        endpoint = version.pick(now, self.tried)
        while endpoint is not None:
            breaker = endpoint.breaker
            epoch = 0 if breaker is None else breaker.admit(now)
            if epoch is not None:
                self.breaker_epoch = epoch
                version.counts.in_flight += 1
                self.version = version
                self._lease(endpoint, now)
                return True
            self.tried.append(endpoint)
            endpoint = version.pick(now, self.tried)
        return False

    def _lease(self, endpoint: Endpoint, now: float) -> None:
        self.endpoint = self.last_endpoint = endpoint
        endpoint.in_flight += 1
        self.attempts += 1
        pool = endpoint.pool
        if not self.head:
            self.head = self.forwarder.head(self.request, self.route, pool.authority)
        connection = pool.lease(now)
        if connection is None:
            self._connect(endpoint)
        else:
            self._send(connection)

    def _connect(self, endpoint: Endpoint) -> None:
        self.phase = _CONNECTING
        self.client.deadline = 0.0
        self.connecting = endpoint.pool.connect(self)

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.connecting = None
        self._send(connection)

    def on_connect_failed(self, error: ConnectFailed) -> None:
        self.connecting = None
        self._fail("connect", error)

    def _send(self, connection: UpstreamConnection) -> None:
        """Send the head, and what has come of the body."""
        self.upstream = connection
        self.phase = _SENT
        self.client.deadline = 0.0
        connection.send(self, self.request.method, self.head)
        if self.request.length:
            assert self.policy is not None
            self.upload.send_held(connection, self.policy.replay_bytes)
            if connection.writable:
                self.client.resume()

    # --- 3. the request's body, on its way up -----------------------------------------------------

    def on_body(self, data: bytes) -> None:
        self._pass_up(data if self.request.length != CHUNKED_BODY else chunk(data))

    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.client.deadline = 0.0  # the response's time begins
        if self.request.length == CHUNKED_BODY:
            self._pass_up(last_chunk(trailers))

    def _pass_up(self, framed: bytes) -> None:
        if self.upstream is not None:
            assert self.policy is not None
            self.upload.send(framed, self.upstream, self.policy.replay_bytes)
            return
        self.upload.hold(framed)
        if self.upload.is_long:
            self.client.pause()

    def on_upstream_writable(self, *, writable: bool) -> None:
        self.client.deadline = 0.0
        if writable:
            self.client.resume()
        else:
            self.client.pause()

    # --- 4. the response, on its way down ---------------------------------------------------------

    def on_response(self, body: bytes, *, complete: bool) -> None:
        """Pass on a response's head, and what came with it: all of it, most often."""
        upstream, client = self.upstream, self.client
        assert upstream is not None
        reader = upstream.reader
        self.status = status = reader.status
        now = monotonic()
        if status >= 500 and self._is_tried_again(status, now):
            return
        self.answered_us = int((now - self.began) * 1e6)
        if not complete:
            self._begin_relay(body)
            return
        self.phase = _ANSWERED
        self.content_bytes = len(body)
        if not client.begin_answer() or self.request.http10 or self.set_cookie:
            more = self.set_cookie + client.connection_field()
            head = answers.whole_head(reader, more, http10=self.request.http10)
        else:
            head = reader.rewritten
            if not head:
                head = answers.whole_head(reader, b"", http10=False)
                if b"date" in reader.special:
                    reader.rewritten = head
        client.transport.write(head + body if body else head)
        self._complete(now)

    def _begin_relay(self, body: bytes) -> None:
        """Send the head of a response whose body is still coming."""
        upstream, client, request = self.upstream, self.client, self.request
        endpoint = self.endpoint
        assert upstream is not None
        assert endpoint is not None
        reader = upstream.reader
        self.phase = _RELAYING
        client.deadline = 0.0
        if self.version is not None:
            self.version.counts.request(self.method, self.status, self.answered_us)
        self.rechunks = reader.length < 0 and not request.http10
        if reader.length < 0 and request.http10:
            request.keep_alive = False  # the close ends the body
        client.begin_answer()
        head = answers.begun_head(reader, self.set_cookie + client.connection_field(), rechunks=self.rechunks)
        self.content_bytes = len(body)
        if body and self.rechunks:
            body = chunk(body)
        client.transport.write(head + body)
        if reader.length < 0 and answers.is_event_stream(reader):
            self._count_stream(endpoint, 1)

    def on_response_body(self, data: bytes) -> None:
        self.client.deadline = 0.0
        self.content_bytes += len(data)
        self.client.transport.write(chunk(data) if self.rechunks else data)

    def on_response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        if self.rechunks:
            self.client.transport.write(last_chunk(trailers))
        self._complete(monotonic())

    def on_writable(self, *, writable: bool) -> None:
        """The client reads too slowly, or has caught up."""
        if self.upstream is None:
            return
        if writable:
            self.upstream.resume()
        else:
            self.upstream.pause()

    def on_interim(self) -> None:
        """Pass on a 1xx (RFC 9110 §15.2): a 100 only to who waits for it, nothing to HTTP/1.0."""
        upstream, client = self.upstream, self.client
        assert upstream is not None
        reader = upstream.reader
        if reader.status == 100:
            client.continue_body()
        elif not self.request.http10:
            client.transport.write(answers.interim_head(reader))

    def on_upgrade(self, rest: bytes) -> None:
        """Join the two connections if the client asked for it (RFC 9110 §7.8)."""
        if not self.request.upgrade:
            self.on_upstream_lost(BadResponse("the upstream switched protocols unasked", sent=True))
            return
        upstream, client = self.upstream, self.client
        assert upstream is not None
        reader = upstream.reader
        self.status = 101
        protocol = reader.special.get(b"upgrade", self.request.upgrade)
        self.answered_us = int((monotonic() - self.began) * 1e6)
        if self.version is not None:
            self.version.counts.request(self.method, 101, self.answered_us)
        client.begin_answer()
        client.transport.write(answers.switching_head(reader, protocol))
        self.plane.tunnels.join(self, rest, is_websocket=protocol.lower() == b"websocket")

    def detach(self) -> Callable[[bool], None]:
        """Leave the two connections to a tunnel. Returns what to call at its end, with whether it was cut."""
        endpoint = self.endpoint
        assert endpoint is not None
        hold = TunnelHold(endpoint, self.version, self.gate, self.client.on_lost)
        self._settle(monotonic(), ANSWERED, None)
        self.gate = self.upstream = None
        self._forget()
        return hold.end

    # --- 5. the end -------------------------------------------------------------------------------

    def _complete(self, now: float) -> None:
        """The response is with the client, whole."""
        upstream, client, endpoint = self.upstream, self.client, self.endpoint
        assert upstream is not None
        assert endpoint is not None
        self.upstream = None
        if client.body_missing:
            upstream.close()  # the rest of the upload must not be taken for another request
        else:
            if not client.writable:
                upstream.resume()
            endpoint.pool.give_back(upstream, now)
        self._settle(now, ANSWERED, KINDS[self.status])
        self._forget()
        client.finish()

    def _settle(self, now: float, outcome: str, kind: str | None) -> None:
        """Account for an attempt: reached exactly once for each, from every ending.

        kind: None for a good answer, else what went wrong: `connect`, `reset`, `timeout`, or a status.
        """
        endpoint, version, service = self.endpoint, self.version, self.service
        assert endpoint is not None
        assert service is not None
        self.endpoint = None
        endpoint.in_flight -= 1
        if self.is_stream:
            self._count_stream(endpoint, -1)
        if version is None:  # a fallback elsewhere is nobody's version
            return
        version.counts.in_flight -= 1
        breaker = endpoint.breaker
        if breaker is not None:
            if outcome == CLIENT_GONE:
                breaker.release(now, self.breaker_epoch)
            else:
                breaker.settle(now, self.breaker_epoch, kind is None or kind not in service.breaker_on)
        is_evidence = self.is_chosen_by_split and self.attempts == 1
        if kind is None and is_evidence and self.phase == _ANSWERED:
            version.counts.answer(self.method, self.status, self.answered_us, self.stage, self.share)
            return
        self._count(version.counts, service, outcome, kind, is_evidence=is_evidence, now=now)

    def _count(
        self,
        counts: VersionCounts,
        service: Service,
        outcome: str,
        kind: str | None,
        *,
        is_evidence: bool,
        now: float,
    ) -> None:
        """Count an attempt that is not the plain case."""
        self.outcome = "" if outcome == ANSWERED else outcome
        if self.phase == _ANSWERED:
            counts.request(self.method, self.status, self.answered_us)
        counts.attempt(outcome)
        if not is_evidence or outcome == CLIENT_GONE:
            return
        latency_us = self.answered_us if outcome == ANSWERED else int((now - self.began) * 1e6)
        counts.judge(self.stage, self.share, kind, latency_us)
        if kind is not None and self.key is not None and len(counts.cohort_errors) < MAX_COHORT_ERRORS:
            counts.cohort_errors.append((self.stage, self.share, service.key_number(self.key)))

    def _forget(self) -> None:
        """Let go of the request, and of its place at the gate."""
        if self.plane.log is not None:
            self.plane.log_exchange(self)
        if self.outcome:
            self.outcome = ""
        self.phase = _IDLE
        self.head = b""
        self.version = self.last_endpoint = None
        self.status = 0
        self.content_bytes = 0
        self.is_stream = False
        if self.key is not None:
            self.key = None
            self.set_cookie = b""
        if self.tried:
            self.tried.clear()
        if self.request.length:
            self.upload.forget()
        if self.gate is not None:
            gate, self.gate = self.gate, None
            gate.leave()

    # --- 6. when it goes wrong --------------------------------------------------------------------

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """The upstream closed, was reset, or sent what is no response."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        upstream.close()
        if upstream.was_silent and upstream.is_reused and self._may_be_repeated():
            # It closed an idle connection as we reused it: nobody's failure (RFC 9112 §9.3.1).
            assert self.endpoint is not None
            self._connect(self.endpoint)
            return
        self._fail("502" if isinstance(error, BadResponse) else "reset", error)

    def _may_be_repeated(self) -> bool:
        return self.method in IDEMPOTENT and self.upload.is_replayable and not self.client.answer_begun

    def _fail(self, kind: str, error: UpstreamError) -> None:
        """An attempt failed: charge it to its version, then try again if that is allowed, or say so."""
        now = monotonic()
        outcome = "bad_response" if kind == "502" else kind
        again = self._alternative(kind, sent=error.sent, now=now)
        failed = self.endpoint
        self._settle(now, outcome, kind)
        if again is not None and self._attempt_again(again, failed, now):
            return
        self._answer_failure(error)

    def _is_tried_again(self, status: int, now: float) -> bool:
        """Drop an answer that is worth another attempt, and make it."""
        kind = KINDS[status]
        upstream, failed = self.upstream, self.endpoint
        assert kind is not None
        assert upstream is not None
        assert failed is not None
        again = self._alternative(kind, sent=True, now=now)
        if again is None:
            return False
        self.upstream = None
        if upstream.is_reusable and not self.client.body_missing:
            failed.pool.give_back(upstream, now)
        else:
            upstream.close()
        self._settle(now, ANSWERED, kind)
        if not self._attempt_again(again, failed, now):
            self._answer_failure(BadResponse(f"the upstream answered {status}", sent=True))
        return True

    def _alternative(self, kind: str, *, sent: bool, now: float) -> Version | None:
        """Return the version to try next, if a retry is allowed and there is budget; None to give up."""
        service, version, failed = self.service, self.version, self.endpoint
        if service is None or version is None or service.retry is None:
            return None
        allowed = service.retry.can_retry(
            attempts=self.attempts,
            kind=kind,
            sent=sent,
            method=self.method,
            body_at_hand=self.upload.is_replayable,
            response_started=self.client.answer_begun,
        )
        if not allowed or (service.budget is not None and not service.budget.take(now)):
            return None
        for other in (version, service.stable):
            if (
                other is not None
                and other.usable
                and any(self._is_new(each, failed) for each in other.available)
            ):
                return other
        return version

    def _is_new(self, endpoint: Endpoint, failed: Endpoint | None) -> bool:
        return endpoint is not failed and endpoint not in self.tried

    def _attempt_again(self, version: Version, failed: Endpoint | None, now: float) -> bool:
        """Try an endpoint of `version` not tried yet; if all have been, any of them."""
        if failed is not None:
            self.tried.append(failed)
        if self._attempt(version, now):
            return True
        self.tried.clear()
        return self._attempt(version, now)

    def _answer_failure(self, error: UpstreamError) -> None:
        if self.client.answer_begun:
            self._forget()
            self.client.abort()  # never a clean end to half an answer
            return
        self._refuse(error)

    def _fall_back(self, now: float, policy: Policy) -> None:
        """Answer although no version is usable: as the service's fallback says, else 503."""
        self.is_chosen_by_split = False
        fallback = policy.fallback
        if fallback is not None and fallback.status is not None:
            self.status = fallback.status
            self.plane.clients.count_refusal("fallback")
            head = response_head(fallback.status, (("Content-Type", fallback.content_type),))
            self._answer(head, fallback.body.encode())
            return
        if fallback is not None and fallback.version is not None and self.service is not None:
            version = self.service.by_name(fallback.version)
            if version is not None and self._attempt(version, now):
                return
        if policy.fallback_endpoint is not None:
            self.version = None
            self._lease(policy.fallback_endpoint, now)
            return
        self._refuse(NoEndpoint("no version of the service is usable"))

    def _refuse(self, error: GatewayError) -> None:
        """Answer with a problem of our own."""
        self.plane.clients.count_refusal(reason_label(error))
        self.status = error.status
        fields = (("Retry-After", RETRY_AFTER_S),) if error.status == 503 else ()
        self._answer(*problem_response(error, fields))

    def _answer(self, pieces: list[bytes], body: bytes) -> None:
        self.content_bytes = len(body)
        self.answered_us = int((monotonic() - self.began) * 1e6)
        self._forget()
        self.client.answer(pieces, body)

    def on_gone(self, error: DownstreamError) -> None:
        """The client left, or spoilt its own request: stop everything at once."""
        self._give_up()
        self.status = error.status
        self._forget()

    def _give_up(self) -> None:
        """End what is under way without a verdict on the upstream."""
        if self.phase == _QUEUED and self.policy is not None and self.policy.gate is not None:
            self.policy.gate.give_up(self)
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        if self.endpoint is not None:
            self._settle(monotonic(), CLIENT_GONE, None)

    def cut(self) -> None:
        """A drain's deadline has passed: end this exchange, so that nobody takes it for complete."""
        if self.endpoint is not None:
            self.endpoint.forced += 1
        self._give_up()
        if self.client.answer_begun or self.phase == _IDLE:
            self._forget()
            self.client.abort()
        else:
            self._refuse(Draining("the service is being replaced"))

    def end_stream(self) -> None:
        """End an event stream whose endpoint drains: without the last chunk, so that its client comes
        back."""
        self._give_up()
        self._forget()
        self.client.abort()

    def _count_stream(self, endpoint: Endpoint, change: int) -> None:
        """Count an event stream or a tunnel: it has no end to wait for."""
        self.is_stream = change > 0
        endpoint.streams += change
        if self.version is not None:
            self.version.counts.streams += change

    # --- 7. deadlines -----------------------------------------------------------------------------

    def timeout_s(self) -> float:
        """How long the present wait may last (0 in the settings: for ever)."""
        policy = self.policy
        if policy is None or self.phase == _IDLE:
            return NEVER
        if self.phase == _QUEUED:
            return policy.gate.wait_s() if policy.gate is not None else NEVER
        if self.phase == _CONNECTING:
            return policy.connect_s
        if self.phase == _SENT and not self.client.body_missing:
            return policy.response_header_s
        return (policy.stream_idle_s if self.is_stream else policy.body_idle_s) or NEVER

    def on_timeout(self) -> None:
        """It has lasted too long: whose fault is it?"""
        client, upstream = self.client, self.upstream
        if self.phase == _QUEUED:
            assert self.policy is not None
            assert self.policy.gate is not None
            error = self.policy.gate.refusal()
            self._give_up()
            self._refuse(error)
        elif self.phase == _CONNECTING:
            assert self.connecting is not None
            self.connecting.cancel()
            self.connecting = None
            self._fail("connect", UpstreamTimeout("the upstream did not accept a connection in time"))
        elif self.phase == _SENT and upstream is not None and client.body_missing and upstream.writable:
            self._give_up()
            self._refuse(TooSlow("the body did not come in time"))
        elif self.phase == _RELAYING and not client.writable:
            self.on_gone(ClientGone("the client does not read its answer"))
            client.abort()
        elif upstream is not None:
            self.upstream = None
            upstream.close()
            self._fail("timeout", UpstreamTimeout("the upstream did not answer in time", sent=True))
