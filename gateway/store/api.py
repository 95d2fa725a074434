"""What the rest of control may ask of a store, whichever of the two adapters keeps it."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

from gateway.core.rollout.isolation import Lease
from gateway.errors import StoreError
from gateway.store.faults import ErrorCounts
from gateway.store.records import (
    DEFAULT_RETENTION,
    AcknowledgementRecord,
    ApprovalRecord,
    ApprovalState,
    AuditEntry,
    AuditRecord,
    AuditReport,
    BreakerRecord,
    CatalogRows,
    Changes,
    DecisionRecord,
    DeploymentRecord,
    EventRecord,
    HealthCheckRecord,
    NodeRecord,
    NodeState,
    Position,
    Retention,
    ServedRecord,
    ServiceRecord,
    SmokeRecord,
    StatisticRecord,
    TokenRecord,
    VersionRecord,
    WindowRecord,
)

R = TypeVar("R")

Place = Literal["kept", "gone", "replaced"]


class BadCursor(StoreError):
    """A cursor that no page of this list gave out."""

    status = 422
    title = "Unprocessable Content"


class Page(msgspec.Struct, Generic[R], frozen=True):
    """A piece of a list. `next` is the cursor of the following piece; None at the end."""

    items: list[R]
    next: str | None = None


class Transaction(Protocol):
    """Changes that happen together or not at all.

    Methods only collect; the rows are written when the transaction's block ends. A put replaces the row of
    the same id. The writer's lock is held for the whole block: read what the decision rests on (the catalog)
    inside it, wait for nothing slow in it, and let memory follow by `on_commit`, which runs under the
    lock too.
    """

    def put_service(self, record: ServiceRecord) -> None: ...
    def put_version(self, record: VersionRecord) -> None: ...
    def put_deployment(self, record: DeploymentRecord) -> None: ...
    def delete_service(self, service_id: str) -> None:
        """Delete a service and its versions."""

    def delete_version(self, version_id: str) -> None: ...
    def add_event(self, record: EventRecord) -> int:
        """Add an event; its `id` is ignored. Returns the id it will have."""

    def add_decision(self, record: DecisionRecord) -> int:
        """Add a decision; its `id` is ignored. Returns the id it will have."""

    def add_audit(self, entry: AuditEntry) -> int:
        """Link an entry to the audit chain. Returns its id."""

    def add_smoke(self, record: SmokeRecord) -> None: ...
    def add_health(self, records: Iterable[HealthCheckRecord]) -> None: ...
    def add_windows(self, records: Iterable[WindowRecord]) -> None: ...
    def add_statistic(self, record: StatisticRecord) -> None: ...
    def drop_windows(self, records: Iterable[WindowRecord]) -> None:
        """Take rows out again that were added."""

    def drop_statistic(self, record: StatisticRecord) -> None: ...
    def put_acknowledgement(self, record: AcknowledgementRecord) -> None: ...
    def put_approval(self, record: ApprovalRecord) -> None: ...
    def put_breaker(self, record: BreakerRecord) -> None: ...
    def delete_breakers(self, keys: Iterable[str]) -> None: ...
    def put_token(self, record: TokenRecord) -> None: ...
    def set_meta(self, key: str, value: bytes) -> None: ...
    def delete_node(self, node_id: str) -> None:
        """Forget a gateway that will not come back: if it does, it says so itself."""

    def on_commit(self, callback: Callable[[], object]) -> None:
        """Call `callback` right after the commit, before any other writer's turn. It must not raise."""

    async def flush(self) -> None:
        """Write what was collected so far, uncommitted: a broken constraint shows here."""


