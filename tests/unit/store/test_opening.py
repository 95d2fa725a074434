"""A store is made private, brought up to date, or refused with the file and the reason."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.errors import StaleEpoch, StoreError
from gateway.store import migrating as migrating_file
from gateway.store import migrations
from gateway.store.postgres import migrating
from gateway.store.records import DecisionRecord, EventRecord, NodeRecord, ServedRecord
from gateway.store.sqlite import SqliteStore
from gateway.store.tables import ALL
from tests import postgres
from tests.unit.store.rows import (
    NOW,
    Kept,
    a_deployment,
    a_service,
    a_version,
    an_entry,
    opened,
    put_service,
    url,
    with_service,
)


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
        tx.set_meta("compatible_from", b"99")
    await store.close()
    with pytest.raises(StoreError, match=rf"s\.db: .*schema 99 or newer.*schema {migrations.SCHEMA}"):
        await opened(tmp_path / "s.db")


async def test_a_newer_schema_that_is_still_compatible_is_opened_and_left_as_it_is(tmp_path: Path) -> None:
    store = await with_service(tmp_path / "s.db")
    async with store.transaction() as tx:
        tx.set_meta("schema", b"99")
        await tx.execute("ALTER TABLE gateway_service_version ADD COLUMN later TEXT")
        await tx.execute("UPDATE gateway_service_version SET later = 'kept'")
        await tx.execute("INSERT INTO gateway_migration VALUES (99, 'later', 'x', 'then')")
    await store.close()
    again = await opened(tmp_path / "s.db")
    async with again.transaction() as tx:
        tx.put_version(a_version(weight=1))
    assert await again.meta("schema") == b"99"
    assert [row[0] for row in await again.rows("SELECT later FROM gateway_service_version")] == ["kept"]
    await again.close()


async def test_an_edited_migration_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = msgspec.structs.replace(migrations.MIGRATIONS[0], statements=("SELECT 1",))
    await (await opened(tmp_path / "s.db")).close()
    monkeypatch.setattr(migrating_file, "MIGRATIONS", (edited,))
    with pytest.raises(StoreError, match=r"s\.db: migration 1 \(initial\) was applied in another form"):
        await opened(tmp_path / "s.db")


async def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = migrations.Migration(99, "bad", ("CREATE TABLE half (id)", "CREATE NONSENSE"))
    await (await with_service(tmp_path / "s.db")).close()
    with monkeypatch.context() as patch:
        patch.setattr(migrating_file, "MIGRATIONS", (*migrations.MIGRATIONS, bad))
        with pytest.raises(StoreError, match="syntax error"):
            await opened(tmp_path / "s.db")
    store = await opened(tmp_path / "s.db")
    assert not await store.rows("SELECT 1 FROM sqlite_master WHERE name = 'half'")
    assert len(await store.load_services()) == 1
    await store.close()


async def test_a_release_goes_on_while_a_later_one_has_added_to_the_store(kept: Kept) -> None:
    """As in an upgrade node by node: N has migrated, N-1 writes and reads on, and starts again."""
    later = migrations.SCHEMA + 1
    store = await kept.with_service()
    await _use(store, 0)  # statements are prepared once for each session
    for table in ALL:
        kept.change(f"ALTER TABLE {table.name} ADD COLUMN later TEXT")
    kept.change("CREATE TABLE gateway_later (id TEXT PRIMARY KEY)")
    async with store.transaction() as tx:
        tx.set_meta("schema", str(later).encode())
    kept.change(f"INSERT INTO gateway_migration VALUES ({later}, 'later', 'x', 'then')")
    await _use(store, 1)
    await store.raise_epoch()
    await store.close()
    again = await kept.opened()
    await _use(again, 2)
    assert await again.meta("schema") == str(later).encode(), "it is left as it is"
    assert [each.kind for each in await again.events(after=0)] == ["0", "1", "2"]
    await again.close()


async def _use(store: Any, n: int) -> None:
    """Write a row of most tables, and read them."""
    async with store.transaction() as tx:
        tx.put_service(a_service())
        tx.put_version(a_version(weight=n))
        tx.put_deployment(a_deployment(f"d{n}"))
        tx.add_event(EventRecord(at=NOW, kind=str(n)))
        tx.add_decision(
            DecisionRecord(deployment_id=f"d{n}", at=NOW, step=0, verdict="go", reason="it is well")
        )
        tx.add_audit(an_entry(n))
    rows = await store.load_catalog()
    assert [each.weight for each in rows.versions] == [n]
    assert (await store.newest_events(limit=1))[0].kind == str(n)
    assert await store.deployment(f"d{n}") == a_deployment(f"d{n}")
    assert (await store.verify_audit()).ok


async def test_a_release_that_cannot_live_with_a_later_schema_says_so_while_it_runs(kept: Kept) -> None:
    store = await kept.with_service()
    kept.change("UPDATE gateway_meta SET value = '99' WHERE key = 'compatible_from'")
    with pytest.raises(StaleEpoch, match=rf"{kept.label}it needs a gateway with schema 99 or newer"):
        await put_service(store)
    assert len(await store.load_services()) == 1
    store.follows = True
    if store.is_shared:  # it writes what is ordered there; that it does not lead is no reason to end
        with pytest.raises(StoreError, match="schema 99 or newer") as refused:
            async with store.transaction(anywhere=True):
                pass
        assert not isinstance(refused.value, StaleEpoch)
    with pytest.raises(StaleEpoch, match=rf"^{kept.label}it needs a gateway with schema 99 or newer"):
        await store.raise_epoch()
    assert await store.meta("epoch") == b"0"
    await store.close()
    with pytest.raises(StoreError, match="schema 99 or newer"):
        await kept.opened()


@contextmanager
def a_later_release(monkeypatch: pytest.MonkeyPatch, module: Any, steps: str) -> Iterator[int]:
    """Be a release whose schema no earlier one can use, for the block. Returns the schema's number.

    module: what migrates. steps: where it has them.
    """
    number = migrations.SCHEMA + 1
    narrower = migrations.Migration(number, "narrower", ("CREATE TABLE narrower (id TEXT)",))
    signature = (("schema", b"%d" % number), ("compatible_from", b"%d" % number))
    with monkeypatch.context() as later:
        later.setattr(module, steps, (*getattr(module, steps), narrower))
        later.setattr(module, "COMPATIBLE_FROM", number)
        later.setattr(migrations, "SCHEMA", number)
        later.setattr(module, "SCHEMA", number)
        later.setattr(module, "SIGNATURE", signature)
        yield number


async def test_a_file_is_not_taken_from_an_older_release_that_runs_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor in an upgrade opens the file long before it is in charge: the old control ended by that."""
    older = await with_service(tmp_path / "s.db")
    its_schema = migrations.SCHEMA
    with a_later_release(monkeypatch, migrating_file, "MIGRATIONS") as number:
        for beside in (0, its_schema):
            with pytest.raises(StoreError, match=rf"s\.db: no gateway before schema {number} .*: stop it"):
                await SqliteStore.open(url(tmp_path / "s.db"), now=NOW, beside=beside)
        await put_service(older)  # goes on as if nothing had been
        await (await SqliteStore.open(url(tmp_path / "s.db"), now=NOW, beside=number)).close()
        again = await SqliteStore.open(url(tmp_path / "s.db"), now=NOW, beside=its_schema)
        await again.close()  # nothing is taken from it any more
    with pytest.raises(StaleEpoch, match=f"schema {number} or newer"):
        await put_service(older)
    await older.close()


