"""One try at one endpoint: connection -> head and body up -> response down -> settled."""

import asyncio
import time
from typing import Final

from gateway.core.judge.route_class import route_class
from gateway.core.judge.tallies import ABANDONED
from gateway.core.judge.window import Error
from gateway.core.resilience.retry import IDEMPOTENT
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.version import Version
from gateway.errors import BadResponse, ConnectFailed, Exhausted, GatewayError, UpstreamError
from gateway.http1.chunked import chunk, last_chunk
from gateway.http1.client import ResponseHandler, UpstreamConnection
from gateway.http1.handler import NEVER
from gateway.http1.request import CHUNKED_BODY
from gateway.http1.response import ResponseReader
from gateway.http1.server import ServerProtocol
from gateway.link.counts import ANSWERED
from gateway.worker.exchange import response_head as heads
from gateway.worker.exchange.failures import CLIENT_GONE, KINDS, NO_EPOCH, REFUSED, UNJUDGED
from gateway.worker.exchange.record import Record
from gateway.worker.policy import Policy
from gateway.worker.pool import Lessee, Pool

monotonic: Final = time.monotonic
"""A constant: compiled, it costs no look-up."""
CONNECTING: Final = 0
SENT: Final = 1  # the head is with the upstream, no final response yet
RELAYING: Final = 2  # the client has the response's head
PASSED_ON: Final = 3  # the response came whole, and is being passed on whole


class AttemptOwner:
    """The exchange, as its attempt sees it. By itself: the owner of an attempt whose connection has ended.

    A base and no Protocol: compiled, its calls are bound.
    """

    __slots__ = ()

    def with_body(self, head: bytes) -> bytes:
        """Return what to send to a new upstream: the head, and what has come of the body."""
        return head

    def is_tried_again(self, kind: str, now: float) -> bool:
        """The upstream failed by its answer; return whether another attempt is under way instead."""
        return False

    def may_be_repeated(self) -> bool:
        """Return whether a request that the upstream may have received may be sent again."""
        return False

    def identify(self) -> bytes:
        """Return the request's id."""
        return b""

    def on_complete(self) -> None:
        """The response is with the client, whole."""

    def on_switched(self, rest: bytes, *, is_websocket: bool) -> None:
        """The client has the 101. rest: what the upstream sent behind it."""

    def on_failed(self, kind: str, error: UpstreamError) -> None:
        """There is no answer, or it has broken off. The attempt is not settled yet."""

    def refuse(self, error: GatewayError) -> None:
        """We have run out of descriptors or the like: nothing was tried. The attempt is settled."""


_NOBODY: Final = AttemptOwner()


