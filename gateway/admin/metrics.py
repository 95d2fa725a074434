"""The exposition: control's totals as Prometheus metrics, made when somebody asks.

Nothing is counted here but the admin API itself: the numbers are the workers' totals, so a scrape costs what
it reads and nothing between scrapes. Label values are services, versions, methods, statuses and endpoints:
few and known.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from gateway.control.catalog.catalog import Catalog
from gateway.control.processes.hub import Hub
from gateway.control.tally import Tally
from gateway.core.judge.window import BUCKETS, bucket_upper_us
from gateway.errors import StoreError
from gateway.http1.form import native_form
from gateway.store.api import Store
from gateway.store.records import DeploymentRecord, VersionRecord

TEXT: Final = CONTENT_TYPE_LATEST
STATUSES: Final = ("pending", "testing", "rolling", "paused", "completed", "rolled_back", "failed")
BREAKER_STATES: Final = ("CLOSED", "HALF_OPEN", "OPEN")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NEWEST: Final = 200
"""Deployments looked at for each service's newest."""
VERSION: Final = ("service", "version")


def edges_us() -> tuple[int, ...]:
    """Return the histogram's bounds: those powers of two of a microsecond from 0.5 ms to 67 s at which a
    counted bucket ends, so that no count is split by guessing.
    """
    ends = {bucket_upper_us(index) for index in range(BUCKETS - 1)}
    return tuple(1 << bit for bit in range(9, 27) if 1 << bit in ends)


EDGES_US: Final = edges_us()


def cumulative(latency: Mapping[int, int]) -> list[tuple[str, float]]:
    """Return (upper bound in seconds, count up to it) of a sparse histogram, `+Inf` last."""
    left = sorted((bucket_upper_us(index), count) for index, count in latency.items())
    rows: list[tuple[str, float]] = []
    total = at = 0
    for edge in EDGES_US:
        while at < len(left) and left[at][0] <= edge:
            total += left[at][1]
            at += 1
        rows.append((repr(edge / 1e6), total))
    return [*rows, ("+Inf", sum(latency.values()))]


class AuditSeen(Protocol):
    """What is known of the audit trail."""

    @property
    def ok(self) -> bool: ...
    @property
    def reason(self) -> str: ...


class StoreWatched(Protocol):
    """What is known of the store's file."""

    @property
    def problem(self) -> str: ...
    @property
    def audit(self) -> AuditSeen: ...


class Metrics:
    """Everything `/metrics` says."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        tally: Tally,
        hub: Hub,
        store: Store,
        restarts: Mapping[str, int],
        unready: Callable[[], str | None],
        watch: StoreWatched,
        expiries: Callable[[], Mapping[tuple[str, str], float]],
        release: str,
    ) -> None:
        """restarts: worker replacements by cause, kept up to date by the supervisor. unready: why the
        gateway should get no traffic, or None. expiries: of certificates, by listen address and name.
        """
        self._store = store
        self._registry = CollectorRegistry()
        self._gateway = GatewayCollector(
            catalog, tally, hub, store, restarts, unready, watch, expiries, release
        )
        self._registry.register(self._gateway)
        ProcessCollector(namespace="gateway_control", registry=self._registry)
        self._admin_seconds = Histogram(
            "gateway_admin_request_duration_seconds",
            "Time to answer at the admin listener.",
            ("method", "code"),
            buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0),
            registry=self._registry,
        )
        self._admin_refused = Counter(
            "gateway_admin_refused_total",
            "Calls of the admin API refused before they were tried.",
            ("reason",),
            registry=self._registry,
        )

    def admin_request(self, method: str, status: int, seconds: float) -> None:
        """Count one answer of the admin listener."""
        method = method if method in METHODS else "other"
        self._admin_seconds.labels(method, str(status)).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a call refused for `login`, `role` or `rate_limit`."""
        self._admin_refused.labels(reason).inc()

    async def exposition(self) -> bytes:
        """Return everything in Prometheus' text format; of deployments, what could be read last."""
        with suppress(StoreError):
            newest = await self._store.deployments(limit=NEWEST)
            self._gateway.deployments = newest_by_service(newest.items)
        return generate_latest(self._registry)


