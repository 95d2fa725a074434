"""Services, versions and endpoints as control has them in memory, and as workers see them."""

import ssl
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from gateway.control.upstreams.probes import Probed
from gateway.core.resilience.health import Health, HealthSettings, HealthState
from gateway.core.routing.service import RouteSettings, UpstreamTlsSettings
from gateway.core.settings.targets import ANYWHERE, TargetRules, parse_target
from gateway.link.snapshot import BreakerView, EndpointSnap, RolloutSnap, ServiceSnap, VersionSnap
from gateway.net.tls import upstream_context
from gateway.store.records import CircuitState, ServiceRecord, VersionRecord

LONG_AGO: Final = -1e9
"""Monotonic seconds: healthy since before anybody counted."""
_OFF: Final = HealthSettings(healthy_threshold=1)
"""Thresholds of endpoints that nobody probes."""


class EndpointEntry:
    """One address of a version."""

    def __init__(self, version: "VersionEntry", url: str, address: str, port: int, stored: Health) -> None:
        """stored: the version's health as stored; it stands until this endpoint's own first probe."""
        self.version = version
        self.key = f"{version.record.id}|{url}|{address}"
        self.url = url
        self.address = address
        self.port = port
        self.state = HealthState(version.service.health or _OFF, stored=stored)
        self.breaker = BreakerView()
        self.available_since: float | None = LONG_AGO if stored is Health.HEALTHY else None
        """Monotonic seconds; None while it is not healthy."""

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self.url} at {self.address}" if self.address not in self.url else self.url

    @property
    def draining(self) -> bool:
        """Whether it takes nothing new."""
        return self.version.record.draining

    @property
    def is_healthy(self) -> bool:
        """Whether it may be sent requests; always, if the service's health is switched off."""
        return self.version.service.health is None or self.state.is_usable

    @property
    def is_usable(self) -> bool:
        """Whether it may be sent requests and its breaker lets any through."""
        return self.is_healthy and not self.draining and self.breaker.state != "OPEN"

    def snap(self, now: float) -> EndpointSnap:
        """Return what workers are to know. now: monotonic seconds."""
        healthy = self.is_healthy
        if not healthy:
            self.available_since = None
        elif self.available_since is None:
            self.available_since = now
        return EndpointSnap(
            key=self.key,
            url=self.url,
            address=self.address,
            port=self.port,
            healthy=healthy,
            draining=self.draining,
            available_for_s=now - self.available_since if self.available_since is not None else 0.0,
            breaker=self.breaker,
        )

    @property
    def is_worth_a_probe(self) -> bool:
        """Whether it may answer: a drained one that has ceased to was stopped."""
        return not (self.version.record.drained and self.state.health is Health.UNHEALTHY)

    def probed(self, *, is_idle: bool = False, is_rare: bool = False) -> Probed | None:
        """Return what there is to probe; None if the service's health is switched off."""
        service = self.version.service
        if service.health is None:
            return None
        return Probed(
            key=self.key,
            version_id=self.version.record.id,
            url=self.url,
            address=self.address,
            settings=service.health,
            state=self.state,
            tls=service.tls(),
            server_name=service.record.settings.tls.server_name,
            is_idle=is_idle,
            is_rare=is_rare,
        )