class Attempt(ResponseHandler, Lessee):
    """Hears what becomes of its connection, and passes the response on; `settle` accounts for it.

    Used for one attempt after the other of an exchange, which makes one at a time. Which version and endpoint
    the present one is made at is in the record.
    """

    __slots__ = (
        "_client",
        "_connecting",
        "_epoch",
        "_head",
        "_owner",
        "_rechunks",
        "_record",
        "is_over",
        "is_stream",
        "phase",
        "upstream",
    )

    def __init__(self, owner: AttemptOwner, record: Record, client: ServerProtocol) -> None:
        self.phase = CONNECTING
        self.upstream: UpstreamConnection | None = None
        self.is_stream = False
        """An event stream: it has no end to wait for."""
        self.is_over = True
        """Settled: none is under way."""
        self._owner = owner
        self._record = record
        self._client = client
        self._epoch = NO_EPOCH
        """What the endpoint's breaker gave."""
        self._head = b""
        self._connecting: asyncio.Task[None] | None = None
        self._rechunks = False
        """Whether the client gets the body in chunks."""

    def close(self) -> None:
        """There will be no other: refer to the owner no more."""
        self._owner = _NOBODY

    # --- up ---------------------------------------------------------------------------------------

    def start(self, version: Version | None, endpoint: Endpoint, epoch: int, head: bytes, now: float) -> None:
        """Send `head`, on an idle connection if there is one. version: None at a fallback elsewhere."""
        record = self._record
        record.version = version
        record.endpoint = endpoint
        record.attempts += 1
        record.tried = monotonic()
        self.is_over = False
        self._epoch = epoch
        self._head = head
        endpoint.in_flight += 1
        if version is not None:
            version.counts.in_flight += 1
        pool = endpoint.pool
        assert isinstance(pool, Pool)
        is_repeatable = record.method in IDEMPOTENT and not self._client.reader.length
        connection = pool.lease(now, is_repeatable=is_repeatable)
        if connection is None:
            self._connect(endpoint)
        else:
            self._send(connection)

    def _connect(self, endpoint: Endpoint) -> None:
        self.phase = CONNECTING
        self._client.deadline = 0.0
        pool = endpoint.pool
        assert isinstance(pool, Pool)
        self._connecting = pool.connect(self)

    def on_connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._send(connection)

    def on_connect_failed(self, error: ConnectFailed) -> None:
        self._connecting = None
        self._owner.on_failed("connect", error)

    def on_exhausted(self, error: Exhausted) -> None:
        """Nothing to hold against the endpoint."""
        self._connecting = None
        self.settle(monotonic(), REFUSED, None)
        self._owner.refuse(error)

    def _send(self, connection: UpstreamConnection) -> None:
        """Send the head, and what has come of the body."""
        self.upstream = connection
        self.phase = SENT
        client = self._client
        client.deadline = 0.0
        request = client.reader
        if not request.length:
            connection.send(self, request.method, self._head)
            return
        connection.send(self, request.method, self._owner.with_body(self._head))
        if connection.writable:
            client.resume()

    def on_upstream_writable(self, *, writable: bool) -> None:
        self._client.deadline = 0.0
        if writable:
            self._client.resume()
        else:
            self._client.pause()

    # --- down -------------------------------------------------------------------------------------

    def on_response(self, body: bytes, *, complete: bool) -> None:
        """Pass on a response's head, and what came with it: all of it, most often."""
        upstream, client, record = self.upstream, self._client, self._record
        assert upstream is not None
        reader = upstream.reader
        status = reader.status
        now = monotonic()
        if status >= 500 and self._owner.is_tried_again(str(status), now):
            return
        record.status = status
        record.waited(now)
        record.answered_us = int((now - record.began) * 1e6)
        record.content_bytes = len(body)
        if record.exposes:
            self._expose(reader)
        if not complete:
            self._begin_relay(upstream, body)
            return
        self.phase = PASSED_ON
        request = client.reader
        if not client.begin_answer() or request.http10 or record.fields:
            more = record.fields + client.connection_field()
            response = heads.whole_response(reader, more, body, http10=request.http10)
        else:
            response = heads.whole_response(reader, b"", body, http10=False)
        client.transport.write(response)
        self._complete(upstream, now)

    def _expose(self, reader: ResponseReader) -> None:
        """Let the answer say what it is to say of the request; the id once, and ours."""
        reader.drop(b"x-request-id")
        self._record.expose(self._owner.identify())

    def _begin_relay(self, upstream: UpstreamConnection, body: bytes) -> None:
        """Send the head of a response whose body is still coming."""
        client, record, reader = self._client, self._record, upstream.reader
        request = client.reader
        self.phase = RELAYING
        client.deadline = 0.0
        if record.version is not None:
            record.version.counts.request(
                record.method, record.status, record.answered_us, record.upstream_us
            )
        self._rechunks = reader.length < 0 and not request.http10
        if reader.length < 0 and request.http10:
            request.keep_alive = False  # the close ends the body
        client.begin_answer()
        more = record.fields + client.connection_field()
        head = heads.begun_head(reader, more, rechunks=self._rechunks)
        if body and self._rechunks:
            body = chunk(body)
        client.transport.write(head + body)
        if reader.length < 0 and heads.is_event_stream(reader):
            self._count_stream(1)

    def on_response_body(self, data: bytes) -> None:
        client = self._client
        client.deadline = 0.0
        self._record.content_bytes += len(data)
        client.transport.write(chunk(data) if self._rechunks else data)

    def on_response_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        if self._rechunks:
            self._client.transport.write(last_chunk(trailers))
        assert self.upstream is not None
        self._complete(self.upstream, monotonic())

    def _complete(self, upstream: UpstreamConnection, now: float) -> None:
        """The response is with the client, whole."""
        client = self._client
        self.upstream = None
        request = client.reader
        kind = KINDS[self._record.status]
        if kind is None and (outcome := upstream.reader.special.get(heads.OUTCOME)) is not None:
            kind = heads.failed_outcome(outcome)
        if not upstream.writable or (request.length and (client.body_missing or request.upgrade)):
            # The rest of the upload must not be taken for, or wait before, another request; and some servers
            # take the body of a request to upgrade for something else.
            upstream.close()
        else:
            if not client.writable:
                upstream.resume()
            pool = upstream.pool
            assert isinstance(pool, Pool)
            pool.give_back(upstream, now)
        self.settle(now, ANSWERED, kind)
        self._owner.on_complete()

    def on_interim(self) -> None:
        """Pass on a 1xx (RFC 9110 §15.2): a 100 only to who waits for it, nothing to HTTP/1.0."""
        upstream, client = self.upstream, self._client
        assert upstream is not None
        reader = upstream.reader
        if reader.status == 100:
            client.continue_body()
        elif not client.reader.http10:
            client.transport.write(heads.interim_head(reader))

    def on_upgrade(self, rest: bytes) -> None:
        """Join the two connections if the client asked for it (RFC 9110 §7.8)."""
        upstream, client, record = self.upstream, self._client, self._record
        if not client.reader.upgrade:
            self.on_upstream_lost(BadResponse("the upstream switched protocols unasked", sent=True))
            return
        if client.body_missing and client.reader.length == CHUNKED_BODY:
            # Its other chunks would be taken for the new protocol's bytes; those of a known length may come.
            self.on_upstream_lost(BadResponse("the upstream switched protocols too early", sent=True))
            return
        assert upstream is not None
        protocol = upstream.reader.special.get(b"upgrade", client.reader.upgrade)
        record.status = 101
        now = monotonic()
        record.waited(now)
        self.phase = RELAYING
        record.answered_us = int((now - record.began) * 1e6)
        if record.version is not None:
            record.version.counts.request(record.method, 101, record.answered_us, record.upstream_us)
        client.begin_answer()
        client.transport.write(heads.switching_head(upstream.reader, protocol))
        self._owner.on_switched(rest, is_websocket=protocol.lower() == b"websocket")

    def timeout_s(self, policy: Policy) -> float:
        """How long the present wait may last."""
        if self.phase == CONNECTING:
            return policy.connect_s
        client = self._client
        if self.phase == SENT and (not client.body_missing or client.awaits_continue):
            return policy.response_header_s
        return (policy.stream_idle_s if self.is_stream else policy.body_idle_s) or NEVER

    @property
    def is_clients_turn(self) -> bool:
        """Whether it is the client that something is waited for: the rest of its body."""
        client, upstream = self._client, self.upstream
        if self.phase != SENT or upstream is None or not client.body_missing or client.awaits_continue:
            return False
        return upstream.writable

    # --- its end ----------------------------------------------------------------------------------

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """The upstream closed, was reset, or sent what is no response."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        upstream.close()
        if upstream.was_silent and upstream.is_reused and self._owner.may_be_repeated():
            # It closed an idle connection as we reused it: nobody's failure (RFC 9112 §9.3.1).
            assert self._record.endpoint is not None
            self._connect(self._record.endpoint)
            return
        self._owner.on_failed("502" if isinstance(error, BadResponse) else "reset", error)

    def drop(self) -> None:
        """End what is under way with the upstream; it is not notified again."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None

    def drop_answer(self, now: float) -> None:
        """Leave an answer that is not passed on; its connection may still be of use."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        if upstream.is_reusable and upstream.writable and not self._client.body_missing:
            upstream.pool.give_back(upstream, now)
        else:
            upstream.close()

    def give_up(self, *, has_left: bool = False) -> None:
        """End without a verdict on the upstream.

        has_left: the client has. While it only waited for the head, that is evidence about the version.
        """
        is_abandoned = has_left and self.phase == SENT and not self._client.body_missing
        self.drop()
        if not self.is_over:
            self.settle(monotonic(), CLIENT_GONE, ABANDONED if is_abandoned else None)

    def notify_breaker(self, now: float, kind: str) -> None:
        """Let the endpoint's breaker know of a failure before the attempt is settled."""
        record, epoch = self._record, self._epoch
        assert record.service is not None
        assert record.endpoint is not None
        breaker = record.endpoint.breaker
        if record.version is not None and breaker is not None:
            self._epoch = NO_EPOCH
            breaker.settle(now, epoch, kind not in record.service.breaker_on)

    def settle(self, now: float, outcome: str, kind: str | None) -> None:
        """Account for the attempt: reached exactly once, from every ending.

        kind: None for a good answer, else what went wrong: `connect`, `reset`, `timeout`, or a status.
        """
        record = self._record
        version, endpoint = record.version, record.endpoint
        assert endpoint is not None
        assert not self.is_over
        self.is_over = True
        self._head = b""
        endpoint.in_flight -= 1
        if self.phase < RELAYING:
            record.waited(now)
        if outcome != ANSWERED:
            record.flags.append(outcome)
        if record.tries is not None:
            record.end_try(now, outcome)
        if self.is_stream:
            self._count_stream(-1)
        if version is None:  # a fallback elsewhere is nobody's version
            return
        counts, breaker, service = version.counts, endpoint.breaker, record.service
        assert service is not None
        counts.in_flight -= 1
        if breaker is not None:
            if outcome in UNJUDGED:
                breaker.release(now, self._epoch)
            else:
                breaker.settle(now, self._epoch, kind is None or kind not in service.breaker_on)
        is_evidence = record.is_chosen_by_split and record.attempts == 1
        if kind is None and is_evidence and self.phase == PASSED_ON:
            counts.answer(
                record.method,
                record.status,
                record.answered_us,
                record.upstream_us,
                record.generation,
                record.share,
            )
            return
        if self.phase == PASSED_ON:
            counts.request(record.method, record.status, record.answered_us, record.upstream_us)
        counts.attempt(outcome)
        if record.attempts > 1:
            counts.retry(outcome)
        if kind == ABANDONED:
            counts.abandoned += 1
        if is_evidence and (outcome not in UNJUDGED or kind == ABANDONED):
            self._judge(outcome, kind, now)

    def _judge(self, outcome: str, kind: str | None, now: float) -> None:
        """Count the attempt as evidence about its version."""
        record = self._record
        version = record.version
        assert version is not None
        assert record.service is not None
        latency_us = record.answered_us if outcome == ANSWERED else int((now - record.began) * 1e6)
        counts = version.counts
        if kind is None:
            counts.judge(record.generation, record.share, None, latency_us)
            return
        route = counts.bounded(
            route_class(record.method, self._client.reader.path.decode("ascii", "replace"))
        )
        error = Error(kind, route, record.key is not None)
        counts.judge(record.generation, record.share, error.key, latency_us)
        if record.key is not None:
            user = record.service.key_number(record.key)
            counts.cohort_error(record.generation, record.share, user, Error(kind, route).key)

    def _count_stream(self, change: int) -> None:
        record = self._record
        assert record.endpoint is not None
        self.is_stream = change > 0
        record.endpoint.streams += change
        if record.version is not None:
            record.version.counts.streams += change
