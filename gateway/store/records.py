"""The rows of the store as values. Times are UTC and aware; ids are UUID strings but for counters."""

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from gateway.core.rollout.isolation import Lease
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.smoke import SmokeSettings

VersionStatus = Literal["testing", "staging", "production", "deprecated"]
HealthStatus = Literal["healthy", "unhealthy", "unknown"]
CircuitState = Literal["CLOSED", "OPEN", "HALF_OPEN"]
DeploymentStatus = Literal["pending", "testing", "rolling", "paused", "completed", "rolled_back", "failed"]
Strategy = Literal["canary", "blue-green", "immediate"]
Role = Literal["viewer", "operator", "deployer", "admin"]
ApprovalState = Literal["pending", "approved", "carried_out", "failed", "expired", "withdrawn"]
"""approved: being carried out, or interrupted. expired is never stored: the clock says it."""

OPEN_STATUSES: Final[tuple[DeploymentStatus, ...]] = ("pending", "testing", "rolling", "paused")
"""A deployment in one of these is open: its service has no other."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The base of every row."""


class ServiceRecord(Record, frozen=True, kw_only=True):
    """A service: its settings, which version is the stable one, and how often its weights have changed."""

    id: str
    name: str
    settings: ServiceSettings
    source: Literal["file", "api"] = "api"
    """`file`: declared in the configuration, read-only through the API but for versions and weights."""
    current_version_id: str | None = None
    """The stable version: where retries may go last and what a deployment starts from."""
    paused: bool = False
    generation: int = 0
    """Rises with every change of weights."""
    created_at: datetime
    updated_at: datetime


class VersionRecord(Record, frozen=True, kw_only=True):
    """One released build of a service."""

    id: str
    service_id: str
    service_name: str
    version: str
    url: str
    replicas: tuple[str, ...] = ()
    """Urls besides `url` that answer as this version."""
    weight: int = 0
    """0–100, relative to the other versions'."""
    is_active: bool = False
    """Its test gate has passed."""
    status: VersionStatus = "testing"
    health_status: HealthStatus = "unknown"
    last_health_check: datetime | None = None
    failure_count: int = 0
    circuit_state: CircuitState = "CLOSED"
    """OPEN when the breakers of all its endpoints are."""
    shutdown_url: str | None = None
    """POSTed when the version has been drained for good and may stop."""
    smoke_tests: SmokeSettings | None = None
    draining: bool = False
    drained: bool = False
    """Nothing runs at it any more: it may be stopped, and deleted."""
    ever_healthy: bool = False
    """A probe has passed once; without that it is never usable."""
    drain_deadline: datetime | None = None
    created_at: datetime
    updated_at: datetime


class DeploymentRecord(Record, frozen=True, kw_only=True):
    """One rollout."""

    id: str
    service_name: str
    from_version_id: str | None = None
    from_version: str | None = None
    """Its name: history outlives the version."""
    to_version_id: str
    to_version: str = ""
    status: DeploymentStatus = "pending"
    strategy: Strategy = "canary"
    traffic_percent: int = 0
    target_percent: int = 100
    current_step: int = 0
    config: dict[str, Any] = {}
    """The checked rollout settings, as JSON."""
    state: bytes = b""
    """The rollout machine's own state, as JSON: what `core.rollout` needs to go on exactly where it was."""
    progress: bytes = b""
    """Up to where the counts are in `state`, as control encodes it."""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    rolled_back_at: datetime | None = None
    error_message: str | None = None
    error_count: int = 0
    request_count: int = 0
    created_by: str | None = None
    idempotency_key: str | None = None
    created_at: datetime
    updated_at: datetime


class HealthCheckRecord(Record, frozen=True, kw_only=True):
    """One recorded probe of one endpoint."""

    id: str
    version_id: str
    endpoint: str
    """The endpoint's url."""
    is_healthy: bool
    response_time: int
    """Milliseconds."""
    status_code: int | None = None
    error_message: str | None = None
    checked_at: datetime


class EventRecord(Record, frozen=True, kw_only=True):
    """Something that happened, for people and for event streams."""

    id: int = 0
    """A counter that only rises; given by the store."""
    at: datetime
    kind: str
    """`deployment.step`, `version.unhealthy`, `service.paused`, …"""
    service: str = ""
    version: str | None = None
    deployment_id: str | None = None
    actor: str = "gateway"
    data: dict[str, Any] = {}
    node: str | None = None
    """Which of the gateways that share the store it comes from, by name; given by the store."""


