"""The rollout loop: feeds the pure machine what happens, commits what it answers, then carries it out.

Every change of a rollout is one move inside one store transaction (`moved.py`); memory follows at the commit,
and only then are the acts begun (`performer.py`). Nothing is consumed before: what a failed commit was made
of, the next one is made of again. One exception: what returns traffic to the old version does not wait for a
store that fails (`unstored.py`); its commit follows. After a crash the same acts are issued again from the
stored state, so nothing here needs to be remembered elsewhere.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.control.isolation import Isolation
from gateway.control.rollouts.acts import Acts, CatalogView
from gateway.control.rollouts.counted import RolloutCounts
from gateway.control.rollouts.elsewhere import Elsewhere
from gateway.control.rollouts.in_force import InForce, is_done
from gateway.control.rollouts.moved import Happening, Moved, judged
from gateway.control.rollouts.notices import Notices
from gateway.control.rollouts.rows import (
    FREEZE,
    FreezeState,
    decoded,
    encoded_part,
    encoded_progress,
    progress_of,
)
from gateway.control.rollouts.running import Running
from gateway.control.rollouts.schedule import FreezeSchedule
from gateway.control.rollouts.settling import settle
from gateway.control.rollouts.stored import TALLY, Stored, changed, unfinished
from gateway.control.rollouts.tally_view import TallyView
from gateway.control.rollouts.unstored import (
    GRACE_S,
    Ordered,
    audit_of,
    counting,
    is_asking,
    mark_of,
    ordered_by,
)
from gateway.control.rollouts.windows import OpenRow, cells_of
from gateway.core.judge.judge import judge, seeded
from gateway.core.judge.window import Window
from gateway.core.rollout.events import (
    Event,
    FreezeOff,
    FreezeOn,
    Judged,
    Order,
    Start,
    Superseded,
    Tick,
)
from gateway.core.rollout.moves import MAX_TICK_MS
from gateway.core.rollout.plan import Plan
from gateway.core.rollout.rollout import resume
from gateway.core.rollout.state import JUDGED, Rollout
from gateway.errors import IllegalTransition, StaleEpoch, StoreError
from gateway.link.snapshot import Mark
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import AuditEntry, DeploymentRecord

log = get_logger(component="rollouts")

TICK_S: Final = 1.0
LOOK_S: Final = 0.25
"""How long a tick waits for what other gateways have counted: what comes later is the next one's."""
BATCH: Final = 10
"""Rollouts that tick in one transaction: the weights of the first need not wait for the last one's judge."""
SAVE_TICKS: Final = 10
"""All totals are stored this often: workers that live would say them again. Those that the evidence of open
rollouts was made of are stored with it.
"""


