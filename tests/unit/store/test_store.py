"""A store keeps all or nothing, and gives back what it was given: each adapter."""

import asyncio
import re
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from gateway.core.settings.smoke import SmokeEndpoint, SmokeSettings
from gateway.errors import StaleEpoch, StoreError
from gateway.store.api import BadCursor, Store, Transaction
from gateway.store.records import (
    AcknowledgementRecord,
    BreakerRecord,
    DecisionRecord,
    EventRecord,
    HealthCheckRecord,
    SmokeRecord,
    StatisticRecord,
    TokenRecord,
    WindowRecord,
)
from gateway.store.tables import ALL
from gateway.store.transaction import Collected
from tests.unit.store.rows import NOW, Kept, a_deployment, a_service, a_version, an_entry


def broken(kept: Kept, constraint: str) -> str:
    """Return what the error about a broken constraint says."""
    return f"{re.escape(kept.label)}(?i:.*{constraint})"


async def test_every_adapter_is_a_store(kept: Kept) -> None:
    store: Store = await kept.opened()
    async with store.transaction() as tx:
        _: Transaction = tx
        assert isinstance(tx, Collected)
    await store.close()


async def test_records_come_back_as_they_were_put(kept: Kept) -> None:
    service = a_service(source="file", current_version_id="auth-v1", paused=True, generation=7)
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
        generation=1,
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
    statistic = StatisticRecord(
        deployment_id="d",
        at=NOW,
        step=1,
        percent=10,
        verdict="hold",
        gate="requests",
        statistic=1.5,
        limit=200.0,
    )
    acknowledged = AcknowledgementRecord(deployment_id="d", at=NOW, actor="ann", note="seen", event_id=7)
    store = await kept.opened()
    async with store.transaction() as tx:
        tx.put_version(version)  # before its service: references are checked at the end
        tx.put_service(service)
        tx.put_deployment(deployment)
        tx.put_token(token)
        tx.put_breaker(breaker)
        tx.add_windows([window])
        tx.add_statistic(statistic)
        tx.put_acknowledgement(replace(acknowledged, note="first"))
        tx.put_acknowledgement(acknowledged)
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
    assert await store.statistics("d") == [statistic]
    assert await store.statistics("d", since=NOW + timedelta(seconds=1)) == []
    assert await store.acknowledgements(["d", "e"]) == {"d": acknowledged}
    assert (await store.health("auth-v1")).items == [probe]
    assert (await store.smoke("auth-v1")).items == [smoke]
    assert await store.meta("tally") == b"\x00\xff"
    assert await store.meta("nothing") is None
    assert [event.id for event in await store.events()] == [event_id] == [await store.last_event_id()]
    assert [decision.id for decision in (await store.decisions("d")).items] == [decision_id]
    await store.close()


async def test_a_put_replaces_the_row_of_the_same_id(kept: Kept) -> None:
    store = await kept.with_service()
    async with store.transaction() as tx:
        tx.put_version(a_version(weight=10))
        tx.put_version(a_version(weight=20))
    assert [version.weight for version in await store.load_versions()] == [20]
    await store.close()


async def test_a_failed_block_changes_nothing(kept: Kept) -> None:
    store = await kept.with_service()
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


async def test_a_broken_constraint_names_the_file_and_changes_nothing(kept: Kept) -> None:
    store = await kept.with_service()
    with pytest.raises(StoreError, match=broken(kept, "unique.*name")):
        async with store.transaction() as tx:
            tx.put_service(msgspec.structs.replace(a_service(), id="another"))
    with pytest.raises(StoreError, match=broken(kept, "foreign key")):
        async with store.transaction() as tx:
            tx.put_version(a_version(service="nobody"))
    assert len(await store.load_versions()) == 1
    await store.close()


async def test_one_open_deployment_per_service(kept: Kept) -> None:
    store = await kept.with_service()
    async with store.transaction() as tx:
        tx.put_deployment(a_deployment("1", status="rolling"))
        tx.put_deployment(a_deployment("2", status="completed"))
    with pytest.raises(StoreError, match=broken(kept, "unique")):
        async with store.transaction() as tx:
            tx.put_deployment(a_deployment("3", status="paused"))
    assert [deployment.id for deployment in await store.open_deployments()] == ["1"]
    await store.close()


async def test_memory_follows_before_the_next_writer_has_its_turn(kept: Kept) -> None:
    store = await kept.with_service()
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


async def test_all_memory_follows_even_if_one_callback_fails(kept: Kept) -> None:
    store = await kept.with_service()
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


