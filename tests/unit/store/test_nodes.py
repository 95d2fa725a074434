"""What several gateways on one database know of its changes, and of each other."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.cluster.unread import ALL, NOTHING, Unread, unread
from gateway.core.rollout.isolation import Then, on_return
from gateway.errors import NotInCharge, StaleEpoch, StoreBusy, StoreError
from gateway.store.records import (
    ANY_VERSION,
    EVENTS,
    EVERYTHING,
    SETTINGS,
    CatalogRows,
    Changes,
    EventRecord,
    NodeRecord,
    Position,
    ServedRecord,
    TokenRecord,
)
from tests import postgres
from tests.unit.store.rows import NOW, Kept, a_deployment, a_service, a_version, an_entry, put_service

NODE = NodeRecord(id="1", name="a", release="0.1", listen=("0.0.0.0:80", "[::]:80"), admin="127.0.0.1:4201")
TOKEN = TokenRecord(id="t", name="ci", role="viewer", prefix="p", hash="h4sh", created_by="a", created_at=NOW)


@pytest.fixture
def database() -> str:
    return postgres.shared().migrated()


async def write(store: Any, value: bytes = b"1") -> None:
    async with store.transaction() as tx:
        tx.set_meta("left", value)


# -- in any store


async def test_a_revision_is_a_commit_of_this_process(kept: Kept) -> None:
    store = await kept.opened()
    before = store.revision
    await put_service(store)
    await write(store)
    with pytest.raises(RuntimeError):
        async with store.transaction() as tx:
            tx.put_service(a_service("b"))
            raise RuntimeError
    assert store.revision == before + 2
    assert (await store.changes(store.revision)).at.revision == store.revision
    await store.close()


async def test_a_gateway_alone_is_the_leader_and_goes_by_what_is_stored(kept: Kept) -> None:
    store = await kept.opened()
    assert await store.nodes() == []
    assert abs(store.now() - datetime.now(UTC)) < timedelta(minutes=1)
    await store.claim(NODE.id, NODE.name)
    await write(store)
    await store.beat(replace(NODE, applied_revision=store.revision))
    (seen,) = await store.nodes()
    assert (seen.id, seen.name, seen.listen, seen.admin) == (NODE.id, "a", NODE.listen, NODE.admin)
    assert seen.applied_revision == seen.wanted_revision == store.revision > 0
    assert (seen.is_leader, seen.is_silent, seen.is_isolated) == (True, False, False)
    assert abs(seen.last_seen - datetime.now(UTC)) < timedelta(minutes=1)
    await store.leave(NODE.id)
    assert await store.nodes() == []
    await store.close()


async def test_services_are_read_with_what_belongs_to_them(kept: Kept) -> None:
    store = await kept.opened()
    async with store.transaction() as tx:
        for name in ("auth", "blog"):
            tx.put_service(a_service(name))
            tx.put_version(a_version(service=name))
        tx.put_deployment(a_deployment("over"))
        tx.put_deployment(a_deployment("open", status="paused"))
    everything = await store.load_catalog()
    assert [each.name for each in everything.services] == ["auth", "blog"]
    assert [each.id for each in everything.versions] == ["auth-v1", "blog-v1"]
    assert [each.id for each in everything.deployments] == ["open"]
    assert await store.load_catalog({"blog", "none"}) == CatalogRows(
        everything.services[1:], everything.versions[1:], []
    )
    await store.close()


# -- in a database


@postgres.needs_postgres
async def test_each_commit_says_what_of_it_others_have_in_memory(database: str) -> None:
    store = await Kept(database).opened()
    async with store.transaction() as tx:
        tx.put_service(a_service("it's"))
        tx.put_version(a_version(service="it's"))
    async with store.transaction() as tx:
        tx.put_service(a_service())
        tx.put_version(a_version())
        tx.put_deployment(a_deployment("d"))
        tx.add_event(EventRecord(at=NOW, kind="k"))
    async with store.transaction() as tx:
        tx.put_token(TOKEN)
        tx.add_audit(an_entry())
    async with store.transaction() as tx:
        tx.add_audit(an_entry())
    async with store.transaction() as tx:
        tx.delete_version("auth-v1")
    async with store.transaction() as tx:
        tx.delete_service("id-auth")
    log = (await store.changes(0)).log
    assert [each.topics for each in log] == [
        (EVERYTHING,),
        ("service:it's",),
        (EVENTS, "service:auth"),
        (SETTINGS,),
        (),
        (EVERYTHING,),
        (EVERYTHING,),
    ]
    assert [each.revision for each in log] == list(range(7))
    await store.close()


@postgres.needs_postgres
async def test_who_follows_reads_what_changed_and_only_that(database: str) -> None:
    store, other = await Kept(database).opened(), await Kept(database).opened()
    await put_service(store)
    at = await position(other)
    await put_service(store)
    assert (await unread_of(other, at)) == Unread(services=frozenset({"auth"}))
    at = await position(other)
    assert (await unread_of(other, at)) == NOTHING
    await store.close()
    await other.close()


@postgres.needs_postgres
async def test_a_commit_of_an_older_release_has_everything_read(database: str) -> None:
    store = await Kept(database).opened()
    await write(store)
    at = await position(store)
    await asyncio.to_thread(
        postgres.shared().sql,
        "UPDATE gateway_meta SET value = '\\x31' WHERE key = 'commit'",
        database,
    )
    assert (await unread_of(store, at)) == ALL
    at = await position(store)
    assert (await unread_of(store, at)) == NOTHING
    store._newest = None  # as a process that begins
    await write(store)
    assert (await unread_of(store, at)) == ALL
    await store.close()


@postgres.needs_postgres
async def test_the_log_is_pruned_by_age_and_its_newest_row_stays(database: str) -> None:
    store = await Kept(database).opened()
    for _ in range(3):
        await write(store)
    at = await position(store)
    aged = "UPDATE gateway_change SET at = at - interval '2 hours'"
    await asyncio.to_thread(postgres.shared().sql, aged, database)
    assert (await store.prune(NOW))["gateway_change"] >= 4
    changes = await store.changes(0)
    assert changes.log[-1].revision == changes.at.revision > at.revision
    assert unread(at, changes) == ALL
    await store.close()


@pytest.fixture
def mortal() -> Iterator[postgres.Server]:
    server = postgres.Server()
    server.start()
    server.migrated_template()
    yield server
    server.remove()


@postgres.needs_postgres
async def test_revisions_taken_back_have_everything_read(mortal: postgres.Server) -> None:
    """Files put back are on the same timeline, and the numbers that are lost come again."""
    url = mortal.migrated()
    store = await Kept(url).opened()
    await write(store)
    await asyncio.to_thread(mortal.stop)
    await asyncio.to_thread(mortal.keep)
    await asyncio.to_thread(mortal.start)
    early = await position(store)
    await write(store)
    at = await position(store)
    await store.close()
    await asyncio.to_thread(mortal.go_back)
    again = await Kept(url).opened()
    assert (await unread_of(again, early)) == NOTHING
    assert (await unread_of(again, at)) == ALL
    await write(again)
    assert (await position(again)).revision == at.revision
    assert (await unread_of(again, at)) == ALL
    assert (await unread_of(again, early)) == Unread(settings=True)
    await again.close()


@postgres.needs_postgres
async def test_a_commit_is_heard_of_also_after_the_session_was_cut(database: str) -> None:
    store, other = await Kept(database).opened(), await Kept(database).opened()
    heard = asyncio.Event()
    other.on_change(lambda revision: heard.set())
    await other.beat(NODE)
    for is_cut in (False, True):
        if is_cut:
            ends = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE '%gateway_node%' AND pid <> pg_backend_pid()"
            )
            await asyncio.to_thread(postgres.shared().sql, ends, database)
            async with asyncio.timeout(30):
                while True:
                    try:
                        await other.beat(NODE)
                        break
                    except Exception:
                        await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            await heard.wait()
            heard.clear()
            await write(store)
            await heard.wait()
        heard.clear()
    await store.close()
    await other.close()


@postgres.needs_postgres
async def test_nodes_see_each_other_by_the_clock_of_the_database(database: str) -> None:
    store, other = await Kept(database).opened(), await Kept(database).opened()
    await store.claim("1", "a")
    await write(store)
    await store.beat(replace(NODE, applied_revision=store.revision))
    await other.beat(replace(NODE, id="2", name="b"))
    seen = {each.name: each for each in await other.nodes()}
    assert {name: each.is_leader for name, each in seen.items()} == {"a": True, "b": False}
    assert {name: each.is_silent for name, each in seen.items()} == {"a": False, "b": False}
    assert {name: each.applied_revision for name, each in seen.items()} == {"a": store.revision, "b": None}
    assert {each.wanted_revision for each in seen.values()} == {store.revision}
    ages = "UPDATE gateway_node SET seen_at = seen_at - interval '4 seconds' WHERE id = '2'"
    await asyncio.to_thread(postgres.shared().sql, ages, database)
    assert [each.is_silent for each in await store.nodes()] == [False, True]
    async with store.transaction() as tx:
        tx.delete_node("2")
    assert [each.id for each in await store.nodes()] == ["1"]
    await store.release()
    await store.beat(replace(NODE, draining=(ANY_VERSION,)))
    (stops,) = await other.nodes()
    assert (stops.is_leader, stops.is_stopping) == (False, True)
    await store.leave("1")
    assert await other.nodes() == [], "who leaves in order is missed by nobody"
    await store.close()
    await other.close()


@postgres.needs_postgres
async def test_who_follows_can_write_nothing_until_it_is_in_charge(database: str) -> None:
    """Opened while the other one was in charge, it has the same epoch: that alone would let it write."""
    store, other = await Kept(database).opened(), await Kept(database).opened()
    await store.claim("1", "a")
    await store.raise_epoch()
    other.follows, other.epoch = True, store.epoch
    with pytest.raises(NotInCharge):
        await write(other)
    assert await other.token_by_hash("h4sh") is None
    async with store.transaction() as tx:
        tx.put_token(TOKEN)
    await other.reread_tokens()
    assert await other.token_by_hash("h4sh") == TOKEN
    await store.release()
    await other.claim("2", "b")
    await write(other)
    with pytest.raises(StaleEpoch):
        await write(store)
    await store.close()
    await other.close()


@postgres.needs_postgres
async def test_a_node_is_isolated_when_it_said_that_it_would_be(database: str) -> None:
    store = await Kept(database).opened()
    for in_s, is_isolated in ((None, False), (30.0, False), (-3.0, True)):
        await store.beat(replace(NODE, isolated_in_s=in_s))
        assert [each.is_isolated for each in await store.nodes()] == [is_isolated]
    await store.close()


@postgres.needs_postgres
async def test_a_node_says_what_drains_there_and_one_of_an_older_release_does_not(database: str) -> None:
    store = await Kept(database).opened()
    for draining in (None, (), ("v1", "v2")):
        await store.beat(replace(NODE, draining=draining))
        assert [each.draining for each in await store.nodes()] == [draining]
    for older in ("schema_number = 9, ", ""):  # the first releases did not even say of which schema they are
        await store.beat(replace(NODE, draining=("v1",)))
        _renewed(database, older)
        left = [each.draining for each in await store.nodes()]
        assert left == [None], "what is left in its row is not its own"
    _renewed(database, "schema_number = 10, ")
    assert [each.draining for each in await store.nodes()] == [("v1",)]
    await store.close()


def _renewed(url: str, its_own: str) -> None:
    """Let the nodes' rows be renewed by an older release, which names its own columns."""
    postgres.shared().sql(f"UPDATE gateway_node SET {its_own}seen_at = clock_timestamp()", url)