class Rollouts:
    """All rollouts that still have something to do."""

    def __init__(
        self,
        store: Store,
        catalog: CatalogView,
        tally: TallyView,
        acts: Acts,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        grace_s: float = GRACE_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """grace_s: how long a rollback waits for its commit before it goes ahead."""
        self._store = store
        self._catalog = catalog
        self._tally = tally
        self._notices = Notices(store, catalog, acts.webhooks)
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._grace_s = grace_s
        self._in_force = InForce(store, catalog, acts, usable=self._usable, wall=wall, grace_s=grace_s)
        self._committing: asyncio.Task[None] | None = None
        """The commit of a tick, as long as it takes."""
        self._ticking = asyncio.Lock()
        self._elsewhere = acts.elsewhere or Elsewhere(store, tally)
        self._barrier = self._elsewhere.barrier
        self.isolation: Isolation | None = None
        """Who is to hear that this gateway is in charge; None: nobody else could be."""
        self.freeze_state = FreezeState()
        self.schedule = FreezeSchedule(catalog, wall)
        self._ticks = 0
        self._last_tick: float | None = None

    # what people and other rooms ask

    def is_frozen(self, service: str) -> bool:
        """Return whether advances and starts of a service are held, by a person or by schedule."""
        return self.freeze_state.frozen or self.schedule.in_force(service) is not None

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """Return the acts that have not ended."""
        return self._in_force.performer.under_way

    @property
    def counts(self) -> RolloutCounts:
        """Return what rollouts have come to so far."""
        return self._in_force.counts

    def open_state(self, service: str) -> Rollout | None:
        """Return the machine's state of the service's open deployment, if there is one."""
        running = self._in_force.open.get(service)
        return running.state if running is not None else None

    @property
    def under_judgement(self) -> list[Running]:
        """Return the open rollouts."""
        return list(self._in_force.open.values())

    def open_for(self, service: str) -> DeploymentRecord | None:
        """Return the service's open deployment, if there is one."""
        running = self._in_force.open.get(service)
        return running.record if running is not None else None

    def newest_of(self, service: str) -> DeploymentRecord | None:
        """Return the service's newest deployment as it is in force, while this process works on it."""
        found = [
            each.record for each in self._in_force.running.values() if each.record.service_name == service
        ]
        return max(found, key=lambda record: record.created_at, default=None)

    async def closed(self, service: str, timeout_s: float) -> bool:
        """Wait until the service's open deployment is open no more. Returns whether it came to that."""
        running = self._in_force.open.get(service)
        if running is None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await running.closed.wait()
        except TimeoutError:
            return False
        return True

    def record_of(self, deployment_id: str) -> DeploymentRecord | None:
        """Return a deployment's row as it is in force, while this process still works on it."""
        running = self._in_force.running.get(deployment_id)
        return running.record if running is not None else None

    def state_of(self, deployment_id: str) -> Rollout | None:
        """Return the machine's state while this process still works on the deployment."""
        running = self._in_force.running.get(deployment_id)
        return running.state if running else None

    def begin(self, tx: Transaction, record: DeploymentRecord, plan: Plan, actor: str) -> DeploymentRecord:
        """Open a deployment inside the caller's transaction. Returns the row as it will be stored."""
        assert record.from_version_id is not None
        counts = self._tally.judged(record.service_name)
        state = Rollout(
            id=record.id,
            service=record.service_name,
            old=record.from_version_id,
            new=record.to_version_id,
            plan=plan,
            frozen=self.is_frozen(record.service_name),
            evidence=seeded(cells_of(counts, record.from_version_id), plan.rules),
        )
        running = Running(record, state)
        running.windows.start_from(counts)
        running.counted = encoded_part(self._tally.part(state.service))
        floor = running.windows.floor = self._catalog.service_record(state.service).generation
        if self._in_force.leads:  # else whoever is in charge counts on from where it is
            running.record = replace(record, progress=encoded_progress(running.counted, OpenRow(), floor))
        return self._in_force.move(tx, running, [Start(actor)])

    def supersede(self, tx: Transaction, record: DeploymentRecord) -> None:
        """Let a deployment that has ended leave its versions alone from now on, if it still tidies up.

        record: as stored.
        """
        running = self._in_force.running.get(record.id)
        if running is None and record.state:
            running = Running(record, decoded(record))
        if running is not None and not running.state.is_open and not running.is_done:
            self._in_force.move(tx, running, [Superseded()])

    def order(self, tx: Transaction, deployment_id: str, event: Event) -> DeploymentRecord:
        """Carry out a person's order inside the caller's transaction.

        Raises IllegalTransition if the deployment has no move for it, KeyError if it is not at work here.
        """
        running = self._in_force.running[deployment_id]
        news = [*self._freeze_news(running.state), *self._in_force.usability_news(running.state)]
        return self._in_force.move(tx, running, [*news, event])

    async def order_at_once(self, deployment_id: str, order: Order, audit: AuditEntry) -> Ordered:
        """Carry out a rollback or a pause now, in a transaction of its own, or before it can be stored.

        audit: its row, which is stored with it. Raises IllegalTransition; KeyError if the deployment is not
        at work here; StoreError if it has no traffic to return and cannot be stored.
        """
        return await self._in_force.order_at_once(self._in_force.running[deployment_id], order, audit)

    def mark_for(self, service: str) -> Mark | None:
        """Return what was done to the service's open deployment and is not stored."""
        running = self._in_force.open.get(service)
        return mark_of(running.unstored[-1]) if running is not None and running.unstored else None

    def unstored(self, deployment_id: str) -> DeploymentRecord | None:
        """Return a deployment as it is in force, if the store does not know of that yet."""
        running = self._in_force.running.get(deployment_id)
        return running.record if running is not None and running.unstored else None

    @property
    def has_unstored(self) -> bool:
        """Whether anything is in force that is not stored."""
        return any(running.unstored for running in self._in_force.running.values())

    def freeze(self, tx: Transaction, freeze_state: FreezeState) -> None:
        """Hold or release every rollout's advance inside the caller's transaction."""
        tx.set_meta(FREEZE, msgspec.json.encode(freeze_state))
        for running in list(self._in_force.running.values()):
            if running.state.is_open:
                is_frozen = freeze_state.frozen or self.schedule.in_force(running.state.service) is not None
                self._in_force.move(tx, running, [FreezeOn() if is_frozen else FreezeOff()])
        tx.on_commit(lambda: setattr(self, "freeze_state", freeze_state))

    def _usable(self, state: Rollout) -> tuple[bool, bool]:
        """Return whether the old version and the new one count as usable."""
        own = self._catalog.is_usable(state.old), self._catalog.is_usable(state.new)
        return self._elsewhere.usable(state, own)

    def _freeze_news(self, state: Rollout) -> list[Event]:
        """Return the begin or the end of a freeze that a rollout has not heard of: one by schedule."""
        is_frozen = self.is_frozen(state.service)
        if not state.is_open or state.frozen == is_frozen:
            return []
        return [FreezeOn() if is_frozen else FreezeOff()]

    # the loop

    async def recover(self, marks: Mapping[str, Mark] | None = None) -> None:
        """Take up every stored rollout where it stopped; after catalog and tally are loaded, or after `stop`.

        marks: what was done before it could be stored, by deployment, as workers have it. Raises StoreError
        naming a deployment whose state does not load.
        """
        self._in_force.is_suspended = False
        self._last_tick = None
        known = dict(marks or {})
        known.update((mark.deployment, mark) for name in self._in_force.open if (mark := self.mark_for(name)))
        await self._notices.recover()
        async with self._store.turn():  # nothing else that is committed gets into memory meanwhile
            await self.reread_freeze()
            records = await unfinished(self._store)
            known = counting(known, records)
            self._in_force.leads = True
            self._in_force.performer.is_stopping = False
            self._in_force.running.clear()
            self._in_force.open.clear()
            for record in records:
                self._take_up(record, known.get(record.id))

    async def reread_freeze(self) -> None:
        """Go by the freeze that is stored. Raises StoreError."""
        stored = await self._store.meta(FREEZE)
        self.freeze_state = msgspec.json.decode(stored, type=FreezeState) if stored else FreezeState()

    @property
    def leads(self) -> bool:
        """Whether what rollouts ask for is carried out here."""
        return self._in_force.leads

    def follow(self) -> None:
        """Carry nothing out: another gateway is in charge, until `recover`."""
        self._in_force.leads = False
        self._in_force.performer.is_stopping = True

    async def stored(self, opened: Iterable[DeploymentRecord], names: Collection[str] | None) -> Stored:
        """Return what others may have changed, as it is stored: see `stored.changed`. Raises StoreError."""
        return await changed(self._store, list(self._in_force.running.values()), opened, names)

    def go_on(self, stored: Stored) -> bool:
        """Go on from what other gateways have stored; the catalog has their rows.

        Returns whether rows that were ahead of the store are not any more: the catalog has to take them
        again. Raises StoreError naming a deployment whose state does not load.
        """
        is_caught_up = False
        states = {key: decoded(record) for key, record in stored.items() if record is not None}
        for key, record in stored.items():
            found = self._in_force.running.get(key)
            if record is None:
                if found is not None:
                    self._in_force.drop(found)
            elif found is None:
                self._take_up(record, None)
            elif found.record.state != record.state:
                is_caught_up |= self._in_force.adopt(found, record, states[key])
        return is_caught_up

    async def store_late(self) -> None:
        """Store what was done here ahead of the store, while another gateway ticks. Raises StoreError."""
        await self._in_force.store_late()

    def _take_up(self, record: DeploymentRecord, mark: Mark | None) -> None:
        running = Running(record, decoded(record))
        if running.is_done:
            return
        service = running.state.service
        floor = running.windows.floor = self._catalog.service_record(service).generation
        if (progress := progress_of(record)) is not None:
            # What workers have reported since is evidence.
            row = progress.row if running.state.is_open else None
            if progress.floor is not None:
                floor = running.windows.floor = progress.floor
            running.windows.start_from(self._tally.start_of(progress.counted, service, floor), row)
            running.counted = encoded_part(progress.counted)
        else:
            running.windows.start_from(self._tally.judged(service))
            running.counted = encoded_part(self._tally.part(service))
        self._in_force.take(running, record, running.state)
        if mark is not None:
            self._do_again(running, mark)
        running.state, commands = resume(running.state)
        state = running.state
        about = {"service": state.service, "deployment": record.id}
        if self.leads:
            log.info("rollout_resumed", **about, phase=state.phase, step=state.step)
        self._in_force.performer.perform(running, commands)

    def _do_again(self, running: Running, mark: Mark) -> None:
        """Go on from what a former control did and could not store."""
        order = ordered_by(mark)
        if order is None:
            return
        about = {"service": running.state.service, "deployment": mark.deployment, "order": mark.order}
        try:
            moved = self._in_force.decide(running, [order], audit=audit_of(mark), wall=mark.at)
        except IllegalTransition as exc:
            log.error("mark_ignored", **about, reason=str(exc))
            return
        log.warning("mark_taken_over", **about, actor=mark.actor)
        self._in_force.act_before_commit(running, moved)

    async def run(self) -> None:
        """Tick once a second, until stopped or replaced by a newer control."""
        while not self._in_force.is_suspended:
            started = self._clock()
            try:
                await self.tick(patience_s=TICK_S / 2)
            except StaleEpoch:
                log.error("rollouts_stopped", reason="another control process has taken over")
                return
            except StoreError as exc:
                log.error("rollout_tick_failed", error=str(exc))
            await asyncio.sleep(max(0.05, TICK_S - (self._clock() - started)))

    async def tick(self, *, patience_s: float = 60.0) -> None:
        """Let the time since the last tick pass: judge every open rollout and move it on.

        They are committed by batches, each with the totals its evidence was made of. What was committed until
        now is sent to the webhooks. The first tick only starts the clock. A commit that takes longer than
        `patience_s` goes on, and the next tick waits for it too. Raises StoreError.
        """
        async with self._ticking:
            if self._in_force.open:
                await self._barrier.look(LOOK_S)
            await self._elsewhere.look(self.under_judgement, LOOK_S)
            self._ticks += 1
            is_first = not self._close_windows()
            if self._committing is None:
                work = self._commit_tick(is_first=is_first)
                self._committing = self._in_force.spawn(work, "commit a tick")
            commit = self._committing
            if not await is_done(commit, self._grace_s):
                self._act_where_urgent()
                await asyncio.wait({commit}, timeout=patience_s)
            if commit.done():
                self._committing = None
                commit.result()

    def _close_windows(self) -> bool:
        """Cut a window of every open rollout. Returns False for the first tick, which has none."""
        now = self._clock()
        before, self._last_tick = self._last_tick, now
        if before is None:
            return False
        elapsed_s = min(now - before, MAX_TICK_MS / 1000)  # of a stall, no more was watched
        for running in self._in_force.open.values():
            state = running.state
            running.windows.close(
                self._tally.judged(state.service),
                self._tally.take_cohort_errors(state.service),
                seconds=elapsed_s,
                usable=self._usable(state),
                percent=state.percent,
            )
            running.counted = encoded_part(self._tally.part(state.service))
            running.elapsed_s += elapsed_s
        return True

    def _act_where_urgent(self) -> None:
        """Return traffic where the judge wants it, although the tick is not committed."""
        for running in list(self._in_force.open.values()):
            proposed = running.proposed
            if proposed is None or proposed.order or proposed.base is not running.state:
                proposed = self._ticked(running)
            if proposed.state.percent < proposed.base.percent or is_asking(proposed):
                self._in_force.act_before_commit(running, proposed)

    async def settle(self) -> None:
        """Store what follows from a time in which nobody was in charge, first of all. Raises StoreError."""
        if self.isolation is not None:
            await settle(self._store, self._in_force, self.isolation)

    async def _commit_tick(self, *, is_first: bool) -> None:
        """Store what the tick comes to, by batches."""
        await self.settle()
        await self._notices.catch_up()
        if is_first:
            return
        is_save_due = self._ticks % SAVE_TICKS == 0 or self._tally.has_ended
        waiting = list(self._in_force.open.values())
        if not waiting and not is_save_due:
            return
        async with self._store.transaction(urgent=True) as tx:
            if is_save_due:
                tx.set_meta(TALLY, self._tally.dump())
                tx.on_commit(self._tally.dump_stored)
            self._notices.save(tx)
            self._tick_batch(tx, waiting[:BATCH])
        for start in range(BATCH, len(waiting), BATCH):
            async with self._store.transaction(urgent=True) as tx:
                self._tick_batch(tx, waiting[start : start + BATCH])

    def _tick_batch(self, tx: Transaction, batch: Iterable[Running]) -> None:
        for running in batch:
            if running.state.is_open:  # it may have ended while others ticked
                self._in_force.put(tx, running, self._ticked(running))

    def _ticked(self, running: Running) -> Moved:
        """Return what every window and all time that nothing in force was made of lead to."""
        state = running.state
        happenings: list[Happening] = [
            *self._barrier.news(state),
            *self._freeze_news(state),
            *self._in_force.usability_news(state),
            *(partial(_judgement, window, self._chance) for window in running.windows.pending),
            Tick(0 if self._barrier.is_blind else round(min(running.elapsed_s * 1000, MAX_TICK_MS))),
        ]
        moved = self._in_force.decide(running, happenings)
        return judged(moved, running.windows, running.counted, self._catalog, elapsed_s=running.elapsed_s)

    async def stop(self) -> None:
        """Stop ticking and acting, and commit the last tick; the next control issues the acts again."""
        self._in_force.is_suspended = True
        await self._in_force.performer.stop()
        if self._committing is not None:
            await asyncio.wait({self._committing})
            self._committing = None
        self._ticks = -1
        await self.tick()


def _judgement(window: Window, chance: Callable[[], float], state: Rollout) -> Judged | None:
    """Return what the judge makes of a window; None where it is not asked."""
    if state.phase not in JUDGED:
        return None
    return Judged(*judge(state.evidence, window, state.plan.rules), draw=chance())
