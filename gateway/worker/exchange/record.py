"""What is known of one request, for its counts, for another attempt, and for the log."""

from time import monotonic, time
from typing import Final

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.table import Service
from gateway.core.routing.version import Version
from gateway.http1.request import RequestReader
from gateway.link.spans import RequestSpan, TrySpan
from gateway.worker.access_log import AccessLog, without_query
from gateway.worker.exchange.request_head import Forwarder
from gateway.worker.log_line import NO_FLAGS, ascii_of
from gateway.worker.span_buffer import SpanBuffer

_monotonic: Final = monotonic
"""Compiled, a name of another module is looked up each time."""
OTHER: Final = "OTHER"
"""What any other method is counted as: clients may make up as many as they like."""
METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
}


class Record:
    """Used for one request after the other: `clear` makes it as new."""

    __slots__ = (
        "answered_us",
        "attempts",
        "began",
        "content_bytes",
        "endpoint",
        "exposes",
        "fields",
        "flags",
        "generation",
        "is_chosen_by_split",
        "is_tester",
        "key",
        "method",
        "received_bytes",
        "service",
        "share",
        "span_id",
        "status",
        "tried",
        "tries",
        "upstream_us",
        "version",
    )

    def __init__(self) -> None:
        self.began = 0.0
        """Monotonic seconds."""
        self.method = ""
        self.service: Service | None = None
        self.key: bytes | None = None
        """What identifies the user of a sticky service."""
        self.fields = b""
        """Lines of the answer for this client alone: a cookie with such a key, the request's id."""
        self.exposes: tuple[str, ...] = ()
        """What the answer says of the request: `request_id`, `server_timing`."""
        self.generation = 0
        """Of the weights by which the version was chosen."""
        self.share = 0
        """That the version had then: hundredths of a percent."""
        self.is_chosen_by_split = False
        self.is_tester = False
        """The client has asked for this version: it is nobody's evidence, and moves no breaker."""
        self.attempts = 0
        self.version: Version | None = None
        """Of the last attempt."""
        self.endpoint: Endpoint | None = None
        """Of the last attempt."""
        self.flags: list[str] = []
        """What went wrong, or was out of the ordinary: see config/README.md."""
        self.status = 0
        self.tried = 0.0
        """When the last attempt began, monotonic seconds."""
        self.upstream_us = 0
        """How long upstreams were waited for, up to the answer's head: the sum over all attempts."""
        self.answered_us = 0
        """How long the client waited for the head of its answer; 0: it has none."""
        self.content_bytes = 0
        """Of the answer's content, so far."""
        self.received_bytes = 0
        """Of the request's content, so far."""
        self.tries: list[TrySpan] | None = None
        """Attempts that have ended; None: the request is no span."""
        self.span_id = ""
        """Of the last attempt of a request that is a span."""

    def clear(self) -> None:
        """The request is over."""
        self.version = self.endpoint = None
        self.status = 0
        self.content_bytes = self.received_bytes = 0
        self.upstream_us = self.answered_us = 0
        if self.flags:
            self.flags.clear()
        if self.fields:
            self.fields = b""
        self.key = None
        self.is_tester = False

    def begin_try(self, span_id: bytes) -> None:
        """Record the attempt that begins."""
        self.span_id = span_id.decode("ascii")
        if self.tries is None:
            self.tries = []

    def end_try(self, now: float, outcome: str) -> None:
        """Note that this attempt has ended."""
        assert self.tries is not None
        assert self.endpoint is not None
        passed = time() - now
        version = self.version.name if self.version is not None else ""
        url, began = self.endpoint.url, self.tried + passed
        self.tries.append(TrySpan(self.span_id, url, version, began, now + passed, outcome, self.status))

    def waited(self, now: float) -> None:
        """The upstream that was waited for since the attempt began has answered, or failed."""
        self.upstream_us += int((now - self.tried) * 1e6)

    def expose(self, request_id: bytes) -> None:
        """Let the answer, whose head is known now, say what it is to say of the request."""
        if "request_id" in self.exposes:
            self.fields += b"X-Request-ID: %b\r\n" % request_id
        if "server_timing" in self.exposes:
            upstream_us = self.upstream_us
            own_us = max(self.answered_us - upstream_us, 0)
            self.fields += b"Server-Timing: upstream;dur=%.3f, gateway;dur=%.3f\r\n" % (
                upstream_us / 1000,
                own_us / 1000,
            )

    def note(
        self,
        log: AccessLog | None,
        spans: SpanBuffer,
        peer: str,
        request: RequestReader,
        forwarder: Forwarder,
    ) -> None:
        """Leave what is known of the request, now that it is over, where it is wanted."""
        if log is not None:
            self._log(log, peer, request, forwarder)
        if self.tries is not None:
            spans.add(self._span(self.tries, request, forwarder))
            self.tries = None
        elif forwarder.is_sampled and self.version is not None and self.answered_us:
            spans.exemplify(self.version.id, forwarder.trace_id, self.answered_us)

    def _span(self, tries: list[TrySpan], request: RequestReader, forwarder: Forwarder) -> RequestSpan:
        service, version, now = self.service, self.version, time()
        return RequestSpan(
            trace_id=forwarder.trace_id.decode("ascii"),
            span_id=forwarder.new_span().decode("ascii"),
            parent_id=forwarder.parent_id.decode("ascii"),
            began=now - (monotonic() - self.began),
            ended=now,
            method=ascii_of(request.method),
            host=request.host,
            path=ascii_of(without_query(request.target)),
            status=self.status,
            service=service.name if service is not None else "",
            version_id=version.id if version is not None else "",
            version=version.name if version is not None else "",
            deployment=(service.rollout or "") if service is not None else "",
            client=forwarder.client_of(request).address,
            request_id=forwarder.request_id.decode("ascii"),
            answered_us=self.answered_us,
            flags=self._all_flags(),
            tries=tries,
        )

    def _log(self, log: AccessLog, peer: str, request: RequestReader, forwarder: Forwarder) -> None:
        """Add the request to the access log, if that wants it."""
        now = _monotonic()
        duration_us = int((now - self.began) * 1e6)
        if log.only is not None and not log.only.wants(self.status, duration_us, self.attempts):
            return
        service, version, endpoint = self.service, self.version, self.endpoint
        line, agent = log.line, request.passed(b"user-agent")
        line.ended = now
        line.request_id, line.trace_id = forwarder.request_id, forwarder.trace_id
        line.client = forwarder.client_of(request).address if forwarder.is_of_proxy else peer
        line.peer = peer
        line.method, line.host, line.path = request.method, request.host, log.shown(request.target)
        line.proto = "HTTP/1.0" if request.http10 else "HTTP/1.1"
        line.status = self.status
        line.service = service.name if service is not None else ""
        line.version = version.name if version is not None else ""
        line.endpoint = endpoint.url if endpoint is not None else ""
        line.attempts = self.attempts
        line.duration_us, line.upstream_us = duration_us, self.upstream_us
        line.gateway_us = max((self.answered_us or duration_us) - self.upstream_us, 0)
        line.bytes_in, line.bytes_out = self.received_bytes, self.content_bytes
        line.user_agent = b"" if agent is None else agent
        line.deployment = (service.rollout or "") if service is not None else ""
        has_flags = self.flags or self.attempts > 1 or self.is_tester
        line.flags = self._all_flags() if has_flags else NO_FLAGS
        if log.has_referer:
            line.referer = request.field(b"referer") or b""
        log.add()

    def _all_flags(self) -> list[str]:
        flags = list(dict.fromkeys(self.flags))
        if self.attempts > 1:
            flags.append("retried")
        if self.is_tester:
            flags.append("tester")
        return flags