@postgres.needs_postgres
async def test_for_how_long_nobody_was_in_charge_is_known_until_what_follows_is_stored(database: str) -> None:
    store, other = await Kept(database).opened(), await Kept(database).opened()
    assert not (await other.changes(0)).lease.is_held
    await store.claim("1", "a")
    assert store.lease.is_ours
    assert store.lease.vacant_s is None
    assert (await other.changes(0)).lease.vacant_s is None
    assert on_return((await other.changes(0)).lease, 30) is Then.FOLLOW

    await away(database, 40)
    assert on_return((await other.changes(0)).lease, 30) is Then.WAIT
    await store._lease.renew()
    assert 40 <= store.lease.vacant_s < 70
    assert on_return(store.lease, 30) is Then.ROLL_BACK
    assert on_return((await other.changes(0)).lease, 30) is Then.WAIT, "it is not stored yet"

    await away(database, 40)
    await other.claim("2", "b")
    assert 80 <= other.lease.vacant_s < 110, "whoever was in charge between has stored nothing"
    with pytest.raises(StaleEpoch):
        await store.settle(80)
    await other.settle(20)
    assert other.lease.vacant_s is not None, "it was longer than what was decided by"
    await other.settle(other.lease.vacant_s)
    assert other.lease.vacant_s is None
    await other._lease.renew()
    assert other.lease.vacant_s is None
    assert on_return((await store.changes(0)).lease, 30) is Then.FOLLOW

    await other.release()
    await store.claim("1", "a")
    assert 0 <= store.lease.vacant_s < 30
    assert on_return(store.lease, 30) is Then.FOLLOW
    await store.close()
    await other.close()


