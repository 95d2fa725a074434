"""The audit chain: no change stays unseen."""

from datetime import timedelta
from typing import Any

import pytest

from gateway.store.records import (
    Retention,
)
from tests.unit.store.rows import NOW, Kept, an_entry


async def with_audit(kept: Kept, rows: int = 6) -> Any:
    store = await kept.opened()
    for n in range(rows):
        async with store.transaction() as tx:
            tx.add_audit(an_entry(n, NOW + timedelta(days=n)))
    return store


async def test_an_untouched_chain_is_sound(kept: Kept) -> None:
    store = await with_audit(kept)
    report = await store.verify_audit()
    assert (report.ok, report.count, report.head_id) == (True, 6, 6)
    newest = (await store.audit(limit=1)).items[0]
    assert (newest.id, newest.hash) == (6, report.head_hash)
    assert newest.details == an_entry(5).details
    await store.close()


async def test_an_empty_chain_is_sound(kept: Kept) -> None:
    store = await kept.opened()
    assert (await store.verify_audit()).ok
    await store.close()


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE gateway_audit SET actor = 'eve' WHERE id = 3", 3),
        ("UPDATE gateway_audit SET allowed = 0 WHERE id = 6", 6),
        ("UPDATE gateway_audit SET details = '{}' WHERE id = 1", 1),
        ("UPDATE gateway_audit SET hash = 'x' WHERE id = 2", 2),
        ("DELETE FROM gateway_audit WHERE id = 4", 5),
        ("DELETE FROM gateway_audit WHERE id <= 2", 2),
        ("DELETE FROM gateway_audit WHERE id >= 5", 5),
        ("DELETE FROM gateway_audit", 1),
    ],
)
async def test_a_change_to_the_chain_is_found(kept: Kept, statement: str, broken_at: int) -> None:
    store = await with_audit(kept)
    kept.change(statement)
    report = await store.verify_audit()
    assert (report.ok, report.broken_at) == (False, broken_at)
    assert report.reason
    await store.close()


async def test_rows_cut_off_the_end_stay_missing_when_others_follow(kept: Kept) -> None:
    store = await with_audit(kept)
    kept.change("DELETE FROM gateway_audit WHERE id >= 5")
    for n in range(3):
        async with store.transaction() as tx:
            tx.add_audit(an_entry(n))
    report = await store.verify_audit()
    assert (report.ok, report.reason) == (False, "row 5 is missing")
    await store.close()


async def test_a_pruned_chain_is_sound_and_says_so(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.prune.STRIDE", 2)
    store = await with_audit(kept)
    deleted = await store.prune(NOW + timedelta(days=9), Retention(audit_days=5))
    assert deleted == {"gateway_audit": 4}
    report = await store.verify_audit()
    assert report.ok, report.reason
    newest = (await store.audit(limit=1)).items[0]
    assert newest.action == "audit.checkpoint"
    assert newest.details["through_id"] == 4
    kept.change("DELETE FROM gateway_audit WHERE id = 5")
    assert not (await store.verify_audit()).ok
    await store.close()
