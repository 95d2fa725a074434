"""Down the link: what a worker must know to choose a version, as numbered snapshots.

A snapshot is whole (after HELLO) or carries only changed services; several waiting ones merge to the newest.
"""

from typing import Literal

import msgspec

from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.limits import Limits, Timeouts
from gateway.core.settings.observing import LogFilter


class BreakerView(msgspec.Struct, frozen=True, array_like=True):
    """What control says of an endpoint's breaker."""

    epoch: int = 0
    """Rises with every move; results of an earlier one are dropped."""
    state: Literal["CLOSED", "OPEN", "HALF_OPEN"] = "CLOSED"
    grant: int = 0
    """Half-open trial calls this worker may make in this epoch."""
    open_for_s: float = 0.0
    """OPEN: how much longer (a worker without control goes half-open by itself then)."""


class EndpointSnap(msgspec.Struct, frozen=True, omit_defaults=True):
    """One address of a version."""

    key: str
    """`VERSION_ID|URL|ADDRESS`: names the runtime object that a table swap keeps."""
    url: str
    """As written: `http://host:port`, `https://…`, `unix:/path`."""
    address: str = ""
    """The numeric address to connect to; empty for `unix:`."""
    port: int = 0
    healthy: bool = True
    draining: bool = False
    available_for_s: float = 1e9
    """How long it has been healthy, for slow start."""
    breaker: BreakerView = BreakerView()


class VersionSnap(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of a service."""

    id: str
    name: str
    weight: float = 0.0
    active: bool = False
    """Its test gate has passed."""
    draining: bool = False
    standby: bool = False
    """The old version of an open deployment: serves at weight 0 when nothing with weight is usable."""
    endpoints: tuple[EndpointSnap, ...] = ()
    tested: bool = False
    """Its health check has passed where it answers now: testers may reach it, active or not."""


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """An act that was done before it could be stored. Workers keep it for the next control.

    It counts only for a deployment that the store still has open, and has not heard of it yet.
    """

    deployment: str
    serial: int
    """Number of the rollout's last record with the act: a stored state that has as many knows of it."""
    order: Literal["rollback", "pause", "lower"]
    actor: str
    """Who ordered it, or what brought it about."""
    reason: str
    at: float
    """When it was done: seconds since the epoch."""
    automatic: bool = False
    """Nobody ordered it."""


class RolloutSnap(msgspec.Struct, frozen=True, omit_defaults=True):
    """The open deployment, as far as choosing a version needs it."""

    id: str
    old: str
    """Version id."""
    new: str
    percent: float
    mark: Mark | None = None
    """What has been done to it that is not stored."""


class ServiceSnap(msgspec.Struct, frozen=True, omit_defaults=True):
    """One service."""

    id: str
    name: str
    generation: int
    """Rises with every change of weights: counts of different generations are never mixed."""
    settings: ServiceSettings
    versions: tuple[VersionSnap, ...] = ()
    current: str | None = None
    """Id of the stable version: where a retry may go last."""
    rollout: RolloutSnap | None = None
    paused: bool = False
    """Maintenance: new requests are held (up to 30 s)."""


class CertificatePem(msgspec.Struct, frozen=True, array_like=True):
    """A certificate in force. It travels as it was read, so that a worker born later has the same."""

    chain: bytes
    key: bytes
    source: str
    """The file it came from, to be named in errors."""

    def __repr__(self) -> str:
        return f"CertificatePem({self.source!r})"


class TargetLimits(msgspec.Struct, frozen=True):
    """Where no worker may connect to, whatever a name or a link leads to."""

    allowed: tuple[str, ...] = ()
    """Networks (CIDR) a target must lie in; none: all."""
    own: tuple[tuple[str, int], ...] = ()
    """The gateway's listeners: address and port, as bound."""
    own_sockets: tuple[str, ...] = ()
    """The gateway's socket files."""


class ProxySettings(msgspec.Struct, frozen=True):
    """What holds for the whole data plane."""

    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    trusted_proxies: tuple[tuple[str, ...], ...] = ()
    """By index of the listen table."""
    certificates: tuple[tuple[CertificatePem, ...], ...] = ()
    """By index of the listen table; none: plain text."""
    targets: TargetLimits = TargetLimits()
    gateway_id: str = ""
    """Who we are in CDN-Loop fields, the same for all that share a store; empty: nobody."""
    via: bool = False
    access_log_format: str = "off"
    access_log_path: str = "-"
    access_log_query: Literal["keep", "redact", "drop"] = "keep"
    access_log_only: LogFilter | None = None
    trace_sample: float = 0.0
    """Percent."""
    trace_export: bool = False
    """Whether a collector takes spans."""
    trace_expose: tuple[str, ...] = ()
    orphan_timeout_s: float = 3600.0
    isolation_s: float = 0.0
    """After so long without a word from a control that has the store, a worker serves open rollouts by their
    old versions; 0: never, as nobody else shares it."""
    drain_s: float = 30.0


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot", tag_field="t"):
    """One numbered state of the routing table."""

    number: int
    whole: bool
    services: dict[str, ServiceSnap]
    """By service name."""
    removed: tuple[str, ...] = ()
    proxy: ProxySettings | None = None
    """Set when whole, or changed."""
    workers: int = 1
    """N: slot k starts its round at phase k/N."""

    def merged(self, newer: "Snapshot") -> "Snapshot":
        """Return one snapshot that leads to the same table as this one followed by `newer`."""
        if newer.whole:
            return newer
        services = {name: snap for name, snap in self.services.items() if name not in newer.removed}
        services.update(newer.services)
        removed = tuple(sorted((set(self.removed) | set(newer.removed)) - set(services)))
        return Snapshot(
            number=newer.number,
            whole=self.whole,
            services=services,
            removed=() if self.whole else removed,
            proxy=newer.proxy or self.proxy,
            workers=newer.workers,
        )
