"""Commits that fail lose no evidence: the next one is made of all that came, once.

Guards against a verdict of "0 of 69 failed" after 158 errors that were served while the disk was full.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.control.failing_world import failing_world
from tests.unit.store.failing import Where

SLOW: dict[str, Any] = {
    "steps": (10, 100),
    "step_interval": 60_000,
    "min_requests": 5,
    "smoke_tests": False,
    "dry_run": True,
}


@pytest.mark.parametrize(
    ("where", "statement"), [("begin", 0), ("commit", 0), *(("statement", n) for n in range(3))]
)
async def test_evidence_of_failed_commits_is_judged_by_the_next_one(
    tmp_path: Path, where: Where, statement: int
) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.rollouts.tick()  # starts the clock
        await made.second(answers=20)
        made.disk.fails, made.disk.statement = where, statement
        for _ in range(15):  # more than are kept apart
            await made.failing_second(answers=20, errors=0)
        await made.failing_second(answers=20, errors=2)
        made.disk.fails = None
        assert (await made.stored(deployment)).request_count == 20
        await made.second(answers=20)
        record = await made.stored(deployment)
        assert (record.request_count, record.error_count) == (360, 2)
        await made.second(answers=20)
        assert (await made.stored(deployment)).request_count == 380


async def test_evidence_is_counted_once_when_control_dies_between_failed_commits(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.rollouts.tick()  # starts the clock
        await made.second(answers=20)
        made.disk.fails = "commit"
        for _ in range(3):
            await made.failing_second(answers=20, errors=1)
        made.disk.fails = None
        await made.crash()
        await made.settle()
        await made.second()
        await made.second(answers=20)
        record = await made.stored(deployment)
        assert (record.request_count, record.error_count) == (100, 3)


async def test_rows_for_replay_hold_what_failed_commits_did_not_store(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.rollouts.tick()
        for second in range(24):
            made.disk.fails = "commit" if second % 3 else None
            if made.disk.fails:
                await made.failing_second(answers=20, errors=second % 2)
            else:
                await made.second(answers=20)
        made.disk.fails = None
        await made.second()
        gathered = made.rollouts._in_force.running[deployment].windows.open_row.gathered
        answers, errors = await made.in_rows(deployment)
        answers += sum(cell.answers for cell in gathered.new) if gathered else 0
        errors += sum(sum(cell.errors.values()) for cell in gathered.new) if gathered else 0
        assert (answers, errors) == (24 * 20, 8)


async def test_a_commit_reported_as_failed_and_done_all_the_same_counts_nothing_twice(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.rollouts.tick()
        made.disk.fails = "after commit"
        for _ in range(5):
            await made.second(answers=20, errors=1)
        assert made.disk.failed
        made.disk.fails = None
        await made.second(answers=20)
        record = await made.stored(deployment)
        assert (record.request_count, record.error_count) == (120, 5)
        decisions = (await made.store.decisions(deployment, limit=100)).items
        assert len({(row.at, row.verdict, row.reason) for row in decisions}) == len(decisions)


async def test_users_errors_survive_failed_commits(tmp_path: Path) -> None:
    """Of a sticky service, who met an error is reported once."""
    async with failing_world(tmp_path) as made:
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.rollouts.tick()  # starts the clock
        await made.second(answers=20)
        generation = made.catalog.services["auth"].generation
        made.tally._cohort_errors["auth"] = [("v2", generation, 1000, 7, "500")]
        made.disk.fails = "commit"
        await made.failing_second(answers=20)
        made.disk.fails = None
        windows = made.rollouts._in_force.running[deployment].windows
        assert [key.key for window in windows.pending for key in window.new_keys] == [7]
        await made.second(answers=20)
        assert windows.pending == ()


async def test_totals_of_a_worker_that_ended_are_stored_once_the_disk_works(tmp_path: Path) -> None:
    async with failing_world(tmp_path) as made:
        await made.rollouts.tick()
        made.worker.serve("v1", 1, 10_000, 50)
        made.worker.report(made.tally)
        made.tally.on_ended("worker")
        made.disk.fails = "commit"
        await made.failing_second()
        assert made.tally.has_ended
        made.disk.fails = None
        await made.second()
        assert not made.tally.has_ended
