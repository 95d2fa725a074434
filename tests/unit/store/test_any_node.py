"""What any of several gateways on one database writes, and that each decides by what is stored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gateway.cluster.feed import Feed
from gateway.cluster.unread import Unread
from gateway.errors import ConfigError, NotFollowed, NotInCharge, StaleEpoch, StoreBusy, StoreSetBack
from gateway.store.postgres.store import is_lost
from gateway.store.records import DecisionRecord, EventRecord
from tests import postgres
from tests.unit.store.rows import NOW, Kept, a_deployment, an_entry, put_service

TIMES = 40


class Counter:
    """A gateway that has one number in memory, and counts it up by what it has there."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.number = 0
        self.read: list[Unread] = []
        self.error: Exception | None = None

    async def begin(self) -> "Counter":
        await self.store.know()
        self.number = await self.stored()
        self.feed = Feed(self.store, self._read, self._apply)
        return self

    async def _read(self, what: Unread) -> None:
        self.read.append(what)
        if self.error is not None:
            raise self.error
        self.number = await self.stored()

    async def _apply(self) -> None:
        pass

    async def stored(self) -> int:
        return int(await self.store.meta("count") or b"0")

    async def count(self) -> None:
        async with self.store.transaction(anywhere=True) as tx:
            after = self.number + 1
            await asyncio.sleep(0)
            tx.set_meta("count", str(after).encode())
            tx.on_commit(lambda: setattr(self, "number", after))


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Counter, Counter]]:
    """Return one in charge, and one that follows."""
    store, other = await Kept(url).opened(), await Kept(url).opened()
    await store.claim("1", "a")
    other.follows = True
    try:
        yield await Counter(store).begin(), await Counter(other).begin()
    finally:
        await store.close()
        await other.close()


@pytest.fixture
def database() -> str:
    return postgres.shared().migrated()


async def test_a_gateway_alone_has_nobody_to_catch_up_with(kept: Kept) -> None:
    store = await kept.opened()
    await store.refresh()
    async with store.transaction(anywhere=True) as tx:
        tx.set_meta("count", b"1")
    async with store.turn():
        writing = asyncio.ensure_future(put_service(store))
        await asyncio.sleep(0.02)
        assert not writing.done()
    await writing
    await store.close()


@postgres.needs_postgres
async def test_what_either_counts_is_never_lost(database: str) -> None:
    """As with one writer: whoever begins a transaction has in memory what the other one has stored."""
    async with two(database) as (leader, follower):

        async def count(counter: Counter) -> None:
            for _ in range(TIMES):
                await counter.count()
                await asyncio.sleep(0)

        await asyncio.gather(count(leader), count(follower))
        assert await leader.stored() == 2 * TIMES
        await asyncio.gather(leader.feed.look(), follower.feed.look())
        assert leader.number == follower.number == 2 * TIMES
        assert leader.feed.applied == follower.feed.applied == leader.store.known


@postgres.needs_postgres
async def test_ones_own_commits_are_not_read_again(database: str) -> None:
    async with two(database) as (leader, follower):
        for _ in range(3):
            await leader.count()
        await leader.feed.look()
        assert leader.read == []
        await follower.count()
        assert follower.read == [Unread(settings=True)]
        await leader.count()
        assert leader.read == [Unread(settings=True)]


@postgres.needs_postgres
async def test_what_cannot_be_followed_is_decided_by_nobody(database: str) -> None:
    async with two(database) as (leader, follower):
        await leader.count()
        follower.error = ConfigError("service 'a': tls", "no such file")
        with pytest.raises(NotFollowed, match="no such file"):
            await follower.count()
        assert await follower.stored() == 1
        follower.error = None
        await follower.count()
        assert await leader.stored() == 2


@postgres.needs_postgres
async def test_a_follower_writes_what_is_for_anywhere_and_one_that_lost_the_lease_nothing(
    database: str,
) -> None:
    async with two(database) as (leader, follower):
        with pytest.raises(NotInCharge):
            await put_service(follower.store)
        await follower.count()
        await leader.store.release()
        await follower.store.claim("2", "b")
        await put_service(follower.store)
        with pytest.raises(StaleEpoch):
            await leader.count()
        with pytest.raises(StaleEpoch):
            await put_service(leader.store)
        assert await follower.stored() == 1