class VersionEntry:
    """One version with its endpoints."""

    def __init__(self, service: "ServiceEntry", record: VersionRecord) -> None:
        self.service = service
        self.record = record
        self.endpoints: dict[str, EndpointEntry] = {}
        """By key."""
        self._stored = Health(record.health_status) if record.ever_healthy else Health.UNKNOWN
        self.follow_urls()

    @property
    def urls(self) -> tuple[str, ...]:
        """Its url and its replicas'."""
        return (self.record.url, *self.record.replicas)

    @property
    def health(self) -> Health:
        """Healthy if any endpoint is, unhealthy if all are, else unknown: so is a drained one nobody asks."""
        found = {endpoint.state.health for endpoint in self.endpoints.values()}
        if self.service.health is None:
            return Health.UNKNOWN if self.record.drained else Health.HEALTHY
        if Health.HEALTHY in found:
            return Health.HEALTHY
        if self.record.drained:
            return Health.UNKNOWN
        return Health.UNHEALTHY if found == {Health.UNHEALTHY} else Health.UNKNOWN

    @property
    def circuit_state(self) -> CircuitState:
        """OPEN when all its endpoints' breakers are, HALF_OPEN when none is closed."""
        states = {endpoint.breaker.state for endpoint in self.endpoints.values()} or {"CLOSED"}
        if "CLOSED" in states:
            return "CLOSED"
        return "OPEN" if states == {"OPEN"} else "HALF_OPEN"

    @property
    def is_usable(self) -> bool:
        """Whether requests may be sent to it: active, healthy, not draining, not all breakers open."""
        return self.record.is_active and any(endpoint.is_usable for endpoint in self.endpoints.values())

    @property
    def has_passed(self) -> bool:
        """Whether a probe has passed where it answers now; nobody asks for one if health is switched off."""
        return self.record.ever_healthy or self.service.health is None

    @property
    def is_due(self) -> bool:
        """Whether it has weight without a rollout and has passed its first probe: it may begin."""
        record = self.record
        waiting = not record.is_active and record.weight > 0 and record.status != "deprecated"
        return self.has_passed and waiting and not record.draining

    def follow_urls(self) -> None:
        """Keep the endpoints of its urls, drop those of others, and make those of numeric ones."""
        self.endpoints = {key: each for key, each in self.endpoints.items() if each.url in self.urls}
        for url in self.urls:
            if not parse_target(url).is_named:
                self.set_addresses(url, (parse_target(url).address,))

    def set_addresses(self, url: str, addresses: Iterable[str]) -> bool:
        """Make `addresses` the endpoints of `url`. Returns whether that changed anything.

        The stored health is that of the first ones after a start; an address that is added later has to pass.
        """
        is_first = not any(each.url == url for each in self.endpoints.values())
        stored = self._stored if is_first else Health.UNKNOWN
        others = {key: each for key, each in self.endpoints.items() if each.url != url}
        port = parse_target(url).port
        permitted = [address for address in addresses if self.service.rules.permits(url, address)]
        fresh = [EndpointEntry(self, url, address, port, stored) for address in permitted]
        endpoints = others | {each.key: self.endpoints.get(each.key, each) for each in fresh}
        changed = endpoints.keys() != self.endpoints.keys()
        self.endpoints = endpoints
        return changed

    def forget_stored_health(self) -> None:
        """Endpoints that come from now on have to pass first."""
        self._stored = Health.UNKNOWN

    def snap(self, now: float, standby: str | None) -> VersionSnap:
        """Return what workers are to know. standby: id of the version that may serve at weight 0."""
        record = self.record
        shown = () if record.drained else self.endpoints.values()
        return VersionSnap(
            id=record.id,
            name=record.version,
            weight=record.weight,
            active=record.is_active,
            draining=record.draining,
            standby=record.id == standby,
            endpoints=tuple(endpoint.snap(now) for endpoint in shown),
            tested=self.has_passed,
        )


