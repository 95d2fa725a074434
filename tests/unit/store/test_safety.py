"""A file that is deleted, replaced, damaged or cut back is noticed, and as much as possible made good."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from gateway.control.store_watch import BROKEN, HEAD_NAME, StoreWatch
from gateway.errors import StoreDamaged, StoreError
from gateway.store.records import AuditEntry
from gateway.store.sqlite import SqliteStore
from tests.unit.store.rows import NOW, an_entry, opened


async def audited(store: SqliteStore, rows: int) -> None:
    for n in range(rows):
        async with store.transaction() as tx:
            tx.add_audit(an_entry(n))


def watch(store: SqliteStore, folder: Path) -> StoreWatch:
    return StoreWatch(store, folder, lambda: NOW)


async def test_a_deleted_file_is_written_anew_with_its_audit_trail(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await opened(path)
    await audited(store, 3)
    seen = watch(store, tmp_path)
    for each in tmp_path.glob("s.db*"):
        each.unlink()
    await seen.look()
    assert seen.problem == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await audited(store, 1)
    await store.close()
    again = await opened(path)
    report = await again.verify_audit()
    assert (report.ok, report.count) == (True, 4)
    await again.close()


async def test_looking_at_a_deleted_store_makes_no_empty_one(tmp_path: Path) -> None:
    """It would be taken for the store at the next start."""
    path = tmp_path / "s 100%?#.db"
    store = await opened(path)
    await audited(store, 2)
    path.unlink()
    for look in (store.verify_audit(), store.damage(), store.backup(tmp_path / "copy.db")):
        with pytest.raises(StoreError):
            await look
    assert await store.place() == "gone"
    await store.put_back()
    assert (await store.verify_audit()).count == 2
    await store.close()


async def test_reads_go_on_while_a_file_is_put_back(tmp_path: Path) -> None:
    store = await opened(tmp_path / "s.db")
    await audited(store, 2)
    (tmp_path / "s.db").unlink()
    reads = [asyncio.ensure_future(store.audit()) for _ in range(20)]
    await store.put_back()
    reads += [asyncio.ensure_future(store.audit()) for _ in range(20)]
    assert {len(page.items) for page in await asyncio.gather(*reads)} == {2}
    await store.close()


async def test_a_file_that_cannot_be_put_back_is_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    store = await opened(folder / "s.db")
    seen = watch(store, folder)
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    with pytest.raises(Exception, match=r"s\.db"):
        await seen.look()
    assert "deleted" in seen.problem
    folder.mkdir()
    await seen.look()
    assert seen.problem == ""
    await store.close()


async def test_another_file_in_its_place_is_left_alone_and_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await opened(path)
    seen = watch(store, tmp_path)
    (tmp_path / "other").write_bytes(b"mine")
    (tmp_path / "other").replace(path)
    await seen.look()
    assert "another file" in seen.problem
    assert path.read_bytes() == b"mine"
    await store.close()


async def test_a_damaged_file_stops_a_start_and_is_noticed_in_a_running_one(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await opened(path)
    await audited(store, 200)
    seen = watch(store, tmp_path)
    await seen.look_through()
    assert seen.problem == ""
    await store.close()
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 4096):
        raw[at : at + 64] = b"\xff" * 64
    path.write_bytes(raw)
    with pytest.raises(StoreDamaged, match="gateway backup"):
        await opened(path)
    path.write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(StoreDamaged, match="gateway backup"):
        await opened(path)


async def test_a_backup_is_whole_private_and_holds_nobody_up(tmp_path: Path) -> None:
    store = await opened(tmp_path / "s.db")
    await audited(store, 5)
    async with store.transaction() as tx:
        tx.add_audit(an_entry(9))
        await tx.flush()
        await store.backup(tmp_path / "copy.db")
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    copy = await opened(tmp_path / "copy.db")
    report = await copy.verify_audit()
    assert (report.ok, report.count) == (True, 5)
    await copy.close()
    await store.close()


async def begun(path: Path) -> tuple[SqliteStore, StoreWatch]:
    store = await opened(path)
    seen = watch(store, path.parent)
    await seen.begin()
    return store, seen


async def test_a_trail_that_goes_on_is_fine(tmp_path: Path) -> None:
    store, seen = await begun(tmp_path / "s.db")
    await audited(store, 3)
    await seen.write_head()
    await audited(store, 2)  # a kill may leave the head behind
    await store.close()
    store, seen = await begun(tmp_path / "s.db")
    assert seen.audit.ok
    await store.close()


@pytest.mark.parametrize("how", ["deleted", "cut back", "rewritten"])
async def test_a_trail_that_ends_elsewhere_is_broken_until_looked_into(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s.db"
    store, seen = await begun(path)
    await audited(store, 4)
    await seen.write_head()
    await store.close()
    if how == "deleted":
        path.unlink()
    else:
        with sqlite3.connect(path) as database:
            if how == "cut back":
                database.execute("DELETE FROM gateway_audit WHERE id > 2")
                database.execute("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'gateway_audit'")
            else:
                database.execute("UPDATE gateway_audit SET hash = 'x' WHERE id = 4")
        database.close()
    for _ in range(2):  # a restart does not make it good
        store, seen = await begun(path)
        assert (seen.audit.ok, seen.audit.row) == (False, 4)
        rows = (await store.audit(action=BROKEN)).items
        assert len(rows) == 1
        assert rows[0].details["lastId"] == 4
        await store.close()
    store, seen = await begun(path)
    await seen.acknowledge(AuditEntry(at=NOW, actor="ann", action="audit.acknowledge", resource="audit"))
    await store.close()
    store, seen = await begun(path)
    assert seen.audit.ok
    await store.close()


async def test_a_head_that_cannot_be_read_is_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / HEAD_NAME).write_text("{")
    store, seen = await begun(tmp_path / "s.db")
    assert seen.audit.ok
    await store.close()


async def test_tokens_are_known_without_the_disk(tmp_path: Path) -> None:
    from gateway.store.records import TokenRecord

    store = await opened(tmp_path / "s.db")
    record = TokenRecord(
        id="t", name="ci", role="deployer", prefix="gw_ab", hash="00", created_by="ann", created_at=NOW
    )
    assert await store.token_by_hash("00") is None
    async with store.transaction() as tx:
        tx.put_token(record)
    await store._reader.close()
    assert await store.token_by_hash("00") == record
    await store.close()
