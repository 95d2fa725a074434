"""The rollout loop: feeds the pure machine what happens, commits what it answers, then carries it out.

Every change of a rollout is one `move` inside one store transaction; memory follows at the commit, and only
then are the acts begun. An act is a task that ends in a fact for the machine. After a crash the same acts are
issued again from the stored state, so nothing here needs to be remembered elsewhere.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.control.rollouts.acts import Acts, CatalogView
from gateway.control.rollouts.commit_queue import Facts
from gateway.control.rollouts.notices import Notices
from gateway.control.rollouts.rows import (
    FREEZE,
    FreezeState,
    Progress,
    at,
    decision_row,
    decoded,
    deployment_row,
    event_row,
    progress_of,
)
from gateway.control.rollouts.windows import Judged as JudgedCells
from gateway.control.rollouts.windows import Windows, cells_of
from gateway.control.tally import Part, Tally
from gateway.core.judge.judge import judge, seeded
from gateway.core.rollout.commands import (
    Act,
    Activate,
    Command,
    Decide,
    Deprecate,
    MakeCurrent,
    Notify,
    SetWeights,
)
from gateway.core.rollout.events import Event, FreezeOff, FreezeOn, Judged, Start, Tick, UsabilityChanged
from gateway.core.rollout.moves import MAX_TICK_MS
from gateway.core.rollout.plan import Plan
from gateway.core.rollout.rollout import due, move, resume
from gateway.core.rollout.state import JUDGED, Rollout
from gateway.errors import GatewayError, StaleEpoch, StoreError
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord

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
_BACK: Final[dict[str, Any]] = {"draining": False, "drained": False, "drain_deadline": None}
"""A version that is given weight drains no more."""


class TallyView(Protocol):
    """What rollouts need of the counts."""

    @property
    def has_ended(self) -> bool:
        """Whether totals of a worker that ended are stored nowhere yet."""

    def judged(self, service: str) -> JudgedCells: ...
    def take_cohort_errors(self, service: str) -> list[tuple[str, int, int, int, str]]: ...
    def part(self, service: str) -> Part: ...
    def dump(self) -> bytes: ...


class Running:
    """One rollout in this process: its stored row, its state, and what is being done about it."""

    def __init__(self, record: DeploymentRecord, state: Rollout) -> None:
        self.record = record
        self.state = state
        self.acts: dict[str, asyncio.Task[None]] = {}
        """By what is done: an act itself may hold smoke tests, which cannot be hashed."""
        self.windows = Windows(state.id, state.old, state.new)
        self.closed = asyncio.Event()
        """Set once it is not open any more."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, tidying up included."""
        return not self.state.is_open and not due(self.state)


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
        self._acts = acts
        self._notices = Notices(store, catalog, acts.webhooks)
        self._clock = clock
        self._wall = wall
        self._running: dict[str, Running] = {}
        self._open: dict[str, Running] = {}
        """Of those, the open ones, by service."""
        self._facts: Facts[Running] = Facts(store, lambda tx, running, fact: self._move(tx, running, [fact]))
        self._ticking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.freeze_state = FreezeState()
        self._stopping = False
        self._ticks = 0
        self._last_tick: float | None = None

    # what people and other rooms ask

    @property
    def frozen(self) -> bool:
        """Whether advances and starts are held."""
        return self.freeze_state.frozen

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
        judged = self._tally.judged(record.service_name)
        state = Rollout(
            id=record.id,
            service=record.service_name,
            old=record.from_version_id,
            new=record.to_version_id,
            plan=plan,
            frozen=self.frozen,
            evidence=seeded(cells_of(judged, record.from_version_id), plan.rules),
        )
        running = Running(record, state)
        running.windows.start_from(judged)
        return self._move(tx, running, [Start(actor)], progress=self._progress(running))

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
        self._stopping = False
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
            running.windows.start_from(Tally.of(progress.counted).judged(service))
            if running.state.is_open:
                running.windows.go_on(progress.row)
        else:
            running.windows.start_from(self._tally.judged(service))
        self._take(running, record, running.state)
        running.state, commands = resume(running.state)
        log.info("rollout_resumed", deployment=record.id, phase=running.state.phase, step=running.state.step)
        self._perform(running, commands)

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
            await self._notices.catch_up()
            now = self._clock()
            before, self._last_tick = self._last_tick, now
            self._ticks += 1
            is_save_due = self._ticks % SAVE_TICKS == 0 or self._tally.has_ended
            if before is None or not (self._open or is_save_due):
                return
            waiting = list(self._open.values())
            elapsed_s = min(now - before, MAX_TICK_MS / 1000)  # of a stall, no more was watched
            async with self._store.transaction() as tx:
                if is_save_due:
                    tx.set_meta(TALLY, self._tally.dump())
                self._notices.save(tx)
                self._tick_batch(tx, waiting[:BATCH], elapsed_s)
            for start in range(BATCH, len(waiting), BATCH):
                async with self._store.transaction() as tx:
                    self._tick_batch(tx, waiting[start : start + BATCH], elapsed_s)

    def _tick_batch(self, tx: Transaction, batch: Iterable[Running], elapsed_s: float) -> None:
        for running in batch:
            if running.state.is_open:  # it may have ended while others ticked
                self._tick_one(tx, running, elapsed_s)

    def _tick_one(self, tx: Transaction, running: Running, elapsed_s: float) -> None:
        state = running.state
        old, new = self._catalog.is_usable(state.old), self._catalog.is_usable(state.new)
        window = running.windows.close(
            self._tally.judged(state.service),
            self._tally.take_cohort_errors(state.service),
            seconds=elapsed_s,
            usable=(old, new),
            percent=state.percent,
        )
        events: list[Event] = [*self._usability_news(state)]
        if state.phase in JUDGED:
            events.append(Judged(*judge(state.evidence, window, state.plan.rules)))
        events.append(Tick(round(elapsed_s * 1000)))
        generation = self._catalog.service_record(state.service).generation
        tx.add_windows(running.windows.rows(at(self._wall()), generation))
        self._move(tx, running, events, progress=self._progress(running))

    def _usability_news(self, state: Rollout) -> list[UsabilityChanged]:
        """Return what a rollout has not been told yet: a person's order must not rest on the last tick's."""
        old, new = self._catalog.is_usable(state.old), self._catalog.is_usable(state.new)
        return [] if (old, new) == (state.old_usable, state.new_usable) else [UsabilityChanged(old, new)]

    def _progress(self, running: Running) -> bytes:
        """Return what is stored with a rollout's evidence: where it came from."""
        progress = Progress(self._tally.part(running.state.service), running.windows.open_row)
        return msgspec.msgpack.encode(progress)

    async def stop(self) -> None:
        """Stop ticking and acting, and commit the last tick; the next control issues the acts again."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ticks = -1
        await self.tick()

    # one move

    def _move(
        self, tx: Transaction, running: Running, events: Sequence[Event], *, progress: bytes | None = None
    ) -> DeploymentRecord:
        """Move through `events` and put all of it into `tx`; memory and acts follow at the commit.

        progress: what is to be stored with new evidence; None: there is none.
        """
        wall = self._wall()
        state = running.state
        commands: list[Command] = []
        for event in events:
            state, more = move(state, event, wall)
            commands += more
        versions, service = self._changes(state, commands, wall)
        record = deployment_row(running.record, state, wall)
        if progress is not None:
            record = replace(record, progress=progress)
        if not state.is_open:
            tx.add_windows(running.windows.last_rows(at(wall)))
        tx.put_deployment(record)
        for version in versions:
            tx.put_version(version)
        if service is not None:
            tx.put_service(service)
        for command in commands:
            if isinstance(command, Decide):
                tx.add_decision(decision_row(state, command))
            elif isinstance(command, Notify):
                tx.add_event(event_row(record, state, command, wall))

        def committed() -> None:
            self._take(running, record, state)
            for changed in versions:
                self._catalog.put_version(changed)
            if service is not None:
                self._catalog.put_service(service)
            self._drop_acts(running)
            self._perform(running, commands)
            self._forget(running)

        tx.on_commit(committed)
        return record

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

    def _changes(
        self, state: Rollout, commands: Iterable[Command], wall: float
    ) -> tuple[list[VersionRecord], ServiceRecord | None]:
        """Return the versions' and the service's rows as the commands change them."""
        now = at(wall)
        versions: dict[str, VersionRecord] = {}
        service = original = self._catalog.service_record(state.service)

        def change(version_id: str, **fields: Any) -> None:
            known = versions.get(version_id) or self._catalog.version_record(version_id)
            versions[version_id] = replace(known, updated_at=now, **fields)

        for command in commands:
            match command:
                case Activate(version):
                    change(version, is_active=True, status="staging")
                case MakeCurrent(version):
                    change(version, is_active=True, status="production")
                    service = replace(service, current_version_id=version, updated_at=now)
                case Deprecate(version):
                    change(version, is_active=False, status="deprecated")
                case SetWeights(_, old, old_weight, new, new_weight):
                    change(old, weight=old_weight, **(_BACK if old_weight else {}))
                    change(new, weight=new_weight, **(_BACK if new_weight else {}))
                    service = replace(service, generation=service.generation + 1, updated_at=now)
        return list(versions.values()), service if service is not original else None

    # acts

    def _perform(self, running: Running, commands: Iterable[Command]) -> None:
        """Begin the acts among what the machine asked for; one already under way is not begun twice."""
        for act in commands:
            if isinstance(act, Act) and repr(act) not in running.acts and not self._stopping:
                running.acts[repr(act)] = self._spawn(self._act(running, act), type(act).__name__)

    def _drop_acts(self, running: Running) -> None:
        """End what nobody waits for any more: a version that is released again must not be told to stop."""
        if running.acts:
            wanted = {repr(act) for act in due(running.state)}
            for key, task in running.acts.items():
                if key not in wanted:
                    task.cancel()

    async def _act(self, running: Running, act: Act) -> None:
        """Carry `act` out and report the fact, again and again while it fails and is still wanted."""
        try:
            while True:
                try:
                    fact = await self._acts.carry_out(running.record, running.state, act)
                    running.acts.pop(repr(act), None)
                    await self._facts.commit(running, fact)
                    return
                except StaleEpoch:
                    return
                except GatewayError as exc:
                    log.error("rollout_act_failed", act=type(act).__name__, error=str(exc))
                await asyncio.sleep(TICK_S)
                if act not in due(running.state):
                    return
        finally:
            running.acts.pop(repr(act), None)
            self._forget(running)

    def _forget(self, running: Running) -> None:
        if running.is_done and not running.acts:
            self._running.pop(running.state.id, None)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("rollout_act_broke", act=task.get_name(), error=repr(exc))


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
