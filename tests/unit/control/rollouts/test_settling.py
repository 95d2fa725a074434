"""What nobody judged for too long is stored as rolled back before anybody is told to go forward."""

from pathlib import Path

import pytest

from gateway.control.isolation import Isolation
from gateway.core.rollout.isolation import Lease
from gateway.errors import StoreError
from gateway.store.sqlite import SqliteStore
from tests.unit.control.failing_world import FailingWorld, failing_world
from tests.unit.control.rollouts.test_unstored import rolling, stored_status


def under(made: FailingWorld, monkeypatch: pytest.MonkeyPatch, lease: Lease) -> list[float]:
    """Have the store's lease be this. Returns what workers are told."""
    told: list[float] = []
    made.rollouts.isolation = Isolation(30.0, told.append, list)
    monkeypatch.setattr(SqliteStore, "lease", lease)
    return told


@pytest.mark.parametrize(("vacant_s", "status"), [(None, "rolling"), (30, "rolling"), (31, "rolled_back")])
async def test_a_time_without_anybody_in_charge_ends_what_was_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vacant_s: float | None, status: str
) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        told = under(made, monkeypatch, Lease(7.0, is_ours=True, vacant_s=vacant_s))
        await made.rollouts.tick()
        await made.settle()
        assert await stored_status(made, deployment) == status
        assert told == [7.0]
        if status == "rolled_back":
            stored = await made.stored(deployment)
            assert (stored.error_message or "").startswith("isolated: no gateway was in charge for 31 s")
            assert made.rollouts.counts.rollbacks == {("auth", "isolated"): 1}


async def test_nobody_is_told_to_go_forward_while_that_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with failing_world(tmp_path) as made:
        deployment = await rolling(made)
        told = under(made, monkeypatch, Lease(7.0, is_ours=True, vacant_s=31.0))
        made.disk.fails = "commit"
        with pytest.raises(StoreError):
            await made.rollouts.tick()
        assert told == []
        made.disk.fails = None
        await made.rollouts.tick()
        await made.settle()
        assert told == [7.0]
        assert await stored_status(made, deployment) == "rolled_back"
