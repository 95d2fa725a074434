"""The store keeps all or nothing, survives a kill, and says what is wrong with a file it cannot use."""

import asyncio
import os
import signal
import sqlite3
import sys
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.health import HealthSettings
from gateway.core.service import RouteSettings, ServiceSettings
from gateway.core.smoke import SmokeEndpoint, SmokeSettings
from gateway.errors import StaleEpoch, StoreError
from gateway.store import migrations, sqlite
from gateway.store.api import BadCursor, Store, Transaction
from gateway.store.records import (
    AuditEntry,
    BreakerRecord,
    DecisionRecord,
    DeploymentRecord,
    EventRecord,
    HealthCheckRecord,
    Retention,
    ServiceRecord,
    SmokeRecord,
    TokenRecord,
    VersionRecord,
    WindowRecord,
)
from gateway.store.sqlite import SqliteStore
from gateway.store.tables import ALL
from gateway.store.transaction import SqliteTransaction

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def url(path: Path) -> str:
    return f"sqlite:///{path}"


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(url(path), now=NOW)


def a_service(name: str = "auth", **more: Any) -> ServiceRecord:
    settings = ServiceSettings(routes=(RouteSettings(path="/a"),), health=HealthSettings(interval=5))
    return ServiceRecord(
        id=f"id-{name}", name=name, settings=settings, created_at=NOW, updated_at=NOW, **more
    )


def a_version(name: str = "v1", service: str = "auth", **more: Any) -> VersionRecord:
    return VersionRecord(
        id=f"{service}-{name}",
        service_id=f"id-{service}",
        service_name=service,
        version=name,
        url="http://127.0.0.1:1",
        created_at=NOW,
        updated_at=NOW,
        **more,
    )


def a_deployment(id: str, *, at: datetime = NOW, status: Any = "completed", **more: Any) -> DeploymentRecord:
    return DeploymentRecord(
        id=id,
        service_name="auth",
        to_version_id="auth-v1",
        status=status,
        created_at=at,
        updated_at=at,
        **more,
    )


def an_entry(n: int = 0, at: datetime = NOW) -> AuditEntry:
    return AuditEntry(
        at=at, actor="ann", action="x", resource="y", details={"n": n, "nested": {"b": 1, "a": [True]}}
    )


async def with_service(path: Path) -> SqliteStore:
    store = await opened(path)
    async with store.transaction() as tx:
        tx.put_service(a_service())
        tx.put_version(a_version())
    return store


def test_sqlite_store_is_a_store(tmp_path: Path) -> None:
    async def check() -> None:
        store: Store = await opened(tmp_path / "s.db")
        async with store.transaction() as tx:
            _: Transaction = tx
            assert isinstance(tx, SqliteTransaction)
        await store.close()

    run(check())