@postgres.needs_postgres
async def test_whoever_is_frozen_in_a_transaction_loses_it_to_the_next(database: str) -> None:
    """Its session ends for idling about when the first wait for its lock does: the second one gets it."""
    async with two(database) as (leader, follower):
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def freeze() -> None:
            async with leader.store.transaction() as tx:
                tx.set_meta("count", b"100")
                begun.set()
                await goes_on.wait()

        frozen = asyncio.ensure_future(freeze())
        await begun.wait()
        try:
            async with asyncio.timeout(30):
                while await follower.stored() == 0:
                    with suppress(StoreBusy):  # a machine that is busy, too
                        await follower.count()
        finally:
            goes_on.set()
        with pytest.raises(Exception, match="postgresql://"):
            await frozen
        assert await follower.stored() == 1
        await leader.count()
        assert await follower.stored() == 2


@postgres.needs_postgres
async def test_a_commit_that_was_done_unanswered_is_found_behind_another_ones(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(database) as (leader, follower):
        await leader.count()
        store = leader.store
        followed = []

        async def in_doubt() -> None:
            async with store.transaction() as tx:
                tx.set_meta("count", b"2")
                tx.on_commit(lambda: followed.append("ours"))
                commit = tx.commit

                async def unanswered(mark: bytes) -> None:
                    await commit(mark)
                    raise TimeoutError

                async def nobody() -> bool:
                    raise TimeoutError

                monkeypatch.setattr(tx, "commit", unanswered)
                monkeypatch.setattr(store, "_is_settled", nobody)
                store._in_doubt = (f"{store.epoch}.{store._run}.{store._commits + 1}", tx)

        with pytest.raises(TimeoutError):
            await in_doubt()
        monkeypatch.undo()
        assert followed == []
        await follower.count()
        await leader.count()
        assert followed == ["ours"]
        assert await leader.stored() == leader.number == 4


@postgres.needs_postgres
async def test_a_commit_of_ours_that_is_lost_ends_us(database: str) -> None:
    async with two(database) as (leader, follower):
        await leader.count()
        await follower.count()
        await leader.count()
        gone = f"DELETE FROM gateway_change WHERE revision = {leader.store.revision}"
        await asyncio.to_thread(postgres.shared().sql, gone, database)
        with pytest.raises(StoreSetBack):
            await leader.count()
        await follower.count()


@pytest.mark.parametrize(
    ("ours", "found", "oldest", "lost"),
    [
        (None, None, 0, False),
        ((5, "m"), "m", 0, False),
        ((5, "m"), "n", 0, True),
        ((5, "m"), None, 0, True),
        ((5, "m"), None, 5, True),
        ((5, "m"), None, 6, False),  # pruned
    ],
)
def test_which_commit_of_ours_is_lost(
    ours: tuple[int, str] | None, found: str | None, oldest: int, lost: bool
) -> None:
    assert is_lost(ours, found, oldest) is lost


async def test_what_was_decided_names_the_gateway_where_several_share_the_store(kept: Kept) -> None:
    store = await kept.with_service()
    store.node = "b"
    decided = DecisionRecord(deployment_id="d", at=NOW, step=0, verdict="start", reason="", data={"n": 1})
    async with store.transaction() as tx:
        tx.put_deployment(a_deployment("d"))
        tx.add_event(EventRecord(at=NOW, kind="service.paused"))
        tx.add_decision(decided)
        tx.add_audit(an_entry())
    (event,), (entry,) = await store.events(after=0), (await store.audit()).items
    (decision,) = (await store.decisions("d")).items
    named = {"node": "b"} if store.is_shared else {}
    assert event.node == decision.node == named.get("node")
    assert decision.data == decided.data | named
    assert entry.details == an_entry().details | named
    assert (await store.verify_audit()).ok
    await store.close()


@postgres.needs_postgres
async def test_whoever_followed_until_now_writes_in_an_epoch_of_its_own(database: str) -> None:
    """Of two processes in one place the first came to be in charge while the second one started."""
    async with two(database) as (leader, follower):
        await leader.store.raise_epoch()
        await follower.store.claim("1", "a")
        await follower.count()
        assert await follower.store.is_current()
        with pytest.raises(StaleEpoch):
            await leader.count()