NODE: Final = "node"
"""Under this name a decision's data, and an entry's details, say which of several gateways they come from."""


class DecisionRecord(Record, frozen=True, kw_only=True):
    """One verdict of a deployment with its evidence, or one move of a person."""

    id: int = 0
    """A counter that only rises; given by the store."""
    deployment_id: str
    at: datetime
    step: int
    verdict: str
    reason: str
    """A sentence a tired person understands."""
    actor: str = "gateway"
    data: dict[str, Any] = {}
    """Counts, rates, interval, threshold, statistic; NODE."""

    @property
    def node(self) -> str | None:
        """Which of the gateways that share the store has decided it, by name; None: nobody shares it."""
        return self.data.get(NODE)


class SmokeRecord(Record, frozen=True, kw_only=True):
    """One run of a version's smoke tests."""

    id: str
    version_id: str
    deployment_id: str | None = None
    is_healthy: bool
    response_time: int
    """Milliseconds, all tests together."""
    tests: list[dict[str, Any]]
    at: datetime


class WindowRecord(Record, frozen=True, kw_only=True):
    """What one version of a deployment did during some seconds of one generation, for replay."""

    deployment_id: str
    version_id: str
    generation: int
    share: int
    """Hundredths of a percent of the traffic."""
    started_at: datetime
    seconds: float
    answers: int
    errors: dict[str, int] = {}
    """By kind: `connect`, `reset`, `timeout`, or a status."""
    latency: dict[int, int] = {}
    """Sparse: bucket -> count."""


class StatisticRecord(Record, frozen=True, kw_only=True):
    """What the judge's statistic had come to when a window was stored: see `Decision`."""

    deployment_id: str
    at: datetime
    step: int
    percent: int
    """Share of the new version."""
    verdict: str
    gate: str
    """Which test it is of, or what stands against an advance."""
    statistic: float
    limit: float


class AcknowledgementRecord(Record, frozen=True, kw_only=True):
    """The last time that somebody said of a deployment: seen. note: what was found."""

    deployment_id: str
    at: datetime
    actor: str
    note: str
    event_id: int
    """Of the acknowledgement: what happened before it was seen, whatever the clock says."""


class ApprovalRecord(Record, frozen=True, kw_only=True):
    """A call that waits for a second person, or did."""

    id: str
    action: str
    service: str
    what: str
    """What it would do, in a sentence."""
    role: Role
    """The least that may make the call."""
    method: str
    path: str
    """Under the API's base."""
    body: bytes
    if_match: str | None = None
    idempotency_key: str | None = None
    asked_by: str
    asked_owner: str
    asked_token_id: str
    address: str = ""
    user_agent: str = ""
    created_at: datetime
    expires_at: datetime
    state: ApprovalState = "pending"
    decided_by: str | None = None
    decided_at: datetime | None = None
    status: int | None = None
    """Of the call's answer, once it was carried out."""
    outcome: str = ""
    """Why it was refused then."""


class AuditEntry(Record, frozen=True, kw_only=True):
    """A change, allowed or refused, before the store links it to the chain."""

    at: datetime
    actor: str
    action: str
    """`deployment.start`, `version.patch`, …"""
    resource: str
    """`deployment`, `version`, `service`, `token`, `gateway`."""
    resource_id: str = ""
    allowed: bool = True
    details: dict[str, Any] = {}
    address: str = ""
    user_agent: str = ""


class AuditRecord(AuditEntry, frozen=True, kw_only=True):
    """A row of the audit chain: `hash` covers every other field, `prev_hash` included."""

    id: int
    prev_hash: str
    hash: str


class AuditReport(Record, frozen=True, kw_only=True):
    """What a walk along the audit chain found."""

    ok: bool
    count: int
    head_id: int
    head_hash: str
    broken_at: int | None = None
    """The first row that does not fit."""
    reason: str = ""