def test_records_come_back_as_they_were_put(tmp_path: Path) -> None:
    service = a_service(source="file", current_version_id="auth-v1", paused=True, stage=7)
    version = a_version(
        replicas=("http://127.0.0.1:2", "unix:/x"),
        weight=40,
        is_active=True,
        last_health_check=NOW,
        smoke_tests=SmokeSettings(endpoints=(SmokeEndpoint(path="/x", body={"a": [1, None]}),)),
        drain_deadline=NOW + timedelta(seconds=1),
    )
    deployment = a_deployment("d", config={"steps": [1, 2.5]}, state=b'{"a":1}', idempotency_key="k")
    token = TokenRecord(
        id="t", name="ci", role="deployer", prefix="gw_ab", hash="00", created_by="ann", created_at=NOW
    )
    breaker = BreakerRecord(key="auth-v1|u|a", version_id="auth-v1", state=b"{}", updated_at=NOW)
    window = WindowRecord(
        deployment_id="d",
        version_id="auth-v1",
        stage=1,
        share=1000,
        started_at=NOW,
        seconds=10,
        answers=5,
        errors={"502": 1},
        latency={3: 4, 17: 1},
    )
    probe = HealthCheckRecord(
        id="h",
        version_id="auth-v1",
        endpoint="u",
        is_healthy=False,
        response_time=3,
        error_message="no",
        checked_at=NOW,
    )
    smoke = SmokeRecord(
        id="s", version_id="auth-v1", is_healthy=True, response_time=9, tests=[{"ok": True}], at=NOW
    )

    async def check() -> None:
        store = await opened(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.put_version(version)  # before its service: references are checked at the end
            tx.put_service(service)
            tx.put_deployment(deployment)
            tx.put_token(token)
            tx.put_breaker(breaker)
            tx.add_windows([window])
            tx.add_health([probe])
            tx.add_smoke(smoke)
            tx.set_meta("tally", b"\x00\xff")
            event_id = tx.add_event(EventRecord(at=NOW, kind="a.b", service="auth", data={"x": 1}))
            decision_id = tx.add_decision(
                DecisionRecord(deployment_id="d", at=NOW, step=1, verdict="hold", reason="why", data={"n": 1})
            )
        assert await store.load_services() == [service]
        assert await store.load_versions() == [version]
        assert await store.deployment("d") == deployment == await store.deployment_by_key("k")
        assert await store.tokens() == [token]
        assert await store.token_by_hash("00") == token
        assert await store.breakers() == [breaker]
        assert await store.windows(deployment_id="d") == [window] == await store.windows(service="auth")
        assert await store.windows(deployment_id="d", since=NOW + timedelta(seconds=1)) == []
        assert (await store.health("auth-v1")).items == [probe]
        assert (await store.smoke("auth-v1")).items == [smoke]
        assert await store.meta("tally") == b"\x00\xff"
        assert await store.meta("nothing") is None
        assert [event.id for event in await store.events()] == [event_id] == [await store.last_event_id()]
        assert [decision.id for decision in (await store.decisions("d")).items] == [decision_id]
        await store.close()

    run(check())


def test_a_put_replaces_the_row_of_the_same_id(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.put_version(a_version(weight=10))
            tx.put_version(a_version(weight=20))
        assert [version.weight for version in await store.load_versions()] == [20]
        await store.close()

    run(check())


def test_a_failed_block_changes_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        ran = []
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as tx:
                tx.put_service(a_service("other"))
                tx.on_commit(lambda: ran.append(1))
                await tx.flush()
                raise ZeroDivisionError
        assert [service.name for service in await store.load_services()] == ["auth"]
        assert not ran
        async with store.transaction() as tx:
            tx.put_service(a_service("other"))
        assert len(await store.load_services()) == 2
        await store.close()

    run(check())


def test_a_broken_constraint_names_the_file_and_changes_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        with pytest.raises(StoreError, match=r"s\.db: UNIQUE.*name"):
            async with store.transaction() as tx:
                tx.put_service(msgspec.structs.replace(a_service(), id="another"))
        with pytest.raises(StoreError, match=r"s\.db: FOREIGN KEY"):
            async with store.transaction() as tx:
                tx.put_version(a_version(service="nobody"))
        assert len(await store.load_versions()) == 1
        await store.close()

    run(check())


def test_one_open_deployment_per_service(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.put_deployment(a_deployment("1", status="rolling"))
            tx.put_deployment(a_deployment("2", status="completed"))
        with pytest.raises(StoreError, match="UNIQUE"):
            async with store.transaction() as tx:
                tx.put_deployment(a_deployment("3", status="paused"))
        assert [deployment.id for deployment in await store.open_deployments()] == ["1"]
        await store.close()

    run(check())


def test_memory_follows_before_the_next_writer_has_its_turn(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        memory = 0

        async def add_one() -> None:
            nonlocal memory
            async with store.transaction() as tx:
                seen = memory
                tx.set_meta("n", str(seen + 1).encode())

                def follow() -> None:
                    nonlocal memory
                    memory = seen + 1

                tx.on_commit(follow)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(add_one())
        assert memory == 20
        assert await store.meta("n") == b"20"
        await store.close()

    run(check())


def test_all_memory_follows_even_if_one_callback_fails(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        order: list[int] = []
        with pytest.raises(KeyError):
            async with store.transaction() as tx:
                tx.set_meta("x", b"1")
                tx.on_commit(lambda: order.append(1))
                tx.on_commit(lambda: {}["gone"])
                tx.on_commit(lambda: order.append(2))
        assert order == [1, 2]
        assert await store.meta("x") == b"1"
        await store.close()

    run(check())


def test_a_broken_constraint_shows_at_a_flush(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        with pytest.raises(StoreError, match=r"s\.db: UNIQUE"):
            async with store.transaction() as tx:
                tx.put_service(msgspec.structs.replace(a_service(), id="another"))
                await tx.flush()
        await store.close()

    run(check())


def test_a_cancelled_commit_is_finished_and_known(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        left_block = asyncio.Event()
        memory: list[bytes] = []

        async def write() -> None:
            async with store.transaction() as tx:
                tx.set_meta("x", b"1")
                tx.on_commit(lambda: memory.append(b"1"))
                left_block.set()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(write())
            await left_block.wait()
            task.cancel()
        assert (await store.meta("x") == b"1") == (memory == [b"1"])
        async with store.transaction() as tx:
            tx.set_meta("x", b"2")
        assert await store.meta("x") == b"2"
        await store.close()

    run(check())


def test_an_older_epoch_cannot_write(tmp_path: Path) -> None:
    async def check() -> None:
        old = await with_service(tmp_path / "s.db")
        assert await old.raise_epoch() == 1
        new = await opened(tmp_path / "s.db")
        async with old.transaction() as tx:
            tx.set_meta("x", b"old")
        assert await old.is_current()
        assert await new.raise_epoch() == 2 == new.epoch
        assert not await old.is_current()
        assert await new.is_current()
        with pytest.raises(StaleEpoch, match="epoch 2 has begun, this process writes in 1"):
            async with old.transaction() as tx:
                tx.set_meta("x", b"stale")
        async with new.transaction() as tx:
            tx.set_meta("x", await new.meta("x") or b"")
        assert await new.meta("x") == b"old"
        await old.close()
        await new.close()

    run(check())


def test_pages_are_stable_while_rows_are_added(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            for n in range(25):
                tx.put_deployment(a_deployment(f"d{n:02}", at=NOW + timedelta(seconds=n // 3)))
        seen: list[str] = []
        cursor = None
        for added in range(100, 110):
            page = await store.deployments(service="auth", cursor=cursor, limit=7)
            seen += [deployment.id for deployment in page.items]
            async with store.transaction() as tx:
                tx.put_deployment(a_deployment(f"d{added}", at=NOW + timedelta(hours=added)))
            cursor = page.next
            if cursor is None:
                break
        assert seen == [f"d{n:02}" for n in reversed(range(25))]
        await store.close()

    run(check())


@pytest.mark.parametrize("cursor", ["x", "", "WzFd", "eyJhIjoxfQ", "é"])
def test_a_foreign_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    async def check() -> None:
        store = await opened(tmp_path / "s.db")
        with pytest.raises(BadCursor):
            await store.deployments(cursor=cursor)
        await store.close()

    run(check())


def test_filters(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.put_deployment(a_deployment("a", status="failed"))
            tx.put_deployment(a_deployment("b", status="completed"))
            for n in range(5):
                tx.add_event(
                    EventRecord(at=NOW, kind="k", service=f"s{n % 2}", deployment_id="a" if n else None)
                )
            tx.add_audit(an_entry())
        assert [d.id for d in (await store.deployments(status="failed")).items] == ["a"]
        assert (await store.deployments(service="none")).items == []
        assert [event.id for event in await store.events(after=1, service="s1")] == [2, 4]
        assert [event.id for event in await store.events(deployment_id="a", limit=2)] == [2, 3]
        assert len((await store.audit(actor="ann", action="x")).items) == 1
        assert (await store.audit(actor="bob")).items == []
        await store.close()

    run(check())


def test_a_deleted_service_takes_its_versions_along_and_leaves_its_history(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.put_deployment(a_deployment("a"))
            tx.put_breaker(BreakerRecord(key="k", version_id="auth-v1", state=b"", updated_at=NOW))
        async with store.transaction() as tx:
            tx.delete_service("id-auth")
            tx.put_service(a_service())
        assert await store.load_versions() == []
        assert await store.breakers() == []
        assert [service.name for service in await store.load_services()] == ["auth"]
        assert await store.deployment("a") is not None
        await store.close()

    run(check())


def test_a_probe_of_a_deleted_version_is_dropped(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        probes = [
            HealthCheckRecord(
                id=v, version_id=v, endpoint="u", is_healthy=True, response_time=1, checked_at=NOW
            )
            for v in ("auth-v1", "gone")
        ]
        async with store.transaction() as tx:
            tx.add_health(probes)
            tx.put_breaker(BreakerRecord(key="k", version_id="gone", state=b"", updated_at=NOW))
        assert (await store.health("gone")).items == []
        assert len((await store.health("auth-v1")).items) == 1
        assert await store.breakers() == []
        await store.close()

    run(check())


def test_breakers_are_deleted_by_key(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            for key in ("a", "b"):
                tx.put_breaker(BreakerRecord(key=key, version_id="auth-v1", state=b"", updated_at=NOW))
            tx.delete_breakers(["a"])
        assert [breaker.key for breaker in await store.breakers()] == ["b"]
        await store.close()

    run(check())


def test_every_field_of_a_record_has_its_column(tmp_path: Path) -> None:
    async def check() -> None:
        store = await opened(tmp_path / "s.db")
        for table in ALL:
            columns = {row[1] for row in await store.rows(f"PRAGMA table_info({table.name})")}
            assert set(table.columns) <= columns, table.name
        await store.close()

    run(check())


def test_a_row_that_does_not_load_is_named(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        with sqlite3.connect(store.path) as other:
            other.execute("""UPDATE gateway_service_config SET settings = '{"nonsense": 1}'""")
        other.close()
        with pytest.raises(StoreError, match=r"gateway_service_config, row 'id-auth'.*nonsense"):
            await store.load_services()
        await store.close()

    run(check())


# Opening


def test_a_new_store_is_made_with_its_folders_and_is_private(tmp_path: Path) -> None:
    async def check() -> None:
        path = tmp_path / "a" / "b" / "s.db"
        store = await opened(path)
        assert path.stat().st_mode & 0o777 == 0o600
        (mode,), (synchronous,) = [
            [row[0] for row in await store._writer.execute_fetchall(f"PRAGMA {name}")]
            for name in ("journal_mode", "synchronous")
        ]
        assert (mode, synchronous) == ("wal", 2)
        await store.close()

    run(check())


@pytest.mark.parametrize(
    "bad", ["postgres://x", "sqlite://var/x", "sqlite:///", "/tmp/x.db", "sqlite:///a\0b"]
)
def test_a_url_that_names_no_file_is_refused(bad: str) -> None:
    async def check() -> None:
        with pytest.raises(StoreError, match="not a store url"):
            await SqliteStore.open(bad, now=NOW)

    run(check())


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
def test_an_unusable_file_is_named_with_the_reason(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "sub" / "s.db"
    path.parent.mkdir()
    spoil(path)

    async def check() -> None:
        with pytest.raises(StoreError, match=rf"s\.db: .*({reason})"):
            await opened(path)

    run(check())


def test_a_folder_that_cannot_be_written_is_named_with_the_reason() -> None:
    async def check() -> None:
        with pytest.raises(StoreError, match=r"/proc/gateway/s\.db: "):
            await SqliteStore.open("sqlite:////proc/gateway/s.db", now=NOW)

    run(check())


def test_a_store_of_a_newer_release_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.set_meta("compatible_from", b"9")
        await store.close()
        with pytest.raises(StoreError, match=rf"s\.db: .*schema 9 or newer.*schema {migrations.SCHEMA}"):
            await opened(tmp_path / "s.db")

    run(check())


def test_a_newer_schema_that_is_still_compatible_is_opened_and_left_as_it_is(tmp_path: Path) -> None:
    async def check() -> None:
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

    run(check())


def test_an_edited_migration_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = msgspec.structs.replace(migrations.MIGRATIONS[0], statements=("SELECT 1",))

    async def check() -> None:
        await (await opened(tmp_path / "s.db")).close()
        monkeypatch.setattr(sqlite, "MIGRATIONS", (edited,))
        with pytest.raises(StoreError, match=r"s\.db: migration 1 \(initial\) was applied in another form"):
            await opened(tmp_path / "s.db")

    run(check())


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = migrations.Migration(2, "bad", ("CREATE TABLE half (id)", "CREATE NONSENSE"))

    async def check() -> None:
        await (await with_service(tmp_path / "s.db")).close()
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "MIGRATIONS", (*migrations.MIGRATIONS, bad))
            with pytest.raises(StoreError, match="syntax error"):
                await opened(tmp_path / "s.db")
        store = await opened(tmp_path / "s.db")
        assert not await store.rows("SELECT 1 FROM sqlite_master WHERE name = 'half'")
        assert len(await store.load_services()) == 1
        await store.close()

    run(check())


# Crashes

_WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from gateway.store.sqlite import SqliteStore

async def main(url, ends):
    store = await SqliteStore.open(url, now=datetime(2026, 1, 1, tzinfo=UTC))
    for n in range(1, 1_000_000):
        async with store.transaction() as tx:
            tx.set_meta("left", b"%d" % n)
            await tx.flush()
            tx.set_meta("right", b"%d" % n)
            if ends == "inside" and n == 3:
                await tx.flush()
                print("inside", flush=True)
                await asyncio.Event().wait()
        print(n, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def _writer(path: Path, ends: str) -> asyncio.subprocess.Process:
    root = Path(__file__).parents[3]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, url(path), ends, stdout=asyncio.subprocess.PIPE, cwd=root
    )


async def _kill_after(process: asyncio.subprocess.Process, line: bytes) -> int:
    """Kill the writer once it has printed `line`. Returns the last number it had reported as committed."""
    assert process.stdout is not None
    committed = 0
    while (said := (await process.stdout.readline()).strip()) != line:
        committed = int(said)
    os.kill(process.pid, signal.SIGKILL)
    rest = (await process.stdout.read()).split()
    await process.wait()
    return max(
        [committed, *(int(word) for word in rest if word.isdigit()), int(line) if line.isdigit() else 0]
    )


def test_a_writer_killed_inside_a_transaction_leaves_the_old_state(tmp_path: Path) -> None:
    async def check() -> None:
        path = tmp_path / "s.db"
        assert await _kill_after(await _writer(path, "inside"), b"inside") == 2
        store = await opened(path)
        assert (await store.meta("left"), await store.meta("right")) == (b"2", b"2")
        async with store.transaction() as tx:
            tx.set_meta("left", b"mine")
        assert await store.meta("left") == b"mine"
        await store.close()

    run(check())


def test_a_writer_killed_anywhere_loses_nothing_it_reported(tmp_path: Path) -> None:
    async def check() -> None:
        path = tmp_path / "s.db"
        committed = await _kill_after(await _writer(path, "never"), b"25")
        store = await opened(path)
        left, right = await store.meta("left"), await store.meta("right")
        assert left == right
        assert int(left or b"0") in (committed, committed + 1)
        await store.close()

    run(check())


# Pruning


def test_pruning_keeps_the_newest_probes_of_each_endpoint(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.add_health(
                HealthCheckRecord(
                    id=str(uuid.uuid4()),
                    version_id="auth-v1",
                    endpoint=endpoint,
                    is_healthy=True,
                    response_time=n,
                    checked_at=NOW + timedelta(seconds=n),
                )
                for endpoint in ("a", "b")
                for n in range(12 if endpoint == "a" else 3)
            )
        deleted = await store.prune(NOW, Retention(health_checks_per_endpoint=5))
        assert deleted == {"gateway_health_check": 7}
        kept = [(probe.endpoint, probe.response_time) for probe in (await store.health("auth-v1")).items]
        assert sorted(kept) == [("a", n) for n in range(7, 12)] + [("b", n) for n in range(3)]
        await store.close()

    run(check())


def test_pruning_forgets_by_age_and_never_gives_an_event_id_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.prune.STRIDE", 4)

    async def check() -> None:
        store = await with_service(tmp_path / "s.db")
        async with store.transaction() as tx:
            tx.put_deployment(a_deployment("d"))
            for n in range(10):
                at = NOW + timedelta(days=n)
                tx.add_event(EventRecord(at=at, kind="k"))
                tx.add_decision(DecisionRecord(deployment_id="d", at=at, step=0, verdict="hold", reason=""))
                tx.add_windows(
                    [
                        WindowRecord(
                            deployment_id="d",
                            version_id="v",
                            stage=1,
                            share=1,
                            started_at=at,
                            seconds=1,
                            answers=1,
                        )
                    ]
                )
        keep = Retention(events_days=3, decisions_days=2, windows_days=1)
        deleted = await store.prune(NOW + timedelta(days=9), keep)
        assert deleted == {"gateway_event": 6, "gateway_decision": 7, "gateway_window": 8}
        assert [event.id for event in await store.events()] == [7, 8, 9, 10]
        await store.prune(NOW + timedelta(days=90), keep)
        async with store.transaction() as tx:
            assert tx.add_event(EventRecord(at=NOW, kind="k")) == 11
        await store.close()

    run(check())


# The audit chain


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


def test_an_untouched_chain_is_sound(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_audit(tmp_path / "s.db")
        report = await store.verify_audit()
        assert (report.ok, report.count, report.head_id) == (True, 6, 6)
        newest = (await store.audit(limit=1)).items[0]
        assert (newest.id, newest.hash) == (6, report.head_hash)
        assert newest.details == an_entry(5).details
        await store.close()

    run(check())


def test_an_empty_chain_is_sound(tmp_path: Path) -> None:
    async def check() -> None:
        store = await opened(tmp_path / "s.db")
        assert (await store.verify_audit()).ok
        await store.close()

    run(check())


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
def test_a_change_to_the_chain_is_found(tmp_path: Path, statement: str, broken_at: int) -> None:
    async def check() -> None:
        store = await with_audit(tmp_path / "s.db")
        tamper(store, statement)
        report = await store.verify_audit()
        assert (report.ok, report.broken_at) == (False, broken_at)
        assert report.reason
        await store.close()

    run(check())


def test_rows_cut_off_the_end_stay_missing_when_others_follow(tmp_path: Path) -> None:
    async def check() -> None:
        store = await with_audit(tmp_path / "s.db")
        tamper(store, "DELETE FROM gateway_audit WHERE id >= 5")
        for n in range(3):
            async with store.transaction() as tx:
                tx.add_audit(an_entry(n))
        report = await store.verify_audit()
        assert (report.ok, report.reason) == (False, "row 5 is missing")
        await store.close()

    run(check())


def test_a_pruned_chain_is_sound_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.prune.STRIDE", 2)

    async def check() -> None:
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

    run(check())
