"""The rollouts of this process as they are in force, and how that changes: by a commit, or ahead of it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial

from msgspec.structs import replace

from gateway.control.rollouts.acts import Acts, CatalogView
from gateway.control.rollouts.commit_queue import CommitQueue
from gateway.control.rollouts.counted import RolloutCounts
from gateway.control.rollouts.moved import Happening, Moved, as_in_force, decide, put, take_back
from gateway.control.rollouts.performer import Performer
from gateway.control.rollouts.running import Running
from gateway.control.rollouts.unstored import (
    ANSWER_S,
    CARRY_S,
    END_S,
    MAX_UNSTORED,
    Ordered,
    mark_of,
    may_act,
)
from gateway.core.rollout.events import Event, Order, UsabilityChanged
from gateway.core.rollout.state import Rollout, due
from gateway.errors import IllegalTransition, StaleEpoch, StoreBusy, StoreError
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import AuditEntry, DeploymentRecord

log = get_logger(component="rollouts")


class InForce:
    """Those that still have something to do, and every change of them."""

    def __init__(
        self,
        store: Store,
        catalog: CatalogView,
        acts: Acts,
        *,
        usable: Callable[[Rollout], tuple[bool, bool]],
        wall: Callable[[], float],
        grace_s: float,
    ) -> None:
        """usable: whether the old and the new version are. wall: seconds since the epoch.

        grace_s: how long a rollback waits for its commit.
        """
        self.running: dict[str, Running] = {}
        self.open: dict[str, Running] = {}
        """Of those, the open ones, by service."""
        self._store = store
        self._catalog = catalog
        self._workers = acts.hub
        self._usable = usable
        self._wall = wall
        self._grace_s = grace_s
        self._queue: CommitQueue[Running] = CommitQueue(store, self._move_by)
        self.performer = Performer(acts, self._commit_event, self._forget)
        self._commits: set[asyncio.Task[None]] = set()
        self.counts = RolloutCounts()
        self.is_suspended = False
        """Whether another process may be about to go on from what is stored: nothing goes ahead of that."""
        self.leads = True
        """Whether acts are carried out here; else by the gateway in charge, once it reads what is stored."""

    def decide(
        self,
        running: Running,
        happenings: Iterable[Happening],
        *,
        audit: AuditEntry | None = None,
        wall: float | None = None,
    ) -> Moved:
        """Return what `happenings` lead to from what is in force. wall: None: it is now.

        Raises IllegalTransition.
        """
        now = self._wall() if wall is None else wall
        windows, catalog = running.windows, self._catalog
        return decide(running.state, running.record, happenings, windows, catalog, now, audit=audit)

    def usability_news(self, state: Rollout) -> list[UsabilityChanged]:
        """Return what a rollout does not know yet: a person's order must not rest on the last tick's."""
        old, new = self._usable(state)
        return [] if (old, new) == (state.old_usable, state.new_usable) else [UsabilityChanged(old, new)]

    # by a commit

    def move(self, tx: Transaction, running: Running, events: Sequence[Event]) -> DeploymentRecord:
        """Put what `events` lead to into `tx`. Returns the row as it will be stored."""
        moved = self.decide(running, events)
        self.put(tx, running, moved)
        return moved.record

    def put(self, tx: Transaction, running: Running, moved: Moved) -> None:
        """Put a move into `tx`, after those in force that no store knows of; memory follows at the commit."""
        running.proposed = moved
        late, overtaken = tuple(running.unstored), tuple(running.overtaken)
        for each in overtaken:
            take_back(tx, each, self._catalog)
        for each in late:
            put(tx, as_in_force(each, self._catalog), is_late=True)
        if moved not in late:
            put(tx, moved)
        elif running.record is not late[-1].record:  # it changed nothing, and a commit has gone on since
            tx.put_deployment(running.record)
        tx.on_commit(partial(self._committed, running, moved, late, overtaken))

    def _committed(
        self, running: Running, moved: Moved, late: tuple[Moved, ...], overtaken: tuple[Moved, ...]
    ) -> None:
        was_unstored, was_ahead = bool(running.unstored), moved in running.unstored
        running.overtaken = [each for each in running.overtaken if each not in overtaken]
        running.unstored = [each for each in running.unstored if each is not moved and each not in late]
        if was_unstored and not running.unstored:
            self._catalog.caught_up(running.state.service)
        if moved.base is running.state and moved not in late:
            self._enforce(running, moved)
        elif not was_ahead:
            running.overtaken.append(moved)
        if was_unstored and not running.unstored:
            log.info("stored_late", service=running.state.service, deployment=running.state.id)
            self._catalog.publish([running.state.service])  # without the mark

    def _move_by(self, tx: Transaction, running: Running, event: Event) -> None:
        self.move(tx, running, [event])

    async def _commit_event(self, running: Running, event: Event) -> None:
        """Commit the event an act ended in; what returns traffic does not wait for a store that fails."""
        committed = asyncio.Event()
        commit = self.spawn(self._queue.commit(running, event, committed.set), "commit an event")
        try:
            if not await is_done(commit, self._grace_s) and not committed.is_set():
                moved = self.decide(running, [event])
                if moved.state.percent < moved.base.percent:
                    self.act_before_commit(running, moved)
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            commit.cancel()
            raise

    # ahead of it

    async def order_at_once(self, running: Running, order: Order, audit: AuditEntry) -> Ordered:
        """See `Rollouts.order_at_once`."""
        made: list[Moved] = []
        committed = asyncio.Event()

        async def commit() -> None:
            async with self._store.transaction(urgent=True, anywhere=True) as tx:
                if made and made[0] not in running.unstored:
                    return  # it has gone ahead, and come to the store with another commit
                made[:] = made or [self._ordered(running, order, audit)]
                self.put(tx, running, made[0])
                tx.on_commit(committed.set)

        task = self.spawn(commit(), "order")
        if not await is_done(task, self._grace_s) and not (
            _may_be_ending(running) and await is_done(task, END_S)
        ):
            if committed.is_set():  # in force like any other commit; only the disk keeps it waiting
                is_on_disk = await is_done(task, ANSWER_S)
                if is_on_disk:
                    await task
                return Ordered(running.record, stored=is_on_disk)
            moved = made[0] if made else None
            if moved is None or (moved.base is not running.state and moved not in running.unstored):
                moved = self._ordered(running, order, audit)  # the judge may have gone ahead meanwhile
            if may_act(moved) and not self.is_suspended:
                made[:] = [moved]
                self.act_before_commit(running, moved)
                await asyncio.wait({task}, timeout=ANSWER_S)
                is_carried = await self._is_carried(running)
                stored = not running.unstored
                return Ordered(running.record, stored=stored, is_kept=stored or is_carried)
        await asyncio.shield(task)
        return Ordered(running.record)

    async def _is_carried(self, running: Running) -> bool:
        """Return whether a worker has the mark of what is not stored, by its own word: it tells the next
        control. A question to webhooks leaves none.
        """
        if not running.unstored or mark_of(running.unstored[-1]) is None:
            return False
        return await self._workers.carry(self._catalog.publish([running.state.service]), CARRY_S)

    def _ordered(self, running: Running, order: Order, audit: AuditEntry) -> Moved:
        moved = self.decide(running, [order], audit=audit)
        if moved.state is moved.base:
            return moved  # on its way already: news beside it would overtake the commit that ends it
        return self.decide(running, [*self.usability_news(running.state), order], audit=audit)

    def act_before_commit(self, running: Running, moved: Moved) -> None:
        """Put a move in force that is not stored, with a mark of it for the next control.

        Raises StoreBusy if too many wait to be stored.
        """
        if moved in running.unstored:
            return
        if len(running.unstored) >= MAX_UNSTORED:
            raise StoreBusy(f"deployment {running.state.id}: too many orders wait to be stored")
        running.unstored.append(moved)
        state = moved.state
        log.error("acted_before_stored", service=state.service, deployment=state.id, phase=state.phase)
        self._enforce(running, moved, is_ahead=True)
        if not moved.has_weights:
            self._catalog.publish([running.state.service])

    # either way

    def _enforce(self, running: Running, moved: Moved, *, is_ahead: bool = False) -> None:
        """Let memory follow a move, and begin its acts. is_ahead: it is not stored yet."""
        self.counts.add(moved)
        self.take(running, moved.record, moved.state)
        running.windows.taken(moved.windows, moved.open_row)
        running.elapsed_s -= moved.elapsed_s
        if is_ahead:
            self._catalog.put_ahead(moved.service, moved.versions)
        else:
            self._put(moved)
        if moved.has_weights and not self.leads:
            self._catalog.publish([running.state.service])
        self.performer.drop_unwanted(running)
        self.performer.perform(running, moved.commands)
        self._forget(running)

    def _put(self, moved: Moved) -> None:
        """Let the catalog follow a commit."""
        for version in moved.versions:
            self._catalog.put_version(version)
        if moved.service is not None:
            self._catalog.put_service(moved.service)

    def take(self, running: Running, record: DeploymentRecord, state: Rollout) -> None:
        """Let memory follow; the catalog, which asks for the record, comes after."""
        if running.record.status != record.status:
            about = {"service": state.service, "deployment": record.id}
            log.info("rollout_status", **about, status=record.status, reason=state.reason)
        running.record, running.state = record, state
        self.running[record.id] = running
        if state.is_open:
            self.open[state.service] = running
        elif self.open.get(state.service) is running:
            del self.open[state.service]
            running.closed.set()

    def adopt(self, running: Running, record: DeploymentRecord, state: Rollout) -> bool:
        """Go on from what another gateway has stored.

        What a person has ordered here ahead of the store is done again on top of it, or has come too late;
        what the judge wanted is stored over it. Returns whether nothing is ahead of the store any more.
        """
        ahead = running.unstored
        if state.is_open and any(each.order is None for each in ahead):
            return False
        running.unstored, running.overtaken, running.proposed = [], [], None
        self.take(running, record, state)
        self.performer.drop_unwanted(running)
        self.performer.perform(running, due(state))
        for each in ahead:
            self._do_again(running, each)
        is_caught_up = bool(ahead) and not running.unstored
        if is_caught_up:
            self._catalog.caught_up(state.service)
        self._forget(running)
        return is_caught_up

    def _do_again(self, running: Running, ahead: Moved) -> None:
        if ahead.order is None:
            return
        try:
            moved = self.decide(running, [ahead.order], audit=ahead.audit, wall=ahead.wall)
        except IllegalTransition as exc:
            why = str(exc)
        else:
            if moved.state is not moved.base:
                self.act_before_commit(running, moved)
                return
            why = "it is so already"
        about = {"service": running.state.service, "deployment": running.record.id}
        log.warning("came_too_late", **about, order=type(ahead.order).__name__, reason=why)
        if ahead.audit is not None:
            self.spawn(self._note_too_late(ahead.audit, why), "note what came too late")

    async def _note_too_late(self, entry: AuditEntry, why: str) -> None:
        """Have the audit trail say what somebody has ordered without the store."""
        details = {**entry.details, "stored": "too late", "why": why}
        try:
            async with self._store.transaction(anywhere=True) as tx:
                tx.add_audit(replace(entry, details=details))
        except StoreError as exc:
            log.error("audit_lost", action=entry.action, actor=entry.actor, reason=str(exc))

    async def store_late(self) -> None:
        """Store what was done here ahead of the store, where no tick does. Raises StoreError."""
        for running in [each for each in self.running.values() if each.unstored]:
            async with self._store.transaction(urgent=True, anywhere=True) as tx:
                if running.unstored:
                    self.put(tx, running, running.unstored[-1])

    def drop(self, running: Running) -> None:
        """Forget a rollout that is stored no more."""
        self.running.pop(running.record.id, None)
        if self.open.get(running.state.service) is running:
            del self.open[running.state.service]
        running.closed.set()
        self.performer.drop_all(running)

    def _forget(self, running: Running) -> None:
        if running.is_done and not running.acts and not running.unstored:
            self.running.pop(running.state.id, None)

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Begin a commit that may outlive the patience of who waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._commits.add(task)
        task.add_done_callback(self._spent)
        return task

    def _spent(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it gets it too


def _may_be_ending(running: Running) -> bool:
    """Whether a commit may be under way that ends the rollout: nothing goes ahead of that. Whoever starts
    behind it would find an end, and take no worker's word for anything else.
    """
    proposed = running.proposed
    return proposed is not None and proposed.base is running.state and not proposed.state.is_open


async def is_done(task: asyncio.Task[None], seconds: float) -> bool:
    """Wait a while for `task`. Returns whether it is done, unless the store kept it from that.

    Raises what else went wrong with it.
    """
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        return False
    error = task.exception()
    if isinstance(error, StoreError) and not isinstance(error, StaleEpoch):
        return False
    task.result()
    return True
