"""What `/metrics` says: control's totals as Prometheus metrics, made when somebody asks.

Nothing is counted here but the admin API itself: the numbers are the workers' totals, so a scrape costs what
it reads and nothing between scrapes. Label values are services, versions, methods, statuses and endpoints:
few and known.
"""

import time
from collections import Counter as Counting
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from gateway.admin.exposition import (
    NO_EXEMPLARS,
    Exemplars,
    Family,
    by_label,
    counter,
    gauge,
    labels,
    text_of,
)
from gateway.admin.rollout_series import (
    RolloutsWatched,
    decision_families,
    deployment_families,
    evidence_families,
)
from gateway.admin.version_series import Retired, endpoint_families, known, state_families, version_families
from gateway.control.catalog.catalog import Catalog
from gateway.control.processes.hub import Hub
from gateway.control.rollouts.counted import RolloutCounts
from gateway.control.tally import Tally
from gateway.core.rollout.state import Rollout
from gateway.errors import StoreError
from gateway.http1.form import native_form
from gateway.store.api import Store
from gateway.store.records import DeploymentRecord, NodeState

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REFUSALS: Final = ("login", "role", "rate_limit")
REFUSED: Final = (
    *("bad_request", "head_too_large", "no_endpoint", "no_route", "paused", "draining", "too_slow"),
    *("connections_per_client", "fallback"),
)
"""Reasons of answers of our own that are counted from zero; others begin with their first."""
CONNECTION_STATES: Final = ("active", "idle", "connecting")
NODE_STATES: Final = ("live", "standby", "stopping", "silent", "isolated")
SENT: Final = ("sent", "failed", "dropped")
NEWEST: Final = 200
"""Deployments looked at for each service's newest."""


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


class SpansWatched(Protocol):
    """What is known of sampled requests."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Requests whose spans were sent, failed to be, or were dropped."""

    def exemplars(self, version_id: str) -> Exemplars:
        """Return some of them, of a version."""


class IsolationWatched(Protocol):
    """What is known of how long this gateway has been without the store."""

    @property
    def trouble(self) -> str:
        """Return what is to be said of it; empty: nothing."""


class _NoIsolation:
    trouble = ""


class _NoRollouts:
    counts = RolloutCounts()

    def open_state(self, service: str) -> Rollout | None:
        return None


class _NoSpans:
    counts: Mapping[str, int] = {}

    def exemplars(self, version_id: str) -> Exemplars:
        return NO_EXEMPLARS


