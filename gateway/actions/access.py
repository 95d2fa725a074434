"""Who asks, and what every action has at hand."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol

import msgspec

from gateway.actions.problems import Problem, conflict, forbidden, invalid, malformed, not_found, stale
from gateway.control.catalog.catalog import Catalog
from gateway.control.catalog.entries import ServiceEntry, VersionEntry
from gateway.control.history import History
from gateway.control.processes.hub import WorkerInfo
from gateway.control.recent import Recent
from gateway.control.rollouts.rows import FreezeState, decoded
from gateway.control.rollouts.schedule import FreezeSchedule
from gateway.control.rollouts.unstored import Ordered
from gateway.control.sums import VersionSum
from gateway.control.upstreams.breakers import BreakerStatus
from gateway.control.upstreams.drains import DrainState
from gateway.control.upstreams.probes import ProbeResult
from gateway.control.upstreams.smoke import SmokeReport
from gateway.core.resilience.breaker import compile_breaker
from gateway.core.rollout.events import Event, Order
from gateway.core.rollout.plan import HookKind, Plan, RolloutSettings, plan
from gateway.core.rollout.state import Rollout
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.resilience import BreakerSettings
from gateway.core.settings.secrets import stand_in
from gateway.core.settings.smoke import SmokeSettings
from gateway.core.settings.targets import ANYWHERE, TargetRules, parse_target, parse_url
from gateway.errors import ConfigError, GatewayError, IllegalTransition
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import AuditEntry, DeploymentRecord, EventRecord, Role, Strategy, TokenRecord

log = get_logger(component="actions")

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "deployer", "admin")
"""Each may do what those before it may."""
RECENT: Final = 5
"""The newest deployments of a service: among them is the last that completed, and what still tidies up."""
HOOKS: Final[tuple[HookKind, ...]] = ("confirm-start", "during-step", "confirm-promote", "on-rollback")
"""The kinds of webhooks that are asked."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a change: authenticated, and let through by the role its call needs."""

    name: str
    role: Role
    token_id: str = ""
    services: str = "*"
    """Which services may be changed: names, with `*` and `?` for parts of them."""
    address: str = ""
    user_agent: str = ""
    owner: str = ""
    """Whose token it is; empty: its name says it."""
    approved_by: str = ""
    """The second person, if one has confirmed this very call."""
    approval: str = ""
    """Its id then."""

    def covers(self, service: str) -> bool:
        """Return whether this service may be changed."""
        return fnmatchcase(service, self.services)

    @property
    def is_unscoped(self) -> bool:
        """Whether every service may be changed, those to come too."""
        return self.services == "*"


class ApprovalNeeded(GatewayError):
    """A call that a second person has to confirm first. what: it would do, in a sentence."""

    def __init__(self, service: str, what: str) -> None:
        super().__init__(f"a second person has to confirm this: {what}")
        self.service = service
        self.what = what


class Rollouts(Protocol):
    """What actions need of the rollouts."""

    def open_for(self, service: str) -> DeploymentRecord | None: ...
    def newest_of(self, service: str) -> DeploymentRecord | None: ...
    def state_of(self, deployment_id: str) -> Rollout | None: ...
    def begin(
        self, tx: Transaction, record: DeploymentRecord, plan: Plan, actor: str
    ) -> DeploymentRecord: ...
    def order(self, tx: Transaction, deployment_id: str, event: Event) -> DeploymentRecord: ...
    def supersede(self, tx: Transaction, record: DeploymentRecord) -> None: ...
    def record_of(self, deployment_id: str) -> DeploymentRecord | None: ...
    def unstored(self, deployment_id: str) -> DeploymentRecord | None: ...
    async def order_at_once(self, deployment_id: str, order: Order, audit: AuditEntry) -> Ordered: ...
    async def closed(self, service: str, timeout_s: float) -> bool: ...
    def freeze(self, tx: Transaction, freeze_state: FreezeState) -> None: ...
    @property
    def freeze_state(self) -> FreezeState: ...
    @property
    def schedule(self) -> FreezeSchedule: ...