class ServiceEntry:
    """One service with its versions."""

    def __init__(self, record: ServiceRecord, rules: TargetRules = ANYWHERE) -> None:
        """rules: where its endpoints may be: what was allowed once may be our own address by now."""
        self.record = record
        self.rules = rules
        self.versions: dict[str, VersionEntry] = {}
        """By id, oldest first."""
        self._tls: tuple[UpstreamTlsSettings, ssl.SSLContext | None] = (UpstreamTlsSettings(), None)

    @property
    def health(self) -> HealthSettings | None:
        """How its endpoints are probed; None: not at all, they are taken for healthy."""
        settings = self.record.settings.health
        if settings is True:
            return HealthSettings()
        return settings or None

    def tls(self) -> ssl.SSLContext | None:
        """Return how its https endpoints are spoken to; None: by default.

        Raises ConfigError naming a bad file.
        """
        settings = self.record.settings.tls
        if self._tls[0] != settings:
            self._tls = settings, context_of(settings)
        return self._tls[1]

    def reread_tls(self) -> None:
        """Read the files of the TLS settings again. Raises ConfigError, and then changes nothing."""
        settings, context = self._tls
        if context is not None:
            self._tls = settings, context_of(settings)

    def shares(self, standby: str | None = None) -> dict[str, float]:
        """Return the share of requests each version gets now, 0–100, by id; what gets none is left out.

        standby: id of the version that serves where nothing with weight is usable: an open rollout's old one.
        """
        usable = [each.record for each in self.versions.values() if each.is_usable]
        total = sum(record.weight for record in usable)
        if total:
            return {record.id: 100 * record.weight / total for record in usable if record.weight}
        return {record.id: 100.0 for record in usable if record.id == standby}

    def is_fallback(self, version: str) -> bool:
        """Whether requests go to the version of this name when no other is usable."""
        fallback = self.record.settings.fallback
        return fallback is not None and fallback.version == version

    def named(self, version: str) -> VersionEntry | None:
        """Return the version of this name, or id."""
        found = (each for each in self.versions.values() if version in (each.record.version, each.record.id))
        return next(found, None)

    def put(self, record: VersionRecord) -> VersionEntry:
        """Take a version's newest row: its urls may have changed, its endpoints keep their state."""
        entry = self.versions.get(record.id)
        if entry is None:
            entry = self.versions[record.id] = VersionEntry(self, record)
            return entry
        before, entry.record = entry.record, record
        if (before.url, before.replicas) != (record.url, record.replicas):
            entry.forget_stored_health()
            entry.follow_urls()
        return entry

    def settle(self, at: datetime) -> bool:
        """Activate versions that were waiting for their first probe, and name a current one if there is none.

        Returns whether anything changed. Derived from what is stored, so a crash before it is stored
        costs nothing.
        """
        due = [each for each in self.versions.values() if each.is_due]
        for each in due:
            each.record = replace(each.record, is_active=True, status="production", updated_at=at)
        if self.record.current_version_id in self.versions:
            return bool(due)
        records = [each.record for each in self.versions.values()]
        active = [record for record in records if record.is_active and record.weight]
        active = [record for record in active if record.status != "staging"]  # its rollout decides
        if not active:
            return bool(due)
        first = max(active, key=lambda record: record.weight)
        self.record = replace(self.record, current_version_id=first.id, updated_at=at)
        return True

    @property
    def has_begun(self) -> bool:
        """Whether some version of it has been found healthy and took requests; or the file says it shall."""
        if self.record.source == "file" or self.record.current_version_id is not None:
            return True
        return any(each.record.is_active for each in self.versions.values())

    def snap(self, now: float, rollout: RolloutSnap | None, routes: tuple[RouteSettings, ...]) -> ServiceSnap:
        """Return what workers get. now: monotonic seconds. routes: those they may follow."""
        record = self.record
        standby = rollout.old if rollout is not None else None
        return ServiceSnap(
            id=record.id,
            name=record.name,
            generation=record.generation,
            settings=replace(record.settings, routes=routes),
            versions=tuple(version.snap(now, standby) for version in self.versions.values()),
            current=record.current_version_id,
            rollout=rollout,
            paused=record.paused,
        )


def context_of(settings: UpstreamTlsSettings) -> ssl.SSLContext | None:
    """Return the context `settings` ask for; None: the default. Raises ConfigError naming a bad file."""
    if (settings.verify, settings.ca, settings.certificate) == (True, None, None):
        return None
    return upstream_context(
        verify=settings.verify, ca=settings.ca, certificate=settings.certificate, key=settings.key
    )


Observer = Callable[[str, str, VersionRecord | None], None]
"""(kind, service, version): something in the catalog has changed."""
