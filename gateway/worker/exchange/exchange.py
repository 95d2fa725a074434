"""One request, end to end: head -> route -> version -> endpoint -> breaker -> connection -> relay -> settled.

An exchange belongs to its client connection and serves its requests one after the other. It is moved by what
the two connections hear; on the common path (a pooled connection at hand) nothing waits and no task, future
or timer is made.
"""

from collections.abc import Callable
from time import monotonic

from gateway.core.routing.table import Endpoint, RoutingTable, Service, Version
from gateway.errors import (
    BadResponse,
    ClientGone,
    ConnectFailed,
    Exhausted,
    GatewayError,
    LoopDetected,
    MethodNotAllowed,
    NoEndpoint,
    NoRoute,
    Refused,
    TooSlow,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.http1.chunked import chunk, last_chunk
from gateway.http1.client import UpstreamConnection
from gateway.http1.heads import plain_name
from gateway.http1.message import response_head
from gateway.http1.request import CHUNKED_BODY
from gateway.http1.sink import NEVER
from gateway.link.counts import ANSWERED
from gateway.worker.admission import Gate
from gateway.worker.exchange import max_forwards as asides
from gateway.worker.exchange import response_head as answers
from gateway.worker.exchange.cdn_loop import is_loop
from gateway.worker.exchange.endings import Endings
from gateway.worker.exchange.ledger import (
    CONNECTING,
    IDLE,
    KINDS,
    METHODS,
    OTHER,
    PASSED_ON,
    QUEUED,
    REFUSED,
    RELAYING,
    SENT,
)
from gateway.worker.policy import Policy, sticky_key
from gateway.worker.tunnel.tunnels import TunnelHold


class Exchange(Endings):
    """The sink of a client connection and of whatever upstream it uses."""

    __slots__ = ()

    # --- 1. the request's head: which version of which service ------------------------------------

    def on_head(self) -> None:
        """Route a request, and attempt it."""
        self.began = now = monotonic()
        self.attempts = 0
        plane = self.plane
        plane.requests += 1
        table = plane.live.table
        if not self._find_route(table):
            return
        policy = self.policy
        assert policy is not None
        if policy.gate is not None:
            self._knock(policy.gate)
            return
        self._choose(policy, now)

    def _find_route(self, table: RoutingTable) -> bool:
        """Find the route, or answer."""
        request = self.request
        self.method = METHODS.get(request.method, OTHER)
        path = request.path.decode("ascii") if request.path != b"*" else "/"
        method = request.method.decode("ascii")
        self.route = route = table.match(request.host, path, method)
        if route is None:
            self.service = self.policy = None
            self.refuse(_no_route(table.methods(request.host, path)))
            return False
        self.service = service = route.service
        self.policy = self.plane.policies.get(service) or self.plane.policy_of(service)
        loop = request.special.get(b"cdn-loop")
        if loop is not None and is_loop(loop, self.plane.forwarding.gateway, service.name):
            self.refuse(LoopDetected("the request has come round to this gateway again"))
            return False
        return b"max-forwards" not in request.special or not self._ends_here()

    def on_idle(self) -> None:
        """Keep what there is: it is small."""

    def _ends_here(self) -> bool:
        """Count a hop off Max-Forwards, and answer if none is left."""
        hops = asides.hops_left(self.client)
        if hops == 0:
            self.status = 200
            self.answer(*asides.answer(self.client))
            return True
        if hops is not None:
            self.request.special[b"max-forwards"] = b"%d" % (hops - 1)
        return False

    def _knock(self, gate: Gate) -> None:
        """Pass the gate of a service that is paused or limited."""
        self.phase = QUEUED
        self.client.deadline = 0.0
        try:
            may_go_on = gate.enter(self)
        except Refused as error:
            self.refuse(error)
            return
        if may_go_on:
            self.on_admitted(gate)

    def on_admitted(self, gate: Gate) -> None:
        """The gate is passed; the table may have changed while the request was held."""
        self.phase = CONNECTING
        self.gate = gate
        plane = self.plane
        service = plane.live.table.services.get(self.service.name) if self.service else None
        if service is None:
            self.refuse(NoRoute("the service has been removed"))
            return
        self.service = service
        self.policy = policy = plane.policies.get(service) or plane.policy_of(service)
        self._choose(policy, monotonic())

    def _choose(self, policy: Policy, now: float) -> None:
        """Find the version: a tester's, the cohort's, or by weight."""
        request, service = self.request, self.service
        assert service is not None
        if service.budget is not None:
            service.budget.on_request(now)
        version = None
        if plain_name(policy.version_header) in request.names:
            version = self._asked_for(service, policy)
        self.is_chosen_by_split = version is None
        if version is None:
            if policy.sticky:
                self._find_key(service, policy)
            version = service.only or service.choose(now, self.key)
        if version is None:
            self._fall_back(now, policy)
            return
        self.generation = service.generation
        self.share = version.share
        if not self._attempt(version, now):
            self._fall_back(now, policy)

    def _asked_for(self, service: Service, policy: Policy) -> Version | None:
        """Return the version a tester names, if this client may; nobody's field is passed on."""
        name = self.request.field(policy.version_header) or b""
        self.request.drop(policy.version_header)
        if not policy.version_allow.holds(self.forwarder.client_of(self.request).address):
            return None
        return service.by_name(name.decode("latin-1"))

    def _find_key(self, service: Service, policy: Policy) -> None:
        assert service.sticky is not None
        by = service.sticky.by
        self.key = sticky_key(by, self.request, self.forwarder.client_of(self.request).address)
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
        self.phase = CONNECTING
        self.client.deadline = 0.0
        self.connecting = endpoint.pool.connect(self)

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.connecting = None
        self._send(connection)

    def on_connect_failed(self, error: ConnectFailed) -> None:
        self.connecting = None
        self._fail("connect", error)

    def on_exhausted(self, error: Exhausted) -> None:
        """We have run out of descriptors or the like: nothing to hold against the endpoint."""
        self.connecting = None
        self.settle(monotonic(), REFUSED, None)
        self.refuse(error)

    def _send(self, connection: UpstreamConnection) -> None:
        """Send the head, and what has come of the body."""
        self.upstream = connection
        self.phase = SENT
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
        self.phase = PASSED_ON
        self.content_bytes = len(body)
        if not client.begin_answer() or self.request.http10 or self.set_cookie:
            more = self.set_cookie + client.connection_field()
            head = answers.whole_head(reader, more, http10=self.request.http10)
        else:
            head = answers.whole_head(reader, b"", http10=False)
        client.transport.write(head + body if body else head)
        self._complete(now)

    def _begin_relay(self, body: bytes) -> None:
        """Send the head of a response whose body is still coming."""
        upstream, client, request = self.upstream, self.client, self.request
        endpoint = self.endpoint
        assert upstream is not None
        assert endpoint is not None
        reader = upstream.reader
        self.phase = RELAYING
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
            self.count_stream(endpoint, 1)

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
        if self.client.body_missing and self.request.length == CHUNKED_BODY:
            # Its other chunks would be taken for the new protocol's bytes; those of a known length may come.
            self.on_upstream_lost(BadResponse("the upstream switched protocols too early", sent=True))
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
        self.settle(monotonic(), ANSWERED, None)
        self.gate = self.upstream = None
        self.forget()
        return hold.end

    # --- 5. the end -------------------------------------------------------------------------------

    def _complete(self, now: float) -> None:
        """The response is with the client, whole."""
        upstream, client, endpoint = self.upstream, self.client, self.endpoint
        assert upstream is not None
        assert endpoint is not None
        self.upstream = None
        request = self.request
        if not upstream.writable or (request.length and (client.body_missing or request.upgrade)):
            # The rest of the upload must not be taken for, or wait before, another request; and some servers
            # take the body of a request to upgrade for something else.
            upstream.close()
        else:
            if not client.writable:
                upstream.resume()
            endpoint.pool.give_back(upstream, now)
        self.settle(now, ANSWERED, KINDS[self.status])
        self.forget()
        client.finish()

    # --- 6. when it goes wrong --------------------------------------------------------------------

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """The upstream closed, was reset, or sent what is no response."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        upstream.close()
        if upstream.was_silent and upstream.is_reused and self.may_be_repeated():
            # It closed an idle connection as we reused it: nobody's failure (RFC 9112 §9.3.1).
            assert self.endpoint is not None
            self._connect(self.endpoint)
            return
        self._fail("502" if isinstance(error, BadResponse) else "reset", error)

    def _fail(self, kind: str, error: UpstreamError) -> None:
        """An attempt failed: charge it to its version, then try again if that is allowed, or say so."""
        now = monotonic()
        outcome = "bad_response" if kind == "502" else kind
        again = self.alternative(kind, sent=error.sent, now=now)
        failed = self.endpoint
        self.settle(now, outcome, kind)
        if again is not None and self._attempt_again(again, failed, now):
            return
        self.answer_failure(error)

    def _is_tried_again(self, status: int, now: float) -> bool:
        """Drop an answer that is worth another attempt, and make it."""
        kind = KINDS[status]
        upstream, failed = self.upstream, self.endpoint
        assert kind is not None
        assert upstream is not None
        assert failed is not None
        again = self.alternative(kind, sent=True, now=now)
        if again is None:
            return False
        self.upstream = None
        if upstream.is_reusable and upstream.writable and not self.client.body_missing:
            failed.pool.give_back(upstream, now)
        else:
            upstream.close()
        self.settle(now, ANSWERED, kind)
        if not self._attempt_again(again, failed, now):
            self.answer_failure(BadResponse(f"the upstream answered {status}", sent=True))
        return True

    def _attempt_again(self, version: Version, failed: Endpoint | None, now: float) -> bool:
        """Try an endpoint of `version` not tried yet; if all have been, any of them."""
        if failed is not None:
            self.tried.append(failed)
        if self._attempt(version, now):
            return True
        self.tried.clear()
        return self._attempt(version, now)

    def _fall_back(self, now: float, policy: Policy) -> None:
        """Answer although no version is usable: as the service's fallback says, else 503."""
        self.is_chosen_by_split = False
        fallback = policy.fallback
        if fallback is not None and fallback.status is not None:
            self.status = fallback.status
            self.plane.clients.count_refusal("fallback")
            head = response_head(fallback.status, (("Content-Type", fallback.content_type),))
            self.answer(head, fallback.body.encode())
            return
        if fallback is not None and fallback.version is not None and self.service is not None:
            version = self.service.by_name(fallback.version)
            if version is not None and self._attempt(version, now):
                return
        if policy.fallback_endpoint is not None:
            self.version = None
            self._lease(policy.fallback_endpoint, now)
            return
        self.refuse(NoEndpoint("no version of the service is usable"))

    # --- 7. deadlines -----------------------------------------------------------------------------

    def timeout_s(self) -> float:
        """How long the present wait may last (0 in the settings: for ever)."""
        policy = self.policy
        if policy is None or self.phase == IDLE:
            return NEVER
        if self.phase == QUEUED:
            return policy.gate.wait_s() if policy.gate is not None else NEVER
        if self.phase == CONNECTING:
            return policy.connect_s
        if self.phase == SENT and (not self.client.body_missing or self.client.awaits_continue):
            return policy.response_header_s
        return (policy.stream_idle_s if self.is_stream else policy.body_idle_s) or NEVER

    def on_timeout(self) -> None:
        """It has lasted too long: whose fault is it?"""
        client, upstream = self.client, self.upstream
        if self.phase == QUEUED:
            assert self.policy is not None
            assert self.policy.gate is not None
            error = self.policy.gate.refusal()
            self.give_up()
            self.refuse(error)
        elif self.phase == CONNECTING:
            assert self.connecting is not None
            self.connecting.cancel()
            self.connecting = None
            self._fail("connect", UpstreamTimeout("the upstream did not accept a connection in time"))
        elif self._is_clients_turn(upstream):
            self.give_up()
            self.refuse(TooSlow("the body did not come in time"))
        elif self.phase == RELAYING and not client.writable:
            self.on_gone(ClientGone("the client does not read its answer"))
            client.abort()
        elif upstream is not None:
            self.upstream = None
            upstream.close()
            self._fail("timeout", UpstreamTimeout("the upstream did not answer in time", sent=True))

    def _is_clients_turn(self, upstream: UpstreamConnection | None) -> bool:
        """Tell whether it is the client that something is waited for: the rest of its body."""
        client = self.client
        if self.phase != SENT or upstream is None or not client.body_missing or client.awaits_continue:
            return False
        return upstream.writable


def _no_route(allowed: list[str]) -> GatewayError:
    """Say why no route took a request. allowed: the methods that would have done."""
    if not allowed:
        return NoRoute("no route names this host and path")
    return MethodNotAllowed("no route of this path takes the method", ", ".join(allowed))
