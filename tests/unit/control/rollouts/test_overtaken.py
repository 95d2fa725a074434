"""Commits that end after something has gone ahead of the store: nothing is stored twice, nothing undone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.control.rollouts.rows import progress_of
from gateway.control.rollouts.unstored import Ordered
from gateway.core.rollout.events import Order, Pause, PromoteFull, Rollback, SetPercent
from gateway.core.rollout.state import Phase
from gateway.errors import IllegalTransition
from gateway.store import turns
from gateway.store.records import AuditEntry
from tests.unit.control.failing_world import FailingWorld, failing_world
from tests.unit.store.failing import Disk

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.001)


def ordered(made: FailingWorld, deployment: str, what: Order) -> asyncio.Task[Ordered]:
    """Order something; it goes ahead of a store that takes its time."""
    entry = AuditEntry(at=AT, actor=what.actor, action="deployment.order", resource="deployment")
    return asyncio.create_task(made.rollouts.order_at_once(deployment, what, entry))  # noqa: TID251


@asynccontextmanager
async def impatient(path: Path, *, step_interval: int) -> AsyncIterator[tuple[FailingWorld, str]]:
    """Yield a world in which nobody waits for the store, and a deployment at 10 %."""
    async with failing_world(path) as made:
        steps = {"steps": (10, 50, 100), "step_interval": step_interval, "min_requests": 5}
        deployment = await made.start(**steps, smoke_tests=False)
        await made.settle()
        await made.rollouts.tick()
        assert made.weights() == (90, 10)
        made.rollouts._grace_s = made.rollouts._in_force._grace_s = 0.01
        yield made, deployment


@asynccontextmanager
async def tick_under_way(made: FailingWorld, *, answers: int) -> AsyncIterator[None]:
    """Let a second pass; its tick is being committed until the block ends. answers: of the new version."""
    generation = made.catalog.services["auth"].generation
    made.worker.serve("v2", generation, 1_000, answers)
    made.worker.serve("v1", generation, 9_000, answers * 5)
    made.worker.report(made.tally)
    made.now += 1
    made.disk.commits_may_end.clear()
    tick = asyncio.create_task(made.rollouts.tick())  # noqa: TID251
    try:
        await until(lambda: made.disk.is_committing)
        yield
    finally:
        made.disk.commits_may_end.set()
        await tick


async def rows_of(made: FailingWorld, deployment: str) -> int:
    """Return the new version's answers in the rows for replay, and in the one that is gathered."""
    gathered = made.rollouts._in_force.running[deployment].windows.open_row.gathered
    open_row = sum(cell.answers for cell in gathered.new) if gathered else 0
    return (await made.in_rows(deployment))[0] + open_row


async def test_rows_of_a_tick_that_was_overtaken_are_stored_once(tmp_path: Path) -> None:
    """A pause went ahead while a tick was being committed: the next one stored the same window again."""
    async with impatient(tmp_path, step_interval=60_000) as (made, deployment):
        await made.second(answers=20)
        async with tick_under_way(made, answers=20):
            pause = ordered(made, deployment, Pause("ann"))
            await until(lambda: made.rollouts.has_unstored)
        await pause
        await made.second(answers=20)
        await made.second()
        assert await rows_of(made, deployment) == 60
        statistics = await made.store.statistics(deployment)
        assert len({row.at for row in statistics}) == len(statistics) <= 4
        assert made.rollouts.state_of(deployment).evidence.new.answers == 60  # type: ignore[union-attr]


async def test_rows_are_stored_once_when_control_dies_behind_an_overtaken_tick(tmp_path: Path) -> None:
    async with impatient(tmp_path, step_interval=60_000) as (made, deployment):
        async with tick_under_way(made, answers=20):
            pause = ordered(made, deployment, Pause("ann"))
            await until(lambda: made.rollouts.has_unstored)
        await pause
        await made.crash()
        await made.settle()
        await made.rollouts.tick()
        await made.second(answers=20)
        assert await rows_of(made, deployment) == 40


