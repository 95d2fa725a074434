"""A store is made private, brought up to date, or refused with the file and the reason."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gateway.errors import StoreError
from gateway.store import migrations, sqlite
from gateway.store.sqlite import SqliteStore
from tests.unit.store.rows import NOW, a_version, opened, with_service


async def test_a_new_store_is_made_with_its_folders_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "s.db"
    store = await opened(path)
    assert path.stat().st_mode & 0o777 == 0o600
    (mode,), (synchronous,) = [
        [row[0] for row in await store._writer.execute_fetchall(f"PRAGMA {name}")]
        for name in ("journal_mode", "synchronous")
    ]
    assert (mode, synchronous) == ("wal", 1), "what a commit needs beyond that is in `log_sync.py`"
    await store.close()


@pytest.mark.parametrize(
    "bad", ["postgres://x", "sqlite://var/x", "sqlite:///", "/tmp/x.db", "sqlite:///a\0b"]
)
async def test_a_url_that_names_no_file_is_refused(bad: str) -> None:
    with pytest.raises(StoreError, match="not a store url"):
        await SqliteStore.open(bad, now=NOW)


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"These are not the rows you are looking for. " * 100)


def _directory(path: Path) -> None:
    path.mkdir()


def _parent_is_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_not_a_database, "file is not a database"),
        (_directory, "is a directory"),
        (_parent_is_a_file, "exists|[Nn]ot a directory"),
    ],
)
async def test_an_unusable_file_is_named_with_the_reason(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "sub" / "s.db"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(StoreError, match=rf"s\.db: .*({reason})"):
        await opened(path)


async def test_a_folder_that_cannot_be_written_is_named_with_the_reason() -> None:
    with pytest.raises(StoreError, match=r"/proc/gateway/s\.db: "):
        await SqliteStore.open("sqlite:////proc/gateway/s.db", now=NOW)


async def test_a_store_of_a_newer_release_is_refused_with_both_numbers(tmp_path: Path) -> None:
    store = await with_service(tmp_path / "s.db")
    async with store.transaction() as tx:
        tx.set_meta("compatible_from", b"9")
    await store.close()
    with pytest.raises(StoreError, match=rf"s\.db: .*schema 9 or newer.*schema {migrations.SCHEMA}"):
        await opened(tmp_path / "s.db")


async def test_a_newer_schema_that_is_still_compatible_is_opened_and_left_as_it_is(tmp_path: Path) -> None:
    store = await with_service(tmp_path / "s.db")
    async with store.transaction() as tx:
        tx.set_meta("schema", b"9")
        await tx.execute("ALTER TABLE gateway_service_version ADD COLUMN later TEXT")
        await tx.execute("UPDATE gateway_service_version SET later = 'kept'")
        await tx.execute("INSERT INTO gateway_migration VALUES (9, 'later', 'x', 'then')")
    await store.close()
    again = await opened(tmp_path / "s.db")
    async with again.transaction() as tx:
        tx.put_version(a_version(weight=1))
    assert await again.meta("schema") == b"9"
    assert [row[0] for row in await again.rows("SELECT later FROM gateway_service_version")] == ["kept"]
    await again.close()


async def test_an_edited_migration_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = msgspec.structs.replace(migrations.MIGRATIONS[0], statements=("SELECT 1",))
    await (await opened(tmp_path / "s.db")).close()
    monkeypatch.setattr(sqlite, "MIGRATIONS", (edited,))
    with pytest.raises(StoreError, match=r"s\.db: migration 1 \(initial\) was applied in another form"):
        await opened(tmp_path / "s.db")


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = migrations.Migration(9, "bad", ("CREATE TABLE half (id)", "CREATE NONSENSE"))
    await (await with_service(tmp_path / "s.db")).close()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "MIGRATIONS", (*migrations.MIGRATIONS, bad))
        with pytest.raises(StoreError, match="syntax error"):
            await opened(tmp_path / "s.db")
    store = await opened(tmp_path / "s.db")
    assert not await store.rows("SELECT 1 FROM sqlite_master WHERE name = 'half'")
    assert len(await store.load_services()) == 1
    await store.close()
