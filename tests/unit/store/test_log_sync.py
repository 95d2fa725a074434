"""A commit is reported once it is on disk; who waits for that shares the fsync, and holds up no other."""

import asyncio
import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.store import log_sync
from gateway.store.sqlite import SqliteStore
from tests.unit.store.rows import NOW, opened, url


class Disk:
    """The fsyncs of a log, each of which waits until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = 0
        self.fails = False
        self.may_end = threading.Event()
        self.may_end.set()
        self._real = log_sync.fsync
        monkeypatch.setattr(log_sync, "fsync", self._fsync)

    def _fsync(self, descriptor: int) -> None:
        self.began += 1
        if not self.may_end.wait(20):
            raise TimeoutError
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def write(store: SqliteStore, key: str, followed: list[str] | None = None) -> None:
    heard = [] if followed is None else followed
    async with store.transaction() as tx:
        tx.set_meta(key, b"1")
        tx.on_commit(lambda: heard.append(key))


async def until(followed: list[str], count: int) -> None:
    async with asyncio.timeout(20):
        while len(followed) < count:
            await asyncio.sleep(0.001)


async def test_writers_do_not_wait_for_each_others_fsync_and_one_covers_many(
    tmp_path: Path, disk: Disk
) -> None:
    store, followed = await opened(tmp_path / "s.db"), list[str]()
    disk.may_end.clear()
    writers = [asyncio.ensure_future(write(store, f"k{n}", followed)) for n in range(20)]
    await until(followed, 20)
    assert not any(each.done() for each in writers), "nobody hears of a commit that is not on disk"
    disk.may_end.set()
    await asyncio.gather(*writers)
    assert disk.began == 2
    await store.close()


async def test_a_lone_commit_is_on_disk_before_it_is_reported(tmp_path: Path, disk: Disk) -> None:
    store = await opened(tmp_path / "s.db")
    for n in range(1, 4):
        await write(store, "k")
        assert disk.began == n
    assert await store.raise_epoch() == 1
    assert disk.began == 4
    await store.close()


async def test_a_disk_that_fails_for_a_moment_is_waited_for(tmp_path: Path, disk: Disk) -> None:
    store, followed = await opened(tmp_path / "s.db"), list[str]()
    disk.fails = True
    writers = [asyncio.ensure_future(write(store, f"k{n}", followed)) for n in range(5)]
    await until(followed, 5)
    while not store.errors.by_kind["other"]:
        await asyncio.sleep(0.001)
    assert not any(each.done() for each in writers)
    disk.fails = False
    await asyncio.gather(*writers)
    await store.close()


async def test_a_disk_that_fails_for_long_holds_up_nobody_who_has_to_go_on_by_what_is_in_force(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error would say that nothing was changed: a table would not be sent that memory holds already."""
    monkeypatch.setattr(log_sync, "LONGEST_S", 0.2)
    store, followed = await opened(tmp_path / "s.db"), list[str]()
    disk.fails = True
    await asyncio.gather(*(write(store, f"k{n}", followed) for n in range(5)))
    assert [await store.meta(f"k{n}") for n in range(5)] == [b"1"] * 5
    assert store.errors.by_kind["other"], "an alert comes of it"
    await store.close()


async def test_after_a_failed_fsync_no_page_of_that_log_is_counted_on(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fsync succeeds whatever the first one lost: the log is moved into the file instead."""
    moved: list[bool] = []

    def settle(connection: sqlite3.Connection, descriptor: int) -> None:
        real(connection, descriptor)
        moved.append(True)

    real = log_sync.settle
    monkeypatch.setattr(log_sync, "settle", settle)
    store = await opened(tmp_path / "s.db")
    with sqlite3.connect(tmp_path / "s.db", isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM gateway_meta").fetchall()  # it needs the log from here on
        disk.fails = True
        writer = asyncio.ensure_future(write(store, "k1"))
        while not store.errors.by_kind["other"]:
            await asyncio.sleep(0.001)
        disk.fails = False
        failed = store.errors.by_kind["other"]
        while store.errors.by_kind["other"] == failed:
            await asyncio.sleep(0.001)
        assert not moved, "the reader keeps a part of it"
        reader.execute("ROLLBACK")
    reader.close()
    await writer
    while not moved:
        await asyncio.sleep(0.001)
    await write(store, "k2")
    assert moved == [True]
    await store.close()


async def test_a_cancelled_writer_leaves_a_commit_that_is_on_disk_all_the_same(
    tmp_path: Path, disk: Disk
) -> None:
    store, followed = await opened(tmp_path / "s.db"), list[str]()
    disk.may_end.clear()
    writer = asyncio.ensure_future(write(store, "k", followed))
    await until(followed, 1)
    writer.cancel()
    disk.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await writer
    await store.close()
    assert disk.began == 1


async def test_closing_waits_for_the_fsyncs_under_way(tmp_path: Path, disk: Disk) -> None:
    store, followed = await opened(tmp_path / "s.db"), list[str]()
    disk.may_end.clear()
    writer = asyncio.ensure_future(write(store, "k", followed))
    await until(followed, 1)
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    disk.may_end.set()
    await asyncio.gather(writer, closing)
    again = await SqliteStore.open(url(tmp_path / "s.db"), now=NOW)
    assert await again.meta("k") == b"1"
    await again.close()