class Watched:
    """The parts of control that are asked what they have counted."""

    def __init__(
        self,
        *,
        rollouts: RolloutsWatched | None = None,
        spans: SpansWatched | None = None,
        probes: Mapping[str, Mapping[str, int]] | None = None,
        store_errors: Mapping[str, int] | None = None,
        isolation: IsolationWatched | None = None,
    ) -> None:
        """probes: version id -> result -> checks. store_errors: by kind. None: nothing is known of it."""
        self.rollouts: RolloutsWatched = rollouts or _NoRollouts()
        self.spans: SpansWatched = spans or _NoSpans()
        self.probes = {} if probes is None else probes
        self.store_errors = {} if store_errors is None else store_errors
        self.isolation: IsolationWatched = isolation or _NoIsolation()


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
        is_reloaded: Callable[[], bool],
        release: str,
        watched: Watched | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """restarts: worker replacements by cause, kept up to date. unready: why there should be no traffic;
        None: there should. expiries: by listen address and name. is_reloaded: see `ProcessState`.
        """
        self._catalog = catalog
        self._tally = tally
        self._hub = hub
        self._store = store
        self._restarts = restarts
        self._unready = unready
        self._watch = watch
        self._expiries = expiries
        self._is_reloaded = is_reloaded
        self._release = release
        self._watched = watched or Watched()
        self._retired = Retired(clock)
        self._deployments: list[DeploymentRecord] = []
        self._nodes: list[NodeState] = []
        self._registry = CollectorRegistry()
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
        for reason in REFUSALS:
            self._admin_refused.labels(reason)

    @property
    def isolation(self) -> str:
        """What is to be said of being without the store; empty: nothing."""
        return self._watched.isolation.trouble

    def admin_request(self, method: str, status: int, seconds: float) -> None:
        """Count one answer of the admin listener."""
        method = method if method in METHODS else "other"
        self._admin_seconds.labels(method, str(status)).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a call refused for `login`, `role` or `rate_limit`."""
        self._admin_refused.labels(reason).inc()

    async def exposition(self, *, is_open: bool = False) -> bytes:
        """Return everything, in Prometheus' text format or as OpenMetrics; of deployments and nodes, what
        could be read last.
        """
        with suppress(StoreError):
            newest = await self._store.deployments(limit=NEWEST)
            self._deployments = newest_by_service(newest.items)
            self._nodes = await self._store.nodes()
        text = text_of(self._families(is_open=is_open), is_open=is_open).encode()
        render = openmetrics.generate_latest if is_open else generate_latest
        return text + render(self._registry)

    def _families(self, *, is_open: bool) -> Iterator[Family]:
        """Yield every family but those of the registry."""
        records = known(self._catalog)
        shown = self._retired.shown(self._tally.versions(), records)
        spans = self._watched.spans.exemplars if is_open else _NoSpans().exemplars
        yield from version_families(shown, records, self._watched.probes, spans)
        kept = {version_id: record for version_id, record in records.items() if version_id in shown}
        yield from state_families(self._catalog, kept.values())
        yield from endpoint_families(self._catalog)
        services, rollouts = list(self._catalog.services), self._watched.rollouts
        yield from deployment_families(services, self._deployments)
        yield from evidence_families(services, rollouts)
        yield from decision_families(services, rollouts.counts)
        yield from self._workers()
        yield from self._slots()
        yield from self._process()
        yield from node_families(self._nodes)

    def _workers(self) -> Iterator[Family]:
        """What workers count of themselves."""
        total = self._tally.workers()
        yield counter("gateway_connections", "Client connections accepted.", total.accepted)
        yield gauge("gateway_connections_open", "Client connections open now.", total.connections)
        yield counter("gateway_drain_forced", "Exchanges cut at a drain's deadline.", total.forced)
        yield counter(
            "gateway_access_log_dropped",
            "Lines of the access log that were not written: its target stalled or failed.",
            total.log_dropped,
        )
        refused = Family("gateway_refused", "counter", "Answers the gateway itself gave, by reason.")
        yield by_label(refused, "reason", dict.fromkeys(REFUSED, 0) | total.refused)
        restarts = Family("gateway_worker_restarts", "counter", "Workers that had to be replaced, by cause.")
        yield by_label(restarts, "cause", dict(self._restarts))
        upstream = Family("gateway_upstream_connections", "gauge", "Connections to upstreams now, by state.")
        yield by_label(upstream, "state", dict.fromkeys(CONNECTION_STATES, 0) | total.upstream)
        spans = Family("gateway_spans", "counter", "Sampled requests, by what became of their spans.")
        counts = dict.fromkeys(SENT, 0) | dict(self._watched.spans.counts)
        counts["dropped"] += total.spans_dropped
        yield by_label(spans, "result", counts)

    def _slots(self) -> Iterator[Family]:
        """What is known of each worker."""
        yield by_label(
            Family("gateway_worker_loop_lag_seconds", "gauge", "How late the last heartbeat was."),
            "slot",
            {str(slot): us / 1e6 for slot, us in self._tally.loop_lag_us.items()},
        )
        yield by_label(
            Family("gateway_snapshot_apply_seconds", "gauge", "How long the last table took to apply."),
            "slot",
            {str(slot): us / 1e6 for slot, us in self._hub.apply_us.items()},
        )
        workers = [worker for worker in self._hub.workers() if not worker.draining]
        yield by_label(
            Family("gateway_snapshot_number", "gauge", "Number of the table each worker serves by."),
            "slot",
            {str(worker.slot): worker.applied for worker in workers},
        )
        yield gauge("gateway_workers_live", "Workers that serve.", len(workers))

    def _process(self) -> Iterator[Family]:
        build = Family("gateway_build_info", "gauge", "The release that runs.")
        build.add(1, labels(release=self._release, native=native_form()))
        yield build
        expiry = Family(
            "gateway_certificate_expiry_timestamp_seconds",
            "gauge",
            "When a certificate in force expires, as Unix time.",
        )
        for (listen, name), at in self._expiries().items():
            expiry.add(at, labels(listen=listen, name=name))
        yield expiry
        yield gauge("gateway_ready_status", "1 while /readyz says 200.", int(self._unready() is None))
        reloaded = "1 while the configuration that was read last is in force."
        yield gauge("gateway_config_reload_ok", reloaded, int(self._is_reloaded()))
        watch = self._watch
        whole = "1 while the store's file is whole, in its place."
        yield gauge("gateway_store_ok", whole, int(not watch.problem))
        errors = Family("gateway_store_errors", "counter", "Reads and writes of the store that failed.")
        yield by_label(errors, "kind", dict(self._watched.store_errors))
        isolated = "1 while it has been without a shared store for longer than cluster.isolation."
        yield gauge("gateway_isolated_status", isolated, int(bool(self.isolation)))
        yield gauge("gateway_audit_ok", "0 from a break of the audit trail to its ack.", int(watch.audit.ok))
        yield gauge("gateway_epoch_number", "Rises when another control takes over.", self._store.epoch)


def node_families(nodes: Sequence[NodeState]) -> Iterator[Family]:
    """Yield what is known of the gateways that share the store."""
    count = Counting(state_of(each) for each in nodes)
    seen = Family("gateway_nodes", "gauge", "Gateways that share the store, by state.")
    yield by_label(seen, "state", {state: count[state] for state in NODE_STATES})
    behind: dict[str, int] = {}
    for each in nodes:
        if each.applied_revision is not None:
            far = each.wanted_revision - each.applied_revision
            behind[each.name] = max(far, behind.get(each.name, 0))
    far_behind = Family("gateway_node_revisions_behind", "gauge", "What it has yet to apply of the store.")
    yield by_label(far_behind, "node", behind)
    applied: dict[str, int] = {}
    for each in nodes:
        if each.applied_revision is not None:
            applied[each.name] = min(each.applied_revision, applied.get(each.name, each.applied_revision))
    goes_by = Family("gateway_node_revision", "gauge", "What of the store a gateway goes by.")
    yield by_label(goes_by, "node", applied)
    if nodes:
        newest = max(each.wanted_revision for each in nodes)
        yield gauge("gateway_store_revision", "How often the store has been written.", newest)


def state_of(node: NodeState) -> str:
    """Return which of NODE_STATES a node is in."""
    if node.is_isolated:
        return "isolated"
    if node.is_silent:
        return "silent"
    if node.is_stopping:
        return "stopping"
    return "standby" if node.applied_revision is None else "live"


def newest_by_service(deployments: Iterable[DeploymentRecord]) -> list[DeploymentRecord]:
    """Return each service's newest deployment, of deployments newest first."""
    newest: dict[str, DeploymentRecord] = {}
    for deployment in deployments:
        newest.setdefault(deployment.service_name, deployment)
    return list(newest.values())