async def test_a_step_that_was_overtaken_leaves_no_weights_in_the_store(tmp_path: Path) -> None:
    """They came into force at the next reload: a share of 50 % of a rollout that was paused at 10."""
    async with impatient(tmp_path, step_interval=1_000) as (made, deployment):
        async with tick_under_way(made, answers=60):
            pause = ordered(made, deployment, Pause("ann"))
            await until(lambda: made.rollouts.has_unstored)
        assert {each.version: each.weight for each in await made.store.load_versions()}["v2"] in (10, 50)
        await pause
        await made.second()
        assert made.weights() == (90, 10)
        stored = {each.version: each.weight for each in await made.store.load_versions()}
        assert stored == {"v1": 90, "v2": 10}
        assert (await made.stored(deployment)).traffic_percent == 10


@pytest.mark.parametrize("what", [Rollback("ann"), Pause("ann")])
@pytest.mark.parametrize("overtaken", [PromoteFull("bob"), SetPercent("bob", 50), Pause("bob")])
async def test_what_has_overtaken_a_commit_outlives_control(
    tmp_path: Path, what: Order, overtaken: Order
) -> None:
    """Its mark counted for nothing beside the commit it was ahead of, which has as many records."""
    async with impatient(tmp_path, step_interval=60_000) as (made, deployment):
        made.disk.commits_may_end.clear()
        first = asyncio.create_task(committed(made, deployment, overtaken))  # noqa: TID251
        await until(lambda: made.disk.is_committing)
        order = ordered(made, deployment, what)
        await until(lambda: made.rollouts.has_unstored)
        mark = made.rollouts.mark_for("auth")
        assert mark is not None
        made.disk.fails = "commit"  # the next one, of what went ahead
        made.disk.commits_may_end.set()
        await first
        await until(lambda: made.disk.failed > 0)
        made.disk = Disk()  # for the next control
        await made.crash({deployment: mark})
        await order
        state = made.rollouts.state_of(deployment)
        assert state is not None
        assert state.phase is (Phase.REVERTING if isinstance(what, Rollback) else Phase.PAUSED)


async def committed(made: FailingWorld, deployment: str, what: Order) -> None:
    async with made.store.transaction() as tx:
        made.rollouts.order(tx, deployment, what)


async def test_an_order_that_was_stored_late_is_not_stored_again_over_what_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own commit came last, and made "rolling" of a deployment that was rolled back already."""
    monkeypatch.setattr(turns, "QUEUE_S", 60.0)  # a machine that is slow is no store that is busy
    async with impatient(tmp_path, step_interval=60_000) as (made, deployment):
        may_go = asyncio.Event()

        async def hold() -> None:
            async with made.store.transaction():
                await may_go.wait()

        holder = asyncio.create_task(hold())  # noqa: TID251
        await until(lambda: made.store._turns.lock.locked())
        made.now += 1
        tick = asyncio.create_task(made.rollouts.tick())  # noqa: TID251
        await until(lambda: made.store._turns._waiting == 1)
        first = ordered(made, deployment, Rollback("ann"))
        await until(
            lambda: made.weights() == (100, 0) and made.store._turns._waiting == 3
        )  # its end waits, too
        second = ordered(made, deployment, Rollback("bob"))
        await until(lambda: len(made.rollouts._in_force.running[deployment].unstored) == 2)
        may_go.set()
        await asyncio.gather(holder, tick, first, second)
        await made.settle()
        await until(lambda: made.store._turns._waiting == 0)
        async with made.store.transaction():
            """Whatever was under way is done."""
        assert (await made.stored(deployment)).status == "rolled_back"
        assert sorted(row.actor for row in (await made.store.audit()).items) == ["ann", "bob"]


async def test_what_is_stored_of_a_rollout_begun_during_a_tick_loads(tmp_path: Path) -> None:
    """The tick stored nothing for what had been counted: killed within that second, no control started."""
    async with failing_world(tmp_path) as made:
        await made.rollouts.tick()  # starts the clock
        begun: list[str] = []

        async def begin() -> None:
            if not begun:
                begun.append(await made.start(steps=(10, 100), smoke_tests=False))

        made.rollouts._notices.catch_up = begin  # type: ignore[method-assign]
        made.now += 1
        await made.rollouts.tick()
        (deployment,) = begun
        assert progress_of(await made.stored(deployment)) is not None
        await made.crash()
        state = made.rollouts.state_of(deployment)
        assert state is not None
        assert state.is_open


async def test_what_the_first_tick_puts_ahead_of_the_store_loads(tmp_path: Path) -> None:
    async with impatient(tmp_path, step_interval=60_000) as (made, deployment):
        await made.crash()
        running = made.rollouts._in_force.running[deployment]
        assert progress_of(made.rollouts._ticked(running).record) is not None


async def test_a_rollback_asked_for_again_overtakes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News of a version came with it, ahead of the commit that ended it: it was "rolling" once more."""
    async with impatient(tmp_path, step_interval=60_000) as (made, deployment):
        made.disk.commits_may_end.clear()
        first = ordered(made, deployment, Rollback("ann"))
        await until(lambda: made.rollouts.has_unstored)
        in_force = made.rollouts._in_force
        running = in_force.running[deployment]
        monkeypatch.setattr(made.catalog, "is_usable", lambda version: False)
        assert in_force.usability_news(running.state)
        entry = AuditEntry(at=AT, actor="bob", action="deployment.order", resource="deployment")
        assert in_force._ordered(running, Rollback("bob"), entry).state is running.state
        made.disk.commits_may_end.set()
        await first
        await made.settle()


