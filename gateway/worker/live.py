"""The current routing table, and how the next one takes its place.

`apply` builds a whole table beside the current one, checks it, and only then swaps one reference; a request
reads
`Live.table` once and keeps what it read. Endpoints (with their breakers and pools), counts and rounds outlive
the swap.
"""

import time
from collections.abc import Callable
from random import Random
from typing import Any

from gateway.core.breaker import Breaker, BreakerState, BreakerWord, compile_breaker
from gateway.core.service import ServiceSettings
from gateway.core.table import Endpoint, Route, RoutingTable, Service, Version
from gateway.errors import LinkError
from gateway.link.counts import VersionCounts
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import EndpointSnap, ProxySettings, ServiceSnap, Snapshot, VersionSnap

PoolFactory = Callable[[Endpoint, ServiceSettings, ProxySettings], Any]
"""Makes the pool of an endpoint; the pool has `close()`: no new lease, idle connections closed, running ones
finish."""


class Live:
    """What this worker serves by now.

    slot: this worker's number. seed: of all chance in choosing; None derives it from the services' ids.
    """

    def __init__(
        self,
        *,
        slot: int,
        pool_factory: PoolFactory,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        self.table = RoutingTable()
        self.proxy = ProxySettings()
        self.counts: dict[str, VersionCounts] = {}
        """By version id; kept for versions gone, so that totals are not lost."""
        self.on_breaker: Callable[[BreakerReport], None] = _nobody
        """Where breaker reports go; settable."""
        self._slot = slot
        self._pool_factory = pool_factory
        self._clock = clock
        self._seed = seed or 0
        self._chance = Random(seed).random
        self._workers = 1
        self._snaps: dict[str, ServiceSnap] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._owners: dict[str, Service] = {}
        """Endpoint key -> the service to refresh when its breaker moves."""
        self._restless: dict[str, Breaker] = {}
        """Breakers that are not closed, by endpoint key: time passes for them in `tick`."""

    def apply(self, snapshot: Snapshot) -> None:
        """Serve by `snapshot` from now on. Raises LinkError on a bad one; the old table stays."""
        now = self._clock()
        if not snapshot.whole and snapshot.number <= self.table.number:
            raise LinkError(f"snapshot {snapshot.number} came after {self.table.number}")
        proxy = snapshot.proxy or self.proxy
        snaps = dict(snapshot.services) if snapshot.whole else {**self._snaps, **snapshot.services}
        for name in snapshot.removed:
            if name not in snapshot.services:
                snaps.pop(name, None)
        fresh: dict[str, Endpoint] = {}
        try:
            endpoints = self._endpoints_of(snaps, proxy, fresh)
            services = {
                name: self._service(snap, endpoints, snapshot.workers) for name, snap in snaps.items()
            }
            table = RoutingTable(snapshot.number, services.values(), _routes_of(services.values()))
        except Exception as exc:
            for endpoint in fresh.values():
                if endpoint.pool is not None:
                    endpoint.pool.close()
            raise LinkError(f"snapshot {snapshot.number}: {exc}") from exc
        self._swap(now, table, snaps, proxy, endpoints, snapshot.workers)

    def tick(self, now: float) -> None:
        """Let time pass for breakers that are not closed; call it every 100 ms or so."""
        for breaker in list(self._restless.values()):
            breaker.tick(now)

    def _endpoints_of(
        self, snaps: dict[str, ServiceSnap], proxy: ProxySettings, fresh: dict[str, Endpoint]
    ) -> dict[str, Endpoint]:
        endpoints: dict[str, Endpoint] = {}
        for snap in snaps.values():
            for version in snap.versions:
                for each in version.endpoints:
                    if each.key in endpoints:
                        raise LinkError(f"endpoint {each.key} is named twice")
                    kept = self._endpoints.get(each.key)
                    if kept is None or (kept.draining and not each.draining):
                        # Draining has no way back: an endpoint that is called back begins anew.
                        kept = fresh[each.key] = Endpoint(
                            each.key, url=each.url, address=each.address, port=each.port
                        )
                        kept.pool = self._pool_factory(kept, snap.settings, proxy)
                    endpoints[each.key] = kept
        return endpoints

    def _service(self, snap: ServiceSnap, endpoints: dict[str, Endpoint], workers: int) -> Service:
        return Service(
            snap.id,
            snap.name,
            settings=snap.settings,
            versions=tuple(self._version(snap, each, endpoints) for each in snap.versions),
            stage=snap.stage,
            stable=snap.current,
            rollout=snap.rollout.id if snap.rollout else None,
            new=snap.rollout.new if snap.rollout else None,
            paused=snap.paused,
            workers=workers,
            phase=self._slot / max(workers, 1),
            seed=self._seed,
        )

    def _version(self, service: ServiceSnap, snap: VersionSnap, endpoints: dict[str, Endpoint]) -> Version:
        counts = self.counts.get(snap.id)
        if counts is None:
            counts = self.counts[snap.id] = VersionCounts(service.name, snap.name, snap.id)
        return Version(
            snap.id,
            snap.name,
            endpoints=tuple(endpoints[each.key] for each in snap.endpoints),
            settings=service.settings,
            weight=snap.weight,
            active=snap.active,
            draining=snap.draining,
            standby=snap.standby,
            counts=counts,
            chance=self._chance,
        )

    def _swap(
        self,
        now: float,
        table: RoutingTable,
        snaps: dict[str, ServiceSnap],
        proxy: ProxySettings,
        endpoints: dict[str, Endpoint],
        workers: int,
    ) -> None:
        before, self._endpoints = self._endpoints, endpoints
        self._owners = {}
        for name, service in table.services.items():
            last = self.table.services.get(name)
            if last is not None and last.id == service.id:
                service.take_over(last)
            for version in service.versions:
                for endpoint in version.endpoints:
                    self._owners[endpoint.key] = service
        for snap in snaps.values():
            for version_snap in snap.versions:
                for each in version_snap.endpoints:
                    self._update(now, endpoints[each.key], each, snap.settings)
        for service in table.services.values():
            service.refresh(now)
        self._snaps, self.proxy, self._workers = snaps, proxy, workers
        self.table = table
        for key, endpoint in before.items():
            if endpoints.get(key) is not endpoint:
                self._restless.pop(key, None)
                endpoint.pool.close()

    def _update(self, now: float, endpoint: Endpoint, snap: EndpointSnap, settings: ServiceSettings) -> None:
        if snap.healthy and (not endpoint.healthy or not endpoint.available_since):
            endpoint.available_since = now - snap.available_for_s
        endpoint.healthy = snap.healthy
        endpoint.draining = endpoint.draining or snap.draining
        breaker_settings = compile_breaker(settings.breaker)
        if breaker_settings is None:
            endpoint.breaker = None
            self._restless.pop(endpoint.key, None)
            return
        if endpoint.breaker is None:
            endpoint.breaker = self._breaker(endpoint, breaker_settings)
        endpoint.breaker.reconfigure(breaker_settings)
        view = snap.breaker
        endpoint.breaker.tell(
            now, BreakerWord(view.epoch, BreakerState(view.state), view.grant, view.open_for_s)
        )

    def _breaker(self, endpoint: Endpoint, settings: Any) -> Breaker:
        key = endpoint.key

        def report(epoch: int, kind: Any, count: int) -> None:
            self.on_breaker(BreakerReport(key, epoch, kind, count))

        def change(now: float) -> None:
            self._breaker_changed(endpoint, now)

        return Breaker(settings, slot=self._slot, on_report=report, on_change=change)

    def _breaker_changed(self, endpoint: Endpoint, now: float) -> None:
        breaker = endpoint.breaker
        if breaker is None or self._endpoints.get(endpoint.key) is not endpoint:
            return
        if breaker.state is not BreakerState.CLOSED:
            self._restless[endpoint.key] = breaker
        elif self._restless.pop(endpoint.key, None) is not None:
            endpoint.available_since = now
        owner = self._owners.get(endpoint.key)
        if owner is not None:
            owner.refresh(now)


def _routes_of(services: Any) -> list[Route]:
    return [
        Route(
            service,
            host=each.host,
            path=each.path,
            strip_prefix=each.strip_prefix,
            methods=each.methods,
        )
        for service in services
        for each in service.settings.routes
    ]


def _nobody(report: BreakerReport) -> None:
    """Take a report before anyone listens: control hears the state itself when it is next told."""
