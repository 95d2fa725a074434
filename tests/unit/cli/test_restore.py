"""A backup is looked through before it is trusted, and takes a store's place only while nobody uses that."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.exits import FAILED, OK
from gateway.control.processes.lock import StoreLock
from tests.unit.store.rows import an_entry, with_service


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A backup with a service and three audit rows."""
    target = tmp_path / "backup.db"

    async def make() -> None:
        store = await with_service(tmp_path / "origin.db")
        for _ in range(3):
            async with store.transaction() as tx:
                tx.add_audit(an_entry())
        await store.backup(target)
        await store.close()

    asyncio.run(make())
    return target


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, str]:
    """Where a store is to be, and the configuration that says so."""
    file = tmp_path / "gateway.toml"
    file.write_text(f"[store]\nurl = 'sqlite:///{tmp_path}/var/gateway.db'\n")
    return tmp_path / "var" / "gateway.db", str(file)


def test_a_sound_backup_says_what_it_holds_and_is_left_alone(cli: Any, copy: Path, capsys: Any) -> None:
    before = copy.read_bytes()
    assert cli("restore", str(copy), "--check", "-o", "json") == OK
    found = json.loads(capsys.readouterr().out)
    assert (found["services"], found["auditRows"], found["auditOk"], found["problem"]) == (1, 3, True, "")
    assert copy.read_bytes() == before
    assert [each.name for each in copy.parent.iterdir() if each.name.startswith("backup.db")] == ["backup.db"]


def test_a_backup_whose_trail_was_changed_should_not_be_used(
    cli: Any, copy: Path, place: tuple[Path, str], capsys: Any
) -> None:
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE gateway_audit SET actor = 'nobody' WHERE id = 2")
    connection.close()
    assert cli("restore", str(copy), "--check") == FAILED
    assert "audit trail, row 2" in capsys.readouterr().out
    assert cli("restore", str(copy), "--config", place[1]) == FAILED
    assert not place[0].exists()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"not a store at all" * 100])
def test_what_is_no_backup_is_one_line(cli: Any, tmp_path: Path, content: bytes, capsys: Any) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(content)
    assert cli("restore", str(file), "--check") == FAILED
    said = capsys.readouterr().err
    assert said.startswith("gateway: ")
    assert said.count("\n") == 1


def test_a_backup_takes_the_place_of_a_store_that_nobody_uses(
    cli: Any, copy: Path, place: tuple[Path, str], capsys: Any
) -> None:
    store, file = place
    store.parent.mkdir()
    store.write_bytes(b"old")
    store.with_name("gateway.db-wal").write_bytes(b"old log")
    lock = StoreLock.acquire(store.parent)
    assert cli("restore", str(copy), "--config", file) == FAILED
    assert "one gateway a store" in capsys.readouterr().err
    assert store.read_bytes() == b"old"
    lock.release()
    assert cli("restore", str(copy), "--config", file) == OK
    assert store.read_bytes() == copy.read_bytes()
    assert store.stat().st_mode & 0o777 == 0o600
    assert not store.with_name("gateway.db-wal").exists(), "another store's log would be played on it"
    kept = sorted(each.name for each in store.parent.glob("gateway.db.2*"))
    assert len(kept) == 2
    assert (store.parent / kept[0]).read_bytes() == b"old"


def test_a_damaged_backup_is_named_and_not_the_copy_that_was_opened(
    cli: Any, copy: Path, capsys: Any
) -> None:
    """Guards: it named a file of a temporary folder that was gone by then."""
    copy.write_bytes(copy.read_bytes()[:3000])
    assert cli("restore", str(copy), "--check") == FAILED
    err = capsys.readouterr().err
    assert f"{copy}: the file is damaged" in err
    assert "gateway-restore-" not in err
