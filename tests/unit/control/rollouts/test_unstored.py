"""A rollback needs no store: traffic returns at once, the row follows, and the next control knows of it."""

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.control.rollouts.unstored import Ordered
from gateway.core.rollout.events import Order, Pause, PromoteFull, Resume, Rollback, SetPercent
from gateway.core.rollout.state import Phase
from gateway.errors import IllegalTransition, StoreError
from gateway.link.snapshot import Mark
from gateway.store.records import AuditEntry
from tests.unit.control.failing_world import FailingWorld, failing_world

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUICK: dict[str, Any] = {"steps": (10, 100), "step_interval": 2_000, "min_requests": 5, "smoke_tests": False}


async def rolling(made: FailingWorld, **more: Any) -> str:
    """Start a rollout; it is at 10 % when this returns."""
    deployment = await made.start(**QUICK | more)
    await made.settle()
    await made.rollouts.tick()
    assert made.weights() == (90, 10)
    return deployment


async def order(made: FailingWorld, deployment: str, what: Order) -> Ordered:
    entry = AuditEntry(at=AT, actor=what.actor, action="deployment.rollback", resource="deployment")
    return await made.rollouts.order_at_once(deployment, what, entry)


async def stored_status(made: FailingWorld, deployment: str) -> str:
    return (await made.stored(deployment)).status


async def until_published(made: FailingWorld, weights: dict[str, int]) -> None:
    async with asyncio.timeout(10):
        while made.catalog.published[-1:] != [weights]:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("where", ["begin", "statement", "commit"])
async def test_ordered_rollback_moves_traffic_on_a_full_disk_and_is_stored_later(
    tmp_path: Path, where: Any
) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = where
        done = await order(made, deployment, Rollback("ann", "had enough"))
        assert not done.stored
        assert made.weights() == (100, 0)
        await until_published(made, {"v1": 100, "v2": 0})
        mark = made.rollouts.mark_for("auth")
        assert mark is not None
        assert (mark.deployment, mark.order, mark.actor, mark.reason) == (
            deployment, "rollback", "ann", "had enough",
        )  # fmt: skip
        assert made.rollouts.unstored(deployment) == done.record
        assert await stored_status(made, deployment) == "rolling"
        assert made.rollouts.open_for("auth"), "no other may start until it is stored"
        made.disk.fails = None
        await made.second()
        assert await stored_status(made, deployment) == "rolled_back"
        (row,) = (await made.store.audit()).items
        assert (row.at, row.actor) == (AT, "ann")
        assert made.rollouts.mark_for("auth") is None
        event = (await made.store.events(deployment_id=deployment))[-1]
        assert event.kind == "deployment.rolled_back"
        assert made.weights() == (100, 0)


async def test_an_order_that_neither_the_store_nor_a_worker_has_is_kept_by_nobody(tmp_path: Path) -> None:
    """It would be lost with this process, whoever outlived that; asked again, it goes on from where it is."""
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "commit"
        made.hub.are_there = False
        done = await order(made, deployment, Rollback("ann", "had enough"))
        assert not (done.stored or done.is_kept)
        assert made.weights() == (100, 0), "it is in force all the same"
        made.hub.are_there = True
        again = await order(made, deployment, Rollback("ann", "had enough"))
        assert again.is_kept and not again.stored
        made.disk.fails = None
        await made.second()
        assert await stored_status(made, deployment) == "rolled_back"