class Drains(Protocol):
    """What actions need of the drains."""

    def ordered(self, version_id: str, timeout_ms: int) -> None: ...
    def state(self, version_id: str) -> DrainState: ...


class Checks(Protocol):
    """What actions need of probes and smoke tests."""

    async def probe(self, version_id: str) -> ProbeResult: ...
    async def smoke_report(self, version_id: str, tests: SmokeSettings | None = None) -> SmokeReport: ...


class Tally(Protocol):
    """What actions need of the counts."""

    recent: Recent
    history: History

    def version(self, version_id: str) -> VersionSum: ...
    def running(self, version_id: str) -> tuple[int, int]: ...
    def forget(self, version_ids: Sequence[str]) -> None: ...


class Hub(Protocol):
    """What actions need of the links."""

    def workers(self) -> list[WorkerInfo]: ...


class Access:
    """What all actions share: the rooms they work with, the audit of every change, how things are found."""

    def __init__(
        self,
        *,
        store: Store,
        catalog: Catalog,
        hub: Hub,
        rollouts: Rollouts,
        drains: Drains,
        checks: Checks,
        tally: Tally,
        resolve: Callable[[str, str], Awaitable[None]],
        upgrade: Callable[[], Awaitable[int]],
        breaker: Callable[[str], BreakerStatus] = lambda key: BreakerStatus(),
        on_token: Callable[[TokenRecord], None] = lambda record: None,
        rules: TargetRules = ANYWHERE,
        drain_ms: int = 30_000,
        second_person: bool = False,
        release: str = "",
        native: str = "",
        node: str = "gateway",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """resolve: looks up the host of (version id, url). upgrade: hands over to a new control, returns its
        pid.

        breaker: what is known of an endpoint's breaker, by key. on_token: hears of every token that was made
        or changed. rules: where urls may lead to. drain_ms: how long a drain may take.
        second_person: whether what moves all traffic is confirmed by somebody else.
        """
        self.store = store
        self.catalog = catalog
        self.hub = hub
        self.rollouts = rollouts
        self.drains = drains
        self.checks = checks
        self.tally = tally
        self.resolve = resolve
        self.upgrade = upgrade
        self.breaker = breaker
        self.on_token = on_token
        self.rules = rules
        self.drain_ms = drain_ms
        self._second_person = second_person
        self.release = release
        self.native = native
        """What of the data plane is compiled: see http1.form."""
        self.node = node
        """What this gateway is called among those that share its store."""
        self.now = now

    # -- changes

    @asynccontextmanager
    async def change(
        self, actor: Actor, action: str, resource_id: str, details: dict[str, Any] | None = None
    ) -> AsyncIterator[Transaction]:
        """Open a transaction for a change, whose audit row it also holds; if refused, the refusal is audited.

        action: `NOUN.VERB`. details: may be filled until the block ends. Look at the catalog inside the
        block: no other writer changes it meanwhile.
        """
        noted = details if details is not None else {}
        async with (
            self.refusals(actor, action, resource_id, noted),
            self.store.transaction(anywhere=True) as tx,
        ):
            yield tx
            tx.add_audit(self.entry(actor, action, resource_id, noted))

    @asynccontextmanager
    async def refusals(
        self, actor: Actor, action: str, resource_id: str, details: dict[str, Any] | None = None
    ) -> AsyncIterator[None]:
        """Audit it if the block refuses a change: for what is checked before its transaction can begin."""
        try:
            yield
        except (Problem, IllegalTransition) as refusal:
            reason = {**(details or {}), "reason": str(refusal)}
            await self._note_refusal(actor, action, resource_id, reason)
            raise

    async def _note_refusal(
        self, actor: Actor, action: str, resource_id: str, details: dict[str, Any]
    ) -> None:
        """Audit a refusal in a transaction of its own; a store that fails must not hide the reason."""
        try:
            async with self.store.transaction(anywhere=True) as tx:
                tx.add_audit(self.entry(actor, action, resource_id, details, allowed=False))
        except GatewayError as exc:
            log.error("refusal_not_audited", action=action, actor=actor.name, error=str(exc))

    def entry(
        self, actor: Actor, action: str, resource_id: str, details: dict[str, Any], *, allowed: bool = True
    ) -> AuditEntry:
        """Return a change's row of the audit trail; of a confirmed one, it names both persons."""
        if actor.approved_by:
            details = {**details, "approvedBy": actor.approved_by, "approval": actor.approval}
        return AuditEntry(
            at=self.now(),
            actor=actor.name,
            action=action,
            resource=action.partition(".")[0],
            resource_id=resource_id,
            allowed=allowed,
            details=details,
            address=actor.address,
            user_agent=actor.user_agent,
        )

    def add_event(
        self,
        tx: Transaction,
        kind: str,
        actor: Actor,
        service: str = "",
        version: str | None = None,
        **data: Any,
    ) -> None:
        """Add an event."""
        tx.add_event(
            EventRecord(
                at=self.now(), kind=kind, service=service, version=version, actor=actor.name, data=data
            )
        )

    # -- finding

    def service(self, name: str) -> ServiceEntry:
        """Return a service. Raises Problem 404."""
        entry = self.catalog.services.get(name)
        if entry is None:
            raise not_found("service", name)
        return entry

    def version(self, version_id: str) -> VersionEntry:
        """Return a version. Raises Problem 404."""
        try:
            return self.catalog.version(version_id)
        except KeyError:
            raise not_found("version", version_id) from None

    # -- rules many actions share

    def why_frozen(self, service: str = "") -> str:
        """Return by whom, or by which window and until when, changes are frozen; empty: they are not.

        Of all services, or of one.
        """
        state, window = self.rollouts.freeze_state, self.rollouts.schedule.in_force(service)
        if state.frozen:
            return f"{state.actor} ({state.reason})" if state.reason else str(state.actor)
        return f"schedule until {window.end:%Y-%m-%d %H:%M} UTC: {window.title}" if window else ""

    def unfreeze(self) -> str:
        """Return how changes are allowed again."""
        if self.rollouts.freeze_state.frozen:
            return "`gateway freeze off` allows changes again; rollbacks always work"
        return "it ends by itself; `freeze_windows` of the configuration has it; rollbacks always work"

    def require_second(self, actor: Actor, service: str, what: str) -> None:
        """Hold what sets weights, or brings a version to all traffic, until somebody else has confirmed it.

        Last of all checks, and before anything is done: what is refused anyway is not worth anybody's while.
        Raises ApprovalNeeded.
        """
        if self._second_person and not actor.approved_by:
            raise ApprovalNeeded(service, what)

    async def supersede(self, tx: Transaction, service: str) -> None:
        """Let ended deployments of a service that still tidy up leave its versions alone from now on."""
        for record in (await self.store.deployments(service=service, limit=RECENT)).items:
            self.rollouts.supersede(tx, record)

    def refuse_while_open(self, service: str) -> None:
        """While a deployment is open its two versions share all the traffic. Raises Problem 409."""
        deployment = self.rollouts.open_for(service)
        if deployment is not None:
            raise conflict(
                f"deployment {deployment.id} is open and owns the service's weights", end_it(service)
            )

    async def version_before(self, service: ServiceEntry) -> str | None:
        """Return the id of the version that the current one replaced: where an undo would go back to."""
        current = service.record.current_version_id
        done = await self.store.deployments(service=service.record.name, status="completed", limit=RECENT)
        replaced = (record for record in done.items if record.to_version_id == current)
        found = (str(record.from_version_id) for record in replaced)
        return next((each for each in found if each in service.versions), None)

    def refuse_stand_in(self, settings: object, under: str = "") -> None:
        """Refuse settings that were read, edited and sent back with what stands for a secret (422).

        under: JSON pointer of where they stand in the body.
        """
        if at := stand_in(msgspec.to_builtins(settings)):
            raise invalid(under + at, "is what stands for a secret: send the secret itself")

    def check_url(self, pointer: str, url: str, *, is_target: bool = True, is_hook: bool = False) -> None:
        """Refuse a url the gateway must not call (422).

        is_target: a version's own, without a path. is_hook: a webhook's, which may leave the allowed targets.
        """
        rules = self.rules._replace(allowed=()) if is_hook else self.rules
        try:
            (parse_target if is_target else parse_url)(url)
            rules.check_named(url)
        except ConfigError as exc:
            raise invalid(pointer, exc.reason) from exc


def planned(
    service: ServiceSettings, strategy: Strategy, settings: RolloutSettings, *, under: str = "/config"
) -> Plan:
    """Return rollout settings as a plan for this service. Raises Problem 422 pointing to what does not fit.

    under: JSON pointer of where the settings stand in the body.
    """
    asked = {kind for hook in service.webhooks for kind in hook.on}
    hooks = tuple(kind for kind in HOOKS if kind in asked)
    try:
        breaker = compile_breaker(service.breaker) or BreakerSettings()
        return plan(
            strategy,
            settings,
            hooks=hooks,
            sticky=service.sticky is not None,
            reset_ms=breaker.reset_timeout,
        )
    except ConfigError as exc:
        raise invalid(f"{under}/{exc.path.removeprefix('config/')}", exc.reason) from exc


def etag(record: Any) -> str:
    """Return the entity tag of a record: it changes whenever the record does (RFC 9110 §8.8.3).

    A rollout's row changes each second. Behind its dot is which second; before it, what happened until then.
    """
    stamp = f"{record.updated_at.timestamp():.6f}"
    if isinstance(record, DeploymentRecord) and record.state:
        state = decoded(record)
        return f'"{state.records}-{state.serial}.{stamp}"'
    return f'"{stamp}"'


def require_match(if_match: str | None, record: Any) -> None:
    """Refuse a change of what the client has not seen as it is now (RFC 9110 §13.1.1). Problem 412."""
    if if_match is None or if_match.strip() == "*":
        return
    now, known = etag(record), [tag.strip() for tag in if_match.split(",")]
    if isinstance(record, DeploymentRecord) and record.state:  # seconds that only pass change nothing
        known = [tag.partition(".")[0] for tag in known]
        if now.partition(".")[0] in known:
            return
    if now not in known:
        raise stale(f"it has changed since; its entity tag is now {now}")


def why_so(service: str) -> str:
    """Return what to type to learn why a deployment does not take an order."""
    return f"`gateway why {service}` says how it came to that, and what can be done next"


def end_it(service: str) -> str:
    """Return how to get rid of a service's open deployment, for whoever it stands in the way of."""
    return (
        f"`gateway get {service} -w` shows where it is; `gateway promote {service} --full` and "
        f"`gateway rollback {service}` end it"
    )


def bound_key(actor: Actor, key: str | None) -> str | None:
    """Return an Idempotency-Key as it is stored: what one token's key stands for, no other token's does.

    Raises Problem 400 for an empty one, as of a script whose variable is not set: everything would be the
    same request.
    """
    if key is not None and not key.strip():
        raise malformed("the Idempotency-Key is empty")
    return hashlib.sha256(f"{actor.token_id}|{key}".encode()).hexdigest() if key is not None else None


def require_scope(actor: Actor, *services: str) -> None:
    """Refuse a change of a service that the actor's token does not cover. Raises Problem 403."""
    for service in services:
        if not actor.covers(service):
            raise forbidden(f"the token of {actor.name} is for {actor.services}, not for {service!r}")


def require_unscoped(actor: Actor, what: str) -> None:
    """Refuse what concerns every service to a token that is for some. Raises Problem 403."""
    if not actor.is_unscoped:
        raise forbidden(
            f"{what} needs a token for all services; that of {actor.name} is for {actor.services}"
        )


def allows(role: Role, needed: Role) -> bool:
    """Return whether `role` may do what `needed` may."""
    return ROLES.index(role) >= ROLES.index(needed)


def require_role(actor: Actor, needed: Role, what: str) -> None:
    """Refuse what a call's role allows in general but not in this case. Raises Problem 403."""
    if not allows(actor.role, needed):
        raise forbidden(f"{what} needs the role {needed}; {actor.name} has {actor.role}")
