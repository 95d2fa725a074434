"""One request, end to end: head -> route -> version -> endpoint -> breaker -> attempt -> answered, settled.

An exchange belongs to its client connection and serves its requests one after the other. It is moved by what
the two connections hear; on the common path (a pooled connection at hand) nothing waits and no task, future
or timer is made.
"""

from collections.abc import Callable

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.table import Route, RoutingTable, Service
from gateway.core.routing.testers import NEW
from gateway.core.routing.version import Version
from gateway.errors import (
    ClientGone,
    ConnectionsPerClient,
    DownstreamError,
    Draining,
    GatewayError,
    LoopDetected,
    NoEndpoint,
    NoRoute,
    Refused,
    TesterRefused,
    TooSlow,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.http1.chunked import chunk, last_chunk
from gateway.http1.client import UpstreamConnection
from gateway.http1.connections import reason_label
from gateway.http1.handler import NEVER, RequestHandler
from gateway.http1.message import response_head
from gateway.http1.request import CHUNKED_BODY
from gateway.http1.server import ServerProtocol
from gateway.link.counts import ANSWERED
from gateway.net.capacity import Share
from gateway.worker.admission import Admission
from gateway.worker.exchange import failures, max_forwards
from gateway.worker.exchange.attempt import CONNECTING, RELAYING, Attempt, AttemptOwner, monotonic
from gateway.worker.exchange.cdn_loop import is_loop
from gateway.worker.exchange.choice import find_key, wish_of
from gateway.worker.exchange.context import Context
from gateway.worker.exchange.failures import Failures
from gateway.worker.exchange.record import METHODS, OTHER, Record
from gateway.worker.exchange.tunnel_hold import TunnelHold
from gateway.worker.exchange.upload import Upload, passing_trailers
from gateway.worker.policy import Policy


class Exchange(AttemptOwner, RequestHandler):
    """What answers a client connection's requests, and what its attempts are made for."""

    __slots__ = (
        "admission",
        "attempt",
        "client",
        "context",
        "failures",
        "forwarder",
        "head",
        "is_held",
        "is_idle",
        "policy",
        "record",
        "request",
        "route",
        "share",
        "upload",
    )

    def __init__(self, context: Context, client: ServerProtocol) -> None:
        self.context = context
        self.client = client
        self.request = client.reader
        self.forwarder = context.nobody
        self.record = Record()
        self.is_idle = True
        """No request is under way."""
        self.is_held = False
        """The service is paused, or has as many requests as it may."""
        self.route: Route | None = None
        self.policy: Policy | None = None
        self.admission: Admission | None = None
        """What has let the request in, to be left at the end."""
        self.share: Share | None = None
        """What the request takes of its client's limit, where a proxy has brought it."""
        self.head = b""
        """What is sent upstream, the same at every attempt."""
        self.attempt = Attempt(self, self.record, client)
        self.failures = Failures()
        self.upload = Upload()

    # --- 1. the request's head: which version of which service ------------------------------------

    def on_head(self, body: bytes, *, complete: bool) -> None:
        """Route a request, and attempt it."""
        record, context = self.record, self.context
        self.is_idle = False
        record.began = now = monotonic()
        record.attempts = 0
        record.exposes = context.exposes
        context.requests += 1
        if self.request.length:
            record.received_bytes = len(body)
            self.upload.begin(body, complete=complete, is_chunked=self.request.length == CHUNKED_BODY)
            if self.upload.is_long:
                self.client.pause()
        if not self._find_route(context.live_table.current):
            return
        policy = self.policy
        assert policy is not None
        if policy.admission is not None:
            self._ask_admission(policy.admission)
            return
        self._choose(policy, now)

    def _find_route(self, table: RoutingTable) -> bool:
        """Find the route, or answer."""
        request, record = self.request, self.record
        method = METHODS.get(request.method)
        record.method = OTHER if method is None else method
        path = request.path.decode("ascii") if request.path != b"*" else "/"
        self.route = route = table.match(request.host, path, method or request.method.decode("ascii"))
        if route is None:
            record.service = self.policy = None
            self.refuse(failures.no_route(table.methods(request.host, path)))
            return False
        record.service = service = route.service
        self.policy = self.context.policies.by_service[service]
        if not request.is_usual and self._ends_here(service):
            return False
        if self.forwarder.is_of_proxy and not self._takes_share():
            self.refuse(ConnectionsPerClient("this client has as many requests under way as it may"))
            return False
        return True

    def _takes_share(self) -> bool:
        """Count the request for its client. False: that one has as many as it may."""
        if not self.context.capacity.per_client:
            return True
        self.share = self.context.capacity.share(self.forwarder.client_of(self.request).address)
        return self.share is not None

    def _ends_here(self, service: Service) -> bool:
        """Answer a request that goes round in circles, or may go no further; count a hop off Max-Forwards."""
        if is_loop(self.request.special.get(b"cdn-loop", b""), self.context.forwarding.gateway, service.name):
            self.refuse(LoopDetected("the request has come round to this gateway again"))
            return True
        answer = max_forwards.end(self.client, self.policy.asking if self.policy is not None else ())
        if answer is not None:
            self._answer(200, *answer)
        return answer is not None

    def _ask_admission(self, admission: Admission) -> None:
        """Be let in to a service that is paused or limited, now or later."""
        self.is_held = True
        self.client.deadline = 0.0
        try:
            may_go_on = admission.enter(self)
        except Refused as error:
            self.is_held = False
            self.refuse(error)
            return
        if may_go_on:
            self.on_admitted(admission)

    def on_admitted(self, admission: Admission) -> None:
        """Go on; the table may have changed while the request was held."""
        self.is_held = False
        self.admission = admission
        context, record = self.context, self.record
        service = context.live_table.current.services.get(record.service.name) if record.service else None
        if service is None:
            self.refuse(NoRoute("the service has been removed"))
            return
        record.service = service
        self.policy = policy = context.policies.by_service[service]
        self._choose(policy, monotonic())

    def _choose(self, policy: Policy, now: float) -> None:
        """Find the version: a tester's, the cohort's, or by weight."""
        record = self.record
        service = record.service
        assert service is not None
        if service.budget is not None:
            service.budget.on_request(now)
        record.is_tester = False
        may_ask = self.request.marks & policy.asking_marks and self.request.passes_on_any(policy.asking)
        if may_ask and self._serve_tester(service, policy, now):
            return
        record.is_chosen_by_split = True
        if policy.sticky:
            find_key(record, self.request, policy, self.forwarder, self.context.request_ids)
        version = service.only or service.choose(now, record.key)
        if version is None:
            self._fall_back(now, policy)
            return
        record.generation = service.generation
        record.share = version.share
        endpoint = self.failures.admit(version, now)
        if endpoint is None:
            self._fall_back(now, policy)
        else:
            self._begin(version, endpoint, now)

    def _serve_tester(self, service: Service, policy: Policy, now: float) -> bool:
        """Attempt the version a tester asks for, or say why not. False: nobody asks, or there is none."""
        wish, record = wish_of(self.request, policy, self.forwarder), self.record
        if wish is None:
            return False
        version = service.newest() if wish == NEW else service.named(wish)
        if version is None and wish == NEW:
            return False
        record.is_tester = True
        record.is_chosen_by_split = False
        reason = "is not registered" if version is None else version.why_not()
        endpoint = self.failures.admit_tester(version, now) if version is not None and not reason else None
        if endpoint is None:
            self.refuse(TesterRefused(f"version {version.name if version else wish} {reason}"))
        else:
            self._begin(version, endpoint, now)
        return True

    # --- 2. attempts: endpoint, breaker, connection -----------------------------------------------

    def _begin(self, version: Version | None, endpoint: Endpoint, now: float) -> None:
        """Make an attempt there. version: None at a fallback elsewhere."""
        if not self.head:
            self.head = self.forwarder.head(self.request, self.route, endpoint.authority)
        elif self.forwarder.is_sampled:
            self.head = self.forwarder.renewed(self.head)
        if self.forwarder.is_sampled and self.context.spans.is_exported:
            self.record.begin_try(self.forwarder.span_id)
        self.attempt.start(version, endpoint, self.failures.epoch, self.head, now)

    def may_be_repeated(self) -> bool:
        return not self.client.answer_begun and failures.may_repeat(
            self.record.method, body_at_hand=self.upload.is_replayable
        )

    def on_failed(self, kind: str, error: UpstreamError) -> None:
        """Charge the failure to the attempt's version, then try again if that is allowed, or say so."""
        now, attempt = monotonic(), self.attempt
        may_retry = self._may_retry(kind, sent=error.sent, now=now)
        attempt.settle(now, "bad_response" if kind == "502" else kind, kind)
        place = self.failures.admit_again(self.record, now) if may_retry else None
        if place is not None:
            self._begin(*place, now)
        elif self.client.answer_begun:
            self._forget()
            self.client.abort()  # never a clean end to half an answer
        else:
            self.refuse(error)

    def is_tried_again(self, kind: str, now: float) -> bool:
        """Drop an answer that is worth another attempt, if one can really be made now."""
        attempt = self.attempt
        if not self._may_retry(kind, sent=True, now=now):
            return False
        attempt.notify_breaker(now, kind)  # first: one that opens by this failure lets nobody in again
        place = self.failures.admit_again(self.record, now)
        if place is None:
            return False
        self.record.flags.append(kind)
        attempt.drop_answer(now)
        attempt.settle(now, ANSWERED, kind)
        self._begin(*place, now)
        return True

    def _may_retry(self, kind: str, *, sent: bool, now: float) -> bool:
        """Return whether the policy and the budget allow for another attempt."""
        at_hand, begun = self.upload.is_replayable, self.client.answer_begun
        return failures.may_retry(
            self.record, kind, now, sent=sent, body_at_hand=at_hand, response_started=begun
        )

    def _fall_back(self, now: float, policy: Policy) -> None:
        """No version is usable: try one that may recover, or answer as the fallback says, else 503."""
        record, fallback = self.record, policy.fallback
        record.is_chosen_by_split = False
        place: tuple[Version | None, Endpoint] | None = None
        if record.service is not None:
            place = self.failures.admit_last(record.service, now)
        if place is None and (fallback is None or fallback.status is None):
            place = self.failures.admit_fallback(record, policy, now)
        if place is not None:
            self._begin(*place, now)
        elif fallback is not None and fallback.status is not None:
            self.context.clients.count_refusal(failures.FALLBACK)
            record.flags.append(failures.FALLBACK)
            head = response_head(fallback.status, (("Content-Type", fallback.content_type),))
            self._answer(fallback.status, head, fallback.body.encode())
        else:
            self.refuse(NoEndpoint("no version of the service is usable"))

    # --- 3. the request's body, on its way up -----------------------------------------------------

    def with_body(self, head: bytes) -> bytes:
        assert self.policy is not None
        return self.upload.take_held(head, self.policy.replay_bytes)

    def on_body(self, data: bytes) -> None:
        self.record.received_bytes += len(data)
        self._pass_up(data if self.request.length != CHUNKED_BODY else chunk(data))

    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self.client.deadline = 0.0  # the response's time begins
        if self.request.length == CHUNKED_BODY:
            asking = self.policy.asking if self.policy is not None else frozenset()
            self._pass_up(last_chunk(passing_trailers(trailers, self.request.nominated | asking)))

    def _pass_up(self, framed: bytes) -> None:
        upstream = self.attempt.upstream
        if upstream is not None:
            assert self.policy is not None
            self.upload.send(framed, upstream, self.policy.replay_bytes)
            return
        self.upload.hold(framed)
        if self.upload.is_long:
            self.client.pause()

    # --- 4. the response, on its way down: see Attempt ----------------------------------------------

    def on_writable(self, *, writable: bool) -> None:
        """The client reads too slowly, or has caught up."""
        upstream = self.attempt.upstream
        if upstream is None:
            return
        if writable:
            upstream.resume()
        else:
            upstream.pause()

    def on_complete(self) -> None:
        self._forget()
        self.client.finish()

    def on_switched(self, rest: bytes, *, is_websocket: bool) -> None:
        self.context.tunnels.join(self, rest, is_websocket=is_websocket)

    def detach(self) -> Callable[[bool], None]:
        """Leave the two connections to a tunnel. Returns what to call at its end, with whether it was cut."""
        leaving = [each.leave for each in (self.admission, self.share) if each is not None]
        hold = TunnelHold.of(self.record, [*leaving, self.client.on_lost])
        self.attempt.upstream = None
        self.attempt.settle(monotonic(), ANSWERED, None)
        self.admission = self.share = None
        self._forget()
        return hold.end

    # --- 5. what the gateway answers itself -------------------------------------------------------

    def refuse(self, error: GatewayError) -> None:
        """Answer with a problem of our own."""
        reason = reason_label(error)
        self.context.clients.count_refusal(reason)
        if not isinstance(error, UpstreamError):  # else its attempt has said why
            self.record.flags.append(reason)
        self._answer(error.status, *failures.problem_of(error))

    def _answer(self, status: int, pieces: list[bytes], body: bytes) -> None:
        record = self.record
        record.status = status
        record.content_bytes = len(body)
        record.answered_us = int((monotonic() - record.began) * 1e6)
        if record.exposes:
            record.expose(self.identify())
            pieces.append(record.fields)
        self._forget()
        self.client.answer(pieces, body)

    # --- 6. other ends ----------------------------------------------------------------------------

    def on_gone(self, error: DownstreamError) -> None:
        """The client left, or spoilt its own request: stop everything at once."""
        self._give_up(has_left=isinstance(error, ClientGone))
        self.record.status = error.status
        self._forget()

    def cut(self) -> None:
        """A drain's deadline has passed: end this exchange, so that nobody takes it for complete."""
        if self.endpoint is not None:
            self.endpoint.forced += 1
        self.record.flags.append("cut")
        self._give_up()
        if self.client.answer_begun or self.is_idle:
            self._forget()
            self.client.abort()
        else:
            self.refuse(Draining("the service is being replaced"))

    def end_stream(self) -> None:
        """End an event stream that drains: without the last chunk, so that its client comes back."""
        self._give_up()
        self._forget()
        self.client.abort()

    def on_closed(self) -> None:
        """There will be no other request."""
        self.attempt.close()

    def _give_up(self, *, has_left: bool = False) -> None:
        """End what is under way without a verdict on the upstream."""
        if self.is_held and self.policy is not None and self.policy.admission is not None:
            self.policy.admission.give_up(self)
        self.attempt.give_up(has_left=has_left)

    def _forget(self) -> None:
        """The request is over: log it, and leave its place to another."""
        log, context = self.context.log_file.current, self.context
        if log is not None or (self.forwarder.is_sampled and self.head):
            self.identify()
            self.record.note(log, context.spans, self.client.peer, self.request, self.forwarder)
        self.is_idle = True
        self.is_held = False
        self.head = b""
        self.record.clear()
        self.failures.tried = ()
        if self.request.length:
            self.upload.forget()
        if self.admission is not None:
            admission, self.admission = self.admission, None
            admission.leave()
        if self.share is not None:
            self.share.leave()
            self.share = None

    # --- 7. deadlines -----------------------------------------------------------------------------

    def timeout_s(self) -> float:
        """How long the present wait may last (0 in the settings: for ever)."""
        policy, attempt = self.policy, self.attempt
        if policy is None or self.is_idle:
            return NEVER
        if self.is_held:
            return policy.admission.wait_s() if policy.admission is not None else NEVER
        return attempt.timeout_s(policy) if not attempt.is_over else NEVER

    def on_timeout(self) -> None:
        """It has lasted too long: whose fault is it?"""
        client, attempt = self.client, self.attempt
        if self.is_held:
            assert self.policy is not None
            assert self.policy.admission is not None
            error = self.policy.admission.refusal()
            self._give_up()
            self.refuse(error)
        elif attempt.is_over:
            return
        elif attempt.phase == CONNECTING:
            attempt.drop()
            self.on_failed("connect", UpstreamTimeout("the upstream did not accept a connection in time"))
        elif attempt.is_clients_turn:
            self._give_up()
            self.refuse(TooSlow("the body did not come in time"))
        elif attempt.phase == RELAYING and not client.writable:
            self.on_gone(ClientGone("the client does not read its answer"))
            client.abort()
        elif attempt.upstream is not None:
            attempt.drop()
            self.on_failed("timeout", UpstreamTimeout("the upstream did not answer in time", sent=True))

    # --- what others ask --------------------------------------------------------------------------

    @property
    def upstream(self) -> UpstreamConnection | None:
        """The connection in use."""
        return self.attempt.upstream

    @property
    def endpoint(self) -> Endpoint | None:
        """Where an attempt is running."""
        return self.record.endpoint if not self.attempt.is_over else None

    @property
    def began(self) -> float:
        """Monotonic seconds."""
        return self.record.began

    def identify(self) -> bytes:
        """Return the request's id; it gets one if it was never passed on."""
        if not self.head:
            self.forwarder.identify(self.request)
        return self.forwarder.request_id

    @property
    def is_stream(self) -> bool:
        """Whether it has no end to wait for."""
        return self.attempt.is_stream

    @property
    def stream_idle_s(self) -> float:
        return self.policy.stream_idle_s if self.policy is not None else 0.0
