"""The current routing table, and how the next one takes its place.

`apply` builds the next table beside the current one and checks it, then swaps one reference; a request reads
`LiveTable.current` once and keeps what it read. Endpoints (with their breakers and pools), counts, rounds and
retry budgets outlive the swap; a service that did not change is the same object before and after.
"""

import time
from collections.abc import Callable, Iterable
from itertools import chain
from random import Random
from typing import Any, Final, NamedTuple

from gateway.core.resilience.breaker import Breaker, BreakerState, BreakerWord, compile_breaker
from gateway.core.routing.endpoint import Endpoint, EndpointPool
from gateway.core.routing.service import ServiceSettings
from gateway.core.routing.table import Route, RoutingTable, Service
from gateway.core.routing.version import Version
from gateway.core.settings.resilience import BreakerSettings
from gateway.errors import LinkError
from gateway.link.counts import VersionCounts
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import EndpointSnap, Mark, ProxySettings, ServiceSnap, Snapshot, VersionSnap

PoolFactory = Callable[[Endpoint, ServiceSettings, ProxySettings], EndpointPool]
"""Makes the pool of an endpoint."""

KEPT_COUNTS: Final = 256
"""Versions gone whose counts are kept, at least those not yet sent and those still running something."""


class Swap(NamedTuple):
    """How a table differs from the one before it."""

    gone: list[Service]
    """Services that are not in force any more: removed, or there anew."""
    come: list[Service]


