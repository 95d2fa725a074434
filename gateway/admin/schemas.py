"""What the admin API answers: one struct per thing, camelCase in JSON, times in RFC 3339.

Views are made from records by field name, so a column becomes public only when it is named here: hashes of
tokens and the machine's own state never are.
"""

from datetime import datetime
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import msgspec

from gateway.actions.acknowledgements import Alert
from gateway.actions.gateway import WorkerSeen
from gateway.control.upstreams.smoke import SmokeTest
from gateway.core.judge.judge import Decision
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.settings.smoke import SmokeSettings
from gateway.store.records import (
    ApprovalState,
    CircuitState,
    DeploymentStatus,
    HealthStatus,
    Role,
    Strategy,
    VersionStatus,
)

V = TypeVar("V", bound=msgspec.Struct)


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The base of every answer."""


def view(kind: type[V], record: object, **more: object) -> V:
    """Return what `kind` shows of a record, field by field of the same name.

    more: fields the record lacks.
    """
    if more:
        names = [name for name in kind.__struct_fields__ if name not in more]
        record = SimpleNamespace(**{name: getattr(record, name) for name in names}, **more)
    return msgspec.convert(record, kind, from_attributes=True)


class Listing(View, Generic[V], frozen=True, kw_only=True):
    """A piece of a list. next: the cursor of the following piece (`?after=`); null at the end."""

    items: list[V]
    next: str | None = None


class FieldProblem(View, frozen=True, kw_only=True):
    """One bad field. pointer: a JSON pointer into the body, or `?name` for a query parameter."""

    pointer: str
    detail: str


class ProblemView(View, frozen=True, kw_only=True):
    """`application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    next: str = ""
    errors: list[FieldProblem] = []


class VersionView(View, frozen=True, kw_only=True):
    """One released build of a service."""

    id: str
    service_id: str
    service_name: str
    version: str
    url: str
    replicas: tuple[str, ...]
    weight: int
    """As asked for: relative to the other versions' of its service."""
    share: float
    """Percent of its service's requests that it gets now: of the usable versions' weights, its part."""
    is_active: bool
    status: VersionStatus
    health_status: HealthStatus
    last_health_check: datetime | None
    failure_count: int
    circuit_state: CircuitState
    shutdown_url: str | None
    smoke_tests: SmokeSettings | None
    draining: bool
    drained: bool
    drain_deadline: datetime | None
    created_at: datetime
    updated_at: datetime


class ServiceView(View, frozen=True, kw_only=True):
    """One service.

    source `file`: declared in the configuration, read-only here but for versions and weights.
    """

    id: str
    name: str
    source: str
    current_version_id: str | None
    paused: bool
    settings: ServiceSettings
    created_at: datetime
    updated_at: datetime


class AcknowledgementView(View, frozen=True, kw_only=True):
    """The last time that somebody said of a rollout: seen. note: what was found."""

    at: datetime
    actor: str
    note: str


class DeploymentView(View, frozen=True, kw_only=True):
    """One rollout.

    Times in milliseconds are observed time: a second without control is no second of a step.
    """

    id: str
    service_name: str
    from_version: str | None
    to_version: str
    from_version_id: str | None
    to_version_id: str
    status: DeploymentStatus
    phase: str
    """Where exactly it is: finer than `status`."""
    strategy: Strategy
    traffic_percent: int
    target_percent: int
    current_step: int
    """Index into `steps`."""
    steps: list[int]
    step_ms: int
    """How long the present step lasts."""
    remaining_ms: int | None
    """Of the present step; null while no step's clock can run."""
    summary: str
    """Why it stands where it stands, in a sentence."""
    verdict: Decision | None
    """The judge's last word in this step, with its evidence."""
    warning: str
    """What an order was carried out in spite of."""
    acknowledged: AcknowledgementView | None
    """Null: nobody has."""
    stored: bool
    """False: what is shown is in force, and the store could not take it yet."""
    kept: bool
    """False in the answer to an order that is not stored: no worker says that it has it, so it is lost if
    the gateway's control process ends before the store takes it. Otherwise true."""
    nodes: list[str]
    """While it is not stored: the gateways where it is in force; otherwise empty, it is on all."""
    config: dict[str, Any]
    started_at: datetime | None
    completed_at: datetime | None
    rolled_back_at: datetime | None
    error_message: str | None
    error_count: int
    request_count: int
    created_by: str | None
    created_at: datetime
    updated_at: datetime


class VersionGlanceView(View, frozen=True, kw_only=True):
    """A version at a glance. Rates, errors and latency are of about the last ten seconds."""

    id: str
    version: str
    url: str
    replicas: tuple[str, ...]
    weight: int
    share: float
    """Percent of the service's traffic it gets now: its weight among those of usable versions."""
    is_active: bool
    status: VersionStatus
    health_status: HealthStatus
    circuit_state: CircuitState
    draining: bool
    drained: bool
    rate: float
    """Answers a second."""
    error_percent: float | None
    """Answers of 500 and above; null without answers."""
    p95_ms: float | None
    in_flight: int
    streams: int


class ServiceGlanceView(View, frozen=True, kw_only=True):
    """A service at a glance."""

    id: str
    name: str
    source: str
    current_version_id: str | None
    paused: bool
    routes: tuple[RouteSettings, ...]
    versions: list[VersionGlanceView]
    deployment: DeploymentView | None
    """The open rollout."""
    last: DeploymentView | None
    """The newest rollout, open or not, if it is among the gateway's newest."""
    hour: list[int] | None
    """With `?hour=true`: answers in each of the last sixty minutes, oldest first."""
    hour_errors: list[int] | None
    """Of those, with a status of 500 and above."""


class OverviewView(View, frozen=True, kw_only=True):
    """All services at a glance, in one call."""

    frozen: bool
    freeze_reason: str
    items: list[ServiceGlanceView]
    alerts: list[Alert]
    """Rollbacks, failures and pauses that nobody has acknowledged, newest first."""


class DecisionView(View, frozen=True, kw_only=True):
    """One verdict with its evidence (`data`: counts, rates, threshold, statistic), or a person's move."""

    id: int
    deployment_id: str
    at: datetime
    step: int
    verdict: str
    reason: str
    actor: str
    data: dict[str, Any]
    node: str | None
    """Which of the gateways that share the store has decided it; null: nobody shares it."""


class EventView(View, frozen=True, kw_only=True):
    """Something that happened."""

    id: int
    at: datetime
    kind: str
    service: str
    version: str | None
    deployment_id: str | None
    actor: str
    data: dict[str, Any]
    node: str | None
    """Which of the gateways that share the store it comes from; null: nobody shares it."""


class SmokeView(View, frozen=True, kw_only=True):
    """One run of smoke tests. response_time: milliseconds, all tests together."""

    id: str
    version_id: str
    at: datetime
    is_healthy: bool
    response_time: int
    tests: list[SmokeTest]


class AuditReportView(View, frozen=True, kw_only=True):
    """What a walk along the audit trail found."""

    ok: bool
    count: int
    head_id: int
    head_hash: str
    broken_at: int | None
    """The first row that does not fit, or is missing."""
    reason: str


class AuditView(View, frozen=True, kw_only=True):
    """One row of the audit chain: `hash` covers every other field, `prevHash` included."""

    id: int
    at: datetime
    actor: str
    action: str
    resource: str
    resource_id: str
    allowed: bool
    details: dict[str, Any]
    address: str
    user_agent: str
    prev_hash: str
    hash: str


class ApprovalView(View, frozen=True, kw_only=True):
    """A call that waits for a second person, or did."""

    id: str
    action: str
    service: str
    what: str
    """What it would do, in a sentence."""
    method: str
    path: str
    body: Any
    """As it was sent, but for secrets."""
    asked_by: str
    asked_owner: str
    """Whose token that is: the second person's has another owner."""
    created_at: datetime
    expires_at: datetime
    """Until then it may be confirmed."""
    state: ApprovalState
    decided_by: str | None
    decided_at: datetime | None
    status: int | None
    """Of the call's answer, once it was carried out."""
    outcome: str
    """Why it was refused then."""


class KeptView(ApprovalView, frozen=True, kw_only=True):
    """The answer (202) to a call that a second person has to confirm: nothing was done yet."""

    approval_id: str
    """The same as `id`; no other answer has it."""
    next: str
    """What a second person types."""


class ConfirmedView(ApprovalView, frozen=True, kw_only=True):
    """A call that was confirmed and carried out."""

    answer: Any
    """What the call itself answered."""


class TokenView(View, frozen=True, kw_only=True):
    """A token, by what may be shown of it."""

    id: str
    name: str
    role: Role
    owner: str
    """Whose it is; empty: its name says it."""
    prefix: str
    created_by: str
    created_at: datetime
    services: str
    """Which services it may change: names, with `*` and `?` for parts of them."""
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class CreatedTokenView(TokenView, frozen=True, kw_only=True):
    """A new token. `token` is shown this once and never again."""

    token: str


class YouView(View, frozen=True, kw_only=True):
    """Whoever asks, by their token."""

    name: str
    role: Role


class SignInLinkView(View, frozen=True, kw_only=True):
    """Where a browser is signed in by a plain visit. expires_in: seconds; the first visit uses it up."""

    path: str
    expires_in: int


class NodeView(View, frozen=True, kw_only=True):
    """One of the gateways that share a store; alone on a file, this one."""

    id: str
    """Of its place: the same for all processes that succeed each other there."""
    name: str
    is_leader: bool
    """Whether it is in charge of the store."""
    release: str
    listen: tuple[str, ...]
    """Where clients connect, as configured."""
    admin: str
    """Where operators connect, as configured."""
    applied_revision: int | None
    """What it goes by; null: it stands by, or stops, and goes by nothing."""
    wanted_revision: int
    """What the store has."""
    last_seen: datetime
    """When it said last that it lives, by the store's clock, UTC."""
    is_silent: bool
    """Whether it has said nothing for three seconds: it is dead, frozen, or cut off from the store."""
    is_isolated: bool
    """Whether it was cut off for longer than `cluster.isolation`: it serves open rollouts by their old
    versions."""
    is_stopping: bool
    """Whether it ends in order: it takes nothing new, and what it has begun still runs."""


class GatewayView(View, frozen=True, kw_only=True):
    """The control process in charge. `epoch` rises when another takes over.

    native: what of the data plane is compiled: `all`, the head `codec` alone, or `none`.
    """

    node: str
    """What it is called among the gateways that share its store."""
    pid: int
    epoch: int
    release: str
    native: str
    table: int
    """Number of the newest routing table; a worker that has applied it goes by every change answered."""
    workers: list[WorkerSeen]
    frozen: bool
    you: YouView
