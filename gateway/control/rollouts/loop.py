"""The rollout loop: feeds the pure machine what happens, commits what it answers, then carries it out.

Every change of a rollout is one move inside one store transaction (`moved.py`); memory follows at the commit,
and only then are the acts begun (`performer.py`). Nothing is consumed before: what a failed commit was made
of, the next one is made of again. After a crash the same acts are issued again from the stored state, so
nothing here needs to be remembered elsewhere.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.control.rollouts.acts import Acts, CatalogView
from gateway.control.rollouts.commit_queue import CommitQueue
from gateway.control.rollouts.moved import Happening, Moved, decide, judged, put
from gateway.control.rollouts.notices import Notices
from gateway.control.rollouts.performer import Performer
from gateway.control.rollouts.rows import (
    FREEZE,
    FreezeState,
    decoded,
    encoded_part,
    encoded_progress,
    progress_of,
)
from gateway.control.rollouts.running import Running
from gateway.control.rollouts.windows import Judged as JudgedCells
from gateway.control.rollouts.windows import OpenRow, cells_of
from gateway.control.tally import Part, Tally
from gateway.core.judge.judge import judge, seeded
from gateway.core.judge.window import Window
from gateway.core.rollout.events import Event, FreezeOff, FreezeOn, Judged, Start, Tick, UsabilityChanged
from gateway.core.rollout.moves import MAX_TICK_MS
from gateway.core.rollout.plan import Plan
from gateway.core.rollout.rollout import resume
from gateway.core.rollout.state import JUDGED, Rollout
from gateway.errors import StaleEpoch, StoreError
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import DeploymentRecord

log = get_logger(component="rollouts")

TICK_S: Final = 1.0
BATCH: Final = 10
"""Rollouts that tick in one transaction: the weights of the first need not wait for the last one's judge."""
SAVE_TICKS: Final = 10
"""All totals are stored this often: workers that live would say them again. Those that the evidence of open
rollouts was made of are stored with it.
"""
TALLY: Final = "tally"
"""Under this name the totals are stored."""
RECENT: Final = 200
"""How many of the newest deployments are looked at, at a start, for ends that were not tidied up."""


