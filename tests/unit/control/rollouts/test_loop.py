"""The rollout loop on the real machine and the real store: committed before it is acted on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.control.rollouts.rows import FreezeState
from gateway.control.rollouts.webhooks import Message, Webhooks
from gateway.core.rollout.events import Complete, Pause, PromoteFull, Resume, Rollback, Superseded
from gateway.core.rollout.moves import MAX_TICK_MS
from gateway.core.settings.smoke import SmokeEndpoint, SmokeSettings
from gateway.errors import IllegalTransition, StoreError
from tests.unit.control.world import World

QUICK: dict[str, Any] = {
    "steps": (10, 50, 100),
    "step_interval": 2000,
    "min_requests": 5,
    "smoke_tests": False,
}


@asynccontextmanager
async def world(path: Path) -> AsyncIterator[World]:
    made = await World(path).open()
    try:
        yield made
    finally:
        await made.close()


async def status(made: World, deployment: str) -> str:
    record = await made.store.deployment(deployment)
    assert record is not None
    return record.status


async def test_good_canary_takes_every_step_and_completes(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        seen = [made.weights()]
        for _ in range(30):
            await made.second(answers=50)
            if made.weights() != seen[-1]:
                seen.append(made.weights())
            if await status(made, deployment) == "completed":
                break
        assert seen == [(90, 10), (50, 50), (0, 100)]
        assert await status(made, deployment) == "completed"
        await made.settle()
        old, new = made.catalog.versions["v1"], made.catalog.versions["v2"]
        assert (old.status, old.is_active, old.drained) == ("deprecated", False, True)
        assert (new.status, new.is_active) == ("production", True)
        assert made.catalog.services["auth"].current_version_id == "v2"
        assert made.checks.shut_downs == ["v1"]


async def test_bad_canary_returns_everything(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        for _ in range(10):
            await made.second(answers=50, errors=20)
            if await status(made, deployment) == "rolled_back":
                break
        record = await made.store.deployment(deployment)
        assert record is not None
        assert record.status == "rolled_back"
        assert record.error_message
        assert made.weights() == (100, 0)
        await made.settle()
        assert made.catalog.versions["v2"].status == "deprecated"


async def test_control_that_stood_still_has_not_watched_the_outage_meanwhile(tmp_path: Path) -> None:
    """An hour under a debugger is not the ten seconds for which the new version must be unusable."""
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        made.catalog.unusable.add("v2")
        await made.second()
        await made.second()
        made.now += 3_600
        await made.second()
        state = made.rollouts.state_of(deployment)
        assert state is not None
        assert state.evidence.outage is not None
        assert state.evidence.outage.seconds == MAX_TICK_MS / 1000
        assert await status(made, deployment) != "rolled_back"


async def test_failed_gate_moves_no_traffic(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.checks.gate_reason = "the health check failed: status 503"
        deployment = await made.start(**QUICK)
        await made.settle()
        record = await made.store.deployment(deployment)
        assert record is not None
        assert (record.status, made.weights()) == ("failed", (100, 0))
        assert "503" in (record.error_message or "")
        assert made.catalog.published == []


async def test_smoke_tests_of_the_rollout_itself_are_run(tmp_path: Path) -> None:
    """Their headers cannot be hashed; an act that holds them can be begun all the same."""
    async with world(tmp_path) as made:
        made.checks.smoke_reason = "status 500"
        tests = SmokeSettings(endpoints=(SmokeEndpoint(path="/", headers={"X-Test": "1"}),))
        deployment = await made.start(**QUICK | {"smoke_tests": tests})
        await made.settle()
        assert await status(made, deployment) == "failed"


async def test_version_released_again_is_not_told_to_stop(tmp_path: Path) -> None:
    """Its shutdown url may be tried for a while; an undo that begins meanwhile ends that."""
    async with world(tmp_path) as made:
        begun, answer = asyncio.Event(), asyncio.Event()
        told: list[str] = []

        async def shut_down(version_id: str, deployment_id: str) -> None:
            begun.set()
            await answer.wait()
            told.append(version_id)

        made.checks.shut_down = shut_down  # type: ignore[method-assign]
        deployment = await made.start("immediate", bake_time=0, smoke_tests=False)
        await made.rollouts.tick()
        for _ in range(3):
            made.now += 1
            await made.rollouts.tick()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await begun.wait()
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, Superseded())
        answer.set()
        await made.settle()
        assert told == []


async def test_weights_are_stored_before_they_are_published(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        stored: list[tuple[int, ...]] = []
        published = made.catalog.publish

        def publish(names: Any) -> int:
            import sqlite3

            rows = sqlite3.connect(tmp_path / "gateway.db").execute(
                "SELECT weight FROM gateway_service_version ORDER BY version"
            )
            stored.append(tuple(weight for (weight,) in rows))
            return published(names)

        made.catalog.publish = publish  # type: ignore[method-assign]
        await made.start(**QUICK)
        await made.settle()
        assert stored[0] == (90, 10)


async def test_killed_control_goes_on_at_the_same_step_with_the_remaining_time(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK | {"step_interval": 10_000})
        await made.settle()
        await made.second(answers=50)
        await made.second(answers=50)
        before = made.rollouts.state_of(deployment)
        made.now += 3600
        await made.crash()
        after = made.rollouts.state_of(deployment)
        assert before is not None
        assert after is not None
        assert (after.step, after.remaining_ms) == (before.step, before.remaining_ms)
        assert made.weights() == (90, 10)
        await made.settle()
        assert made.catalog.published == [{"v1": 90, "v2": 10}]
        await made.second(answers=50)
        going = made.rollouts.state_of(deployment)
        assert going is not None
        assert 0 < going.remaining_ms <= before.remaining_ms


async def test_person_rolls_back_while_paused(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, Pause("bob"))
        assert await status(made, deployment) == "paused"
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, Rollback("bob", "had enough"))
        await made.settle()
        assert await status(made, deployment) == "rolled_back"
        assert made.weights() == (100, 0)


async def test_an_order_is_told_at_once_that_the_old_version_is_gone(tmp_path: Path) -> None:
    """Not with the next tick: whoever rolls back within that second is warned too."""
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        state = made.rollouts.state_of(deployment)
        assert state is not None
        made.catalog.unusable.add(state.old)
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, Rollback("bob"))
        await made.settle()
        decisions = (await made.store.decisions(deployment)).items
        assert "warning" in [decision.verdict for decision in decisions]


async def test_paused_rollout_takes_no_step(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, Pause("bob"))
        for _ in range(6):
            await made.second(answers=50)
        assert made.weights() == (90, 10)
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, Resume("bob"))
        for _ in range(4):
            await made.second(answers=50)
        assert made.weights()[1] >= 50


async def test_refused_order_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        before = await made.store.deployment(deployment)
        with pytest.raises(IllegalTransition):
            async with made.store.transaction() as tx:
                made.rollouts.order(tx, deployment, Complete("bob"))
        assert await made.store.deployment(deployment) == before


async def test_promote_full_goes_to_everything_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        async with made.store.transaction() as tx:
            made.rollouts.order(tx, deployment, PromoteFull("bob"))
        await made.settle()
        assert made.weights() == (0, 100)


async def test_freeze_holds_the_step_and_survives_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.start(**QUICK)
        await made.settle()
        async with made.store.transaction() as tx:
            made.rollouts.freeze(tx, FreezeState(frozen=True))
        for _ in range(5):
            await made.second(answers=50)
        assert made.weights() == (90, 10)
        await made.crash()
        assert made.rollouts.is_frozen("auth")
        async with made.store.transaction() as tx:
            made.rollouts.freeze(tx, FreezeState())
        for _ in range(5):
            await made.second(answers=50)
        assert made.weights()[1] >= 50


async def test_state_that_does_not_load_stops_the_start(tmp_path: Path) -> None:
    made = await World(tmp_path).open()
    deployment = await made.start(**QUICK)
    await made.settle()
    await made.close()
    import sqlite3

    with sqlite3.connect(tmp_path / "gateway.db") as database:
        database.execute("UPDATE gateway_deployment SET state = ?", (b'{"phase": "lost"}',))
    database.close()
    broken = World(tmp_path)
    with pytest.raises(StoreError, match=deployment):
        await broken.open()
    await broken.store.close()


async def test_the_last_windows_of_a_rollout_are_stored_too(tmp_path: Path) -> None:
    """They are the ones that made it roll back."""
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK | {"step_interval": 60_000})
        await made.settle()
        await made.second(answers=50)
        await made.second(answers=50, errors=40)
        await made.second()
        assert await status(made, deployment) == "rolled_back"
        rows = await made.store.windows(deployment_id=deployment)
        assert sum(row.answers for row in rows if row.version_id == "v2") == 100
        assert sum(sum(row.errors.values()) for row in rows) == 40
        await made.crash()
        await made.second()
        assert await made.store.windows(deployment_id=deployment) == rows


async def test_windows_are_stored_for_replay(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        for _ in range(12):
            await made.second(answers=50)
        rows = await made.store.windows(deployment_id=deployment)
        assert sum(row.answers for row in rows if row.version_id == "v2") > 0
        assert {row.generation for row in rows} >= {1, 2}


async def test_the_first_minutes_of_a_rollout_are_stored_by_the_second(tmp_path: Path) -> None:
    """Whoever watches it sees it move; beside each window stands what the judge made of it."""
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK | {"step_interval": 600_000})
        await made.settle()
        for _ in range(20):
            await made.second(answers=50)
        rows = await made.store.windows(deployment_id=deployment)
        assert len({row.started_at for row in rows}) >= 15
        assert all(row.seconds <= 2 for row in rows if row.share)
        points = await made.store.statistics(deployment)
        assert len(points) >= 15
        assert {point.percent for point in points} == {10}
        assert all(0 <= point.statistic < point.limit for point in points)


async def test_what_crossed_the_limit_is_stored(tmp_path: Path) -> None:
    """The last point of a rollout that was rolled back is the one that did it."""
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK | {"step_interval": 60_000})
        await made.settle()
        await made.second(answers=50)
        await made.second(answers=50, errors=40)
        await made.second()
        assert await status(made, deployment) == "rolled_back"
        last = (await made.store.statistics(deployment))[-1]
        assert last.verdict == "abort"
        assert last.statistic >= last.limit > 1


async def test_events_and_decisions_name_who_brought_them_about(tmp_path: Path) -> None:
    """A decision's verdict is the judge's own word, not that the judge has spoken."""
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        for _ in range(2):
            await made.second(answers=1)
        for order in (Pause("eve"), Rollback("bob")):
            async with made.store.transaction() as tx:
                made.rollouts.order(tx, deployment, order)
        await made.settle()
        told = await made.store.events(after=0, limit=50, deployment_id=deployment)
        assert [(each.kind, each.actor) for each in told] == [
            ("deployment.started", "ann"),
            ("deployment.step", "gate"),
            ("deployment.paused", "eve"),
            ("deployment.rolled_back", "bob"),
        ]
        rows = (await made.store.decisions(deployment, limit=50)).items
        assert ("hold", "judge") in [(each.verdict, each.actor) for each in rows]


async def test_requests_served_while_control_was_dead_are_judged(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK | {"step_interval": 60_000})
        await made.settle()
        await made.second(answers=50)
        generation = made.catalog.services["auth"].generation
        made.worker.serve("v2", generation, 1000, 40, 0)
        await made.crash()  # its worker reports before control has read what the last one knew
        await made.settle()
        await made.second(answers=0)
        await made.second(answers=0)
        record = await made.store.deployment(deployment)
        assert record is not None
        assert record.request_count == 90


async def test_webhook_is_told_by_the_next_control_what_this_one_could_not_tell(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        told: list[Message] = []

        class Receiver(Webhooks):
            def notify(self, hooks: Any, message: Message) -> list[Any]:
                told.append(message)
                return []

        await made.start(**QUICK)
        made.webhooks = Receiver()
        await made.crash()
        await made.rollouts.tick()
        kinds = [message.kind for message in told]
        assert kinds[:1] == ["deployment.started"]
        assert kinds.count("deployment.started") == 1
        assert told[0].data["status"] == "testing"
        await made.rollouts.tick()
        assert len({message.key for message in told}) == len(told)


async def test_what_another_gateway_does_is_shown_and_nothing_is_done_about_it(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        record = await made.store.deployment(deployment)
        assert record is not None
        made.rollouts.follow()
        made.rollouts.go_on(await made.rollouts.stored([], {"other"}))
        assert made.rollouts.open_for("auth") is not None
        made.rollouts.go_on(await made.rollouts.stored([record], None))
        assert made.rollouts.open_for("auth") == record
        assert made.rollouts.under_way == []
        await made.rollouts.recover()
        assert made.rollouts.open_for("auth") is not None
