"""What one exchange knows, and the accounts it keeps of its attempts."""

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.core.routing.table import Endpoint, Route, Service, Version
from gateway.http1.client import UpstreamConnection
from gateway.http1.server import ServerProtocol
from gateway.link.counts import ANSWERED, VersionCounts
from gateway.worker.admission import Gate
from gateway.worker.exchange.upload import Upload
from gateway.worker.policy import Policy

if TYPE_CHECKING:
    from gateway.worker.plane import Plane

CLIENT_GONE: Final = "client_gone"
REFUSED: Final = "refused"
UNJUDGED: Final = frozenset((CLIENT_GONE, REFUSED))
"""What became of an attempt that says nothing of its version: the client left, or we could not even try."""
MAX_COHORT_ERRORS: Final = 1_000
KINDS: Final = [None if status < 400 else str(status) for status in range(1000)]
"""What an answer of each status is to retry, breaker and judge: None is a good one."""
METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
}
OTHER: Final = "OTHER"
"""What any other method is counted as: clients may make up as many as they like."""

IDLE: Final = 0
QUEUED: Final = 1  # at the gate
CONNECTING: Final = 2
SENT: Final = 3  # the head is with the upstream, no final response yet
RELAYING: Final = 4  # the client has the response's head
PASSED_ON: Final = 5  # the response came whole, and is being passed on whole


class Ledger:
    """The state of an exchange, which serves one request after the other: `forget` makes it as new."""

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
        "generation",
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
        "service",
        "set_cookie",
        "share",
        "status",
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
        self.phase = IDLE
        self.began = 0.0
        """Monotonic seconds."""
        self.answered_us = 0
        """How long the client waited for the head of its answer."""
        self.method = ""
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
        self.generation = 0
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

    def settle(self, now: float, outcome: str, kind: str | None) -> None:
        """Account for an attempt: reached exactly once for each, from every ending.

        kind: None for a good answer, else what went wrong: `connect`, `reset`, `timeout`, or a status.
        """
        endpoint, version, service = self.endpoint, self.version, self.service
        assert endpoint is not None
        assert service is not None
        self.endpoint = None
        endpoint.in_flight -= 1
        if self.is_stream:
            self.count_stream(endpoint, -1)
        if version is None:  # a fallback elsewhere is nobody's version
            return
        version.counts.in_flight -= 1
        breaker = endpoint.breaker
        if breaker is not None:
            if outcome in UNJUDGED:
                breaker.release(now, self.breaker_epoch)
            else:
                breaker.settle(now, self.breaker_epoch, kind is None or kind not in service.breaker_on)
        is_evidence = self.is_chosen_by_split and self.attempts == 1
        if kind is None and is_evidence and self.phase == PASSED_ON:
            version.counts.answer(self.method, self.status, self.answered_us, self.generation, self.share)
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
        if self.phase == PASSED_ON:
            counts.request(self.method, self.status, self.answered_us)
        counts.attempt(outcome)
        if not is_evidence or outcome in UNJUDGED:
            return
        latency_us = self.answered_us if outcome == ANSWERED else int((now - self.began) * 1e6)
        counts.judge(self.generation, self.share, kind, latency_us)
        if kind is not None and self.key is not None and len(counts.cohort_errors) < MAX_COHORT_ERRORS:
            counts.cohort_errors.append((self.generation, self.share, service.key_number(self.key), kind))

    def forget(self) -> None:
        """Let go of the request, and of its place at the gate."""
        if self.plane.log is not None:
            self.plane.log_exchange(self)
        if self.outcome:
            self.outcome = ""
        self.phase = IDLE
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

    def count_stream(self, endpoint: Endpoint, change: int) -> None:
        """Count an event stream or a tunnel: it has no end to wait for."""
        self.is_stream = change > 0
        endpoint.streams += change
        if self.version is not None:
            self.version.counts.streams += change
