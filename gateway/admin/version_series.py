"""Series of versions and endpoints: what the workers have counted, and what control knows of each."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from gateway.admin.exposition import NO_EXEMPLARS, Exemplars, Family, labels
from gateway.control.catalog.catalog import Catalog
from gateway.control.sums import VersionSum
from gateway.store.records import VersionRecord

RETIRED_S: Final = 3600.0
"""How long the series of a version go on that is deprecated or gone, and gets no requests any more."""
BREAKER_STATES: Final = ("CLOSED", "HALF_OPEN", "OPEN")
OUTCOMES: Final = ("answered", "bad_response", "client_gone", "connect", "refused", "reset", "timeout")
RETRIES: Final = (*OUTCOMES, "no_budget")
ANSWERS: Final = (("GET", 200), ("GET", 500), ("GET", 502), ("GET", 503), ("GET", 504))
"""Answers that are counted from zero: a rate needs a series that was there before the first."""
RESULTS: Final = ("passed", "failed")
HEALTH: Final[Mapping[str, float]] = {"healthy": 1.0, "unhealthy": 0.0}


class Retired:
    """Which versions are shown no more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: monotonic seconds."""
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        """Version id -> what was counted of it at the last scrape, and since when that has not changed."""

    def shown(
        self, totals: Mapping[str, VersionSum], records: Mapping[str, VersionRecord]
    ) -> dict[str, VersionSum]:
        """Return the versions to show: counted or known ones, less those retired for RETIRED_S."""
        now = self._clock()
        found: dict[str, VersionSum] = {}
        for version_id in [*records, *(each for each in totals if each not in records)]:
            total, record = totals.get(version_id), records.get(version_id)
            if total is None:
                assert record is not None
                total = VersionSum(service=record.service_name, version=record.version)
            counted = sum(total.attempts.values()) + total.in_flight
            before, since = self._seen.get(version_id, (-1, now))
            if counted != before:
                since = now
            self._seen[version_id] = counted, since
            is_retired = record is None or (record.status == "deprecated" and not record.weight)
            if not is_retired or now - since < RETIRED_S:
                found[version_id] = total
        for version_id in self._seen.keys() - totals.keys() - records.keys():
            del self._seen[version_id]
        return found


def version_families(
    shown: Mapping[str, VersionSum],
    records: Mapping[str, VersionRecord],
    probes: Mapping[str, Mapping[str, int]],
    exemplars: Callable[[str], Exemplars],
) -> list[Family]:
    """Return what is counted by version. exemplars: of a version, by its id."""
    requests = Family("gateway_requests", "counter", "Requests by the version that answered them.")
    attempts = Family("gateway_attempts", "counter", "Tries by the version that was tried.")
    retries = Family(
        "gateway_retries", "counter", "Tries that were not a request's first; no_budget: those not made."
    )
    abandoned = Family("gateway_abandoned", "counter", "Clients that left while they waited for the head.")
    seconds = Family(
        "gateway_request_duration_seconds",
        "histogram",
        "From a request's head to its answer's, by the version that answered.",
    )
    upstream = Family(
        "gateway_upstream_duration_seconds", "histogram", "How much of it upstreams were waited for."
    )
    own = Family("gateway_own_duration_seconds", "histogram", "How much of it was spent in the gateway.")
    running = Family("gateway_requests_in_flight", "gauge", "Requests running now.")
    streams = Family("gateway_streams_open", "gauge", "Of those, tunnels and event streams.")
    checks = Family("gateway_probes", "counter", "Health checks made, by result.")
    for version_id, total in shown.items():
        series = labels(service=total.service, version=total.version)
        for (method, status), count in sorted((dict.fromkeys(ANSWERS, 0) | total.requests).items()):
            requests.add(count, f'{series},method="{method}",code="{status}"')
        attempts.add_each(dict.fromkeys(OUTCOMES, 0) | total.attempts, "outcome", series)
        retries.add_each(dict.fromkeys(RETRIES, 0) | total.retries, "outcome", series)
        abandoned.add(total.abandoned, series)
        found = exemplars(version_id) or NO_EXEMPLARS
        seconds.add_histogram(total.seconds, total.latency_us, series, found)
        upstream.add_histogram(total.upstream, total.upstream_us, series)
        own.add_histogram(total.own, total.own_us, series)
        running.add(total.in_flight, series)
        streams.add(total.streams, series)
        if version_id in records:
            checks.add_each(dict.fromkeys(RESULTS, 0) | dict(probes.get(version_id, {})), "result", series)
    return [requests, attempts, retries, abandoned, seconds, upstream, own, running, streams, checks]


def state_families(catalog: Catalog, records: Iterable[VersionRecord]) -> list[Family]:
    """Return what control knows of each version."""
    weight = Family("gateway_version_weight_percent", "gauge", "Share of its service's requests it gets now.")
    asked = Family(
        "gateway_version_weight_asked",
        "gauge",
        "Weight asked for, relative to its service's other versions.",
    )
    healthy = Family("gateway_version_healthy", "gauge", "1 healthy, 0 unhealthy, 0.5 not known yet.")
    active = Family("gateway_version_active", "gauge", "1 once its test gate has passed.")
    status = Family("gateway_version_status", "gauge", "1 for the status it is in.")
    shares: dict[str, float] = {}
    for name in catalog.services:
        shares |= catalog.shares(name)
    for record in records:
        series = labels(service=record.service_name, version=record.version)
        weight.add(shares.get(record.id, 0.0), series)
        asked.add(record.weight, series)
        healthy.add(HEALTH.get(record.health_status, 0.5), series)
        active.add(int(record.is_active), series)
        status.add(1, f'{series},status="{record.status}"')
    return [weight, asked, healthy, active, status]


def endpoint_families(catalog: Catalog) -> list[Family]:
    """Return what control knows of each endpoint."""
    breaker = Family("gateway_endpoint_breaker_state", "gauge", "1 for the state its breaker is in.")
    healthy = Family("gateway_endpoint_healthy", "gauge", "1 while it may be sent requests.")
    draining = Family("gateway_endpoint_draining", "gauge", "1 while it drains.")
    for service in catalog.services.values():
        for version in service.versions.values():
            for endpoint in version.endpoints.values():
                series = labels(
                    service=service.record.name, version=version.record.version, endpoint=endpoint.name
                )
                for state in BREAKER_STATES:
                    breaker.add(int(endpoint.breaker.state == state), f'{series},state="{state.lower()}"')
                healthy.add(int(endpoint.is_healthy), series)
                draining.add(int(endpoint.draining), series)
    return [breaker, healthy, draining]


def known(catalog: Catalog) -> dict[str, VersionRecord]:
    """Return every version's record by its id."""
    return {record.id: record for record in _records(catalog)}


def _records(catalog: Catalog) -> Iterator[VersionRecord]:
    for service in catalog.services.values():
        for version in service.versions.values():
            yield version.record