async def test_a_broken_constraint_shows_at_a_flush(kept: Kept) -> None:
    store = await kept.with_service()
    with pytest.raises(StoreError, match=broken(kept, "unique")):
        async with store.transaction() as tx:
            tx.put_service(msgspec.structs.replace(a_service(), id="another"))
            await tx.flush()
    await store.close()


async def test_a_cancelled_commit_is_finished_and_known(kept: Kept) -> None:
    store = await kept.with_service()
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


async def test_an_older_epoch_cannot_write(kept: Kept) -> None:
    old = await kept.with_service()
    assert await old.raise_epoch() == 1
    new = await kept.opened()
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


async def test_an_epoch_that_was_taken_back_goes_on_from_what_the_other_has_left(kept: Kept) -> None:
    """The successor of an upgrade may die after it has written."""
    old, new = await kept.with_service(), await kept.opened()
    await old.raise_epoch()
    async with old.transaction() as tx:
        tx.set_meta("x", b"old")
    await new.raise_epoch()
    async with new.transaction() as tx:
        tx.set_meta("x", b"new")
    await old.raise_epoch()
    async with old.transaction() as tx:
        tx.set_meta("y", b"old")
    assert (await old.meta("x"), await old.meta("y")) == (b"new", b"old")
    await old.close()
    await new.close()


async def test_pages_are_stable_while_rows_are_added(kept: Kept) -> None:
    store = await kept.with_service()
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


@pytest.mark.parametrize("cursor", ["x", "", "WzFd", "eyJhIjoxfQ", "é"])
async def test_a_foreign_cursor_is_refused(kept: Kept, cursor: str) -> None:
    store = await kept.opened()
    with pytest.raises(BadCursor):
        await store.deployments(cursor=cursor)
    await store.close()


async def test_filters(kept: Kept) -> None:
    store = await kept.with_service()
    async with store.transaction() as tx:
        tx.put_deployment(a_deployment("a", status="failed"))
        tx.put_deployment(a_deployment("b", status="completed"))
        for n in range(5):
            tx.add_event(EventRecord(at=NOW, kind="k", service=f"s{n % 2}", deployment_id="a" if n else None))
        tx.add_audit(an_entry())
    assert [d.id for d in (await store.deployments(status="failed")).items] == ["a"]
    assert (await store.deployments(service="none")).items == []
    assert [event.id for event in await store.events(after=1, service="s1")] == [2, 4]
    assert [event.id for event in await store.events(deployment_id="a", limit=2)] == [2, 3]
    assert len((await store.audit(actor="ann", action="x")).items) == 1
    assert (await store.audit(actor="bob")).items == []
    await store.close()


async def test_a_deleted_service_takes_its_versions_along_and_leaves_its_history(kept: Kept) -> None:
    store = await kept.with_service()
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


async def test_a_probe_of_a_deleted_version_is_dropped(kept: Kept) -> None:
    store = await kept.with_service()
    probes = [
        HealthCheckRecord(id=v, version_id=v, endpoint="u", is_healthy=True, response_time=1, checked_at=NOW)
        for v in ("auth-v1", "gone")
    ]
    async with store.transaction() as tx:
        tx.add_health(probes)
        tx.put_breaker(BreakerRecord(key="k", version_id="gone", state=b"", updated_at=NOW))
    assert (await store.health("gone")).items == []
    assert len((await store.health("auth-v1")).items) == 1
    assert await store.breakers() == []
    await store.close()


async def test_breakers_are_deleted_by_key(kept: Kept) -> None:
    store = await kept.with_service()
    async with store.transaction() as tx:
        for key in ("a", "b"):
            tx.put_breaker(BreakerRecord(key=key, version_id="auth-v1", state=b"", updated_at=NOW))
        tx.delete_breakers(["a"])
    assert [breaker.key for breaker in await store.breakers()] == ["b"]
    await store.close()


async def test_every_field_of_a_record_has_its_column(kept: Kept) -> None:
    store = await kept.opened()
    for table in ALL:
        await store.rows(f"SELECT {', '.join(table.stored.values())} FROM {table.name}")
    await store.close()


async def test_a_row_that_does_not_load_is_named(kept: Kept) -> None:
    store = await kept.with_service()
    kept.change("""UPDATE gateway_service_config SET settings = '{"nonsense": 1}'""")
    with pytest.raises(StoreError, match=r"gateway_service_config, row 'id-auth'.*nonsense"):
        await store.load_services()
    await store.close()
