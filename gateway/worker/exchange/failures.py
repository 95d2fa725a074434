"""What follows a failed attempt: another one, somewhere, or an answer of our own."""

from collections.abc import Callable
from typing import Final

from gateway.core.resilience.retry import IDEMPOTENT
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.table import Service
from gateway.core.routing.version import Version
from gateway.errors import GatewayError, MethodNotAllowed, NoRoute
from gateway.http1.message import problem_response
from gateway.worker.exchange.record import Record
from gateway.worker.policy import Policy

NO_EPOCH: Final = 0
"""No breaker's: what ends with it is dropped."""
RETRY_AFTER_S: Final = "1"
KINDS: Final = [None if status < 400 else str(status) for status in range(1000)]
"""What an answer of each status is to retry, breaker and judge: None is a good one."""
CLIENT_GONE: Final = "client_gone"
REFUSED: Final = "refused"
FALLBACK: Final = "fallback"
NO_BUDGET: Final = "no_budget"
UNJUDGED: Final = frozenset((CLIENT_GONE, REFUSED))
"""What became of an attempt that says nothing of its version: the client left, or we could not even try."""


def may_repeat(method: str, *, body_at_hand: bool) -> bool:
    """Tell whether a request that may have been received may be sent again (RFC 9110 §9.2.2)."""
    return body_at_hand and method in IDEMPOTENT


def may_retry(
    record: Record, kind: str, now: float, *, sent: bool, body_at_hand: bool, response_started: bool
) -> bool:
    """Return whether the policy and the budget allow for another attempt; count one too dear."""
    service, version = record.service, record.version
    if service is None or version is None or service.retry is None:
        return False
    if not service.retry.can_retry(
        attempts=record.attempts,
        kind=kind,
        sent=sent,
        method=record.method,
        body_at_hand=body_at_hand,
        response_started=response_started,
    ):
        return False
    if service.budget is None or service.budget.has_one(now):
        return True
    version.counts.retry(NO_BUDGET)
    return False


def no_route(allowed: list[str]) -> GatewayError:
    """Say why no route took a request. allowed: the methods that would have done."""
    if not allowed:
        return NoRoute("no route names this host and path")
    return MethodNotAllowed("no route of this path takes the method", ", ".join(allowed))


def problem_of(error: GatewayError) -> tuple[list[bytes], bytes]:
    """Return the head and the content of an answer of our own."""
    fields = (("Retry-After", RETRY_AFTER_S),) if error.status in (429, 503) else ()
    if isinstance(error, MethodNotAllowed):
        fields = (("Allow", error.allow),)
    return problem_response(error, fields)


class Failures:
    """Where a request has been tried in vain, and whether and where it is tried again."""

    __slots__ = ("epoch", "tried")

    def __init__(self) -> None:
        self.tried: tuple[Endpoint, ...] = ()
        self.epoch = 0
        """What the breaker gave that admitted last."""

    def admit_fallback(
        self, record: Record, policy: Policy, now: float
    ) -> tuple[Version | None, Endpoint] | None:
        """Return where the service's fallback leads, to a version of its own or elsewhere, if it can."""
        place: tuple[Version | None, Endpoint] | None = None
        if policy.fallback is not None and policy.fallback.version is not None and record.service is not None:
            version = record.service.by_name(policy.fallback.version)
            endpoint = self.admit(version, now) if version is not None else None
            place = (version, endpoint) if endpoint is not None else None
        if place is None and policy.fallback_endpoint is not None:
            place = (None, policy.fallback_endpoint)
        if place is not None:
            record.flags.append(FALLBACK)
        return place

    def admit_tester(self, version: Version, now: float) -> Endpoint | None:
        """Return an endpoint of `version` not tried yet, without asking its breaker for a place."""
        self.epoch = NO_EPOCH
        return version.pick_for_tester(now, self.tried)

    def admit(self, version: Version, now: float) -> Endpoint | None:
        """Return an endpoint of `version` not tried yet whose breaker lets us in; None if there is none."""
        endpoint = version.pick(now, self.tried)
        while endpoint is not None:
            breaker = endpoint.breaker
            epoch = NO_EPOCH if breaker is None else breaker.admit(now)
            if epoch is not None:
                self.epoch = epoch
                return endpoint
            self.tried += (endpoint,)
            endpoint = version.pick(now, self.tried)
        return None

    def admit_last(self, service: Service, now: float) -> tuple[Version, Endpoint] | None:
        """Find a place at a service of which nothing is usable: an open breaker never cuts it wholly off."""
        for version in service.last:
            for endpoint in version.kept_by_breakers():
                breaker = endpoint.breaker
                if breaker is None or endpoint in self.tried:
                    continue
                epoch = breaker.admit_last(now)
                if epoch is not None:
                    self.epoch = epoch
                    return version, endpoint
        return None

    def admit_again(self, record: Record, now: float) -> tuple[Version, Endpoint] | None:
        """Find the place of another attempt: an endpoint not tried yet; if all have been, any of them.

        It takes one retry from the budget, if it finds one.
        """
        service, version, failed = record.service, record.version, record.endpoint
        assert service is not None
        assert version is not None
        assert failed is not None
        self.tried += (failed,)
        admit = self.admit_tester if record.is_tester else self.admit
        order = (version,) if record.is_tester else self._next_versions(service, version, record.attempts)
        place = _first(order, admit, now)
        if place is None:
            self.tried = ()
            place = _first((*order, version), admit, now)
        if place is not None and service.budget is not None:
            service.budget.take(now)
        return place

    def _next_versions(self, service: Service, version: Version, attempts: int) -> tuple[Version, ...]:
        """Return the versions with an endpoint not tried yet, the one to try next first.

        One more try at the version itself; were it bad as a whole, three endpoints would use up all tries.
        In a table that is not the newest, one may seem usable that lets nobody in: then the other is tried.
        """
        order = (version, service.stable) if attempts == 1 else (service.stable, version)
        return tuple(
            other
            for other in order
            if other is not None and other.usable and any(each not in self.tried for each in other.available)
        )


def _first(
    versions: tuple[Version, ...], admit: Callable[[Version, float], Endpoint | None], now: float
) -> tuple[Version, Endpoint] | None:
    """Return the first of the versions that lets an attempt in, and where."""
    for version in versions:
        endpoint = admit(version, now)
        if endpoint is not None:
            return version, endpoint
    return None