@postgres.needs_postgres
async def test_a_database_is_not_taken_from_older_gateways_that_live_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept(postgres.shared().migrated())
    older = await kept.opened()
    node = NodeRecord(id="1", name="a", release="1.0", listen=(), admin="")
    with a_later_release(monkeypatch, migrating, "STEPS") as number:
        refused = rf"before schema {number} .*these live: 'a': stop them"

        async def is_left_to_it() -> None:
            with pytest.raises(StoreError, match=refused):
                await kept.opened()
            await put_service(older)  # goes on as if nothing had been

        await older.beat(node)
        for column in ("seen_at", "schema_at"):
            kept.change(f"UPDATE gateway_node SET {column} = {column} + interval '1 hour'")
        await is_left_to_it()
        # It was a later release's for a while, and is of one now that says of no schema.
        kept.change(
            f"UPDATE gateway_node SET schema_number = {number}, schema_at = seen_at - interval '1 minute'"
        )
        await is_left_to_it()
        await older.leave("1")
        await older.claim("1", "a")  # of one that has no row
        kept.change("UPDATE gateway_lease SET lapses_at = lapses_at + interval '1 hour'")
        await is_left_to_it()
        await older.release()
        await (await kept.opened()).close()
    await refuses_all(older, node, f"schema {number} or newer")
    await older.close()


async def refuses_all(store: Any, node: NodeRecord, why: str) -> None:
    """See that a release which a later one has shut out writes nothing, and says why."""
    said = ServedRecord(deployment_id="d", run="r", node="1", serial=1, data=b"")
    for write in (
        lambda: put_service(store),
        store.raise_epoch,
        lambda: store.claim("1", "a"),
        lambda: store.beat(node),
        lambda: store.put_served([said]),
    ):
        with pytest.raises(StaleEpoch, match=why):
            await write()
    assert (await store.nodes(), await store.served([])) == ([], [])
    assert not (await store.changes(0)).lease.is_held


@postgres.needs_postgres
async def test_a_lease_is_not_renewed_nor_taken_by_a_release_that_is_shut_out() -> None:
    kept = Kept(postgres.shared().migrated())
    store, other = await kept.opened(), await kept.opened()
    await store.claim("1", "a")
    kept.change("UPDATE gateway_meta SET value = '99' WHERE key = 'compatible_from'")
    with pytest.raises(StaleEpoch, match="schema 99 or newer"):
        await store.hold()
    with pytest.raises(StaleEpoch, match="schema 99 or newer"):
        await store.settle(0)
    with pytest.raises(StaleEpoch, match="schema 99 or newer"):
        await other.claim("2", "b")  # at once, not when the lease has lapsed
    await store.close()
    await other.close()