class LiveTable:
    """What this worker serves by now.

    slot: this worker's number. clock: monotonic seconds. seed: of the order inside rounds, the same on every
    worker (None: 0), and of the choice of endpoints (None: chance).
    """

    def __init__(
        self,
        *,
        slot: int,
        pool_factory: PoolFactory,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        self.current = RoutingTable()
        self.proxy = ProxySettings()
        self.counts: dict[str, VersionCounts] = {}
        """By version id; kept for versions gone, so that totals are not lost."""
        self.on_breaker: Callable[[BreakerReport], None] = _nobody
        """Where breaker reports go; settable."""
        self.is_isolated = False
        """See `isolate`."""
        self._slot = slot
        self._pool_factory = pool_factory
        self._clock = clock
        self._seed = seed or 0
        self._chance = Random(seed).random
        self._workers = 0
        self._snaps: dict[str, ServiceSnap] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._owners: dict[str, Service] = {}
        """Endpoint key -> the service to refresh when its breaker moves."""
        self._not_closed: dict[str, Breaker] = {}
        """Breakers that are not closed, by endpoint key: time passes for them in `tick`."""
        self._swapping = False

    def apply(self, snapshot: Snapshot) -> Swap:
        """Serve by `snapshot` from now on. Returns what that changed. Raises LinkError on a bad one; the old
        table and its pools stay."""
        if not snapshot.whole and snapshot.number <= self.current.number:
            raise LinkError(f"snapshot {snapshot.number} came after snapshot {self.current.number}")
        draft = _Draft(snapshot, self._snaps, self.current.services, self.proxy, self._workers)
        try:
            self._build(draft)
        except Exception as exc:
            for pool in draft.pools.values():
                pool.close()
            raise LinkError(f"snapshot {snapshot.number}: {exc}") from exc
        self._swap(draft)
        return Swap(draft.gone, list(draft.services.values()))

    def marks(self) -> tuple[Mark, ...]:
        """Return what the table says was done to deployments before it could be stored."""
        open_ones = (snap.rollout for snap in self._snaps.values() if snap.rollout is not None)
        return tuple(rollout.mark for rollout in open_ones if rollout.mark is not None)

    def isolate(self, *, is_isolated: bool) -> None:
        """Serve every open rollout by its old version, as far as that is usable; False: by the table again.

        Also those of tables that come meanwhile.
        """
        self.is_isolated, now = is_isolated, self._clock()
        for name in self.open_rollouts():
            service = self.current.services[name]
            service.is_isolated = is_isolated
            service.refresh(now)

    def open_rollouts(self) -> list[str]:
        """Return the names of the services that have one."""
        return sorted(name for name, service in self.current.services.items() if service.rollout is not None)

    def tick(self, now: float) -> None:
        """Let time pass for the breakers that are not closed; to be called every 100 ms or so."""
        for breaker in list(self._not_closed.values()):
            breaker.tick(now)

    def endpoints(self) -> Iterable[Endpoint]:
        """Return every endpoint of the current table."""
        return self._endpoints.values()

    def _build(self, draft: "_Draft") -> None:
        """Make all that can fail, and touch nothing that requests are served by."""
        draft.endpoints, draft.owners = self._endpoints.copy(), self._owners.copy()
        for service in draft.gone:
            for endpoint in service.endpoints():
                del draft.endpoints[endpoint.key], draft.owners[endpoint.key]
        for name in draft.changed:
            self._build_endpoints(draft, draft.snaps[name])
            draft.services[name] = service = self._build_service(draft, draft.snaps[name])
            for endpoint in service.endpoints():
                if endpoint.key in draft.owners:
                    raise LinkError(f"endpoint {endpoint.key} is named twice")
                draft.owners[endpoint.key] = service
                draft.endpoints[endpoint.key] = endpoint
        services = draft.services.values()
        draft.table = self.current.replaced(
            draft.number,
            [service.name for service in draft.gone],
            services,
            [route for service in services for route in _routes_of(service)],
        )

    def _build_endpoints(self, draft: "_Draft", snap: ServiceSnap) -> None:
        old = self._snaps.get(snap.name)
        is_pool_stale = old is None or _pool_settings(old, self.proxy) != _pool_settings(snap, draft.proxy)
        for version in snap.versions:
            for each in version.endpoints:
                BreakerState(each.breaker.state)
                if each.key in draft.pools:
                    raise LinkError(f"endpoint {each.key} is named twice")
                endpoint = self._endpoints.get(each.key)
                if endpoint is None or (endpoint.draining and not each.draining):
                    # Draining has no way back: an endpoint that is called back begins anew.
                    endpoint = Endpoint(each.key, url=each.url, address=each.address, port=each.port)
                    draft.fresh[each.key] = endpoint
                elif not is_pool_stale:
                    continue
                draft.pools[each.key] = self._pool_factory(endpoint, snap.settings, draft.proxy)

    def _build_service(self, draft: "_Draft", snap: ServiceSnap) -> Service:
        return Service(
            snap.id,
            snap.name,
            settings=snap.settings,
            versions=tuple(self._build_version(draft, snap, each) for each in snap.versions),
            generation=snap.generation,
            stable=snap.current,
            rollout=snap.rollout.id if snap.rollout else None,
            new=snap.rollout.new if snap.rollout else None,
            old=snap.rollout.old if snap.rollout else None,
            paused=snap.paused,
            workers=draft.workers,
            phase=self._slot / draft.workers % 1.0,
            seed=self._seed,
        )

    def _build_version(self, draft: "_Draft", service: ServiceSnap, snap: VersionSnap) -> Version:
        counts = self.counts.get(snap.id) or VersionCounts(service.name, snap.name, snap.id)
        draft.counts[snap.id] = counts
        return Version(
            snap.id,
            snap.name,
            endpoints=tuple(
                draft.fresh.get(each.key) or self._endpoints[each.key] for each in snap.endpoints
            ),
            settings=service.settings,
            weight=snap.weight,
            active=snap.active,
            draining=snap.draining,
            standby=snap.standby,
            tested=snap.tested,
            counts=counts,
            chance=self._chance,
        )

    def _swap(self, draft: "_Draft") -> None:
        """Serve by the draft. Nothing here can fail."""
        now = self._clock()
        before = chain.from_iterable(service.endpoints() for service in draft.gone)
        gone = [each for each in before if draft.endpoints.get(each.key) is not each]
        self._endpoints, self._owners = draft.endpoints, draft.owners
        stale = [each.pool for each in gone]
        for key, pool in draft.pools.items():
            if key not in draft.fresh:
                stale.append(draft.endpoints[key].pool)
            draft.endpoints[key].pool = pool
        for version_id, counts in draft.counts.items():
            self.counts.setdefault(version_id, counts)
        self._swapping = True
        for name in draft.changed:
            self._update_service(now, draft.services[name], draft.snaps[name])
        self._swapping = False
        self._snaps, self._workers = draft.snaps, draft.workers
        self.proxy = draft.proxy
        self.current = draft.table
        for endpoint in gone:
            if self._not_closed.get(endpoint.key) is endpoint.breaker:
                self._not_closed.pop(endpoint.key, None)
        for pool in stale:
            pool.close()
        self._forget_counts()

    def _update_service(self, now: float, service: Service, snap: ServiceSnap) -> None:
        """Let a new service go on where its predecessor stood, with what control says of its endpoints."""
        before = self.current.services.get(service.name)
        if before is not None and before.id == service.id:
            service.take_over(before)
        service.is_isolated = self.is_isolated and service.rollout is not None
        breaker_settings = compile_breaker(snap.settings.breaker)
        for version, version_snap in zip(service.versions, snap.versions, strict=True):
            for endpoint, each in zip(version.endpoints, version_snap.endpoints, strict=True):
                self._update_endpoint(now, endpoint, each)
                self._update_breaker(now, endpoint, each, breaker_settings)
        service.refresh(now)

    def _update_endpoint(self, now: float, endpoint: Endpoint, snap: EndpointSnap) -> None:
        if snap.healthy and not endpoint.healthy:
            endpoint.available_since = now - snap.available_for_s
        endpoint.healthy = snap.healthy
        endpoint.draining = endpoint.draining or snap.draining

    def _update_breaker(
        self, now: float, endpoint: Endpoint, snap: EndpointSnap, settings: BreakerSettings | None
    ) -> None:
        if settings is None:
            endpoint.breaker = None
            self._not_closed.pop(endpoint.key, None)
            return
        if endpoint.breaker is None:
            endpoint.breaker = self._new_breaker(endpoint, settings)
        endpoint.breaker.reconfigure(settings)
        view = snap.breaker
        word = BreakerWord(view.epoch, BreakerState(view.state), view.grant, view.open_for_s)
        endpoint.breaker.notify(now, word)

    def _new_breaker(self, endpoint: Endpoint, settings: BreakerSettings) -> Breaker:
        def report(epoch: int, kind: Any, count: int) -> None:
            self.on_breaker(BreakerReport(endpoint.key, epoch, kind, count))

        def change(now: float) -> None:
            self._breaker_changed(now, endpoint)

        return Breaker(settings, slot=self._slot, on_report=report, on_change=change)

    def _breaker_changed(self, now: float, endpoint: Endpoint) -> None:
        """Follow a breaker that moved or ran out of trial calls: shares change at once, here and not in the
        request."""
        breaker = endpoint.breaker
        if breaker is None or self._endpoints.get(endpoint.key) is not endpoint:
            return
        if breaker.state is not BreakerState.CLOSED:
            self._not_closed[endpoint.key] = breaker
        elif self._not_closed.pop(endpoint.key, None) is not None:
            endpoint.available_since = now
        if not self._swapping:
            self._owners[endpoint.key].refresh(now)

    def _forget_counts(self) -> None:
        """Forget the counts of versions long gone, oldest first, once they are sent and nothing runs
        there."""
        if len(self.counts) <= KEPT_COUNTS:
            return
        services = self.current.services.values()
        if len(self.counts) - sum(len(service.versions) for service in services) <= KEPT_COUNTS:
            return
        known = {version.id for service in services for version in service.versions}
        gone = [
            key
            for key, each in self.counts.items()
            if key not in known and not each.dirty and not each.in_flight
        ]
        for key in gone[: max(len(gone) - KEPT_COUNTS, 0)]:
            del self.counts[key]


class _Draft:
    """The next table while it is being built.

    changed: names of the services to build anew; the others go on as they are. What every service depends on
    (the gateway's own settings, the number of workers) changes them all.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        snaps: dict[str, ServiceSnap],
        services: dict[str, Service],
        proxy: ProxySettings,
        workers: int,
    ) -> None:
        """snaps, services, proxy, workers: of the current table."""
        removed = services.keys() if snapshot.whole else snapshot.removed
        self.number = snapshot.number
        self.snaps = snaps.copy()
        for name in removed:
            self.snaps.pop(name, None)
        self.snaps.update(snapshot.services)
        self.proxy = snapshot.proxy or proxy
        self.workers = max(snapshot.workers, 1)
        is_same_ground = self.proxy == proxy and self.workers == workers
        self.changed = set(snapshot.services) if is_same_ground else set(self.snaps)
        self.gone = [services[name] for name in self.changed.union(removed) if name in services]
        """Services of the current table that this one lacks, or has anew."""
        self.services: dict[str, Service] = {}
        """Those built anew."""
        self.endpoints: dict[str, Endpoint] = {}
        self.owners: dict[str, Service] = {}
        self.fresh: dict[str, Endpoint] = {}
        """Endpoints that are new."""
        self.counts: dict[str, VersionCounts] = {}
        """Of its versions, by id."""
        self.pools: dict[str, EndpointPool] = {}
        """Pools that are new: of fresh endpoints, and of kept ones whose settings changed."""
        self.table = RoutingTable()


def _pool_settings(snap: ServiceSnap, proxy: ProxySettings) -> tuple[object, ...]:
    """Return what a pool is made from: a change of it, and only that, makes a new pool."""
    settings = snap.settings
    return settings.timeouts, settings.tls, settings.concurrency, proxy.timeouts, proxy.limits, proxy.targets


def _routes_of(service: Service) -> list[Route]:
    return [
        Route(
            service,
            host=each.host,
            path=each.path,
            strip_prefix=each.strip_prefix,
            methods=each.methods,
        )
        for each in service.settings.routes
    ]


def _nobody(report: BreakerReport) -> None:
    """Take a report before anyone listens: control asks again by telling a word that is behind."""
