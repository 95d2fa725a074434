"""How an exchange ends when it does not end well, and whether it may be tried again."""

from time import monotonic
from typing import Final

from gateway.core.resilience.retry import IDEMPOTENT
from gateway.core.routing.table import Endpoint, Version
from gateway.errors import DownstreamError, Draining, GatewayError, MethodNotAllowed, UpstreamError
from gateway.http1.connections import reason_label
from gateway.http1.message import problem_response
from gateway.worker.exchange.ledger import CLIENT_GONE, IDLE, QUEUED, Ledger

RETRY_AFTER_S: Final = "1"


class Endings(Ledger):
    """What may happen to a request besides its answer."""

    __slots__ = ()

    def may_be_repeated(self) -> bool:
        return self.method in IDEMPOTENT and self.upload.is_replayable and not self.client.answer_begun

    def alternative(self, kind: str, *, sent: bool, now: float) -> Version | None:
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
        # One more try at the version itself; were it bad as a whole, three endpoints would use up all tries.
        order = (version, service.stable) if self.attempts == 1 else (service.stable, version)
        for other in order:
            if (
                other is not None
                and other.usable
                and any(self._is_new(each, failed) for each in other.available)
            ):
                return other
        return version

    def _is_new(self, endpoint: Endpoint, failed: Endpoint | None) -> bool:
        return endpoint is not failed and endpoint not in self.tried

    def answer_failure(self, error: UpstreamError) -> None:
        if self.client.answer_begun:
            self.forget()
            self.client.abort()  # never a clean end to half an answer
            return
        self.refuse(error)

    def refuse(self, error: GatewayError) -> None:
        """Answer with a problem of our own."""
        self.plane.clients.count_refusal(reason_label(error))
        self.status = error.status
        fields = (("Retry-After", RETRY_AFTER_S),) if error.status == 503 else ()
        if isinstance(error, MethodNotAllowed):
            fields = (("Allow", error.allow),)
        self.answer(*problem_response(error, fields))

    def answer(self, pieces: list[bytes], body: bytes) -> None:
        self.content_bytes = len(body)
        self.answered_us = int((monotonic() - self.began) * 1e6)
        self.forget()
        self.client.answer(pieces, body)

    def on_gone(self, error: DownstreamError) -> None:
        """The client left, or spoilt its own request: stop everything at once."""
        self.give_up()
        self.status = error.status
        self.forget()

    def give_up(self) -> None:
        """End what is under way without a verdict on the upstream."""
        if self.phase == QUEUED and self.policy is not None and self.policy.gate is not None:
            self.policy.gate.give_up(self)
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        if self.endpoint is not None:
            self.settle(monotonic(), CLIENT_GONE, None)

    def cut(self) -> None:
        """A drain's deadline has passed: end this exchange, so that nobody takes it for complete."""
        if self.endpoint is not None:
            self.endpoint.forced += 1
        self.give_up()
        if self.client.answer_begun or self.phase == IDLE:
            self.forget()
            self.client.abort()
        else:
            self.refuse(Draining("the service is being replaced"))

    def end_stream(self) -> None:
        """End an event stream that drains: without the last chunk, so that its client comes back."""
        self.give_up()
        self.forget()
        self.client.abort()