@postgres.needs_postgres
async def test_a_renewal_that_the_database_is_too_busy_for_ends_nobody(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncpg

    store = await Kept(database).opened()
    await store.claim("1", "a")
    renew, outcomes = store._lease.renew, []

    async def watched() -> None:
        try:
            await renew()
        except StoreError as exc:
            outcomes.append(type(exc))
            raise
        outcomes.append(None)

    async def until(outcome: type[StoreError] | None) -> None:
        async with asyncio.timeout(30):
            while not outcomes or outcomes[-1] is not outcome:
                await asyncio.sleep(0.02)

    monkeypatch.setattr(store._lease, "renew", watched)
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("SELECT FROM gateway_lease FOR UPDATE")
        holding = asyncio.ensure_future(store.hold())
        await until(StoreBusy)
    await until(None)
    assert not holding.done()
    holding.cancel()
    await other.close()
    await store.close()


async def away(database: str, seconds: int) -> None:
    """Let the lease be as if its holder had been heard of last so long ago."""
    ages = (
        f"UPDATE gateway_lease SET renewed_at = clock_timestamp() - interval '{seconds} seconds', "
        f"vacated_at = vacated_at - interval '{seconds} seconds', lapses_at = clock_timestamp()"
    )
    await asyncio.to_thread(postgres.shared().sql, ages, database)


async def position(store: Any) -> Position:
    changes: Changes = await store.changes(0)
    return changes.at


async def unread_of(store: Any, at: Position) -> Unread:
    return unread(at, await store.changes(at.revision))


# -- what followers have served


def served(deployment: str, run: str, serial: int, data: bytes = b"x", node: str = "n") -> ServedRecord:
    return ServedRecord(deployment_id=deployment, run=run, node=node, serial=serial, data=data)


@postgres.needs_postgres
async def test_what_a_follower_has_served_is_said_beside_all_commits(database: str) -> None:
    one, two = await Kept(database).opened(), await Kept(database).opened()
    await put_service(one)
    async with one.transaction() as tx:
        tx.put_deployment(a_deployment("open", status="rolling"))
    before = (await one.changes(0)).at
    two.follows = True
    await two.put_served([])
    await two.put_served([served("open", "r", 1), served("gone", "r", 1)])
    assert await one.served([]) == [served("open", "r", 1), served("gone", "r", 1)]
    await two.put_served([served("open", "r", 2, b"more"), served("open", "s", 1)])
    known = [served("gone", "r", 1), served("open", "r", 1)]
    assert await one.served(known) == [served("open", "r", 2, b"more"), served("open", "s", 1)]
    assert (await one.changes(0)).at == before, "no revision, no notification"
    await one.drop_served()
    assert await one.served([]) == [served("open", "r", 2, b"more"), served("open", "s", 1)]
    await one.claim("n", "a")
    await one.drop_served()
    assert await one.served([]) == [], "the one in charge has it in its own counts"
    await one.close()
    await two.close()


async def test_a_gateway_alone_is_told_of_nobody(tmp_path: Path) -> None:
    store = await Kept(f"sqlite:///{tmp_path / 's.db'}").opened()
    assert not store.is_shared
    await store.put_served([served("open", "r", 1)])
    assert await store.served([]) == []
    await store.drop_served()
    await store.close()