class TallyView(Protocol):
    """What rollouts need of the counts."""

    @property
    def has_ended(self) -> bool:
        """Whether totals of a worker that ended are stored nowhere yet."""

    def judged(self, service: str) -> JudgedCells: ...
    def take_cohort_errors(self, service: str) -> list[tuple[str, int, int, int, str]]: ...
    def part(self, service: str) -> Part: ...
    def dump(self) -> bytes: ...
    def dump_stored(self) -> None: ...


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
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._tally = tally
        self._notices = Notices(store, catalog, acts.webhooks)
        self._clock = clock
        self._wall = wall
        self._running: dict[str, Running] = {}
        self._open: dict[str, Running] = {}
        """Of those, the open ones, by service."""
        queue: CommitQueue[Running] = CommitQueue(
            store, lambda tx, running, fact: self._move(tx, running, [fact])
        )
        self._performer = Performer(acts, queue, self._forget)
        self._ticking = asyncio.Lock()
        self.freeze_state = FreezeState()
        self._stopping = False
        self._ticks = 0
        self._last_tick: float | None = None

    # what people and other rooms ask

    @property
    def frozen(self) -> bool:
        """Whether advances and starts are held."""
        return self.freeze_state.frozen

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """Return the acts that have not ended."""
        return self._performer.under_way

    def open_for(self, service: str) -> DeploymentRecord | None:
        """Return the service's open deployment, if there is one."""
        running = self._open.get(service)
        return running.record if running is not None else None

    async def closed(self, service: str, timeout_s: float) -> bool:
        """Wait until the service's open deployment is open no more. Returns whether it came to that."""
        running = self._open.get(service)
        if running is None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await running.closed.wait()
        except TimeoutError:
            return False
        return True

    def state_of(self, deployment_id: str) -> Rollout | None:
        """Return the machine's state while this process still works on the deployment."""
        running = self._running.get(deployment_id)
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
            frozen=self.frozen,
            evidence=seeded(cells_of(counts, record.from_version_id), plan.rules),
        )
        running = Running(record, state)
        running.windows.start_from(counts)
        counted = encoded_part(self._tally.part(state.service))
        running.record = replace(record, progress=encoded_progress(counted, OpenRow()))
        return self._move(tx, running, [Start(actor)])

    def order(self, tx: Transaction, deployment_id: str, event: Event) -> DeploymentRecord:
        """Carry out a person's order inside the caller's transaction.

        Raises IllegalTransition if the deployment has no move for it, KeyError if it is not at work here.
        """
        running = self._running[deployment_id]
        return self._move(tx, running, [*self._usability_news(running.state), event])

    def freeze(self, tx: Transaction, freeze_state: FreezeState) -> None:
        """Hold or release every rollout's advance inside the caller's transaction."""
        tx.set_meta(FREEZE, msgspec.json.encode(freeze_state))
        for running in list(self._running.values()):
            if running.state.is_open:
                self._move(tx, running, [FreezeOn() if freeze_state.frozen else FreezeOff()])
        tx.on_commit(lambda: setattr(self, "freeze_state", freeze_state))

    # the loop

    async def recover(self) -> None:
        """Take up every stored rollout where it stopped; after catalog and tally are loaded, or after `stop`.

        Raises StoreError naming a deployment whose state does not load.
        """
        self._stopping = self._performer.is_stopping = False
        self._last_tick = None
        self._running.clear()
        self._open.clear()
        await self._notices.recover()
        stored = await self._store.meta(FREEZE)
        self.freeze_state = msgspec.json.decode(stored, type=FreezeState) if stored else FreezeState()
        for record in await _unfinished(self._store):
            self._take_up(record)

    def _take_up(self, record: DeploymentRecord) -> None:
        running = Running(record, decoded(record))
        if running.is_done:
            return
        service = running.state.service
        if (progress := progress_of(record)) is not None:
            # What workers have reported since is evidence.
            row = progress.row if running.state.is_open else None
            running.windows.start_from(Tally.of(progress.counted).judged(service), row)
        else:
            running.windows.start_from(self._tally.judged(service))
        self._take(running, record, running.state)
        running.state, commands = resume(running.state)
        log.info("rollout_resumed", deployment=record.id, phase=running.state.phase, step=running.state.step)
        self._performer.perform(running, commands)

    async def run(self) -> None:
        """Tick once a second, until stopped or replaced by a newer control."""
        while not self._stopping:
            started = self._clock()
            try:
                await self.tick()
            except StaleEpoch:
                log.error("rollouts_stopped", reason="another control process has taken over")
                return
            except StoreError as exc:
                log.error("rollout_tick_failed", error=str(exc))
            await asyncio.sleep(max(0.05, TICK_S - (self._clock() - started)))

    async def tick(self) -> None:
        """Let the time since the last tick pass: judge every open rollout and move it on.

        They are committed by batches, each with the totals its evidence was made of. What was committed until
        now is told to the webhooks. The first tick only starts the clock.
        """
        async with self._ticking:
            self._ticks += 1
            is_first = not self._close_windows()
            await self._notices.catch_up()
            if not is_first:
                await self._commit_tick()

    def _close_windows(self) -> bool:
        """Cut a window of every open rollout. Returns False for the first tick, which has none."""
        now = self._clock()
        before, self._last_tick = self._last_tick, now
        if before is None:
            return False
        elapsed_s = min(now - before, MAX_TICK_MS / 1000)  # of a stall, no more was watched
        for running in self._open.values():
            state = running.state
            running.windows.close(
                self._tally.judged(state.service),
                self._tally.take_cohort_errors(state.service),
                seconds=elapsed_s,
                usable=(self._catalog.is_usable(state.old), self._catalog.is_usable(state.new)),
                percent=state.percent,
            )
            running.counted = encoded_part(self._tally.part(state.service))
            running.elapsed_s += elapsed_s
        return True

    async def _commit_tick(self) -> None:
        """Store what the tick comes to, by batches."""
        is_save_due = self._ticks % SAVE_TICKS == 0 or self._tally.has_ended
        waiting = list(self._open.values())
        if not waiting and not is_save_due:
            return
        async with self._store.transaction() as tx:
            if is_save_due:
                tx.set_meta(TALLY, self._tally.dump())
                tx.on_commit(self._tally.dump_stored)
            self._notices.save(tx)
            self._tick_batch(tx, waiting[:BATCH])
        for start in range(BATCH, len(waiting), BATCH):
            async with self._store.transaction() as tx:
                self._tick_batch(tx, waiting[start : start + BATCH])

    def _tick_batch(self, tx: Transaction, batch: Iterable[Running]) -> None:
        for running in batch:
            if running.state.is_open:  # it may have ended while others ticked
                self._put(tx, running, self._ticked(running))

    def _ticked(self, running: Running) -> Moved:
        """Return what every window and all time that nothing in force was made of lead to."""
        state, wall = running.state, self._wall()
        happenings: list[Happening] = [
            *self._usability_news(state),
            *(partial(_judgement, window) for window in running.windows.pending),
            Tick(round(min(running.elapsed_s * 1000, MAX_TICK_MS))),
        ]
        moved = decide(state, running.record, happenings, running.windows, self._catalog, wall)
        return judged(moved, running.windows, running.counted, self._catalog, elapsed_s=running.elapsed_s)

    def _usability_news(self, state: Rollout) -> list[UsabilityChanged]:
        """Return what a rollout has not been told yet: a person's order must not rest on the last tick's."""
        old, new = self._catalog.is_usable(state.old), self._catalog.is_usable(state.new)
        return [] if (old, new) == (state.old_usable, state.new_usable) else [UsabilityChanged(old, new)]

    async def stop(self) -> None:
        """Stop ticking and acting, and commit the last tick; the next control issues the acts again."""
        self._stopping = True
        await self._performer.stop()
        self._ticks = -1
        await self.tick()

    # one move

    def _move(self, tx: Transaction, running: Running, events: Sequence[Event]) -> DeploymentRecord:
        """Put what `events` lead to into `tx`. Returns the row as it will be stored."""
        moved = decide(running.state, running.record, events, running.windows, self._catalog, self._wall())
        self._put(tx, running, moved)
        return moved.record

    def _put(self, tx: Transaction, running: Running, moved: Moved) -> None:
        """Put a move into `tx`; memory and acts follow at the commit."""
        put(tx, moved)
        tx.on_commit(lambda: self._enforce(running, moved))

    def _enforce(self, running: Running, moved: Moved) -> None:
        """Let memory follow a move, and begin its acts."""
        self._take(running, moved.record, moved.state)
        running.windows.taken(moved.windows, moved.open_row)
        running.elapsed_s -= moved.elapsed_s
        for version in moved.versions:
            self._catalog.put_version(version)
        if moved.service is not None:
            self._catalog.put_service(moved.service)
        self._performer.drop_unwanted(running)
        self._performer.perform(running, moved.commands)
        self._forget(running)

    def _take(self, running: Running, record: DeploymentRecord, state: Rollout) -> None:
        """Let memory follow what was committed; the catalog, which asks for the record, comes after."""
        if running.record.status != record.status:
            log.info("rollout_status", deployment=record.id, status=record.status, reason=state.reason)
        running.record, running.state = record, state
        self._running[record.id] = running
        if state.is_open:
            self._open[state.service] = running
        elif self._open.get(state.service) is running:
            del self._open[state.service]
            running.closed.set()

    def _forget(self, running: Running) -> None:
        if running.is_done and not running.acts:
            self._running.pop(running.state.id, None)


def _judgement(window: Window, state: Rollout) -> Judged | None:
    """Return what the judge makes of a window; None where it is not asked."""
    return Judged(*judge(state.evidence, window, state.plan.rules)) if state.phase in JUDGED else None


async def load_counts(store: Store, tally: Tally) -> None:
    """Let `tally` go on from what was stored: all totals, and those stored later with rollouts' evidence.

    Raises StoreError.
    """
    found = [progress_of(record) for record in await _unfinished(store)]
    parts = [progress.counted for progress in found if progress is not None]
    tally.load(await store.meta(TALLY) or b"", parts)


async def _unfinished(store: Store) -> list[DeploymentRecord]:
    """Return the open deployments, and recent ones, whose end may not be tidied up."""
    found = {record.id: record for record in await store.open_deployments()}
    for record in (await store.deployments(limit=RECENT)).items:
        if record.state:
            found.setdefault(record.id, record)
    return list(found.values())
