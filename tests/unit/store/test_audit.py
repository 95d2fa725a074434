"""The audit chain: no change stays unseen."""

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.store.records import (
    Retention,
)
from gateway.store.sqlite import SqliteStore
from tests.unit.store.rows import NOW, an_entry, opened


async def with_audit(path: Path, rows: int = 6) -> SqliteStore:
    store = await opened(path)
    for n in range(rows):
        async with store.transaction() as tx:
            tx.add_audit(an_entry(n, NOW + timedelta(days=n)))
    return store


def tamper(store: SqliteStore, statement: str) -> None:
    connection = sqlite3.connect(store.path)
    with connection:
        connection.execute(statement)
    connection.close()


async def test_an_untouched_chain_is_sound(tmp_path: Path) -> None:
    store = await with_audit(tmp_path / "s.db")
    report = await store.verify_audit()
    assert (report.ok, report.count, report.head_id) == (True, 6, 6)
    newest = (await store.audit(limit=1)).items[0]
    assert (newest.id, newest.hash) == (6, report.head_hash)
    assert newest.details == an_entry(5).details
    await store.close()


async def test_an_empty_chain_is_sound(tmp_path: Path) -> None:
    store = await opened(tmp_path / "s.db")
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
async def test_a_change_to_the_chain_is_found(tmp_path: Path, statement: str, broken_at: int) -> None:
    store = await with_audit(tmp_path / "s.db")
    tamper(store, statement)
    report = await store.verify_audit()
    assert (report.ok, report.broken_at) == (False, broken_at)
    assert report.reason
    await store.close()


async def test_rows_cut_off_the_end_stay_missing_when_others_follow(tmp_path: Path) -> None:
    store = await with_audit(tmp_path / "s.db")
    tamper(store, "DELETE FROM gateway_audit WHERE id >= 5")
    for n in range(3):
        async with store.transaction() as tx:
            tx.add_audit(an_entry(n))
    report = await store.verify_audit()
    assert (report.ok, report.reason) == (False, "row 5 is missing")
    await store.close()


async def test_a_pruned_chain_is_sound_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.prune.STRIDE", 2)
    store = await with_audit(tmp_path / "s.db")
    deleted = await store.prune(NOW + timedelta(days=9), Retention(audit_days=5))
    assert deleted == {"gateway_audit": 4}
    report = await store.verify_audit()
    assert report.ok, report.reason
    newest = (await store.audit(limit=1)).items[0]
    assert newest.action == "audit.checkpoint"
    assert newest.details["through_id"] == 4
    tamper(store, "DELETE FROM gateway_audit WHERE id = 5")
    assert not (await store.verify_audit()).ok
    await store.close()