async def test_an_order_that_only_the_fsync_keeps_waiting_is_not_carried_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed, and is in force: done once more it took an ended rollout back into its rollback."""
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        on_disk = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(made.store._log, "covered", lambda: on_disk)
        done = await order(made, deployment, Rollback("ann", "had enough"))
        assert not done.stored
        assert made.rollouts.mark_for("auth") is None
        assert made.rollouts.unstored(deployment) is None
        on_disk.set_result(None)
        await made.settle()
        assert await stored_status(made, deployment) == "rolled_back"
        assert len((await made.store.audit()).items) == 1
        kinds = [event.kind for event in await made.store.events(deployment_id=deployment)]
        assert kinds.count("deployment.rolled_back") == 1


async def test_the_judges_rollback_moves_traffic_on_evidence_that_is_not_stored(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made, step_interval=60_000)
        made.disk.fails = "commit"
        for _ in range(5):
            await made.failing_second(answers=60, errors=30)
            if made.weights() == (100, 0):
                break
        assert made.weights() == (100, 0)
        mark = made.rollouts.mark_for("auth")
        assert mark is not None
        assert mark.automatic
        made.disk.fails = None
        await made.second()
        record = await made.stored(deployment)
        assert record.status == "rolled_back"
        assert record.error_count >= 30
        assert (await made.store.audit()).items == []


async def test_nothing_else_is_done_before_it_is_stored(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "commit"
        for _ in range(10):
            await made.failing_second(answers=60)
        assert made.weights() == (90, 10), "no step was taken"
        for each in (PromoteFull("ann"), SetPercent("ann", 50)):
            with pytest.raises(StoreError):
                async with made.store.transaction() as tx:
                    made.rollouts.order(tx, deployment, each)
        await made.failing_second()
        assert made.weights() == (90, 10)
        assert made.rollouts.mark_for("auth") is None


async def test_a_failed_order_to_lower_the_share_is_not_carried_out_behind_its_back(tmp_path: Path) -> None:
    """Whoever gave it was told that nothing has changed."""
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "commit"
        with pytest.raises(StoreError):
            async with made.store.transaction() as tx:
                made.rollouts.order(tx, deployment, SetPercent("ann", 1))
        await made.failing_second(answers=20)
        assert made.weights() == (90, 10)


async def test_pause_holds_without_a_store(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "begin"
        done = await order(made, deployment, Pause("ann", "look first"))
        assert not done.stored
        assert done.record.status == "paused"
        mark = made.rollouts.mark_for("auth")
        assert mark is not None
        assert mark.order == "pause"
        made.disk.fails = None
        for _ in range(6):
            await made.second(answers=60)
        assert made.weights() == (90, 10)
        assert await stored_status(made, deployment) == "paused"


async def test_an_order_without_a_move_is_refused_as_ever(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "begin"
        await order(made, deployment, Pause("ann"))
        with pytest.raises(IllegalTransition):
            await order(made, deployment, Pause("bob"))
        assert not (await order(made, deployment, Rollback("bob"))).stored
        assert not (await order(made, deployment, Rollback("eve"))).stored, "asked twice is no mistake"


async def test_where_no_traffic_has_moved_the_store_is_needed(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        made.checks.gate_reason = ""
        never = asyncio.Event()

        async def gate(version_id: str) -> str:
            await never.wait()
            return ""

        made.checks.gate = gate  # type: ignore[method-assign]
        deployment = await made.start(**QUICK)
        made.disk.fails = "begin"
        with pytest.raises(StoreError):
            await order(made, deployment, Rollback("ann"))
        assert made.rollouts.mark_for("auth") is None


async def test_a_store_that_another_process_holds_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        made.grace_s = 0.05
        await made.crash()
        deployment = await rolling(made)
        with sqlite3.connect(tmp_path / "gateway.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            started = asyncio.get_running_loop().time()
            ordered = asyncio.ensure_future(order(made, deployment, Rollback("ann")))
            await until_published(made, {"v1": 100, "v2": 0})
            assert asyncio.get_running_loop().time() - started < 1.5
            other.execute("ROLLBACK")
        other.close()
        await ordered
        await made.settle()
        await made.second()
        assert await stored_status(made, deployment) == "rolled_back"
        assert len((await made.store.audit()).items) == 1


@pytest.mark.parametrize("what", [Rollback("ann", "had enough"), Pause("ann", "had enough")])
async def test_the_next_control_takes_the_workers_word(tmp_path: Path, what: Order) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "commit"
        done = await order(made, deployment, what)
        mark = made.rollouts.mark_for("auth")
        assert mark is not None
        made.disk.fails = None
        await made.crash({deployment: mark})
        state = made.rollouts.state_of(deployment)
        assert state is not None
        assert state.phase in (Phase.REVERTING, Phase.PAUSED)
        assert state.percent == done.record.traffic_percent
        await made.settle()
        await made.second()
        await made.second()
        assert await stored_status(made, deployment) in ("rolled_back", "paused")
        (row,) = (await made.store.audit()).items
        assert (row.actor, row.details["stored"]) == ("ann", "late")
        assert abs(row.at.timestamp() - mark.at) < 0.001


async def test_a_mark_counts_only_once(tmp_path: Path) -> None:
    """A worker that still has it after it was stored, and resumed since, must not pause it again."""
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "commit"
        await order(made, deployment, Pause("ann"))
        mark = made.rollouts.mark_for("auth")
        assert mark is not None
        made.disk.fails = None
        await made.second()
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, Resume("bob"))
        await made.crash({deployment: mark})
        assert made.rollouts.state_of(deployment).phase is Phase.STEPPING  # type: ignore[union-attr]


async def test_a_mark_of_a_deployment_that_has_ended_counts_for_nothing(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        await order(made, deployment, Rollback("ann"))
        await made.settle()
        stale = Mark(deployment=deployment, serial=99, order="rollback", actor="x", reason="", at=0.0)
        await made.crash({deployment: stale, "unknown": stale})
        assert made.rollouts.open_for("auth") is None
        assert await stored_status(made, deployment) == "rolled_back"
        assert len((await made.store.audit()).items) == 1


async def test_nothing_goes_ahead_of_the_store_while_another_control_may_take_over(tmp_path: Path) -> None:
    """That one goes by what is stored, and asks nobody: a rollback that was answered 202 was undone."""
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        await made.rollouts.stop()
        made.disk.fails = "commit"
        with pytest.raises(StoreError):
            await order(made, deployment, Rollback("ann", "had enough"))
        assert made.weights() == (90, 10)
        assert not made.rollouts.has_unstored
        await made.rollouts.recover()
        assert not (await order(made, deployment, Rollback("ann", "had enough"))).stored
        assert made.weights() == (100, 0)


async def test_what_is_not_stored_survives_a_failed_upgrade(tmp_path: Path) -> None:
    """Control stops its loops, cannot hand over, and takes everything up again from the store."""
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        made.disk.fails = "commit"
        await order(made, deployment, Rollback("ann"))
        assert made.rollouts.has_unstored
        with pytest.raises(StoreError):
            await made.rollouts.stop()
        await made.rollouts.recover()
        assert made.weights() == (100, 0)
        assert made.rollouts.has_unstored
        made.disk.fails = None
        await made.rollouts.tick()
        await made.second()
        await made.settle()
        assert await stored_status(made, deployment) == "rolled_back"