def newest_by_service(deployments: Iterable[DeploymentRecord]) -> list[DeploymentRecord]:
    """Return each service's newest deployment, of deployments newest first."""
    newest: dict[str, DeploymentRecord] = {}
    for deployment in deployments:
        newest.setdefault(deployment.service_name, deployment)
    return list(newest.values())


class GatewayCollector(Collector):
    """Turns what control holds in memory into metric families."""

    def __init__(
        self,
        catalog: Catalog,
        tally: Tally,
        hub: Hub,
        store: Store,
        restarts: Mapping[str, int],
        unready: Callable[[], str | None],
        watch: StoreWatched,
        expiries: Callable[[], Mapping[tuple[str, str], float]],
        release: str,
    ) -> None:
        self.deployments: list[DeploymentRecord] = []
        self._catalog = catalog
        self._tally = tally
        self._hub = hub
        self._store = store
        self._restarts = restarts
        self._unready = unready
        self._watch = watch
        self._expiries = expiries
        self._release = release

    def describe(self) -> list[Metric]:
        """Return nothing: the registry need not collect to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._traffic()
        yield from self._versions()
        yield from self._endpoints()
        yield from self._deployments()
        yield from self._workers()
        yield from self._process()

    def _traffic(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "gateway_requests",
            "Requests by the version that answered them.",
            labels=(*VERSION, "method", "code"),
        )
        attempts = CounterMetricFamily(
            "gateway_attempts", "Tries by the version that was tried.", labels=(*VERSION, "outcome")
        )
        seconds = HistogramMetricFamily(
            "gateway_request_duration_seconds",
            "From a request's head to its answer's, by the version that answered.",
            labels=VERSION,
        )
        running = GaugeMetricFamily("gateway_requests_in_flight", "Requests running now.", labels=VERSION)
        streams = GaugeMetricFamily(
            "gateway_streams_open", "Of those, tunnels and event streams.", labels=VERSION
        )
        for total in self._tally.versions().values():
            labels = (total.service, total.version)
            for (method, status), count in sorted(total.requests.items()):
                requests.add_metric((*labels, method, str(status)), count)
            for outcome, count in sorted(total.attempts.items()):
                attempts.add_metric((*labels, outcome), count)
            seconds.add_metric(labels, cumulative(total.latency), total.latency_us / 1e6)
            running.add_metric(labels, total.in_flight)
            streams.add_metric(labels, total.streams)
        yield from (requests, attempts, seconds, running, streams)

    def _versions(self) -> Iterator[Metric]:
        weight = GaugeMetricFamily(
            "gateway_version_weight_percent", "Share of its service's requests it gets now.", labels=VERSION
        )
        asked = GaugeMetricFamily(
            "gateway_version_weight_asked",
            "Weight asked for, relative to its service's other versions.",
            labels=VERSION,
        )
        healthy = GaugeMetricFamily(
            "gateway_version_healthy", "1 healthy, 0 unhealthy, 0.5 not known yet.", labels=VERSION
        )
        active = GaugeMetricFamily(
            "gateway_version_active", "1 once its test gate has passed.", labels=VERSION
        )
        status = GaugeMetricFamily(
            "gateway_version_status", "1 for the status it is in.", labels=(*VERSION, "status")
        )
        shares: dict[str, float] = {}
        for name in self._catalog.services:
            shares |= self._catalog.shares(name)
        for record in self._records():
            labels = (record.service_name, record.version)
            weight.add_metric(labels, shares.get(record.id, 0.0))
            asked.add_metric(labels, record.weight)
            healthy.add_metric(labels, {"healthy": 1.0, "unhealthy": 0.0}.get(record.health_status, 0.5))
            active.add_metric(labels, record.is_active)
            status.add_metric((*labels, record.status), 1)
        yield from (weight, asked, healthy, active, status)

    def _endpoints(self) -> Iterator[Metric]:
        labels = (*VERSION, "endpoint")
        breaker = GaugeMetricFamily(
            "gateway_endpoint_breaker_state", "1 for the state its breaker is in.", labels=(*labels, "state")
        )
        healthy = GaugeMetricFamily(
            "gateway_endpoint_healthy", "1 while it may be sent requests.", labels=labels
        )
        draining = GaugeMetricFamily("gateway_endpoint_draining", "1 while it drains.", labels=labels)
        for service in self._catalog.services.values():
            for version in service.versions.values():
                for endpoint in version.endpoints.values():
                    names = (service.record.name, version.record.version, endpoint.name)
                    for state in BREAKER_STATES:
                        breaker.add_metric((*names, state.lower()), endpoint.breaker.state == state)
                    healthy.add_metric(names, endpoint.is_healthy)
                    draining.add_metric(names, endpoint.draining)
        yield from (breaker, healthy, draining)

    def _deployments(self) -> Iterator[Metric]:
        status = GaugeMetricFamily(
            "gateway_deployment_status",
            "1 for the status of each service's newest deployment.",
            labels=("service", "strategy", "status"),
        )
        percent = GaugeMetricFamily(
            "gateway_deployment_traffic_percent",
            "Share of the newest deployment's new version.",
            labels=("service",),
        )
        for deployment in self.deployments:
            for name in STATUSES:
                labels = (deployment.service_name, deployment.strategy, name)
                status.add_metric(labels, deployment.status == name)
            percent.add_metric((deployment.service_name,), deployment.traffic_percent)
        yield from (status, percent)

    def _workers(self) -> Iterator[Metric]:
        total = self._tally.workers()
        yield counter("gateway_connections", "Client connections accepted.", total.accepted)
        yield gauge("gateway_connections_open", "Client connections open now.", total.connections)
        yield counter("gateway_drain_forced", "Exchanges cut at a drain's deadline.", total.forced)
        yield counter(
            "gateway_access_log_dropped",
            "Lines of the access log that were not written: its target stalled or failed.",
            total.log_dropped,
        )
        yield by_label(
            CounterMetricFamily(
                "gateway_refused", "Answers the gateway itself gave, by reason.", labels=("reason",)
            ),
            total.refused,
        )
        yield by_label(
            CounterMetricFamily(
                "gateway_worker_restarts", "Workers that had to be replaced, by cause.", labels=("cause",)
            ),
            self._restarts,
        )
        expiry = GaugeMetricFamily(
            "gateway_certificate_expiry_timestamp_seconds",
            "When a certificate in force expires, as Unix time.",
            labels=("listen", "name"),
        )
        for (listen, name), at in self._expiries().items():
            expiry.add_metric((listen, name), at)
        yield expiry
        yield from self._slots()

    def _slots(self) -> Iterator[Metric]:
        """What is known of each worker."""
        yield by_label(
            GaugeMetricFamily(
                "gateway_worker_loop_lag_seconds", "How late the last heartbeat was.", labels=("slot",)
            ),
            {str(slot): us / 1e6 for slot, us in self._tally.loop_lag_us.items()},
        )
        yield by_label(
            GaugeMetricFamily(
                "gateway_snapshot_apply_seconds",
                "How long the last table took to apply.",
                labels=("slot",),
            ),
            {str(slot): us / 1e6 for slot, us in self._hub.apply_us.items()},
        )
        workers = [worker for worker in self._hub.workers() if not worker.draining]
        yield by_label(
            GaugeMetricFamily(
                "gateway_snapshot_number", "Number of the table each worker serves by.", labels=("slot",)
            ),
            {str(worker.slot): worker.applied for worker in workers},
        )
        yield gauge("gateway_workers_live", "Workers that serve.", len(workers))

    def _process(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "gateway_build_info", "The release that runs.", labels=("release", "native")
        )
        build.add_metric((self._release, native_form()), 1)
        yield build
        yield gauge("gateway_ready_status", "1 while /readyz says 200.", self._unready() is None)
        watch = self._watch
        yield gauge("gateway_store_ok", "1 while the store's file is whole, in its place.", not watch.problem)
        yield gauge("gateway_audit_ok", "0 from a break of the audit trail to its ack.", watch.audit.ok)
        yield gauge("gateway_epoch_number", "Rises when another control takes over.", self._store.epoch)

    def _records(self) -> Iterator[VersionRecord]:
        for service in self._catalog.services.values():
            for version in service.versions.values():
                yield version.record


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels; `_total` is added to its name."""
    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def by_label(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]
) -> CounterMetricFamily | GaugeMetricFamily:
    """Return a family of one label, filled."""
    for name, value in sorted(values.items()):
        family.add_metric((name,), value)
    return family
