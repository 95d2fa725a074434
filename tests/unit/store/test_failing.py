"""A disk that fails: nothing half done, nobody waits for ever, and a commit that was done is known to be."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.errors import StoreBusy, StoreError
from gateway.store import sqlite as module
from gateway.store import turns
from tests.unit.store.failing import Disk, Where, on
from tests.unit.store.rows import opened


async def write(store: module.SqliteStore, value: bytes, followed: list[bytes]) -> None:
    async with store.transaction() as tx:
        tx.set_meta("left", value)
        await tx.flush()
        tx.set_meta("right", value)
        tx.on_commit(lambda: followed.append(value))


@pytest.mark.parametrize("where", ["begin", "statement", "commit"])
@pytest.mark.parametrize("statement", [0, 1, 2])
async def test_what_fails_anywhere_changes_nothing_and_the_next_one_works(
    tmp_path: Path, where: Where, statement: int
) -> None:
    store, disk = await opened(tmp_path / "s.db"), Disk()
    on(disk, store)
    followed: list[bytes] = []
    await write(store, b"1", followed)
    disk.fails, disk.statement = where, statement
    with pytest.raises(StoreError, match="full"):
        await write(store, b"2", followed)
    assert disk.failed
    disk.fails = None
    assert (await store.meta("left"), await store.meta("right")) == (b"1", b"1")
    await write(store, b"3", followed)
    assert (await store.meta("left"), followed) == (b"3", [b"1", b"3"])
    await store.close()


async def test_a_commit_that_was_done_is_no_failure_whatever_was_reported(tmp_path: Path) -> None:
    """Its caller would do it again, and memory would not follow what is stored."""
    store, disk = await opened(tmp_path / "s.db"), Disk()
    on(disk, store)
    followed: list[bytes] = []
    disk.fails = "after commit"
    await write(store, b"1", followed)
    assert disk.failed == 1
    assert (await store.meta("right"), followed) == (b"1", [b"1"])
    await store.close()


async def test_memory_follows_a_done_commit_before_the_next_one_if_nothing_could_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, disk = await opened(tmp_path / "s.db"), Disk()
    on(disk, store)
    followed: list[bytes] = []

    async def unreadable(key: str) -> bytes | None:
        raise StoreError("disk I/O error")

    disk.fails = "after commit"
    with monkeypatch.context() as patch:
        patch.setattr(store, "meta", unreadable)
        with pytest.raises(StoreError):
            await write(store, b"1", followed)
    assert followed == []
    disk.fails = None
    async with store.transaction():
        assert followed == [b"1"], "the next writer decides by what is stored"
    await store.close()


async def test_a_store_that_another_process_holds_is_an_error_within_five_seconds(tmp_path: Path) -> None:
    store = await opened(tmp_path / "s.db")
    with sqlite3.connect(tmp_path / "s.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        started = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(write(store, b"1", []) for _ in range(6)), return_exceptions=True)
        assert {isinstance(each, StoreError) for each in found} == {True}
        assert asyncio.get_running_loop().time() - started < 5.5
        other.execute("ROLLBACK")
    other.close()
    await write(store, b"2", [])
    await store.close()


async def test_so_many_writers_wait_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING", 3)
    store = await opened(tmp_path / "s.db")
    async with store.transaction():
        waiting = [asyncio.ensure_future(write(store, b"%d" % n, [])) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(StoreBusy):
            await write(store, b"4", [])
    await asyncio.gather(*waiting)
    await store.close()
