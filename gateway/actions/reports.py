"""What operators may see of a service at a glance: health and counts, version by version."""

from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.actions.access import Access
from gateway.control.catalog.entries import EndpointEntry, VersionEntry
from gateway.control.history import WINDOW_S, Slice
from gateway.core.judge.buckets import bucket_upper_us
from gateway.store.records import CircuitState, HealthCheckRecord, HealthStatus

CHECKS: Final = 10
"""Newest probes shown for each version."""


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The base of what is shown."""


class EndpointReport(Report, frozen=True, kw_only=True):
    """One address of a version."""

    key: str
    url: str
    address: str
    port: int
    healthy: bool
    circuit_state: CircuitState
    failure_count: int
    """Failures in a row."""
    last_failure_time: datetime | None
    next_attempt_time: datetime | None
    """OPEN: when trial calls begin."""
    draining: bool


class CheckReport(Report, frozen=True, kw_only=True):
    """One recorded probe. response_time: milliseconds."""

    id: str
    version_id: str
    endpoint: str
    is_healthy: bool
    response_time: int
    status_code: int | None
    error_message: str | None
    checked_at: datetime


class VersionHealth(Report, frozen=True, kw_only=True):
    """A version's health: its endpoints, and its newest probes."""

    version_id: str
    version: str
    health_status: HealthStatus
    circuit_state: CircuitState
    last_health_check: datetime | None
    endpoints: list[EndpointReport]
    checks: list[CheckReport]


class ServiceHealth(Report, frozen=True, kw_only=True):
    """Health of a service, version by version."""

    service_name: str
    versions: list[VersionHealth]


class StatsWindow(Report, frozen=True, kw_only=True):
    """What a version answered in ten seconds. Rates are a second.

    Quantiles are of the time to the answer's head, milliseconds.
    """

    start: datetime
    seconds: int
    requests: int
    rate: float
    rates: dict[str, float]
    """By class of status: `2xx` …; classes that did not occur are left out."""
    errors: int
    """Answers of 500 and above."""
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class VersionStats(Report, frozen=True, kw_only=True):
    """What was ever counted about a version; `in_flight` and `streams` are now.

    latency: histogram of the time to an answer's head, (upper bound in µs, count).
    """

    version_id: str
    version: str
    weight: int
    share: float
    """Percent of the service's requests that it gets now."""
    requests: dict[str, int]
    """Answers by status."""
    total: int
    errors: int
    """Answers of 500 and above."""
    attempts: dict[str, int]
    in_flight: int
    streams: int
    latency: list[tuple[int, int]]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    windows: list[StatsWindow]
    """Of the last hour, oldest first, on multiples of ten seconds; those without an answer are left out."""


class ServiceStats(Report, frozen=True, kw_only=True):
    """Counts of a service, version by version."""

    service_name: str
    at: datetime
    versions: list[VersionStats]


class Reports:
    """Everything that is only looked at."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def health(self, name: str) -> ServiceHealth:
        """Return a service's versions with endpoints, breakers and newest probes."""
        versions = self._access.service(name).versions.values()
        return ServiceHealth(
            service_name=name, versions=[await self._version_health(version) for version in list(versions)]
        )

    async def _version_health(self, entry: VersionEntry) -> VersionHealth:
        checks = await self._access.store.health(entry.record.id, limit=CHECKS)
        record = entry.record
        return VersionHealth(
            version_id=record.id,
            version=record.version,
            health_status=record.health_status,
            circuit_state=entry.circuit_state,
            last_health_check=record.last_health_check,
            endpoints=[self._endpoint(endpoint) for endpoint in entry.endpoints.values()],
            checks=[_check(check) for check in checks.items],
        )

    def _endpoint(self, endpoint: EndpointEntry) -> EndpointReport:
        breaker = self._access.breaker(endpoint.key)
        return EndpointReport(
            key=endpoint.key,
            url=endpoint.url,
            address=endpoint.address,
            port=endpoint.port,
            healthy=endpoint.is_healthy,
            circuit_state=endpoint.breaker.state,
            failure_count=breaker.failures,
            last_failure_time=breaker.last_failure_at,
            next_attempt_time=breaker.next_attempt_at,
            draining=endpoint.draining,
        )

    async def shares(self, name: str) -> dict[str, float]:
        """Return the percentage of a service's requests that each version gets now, by id."""
        if name not in self._access.catalog.services:
            return {}  # deleted meanwhile
        return {key: round(share, 2) for key, share in self._access.catalog.shares(name).items()}

    async def stats(self, name: str) -> ServiceStats:
        """Return what was counted of a service's versions."""
        versions = self._access.service(name).versions.values()
        shares = await self.shares(name)
        return ServiceStats(
            service_name=name,
            at=self._access.now(),
            versions=[self._version_stats(version, shares) for version in versions],
        )

    def _version_stats(self, entry: VersionEntry, shares: dict[str, float]) -> VersionStats:
        counted = self._access.tally.version(entry.record.id)
        by_status: dict[str, int] = {}
        for (_, status), count in counted.requests.items():
            by_status[str(status)] = by_status.get(str(status), 0) + count
        return VersionStats(
            version_id=entry.record.id,
            version=entry.record.version,
            weight=entry.record.weight,
            share=shares.get(entry.record.id, 0.0),
            requests=by_status,
            total=sum(by_status.values()),
            errors=sum(count for status, count in by_status.items() if int(status) >= 500),
            attempts=dict(counted.attempts),
            in_flight=counted.in_flight,
            streams=counted.streams,
            latency=[(bucket_upper_us(index), count) for index, count in sorted(counted.latency.items())],
            p50_ms=quantile_ms(counted.latency, 0.50),
            p95_ms=quantile_ms(counted.latency, 0.95),
            p99_ms=quantile_ms(counted.latency, 0.99),
            windows=[_window(each) for each in self._access.tally.history.version(entry.record.id)],
        )


def quantile_ms(latency: dict[int, int], q: float) -> float | None:
    """Return the upper bound, in milliseconds, of the bucket the q-quantile falls in; None of nothing."""
    wanted = q * sum(latency.values())
    passed = 0
    for index, count in sorted(latency.items()):
        passed += count
        if passed >= wanted and passed:
            return bucket_upper_us(index) / 1000
    return None


def _window(part: Slice) -> StatsWindow:
    return StatsWindow(
        start=datetime.fromtimestamp(part.start, UTC),
        seconds=WINDOW_S,
        requests=part.requests,
        rate=part.requests / WINDOW_S,
        rates={f"{n}xx": count / WINDOW_S for n, count in enumerate(part.classes, 1) if count},
        errors=part.classes[4],
        p50_ms=part.p50_us / 1000 or None,
        p95_ms=part.p95_us / 1000 or None,
        p99_ms=part.p99_us / 1000 or None,
    )


def _check(record: HealthCheckRecord) -> CheckReport:
    return CheckReport(**{name: getattr(record, name) for name in CheckReport.__struct_fields__})