class TokenRecord(Record, frozen=True, kw_only=True):
    """A bearer token: never the token itself, only its SHA-256."""

    id: str
    name: str
    role: Role
    prefix: str
    """The first visible characters, so that people can tell tokens apart."""
    hash: str
    created_by: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    """None: never."""
    services: str = "*"
    """Which services it may change: names, with `*` and `?` for parts of them."""
    idempotency_key: str | None = None
    """Digests of the request that made it, if that had a key: of whose key it was, and of its body."""
    owner: str = ""
    """Whose it is, where one person has several; empty: its name says it."""

    @property
    def owned_by(self) -> str:
        """Whose it is."""
        return self.owner or self.name


class BreakerRecord(Record, frozen=True, kw_only=True):
    """The breaker of one endpoint, by the endpoint's key."""

    key: str
    version_id: str
    state: bytes
    """JSON of the merged breaker."""
    updated_at: datetime


class Retention(Record, frozen=True, kw_only=True):
    """How much of what only grows is kept."""

    health_checks_per_endpoint: int = 100
    events_days: int = 30
    decisions_days: int = 90
    windows_days: int = 14
    smoke_days: int = 90
    audit_days: int = 365


DEFAULT_RETENTION: Final = Retention()


class CatalogRows(msgspec.Struct, frozen=True):
    """Services with what belongs to them, as of one moment."""

    services: list[ServiceRecord]
    versions: list[VersionRecord]
    deployments: list[DeploymentRecord]
    """The open ones."""


class Position(msgspec.Struct, frozen=True):
    """How far a store has come. After a failover a number can come again, on another timeline."""

    timeline: int
    """Of the database server: rises when another member becomes the primary."""
    revision: int
    """Rises by one with each transaction."""
    commit: str
    """The mark of the last one: no other transaction ever has it."""


class Change(msgspec.Struct, frozen=True):
    """What one transaction has changed of that which gateways keep in memory."""

    revision: int
    follows: str
    """The mark of the commit before: an older release writes no row here, and leaves a gap."""
    commit: str
    topics: tuple[str, ...]
    """`service:NAME`, SETTINGS, EVENTS, or EVERYTHING; none: only what is read when it is asked for."""


SETTINGS: Final = "settings"
"""Tokens, and what has a name of its own: the freeze."""
EVENTS: Final = "events"
EVERYTHING: Final = "everything"
OF_SERVICE: Final = "service:"


class Changes(msgspec.Struct, frozen=True):
    """Where a store is, and what its log says of the way there, as of one moment."""

    at: Position
    log: tuple[Change, ...]
    """Oldest first. Not whole where it was pruned, or an older release has written."""
    lease: Lease = Lease(0.0)
    """Who was in charge then."""


ANY_VERSION: Final = "*"
"""In place of the ids of versions: all there are."""


class NodeRecord(Record, frozen=True, kw_only=True):
    """One gateway, as it says of itself."""

    id: str
    """Of its place: the same for all processes that succeed each other there."""
    name: str
    release: str
    listen: tuple[str, ...]
    """Where clients connect, `host:port`."""
    admin: str
    """Where operators connect, `host:port`."""
    applied_revision: int | None = None
    """What it goes by; None: it is a stand-by and goes by nothing."""
    isolated_in_s: float | None = None
    """How soon it is isolated if it hears nothing of the store any more; None: never."""
    draining: tuple[str, ...] | None = None
    """Ids of versions that drain and where requests may still run, or ANY_VERSION; None: its release does not
    say."""

    @property
    def is_stopping(self) -> bool:
        """Whether it ends in order: it goes by nothing new, and what it has begun still runs, anywhere."""
        return self.applied_revision is None and ANY_VERSION in (self.draining or ())


class NodeState(NodeRecord, frozen=True, kw_only=True):
    """The same, and what the others know of it."""

    wanted_revision: int
    """What the store has."""
    last_seen: datetime
    """By the database's clock."""
    is_leader: bool
    """Whether it has the lease."""
    is_silent: bool
    """Whether nothing was heard of it for longer than three seconds."""
    is_isolated: bool
    """Whether it was cut off for so long that it serves open rollouts by their old versions."""


class ServedRecord(Record, frozen=True, kw_only=True):
    """What one process of a gateway that follows has served of an open rollout, until now."""

    deployment_id: str
    run: str
    """Which process says it."""
    node: str
    """The id of its gateway."""
    serial: int
    """Rises each time it says more."""
    data: bytes