class Store(Protocol):
    """Durable state. Reads never wait for the writer."""

    label: str
    """What messages call it: a path, or a url without a password."""
    epoch: int
    """The epoch this process writes in."""
    on_event: Callable[[], object]
    """Called right after each commit that added events, still in the writer's turn; must not raise."""
    errors: ErrorCounts
    """What has failed since the start."""
    is_shared: bool
    """Whether other gateways may use it too."""
    follows: bool
    """Whether another gateway is in charge, and a transaction of this one that is not for anywhere raises
    NotInCharge.
    """
    node: str
    """What this gateway is called among those that share the store: events and audit say it; empty: not."""
    known: Position | None
    """Where this process's memory is, which the store's own commits take further; None: nobody keeps it."""
    catch_up: Callable[[], Awaitable[object]] | None
    """Takes memory from there to where the store is: called in the writer's turn, as each transaction begins
    that finds the store further. Raises StoreError. None: nobody does.
    """

    @property
    def revision(self) -> int:
        """How far memory is; where nobody keeps it, what this process's last commit made of the store."""

    def now(self) -> datetime:
        """Return the time, UTC, that rows are stamped with and that stamps are compared with.

        It is one for all gateways of this store, however wrong the clock of a machine is.
        """

    def transaction(
        self, *, urgent: bool = False, anywhere: bool = False
    ) -> AbstractAsyncContextManager[Transaction]:
        """Open a write transaction: commits when the block ends, rolls back on any exception.

        What the block finds in memory is what is stored, also by other gateways, and stays so until it ends.

        urgent: before all that wait for their turn but the first. anywhere: may be written by any gateway,
        for instance what somebody has ordered; anything else is for the one in charge.

        Raises StaleEpoch if another control has raised the epoch since, NotInCharge while it follows;
        StoreError names the store and the reason.
        """

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Have the writer's turn for the block: nothing of ours is committed, and memory follows nothing."""

    async def know(self) -> None:
        """Begin to keep memory: what is read from now on is read again when others have changed it."""

    async def refresh(self) -> None:
        """Have in memory what others have committed until now. Raises StoreError."""

    async def raise_epoch(self) -> int:
        """Take the store over: from now on every other process's transaction fails. Returns the new epoch."""

    async def claim(self, holder: str, name: str) -> None:
        """Be the one gateway of this store, once: whoever was before cannot write from now on.

        holder: the same for all processes that succeed each other in one place. name: for people. Raises
        StoreTaken if another gateway lives.
        """

    async def hold(self) -> None:
        """Stay the one for as long as this runs. Raises StaleEpoch when another has taken over."""

    @property
    def lease(self) -> Lease:
        """Who is in charge, as it was when this gateway last found that it is, by `claim` or `hold`."""

    async def settle(self, vacant_s: float) -> None:
        """Say that everything is stored that follows from so many seconds without anybody in charge.

        If there were more by now, nothing is said. Raises StaleEpoch: another one is; StoreError.
        """

    async def release(self) -> None:
        """Let another gateway take over at once. Raises StoreError."""

    async def beat(self, node: NodeRecord) -> None:
        """Say that this gateway lives: once a second, where others look. Raises StoreError."""

    async def leave(self, node_id: str) -> None:
        """Say that it has ended, and will not be missed. Raises StoreError."""

    async def nodes(self) -> list[NodeState]:
        """Return every gateway that has said it lives, and has not left or been forgotten; by name."""

    async def put_served(self, records: Sequence[ServedRecord]) -> None:
        """Say what this gateway has served of open rollouts, in the place of what it said before.

        No commit of the store: no revision, and whoever is frozen holds nobody up. Raises StoreError.
        """

    async def served(self, known: Iterable[ServedRecord]) -> list[ServedRecord]:
        """Return what any gateway has said so, but for what is known; in the order in which the processes
        first said something. Raises StoreError.
        """

    async def drop_served(self) -> None:
        """Forget what was said of rollouts that are not open any more, and what the one in charge has said
        itself before it was. Raises StoreError.
        """

    def on_change(self, callback: Callable[[int], object]) -> None:
        """Call `callback` with the revision when a process has committed; with 0 when one may have. It must
        not raise.
        """

    async def changes(self, since: int) -> Changes:
        """Return where the store is, and its log from the revision `since` on, as far as it goes back.

        If the store is not so far, the log's newest row alone.
        """

    async def is_current(self) -> bool:
        """Return whether this process's epoch still is the store's."""

    async def close(self) -> None:
        """End what it has open; asking twice changes nothing: a start that fails may."""

    async def load_catalog(self, names: Collection[str] | None = None) -> CatalogRows:
        """Return these services, or all, as of one moment."""

    async def reread_tokens(self) -> None:
        """Have in memory what tokens there are now: another gateway may have written some."""

    async def load_services(self) -> list[ServiceRecord]: ...
    async def load_versions(self) -> list[VersionRecord]: ...
    async def open_deployments(self) -> list[DeploymentRecord]: ...
    async def deployment(self, deployment_id: str) -> DeploymentRecord | None: ...
    async def deployment_by_key(self, idempotency_key: str) -> DeploymentRecord | None: ...
    async def deployments(
        self,
        *,
        service: str | None = None,
        status: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[DeploymentRecord]:
        """Return deployments, newest first."""

    def cursor_after(self, record: DeploymentRecord) -> str:
        """Return the cursor of the deployments that are older than this one."""

    async def events(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        service: str | None = None,
        deployment_id: str | None = None,
    ) -> list[EventRecord]:
        """Return events with an id above `after`, oldest first."""

    async def newest_events(
        self, *, limit: int = 100, service: str | None = None, kinds: Sequence[str] = ()
    ) -> list[EventRecord]:
        """Return the newest events, or the newest of one service, or of some kinds; oldest first."""

    async def last_event_id(self) -> int:
        """Return the id of the newest event ever stored; 0 if there was none."""

    async def decisions(
        self, deployment_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[DecisionRecord]:
        """Return a deployment's decisions, newest first."""

    async def health(
        self, version_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[HealthCheckRecord]:
        """Return a version's probes, newest first."""

    async def smoke(
        self, version_id: str, *, cursor: str | None = None, limit: int = 20
    ) -> Page[SmokeRecord]:
        """Return a version's smoke runs, newest first."""

    async def audit(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        actor: str | None = None,
        action: str | None = None,
    ) -> Page[AuditRecord]:
        """Return the audit trail, newest first."""

    async def verify_audit(self) -> AuditReport:
        """Walk the audit chain from its start, or its last checkpoint, to its head."""

    async def audit_row(self, row_id: int) -> AuditRecord | None:
        """Return one row of the audit trail; None: it was pruned, or never was."""

    async def damage(self) -> str:
        """Return what is wrong with what is stored; empty: nothing. May take long, and holds nobody up."""

    async def place(self) -> Place:
        """Return whether what was opened is still there, is gone, or something else stands in its place.

        Raises StoreError if that cannot be found out.
        """

    async def put_back(self) -> None:
        """Write a store that is gone anew, audit included. Raises StoreError if that cannot be done."""

    async def backup(self, target: Path) -> None:
        """Write a copy of everything, as it is at one moment, to a new SQLite file. Holds nobody up."""

    async def tokens(self) -> list[TokenRecord]: ...
    async def token_by_hash(self, digest: str) -> TokenRecord | None: ...
    async def breakers(self) -> list[BreakerRecord]: ...
    async def meta(self, key: str) -> bytes | None: ...
    async def windows(
        self, *, deployment_id: str | None = None, service: str | None = None, since: datetime | None = None
    ) -> Sequence[WindowRecord]:
        """Return the windows of one deployment, or of all deployments of a service, oldest first."""

    async def statistics(
        self, deployment_id: str, *, since: datetime | None = None
    ) -> Sequence[StatisticRecord]:
        """Return how a deployment's statistic went, oldest first. since: only from then on."""

    async def acknowledgements(self, deployment_ids: Sequence[str]) -> dict[str, AcknowledgementRecord]:
        """Return what was acknowledged of these deployments, by id; those that never were are missing."""

    async def approval(self, approval_id: str) -> ApprovalRecord | None: ...
    async def pending_approvals(self) -> list[ApprovalRecord]:
        """Return what waits for a second person, also what has waited for too long; oldest first."""

    async def approvals(
        self, *, state: ApprovalState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[ApprovalRecord]:
        """Return what was asked of second persons, newest first."""

    async def prune(self, now: datetime, keep: Retention = DEFAULT_RETENTION) -> dict[str, int]:
        """Delete what has outlived `keep`. Returns rows deleted by table.

        Pruned audit rows leave a checkpoint row, so that the chain can still be verified.
        """