async def test_nothing_goes_ahead_of_a_commit_that_ends_the_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback did: the store said completed, then rolling; and a control that started in between took the
    rollout for completed, whatever the workers said.
    """
    async with failing_world(tmp_path) as made:
        made.rollouts._grace_s = made.rollouts._in_force._grace_s = 0.01
        is_draining, is_drained = asyncio.Event(), asyncio.Event()

        async def drain(version_id: str, timeout_ms: int) -> None:
            is_draining.set()
            await is_drained.wait()
            made.disk.commits_may_end.clear()

        monkeypatch.setattr(made.drains, "drain", drain)
        deployment = await made.start("immediate", bake_time=0, smoke_tests=False)
        async with asyncio.timeout(20):
            while not is_draining.is_set():
                await made.second()
                await asyncio.sleep(0.001)
        is_drained.set()
        await until(lambda: made.disk.is_committing)
        rollback = ordered(made, deployment, Rollback("ann", "had enough"))
        await asyncio.sleep(0.1)
        went_ahead = made.rollouts.has_unstored
        made.disk.commits_may_end.set()
        with pytest.raises(IllegalTransition, match="completed"):
            await rollback
        assert not went_ahead
        assert (await made.stored(deployment)).status == "completed"


async def test_an_order_that_the_judge_overtook_does_not_take_its_evidence_back(tmp_path: Path) -> None:
    """Both waited for the disk. The order had been made of what was before the tick, and was put in force
    over it: windows were stored, and what they were made of was to be judged and stored once more.
    """
    async with failing_world(tmp_path) as made:
        deployment = await made.start(
            steps=(50, 100), step_interval=60_000, min_requests=5, smoke_tests=False
        )
        await made.settle()
        await made.rollouts.tick()
        made.rollouts._grace_s, made.rollouts._in_force._grace_s = 0.01, 0.5
        made.disk.commits_may_end.clear()
        rollback = ordered(made, deployment, Rollback("ann", "had enough"))
        await until(lambda: made.disk.is_committing)
        generation = made.catalog.services["auth"].generation
        made.worker.serve("v2", generation, 5_000, 200, 200)
        made.worker.serve("v1", generation, 5_000, 200)
        made.worker.report(made.tally)
        made.now += 1
        tick = asyncio.create_task(made.rollouts.tick())  # noqa: TID251
        running = made.rollouts._in_force.running[deployment]
        await until(lambda: running.state.evidence.new.answers == 200)
        await until(lambda: len(running.unstored) == 2)
        assert running.state.evidence.new.answers == 200
        made.disk.commits_may_end.set()
        await asyncio.gather(tick, rollback)
        assert (await made.stored(deployment)).request_count == 200


async def test_an_order_that_moves_no_traffic_waits_for_its_turn_and_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was answered as stored, and was not done: it had been decided on while others wrote."""
    async with failing_world(tmp_path) as made:
        made.rollouts._grace_s = made.rollouts._in_force._grace_s = 0.01

        async def gate(version_id: str) -> str:
            await asyncio.Event().wait()
            return ""

        monkeypatch.setattr(made.checks, "gate", gate)
        deployment = await made.start(smoke_tests=False)
        async with made.store.transaction():
            rollback = ordered(made, deployment, Rollback("ann", "had enough"))
            await asyncio.sleep(0.1)
        done = await rollback
        assert done.stored
        assert (await made.stored(deployment)).status == done.record.status == "failed"
