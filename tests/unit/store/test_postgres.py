"""What can only go wrong between a gateway and a database: lost answers, frozen servers, others in charge."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.control.store_watch import StoreWatch
from gateway.core.settings.store_url import label_of, secrets_of
from gateway.errors import StaleEpoch, StoreBusy, StoreError, StoreSetBack, StoreTaken, StoreUnreachable
from gateway.store.opening import open_store, reach
from gateway.store.postgres.dialect import STEPS, defined, placed
from gateway.store.records import EventRecord, TokenRecord
from tests import postgres
from tests.cable import Cable
from tests.unit.store.rows import NOW, Kept, a_service, an_entry

pytestmark = postgres.needs_postgres


@pytest.fixture
def url() -> str:
    """An empty store in the server that all tests share."""
    return postgres.shared().migrated()


@pytest.fixture(scope="module")
def mortal() -> Iterator[postgres.Server]:
    """A server of this module alone: it is killed and frozen."""
    server = postgres.Server()
    server.start()
    server.migrated_template()
    yield server
    server.remove()


@asynccontextmanager
async def cabled(url: str) -> AsyncIterator[tuple[Any, Cable]]:
    """Open the store over a cable."""
    port = url.rpartition(":")[2].partition("/")[0]
    async with Cable(int(port)) as cable:
        store = await Kept(url.replace(f":{port}/", f":{cable.port}/")).opened()
        try:
            yield store, cable
        finally:
            await store.close()


async def write(store: Any, value: bytes, followed: list[bytes] | None = None) -> None:
    async with store.transaction() as tx:
        tx.set_meta("left", value)
        await tx.flush()
        tx.set_meta("right", value)
        tx.on_commit(lambda: followed.append(value) if followed is not None else None)


async def both(url: str) -> tuple[bytes | None, bytes | None]:
    store = await Kept(url).opened()
    found = await store.meta("left"), await store.meta("right")
    await store.close()
    return found


# -- a COMMIT whose answer never comes


async def test_a_commit_whose_answer_is_lost_is_known_to_be_done(url: str) -> None:
    """Its caller would do it again, and memory would not follow what is stored."""
    followed: list[bytes] = []
    async with cabled(url) as (store, cable):
        await write(store, b"1", followed)
        cable.from_server = lambda piece: None if b"COMMIT\0" in piece else piece
        await write(store, b"2", followed)
        cable.from_server = lambda piece: piece
        await write(store, b"3", followed)
    assert followed == [b"1", b"2", b"3"]


async def test_a_commit_that_never_arrived_is_known_not_to_be_done(url: str) -> None:
    followed: list[bytes] = []
    async with cabled(url) as (store, cable):
        await write(store, b"1", followed)
        cable.from_client = lambda piece: None if b"COMMIT\0" in piece else piece
        with pytest.raises(StoreUnreachable):
            await write(store, b"2", followed)
        cable.from_client = lambda piece: piece
        assert await store.meta("right") == b"1"
        await write(store, b"3", followed)
    assert followed == [b"1", b"3"]


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_commit_in_doubt_is_settled_before_the_next_writer_decides(url: str, is_done: bool) -> None:
    """Nothing can be asked for a while: then nobody says that it was done, or that it was not."""
    followed: list[bytes] = []

    def cut(piece: bytes) -> bytes | None:
        if b"COMMIT\0" not in piece:
            return piece
        cable.refuses = True
        return None

    async with cabled(url) as (store, cable):
        setattr(cable, "from_server" if is_done else "from_client", cut)
        with pytest.raises(StoreUnreachable):
            await write(store, b"1", followed)
        assert followed == []
        cable.refuses, cable.from_server, cable.from_client = False, lambda piece: piece, lambda piece: piece
        async with store.transaction():
            assert followed == ([b"1"] if is_done else []), "the next writer decides by what is stored"


async def test_a_commit_that_is_still_under_way_is_waited_for(url: str) -> None:
    """A cut-off server may carry out a COMMIT after we gave up: an early look would find it not done."""
    followed: list[bytes] = []
    held: list[bytes] = []
    async with cabled(url) as (store, cable):

        def hold(piece: bytes) -> bytes:
            """Keep the COMMIT on its way, and let the rest pass."""
            if b"COMMIT\0" in piece and not held:
                held.append(piece)
                return b""
            return piece

        cable.from_client = hold
        writing = asyncio.ensure_future(write(store, b"1", followed))
        while not held:
            await asyncio.sleep(0.01)
        with pytest.raises(StoreError):  # the answer, the epoch's row: neither comes in time
            await writing
        assert followed == []
        await write(store, b"2", followed)
    assert followed == [b"2"], "the server ends what stands idle inside a transaction"
    assert await both(url) == (b"2", b"2")


async def test_a_transaction_that_stands_idle_does_not_hold_others_up(url: str) -> None:
    """A gateway frozen inside a transaction must not keep a rollback elsewhere waiting."""
    frozen, other = await Kept(url).opened(), await Kept(url).opened()
    with pytest.raises(StoreError):
        async with frozen.transaction() as tx:
            tx.set_meta("left", b"1")
            await tx.flush()
            began = time.monotonic()
            while True:
                try:
                    await write(other, b"2")
                    break
                except StoreBusy:
                    assert time.monotonic() - began < 20
            await asyncio.sleep(0.5)
    assert await both(url) == (b"2", b"2")
    await write(frozen, b"3")
    await frozen.close()
    await other.close()


async def test_reads_never_wait_for_a_writer(url: str) -> None:
    store, other = await Kept(url).opened(), await Kept(url).opened()
    await write(store, b"1")
    async with store.transaction() as tx:
        tx.set_meta("left", b"2")
        await tx.flush()
        async with asyncio.timeout(5):
            assert {await each.meta("left") for each in (store, other) for _ in range(8)} == {b"1"}
    await store.close()
    await other.close()


async def test_many_reads_at_once_share_a_few_sessions(url: str) -> None:
    store = await Kept(url).with_service()
    found = await asyncio.gather(*(store.load_services() for _ in range(60)))
    assert {len(each) for each in found} == {1}
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert (await store.rows(count))[0][0] <= 6
    await store.close()


async def test_a_text_that_holds_a_nul_is_stored_without_and_the_chain_stays_sound(url: str) -> None:
    """PostgreSQL has no such text: a call that brings one along must not fail, nor break the trail."""
    store = await Kept(url).opened()
    async with store.transaction() as tx:
        tx.add_audit(replace(an_entry(), user_agent="a\0b", details={"x": "\0"}))
        tx.put_service(a_service("a\0"))
        tx.add_event(EventRecord(at=NOW, kind="k", data={"x": "\0"}))
    assert (await store.audit()).items[0].user_agent == "a\ufffdb"
    assert (await store.audit()).items[0].details == {"x": "\0"}
    assert (await store.verify_audit()).ok
    assert (await store.audit(actor="a\0")).items == []
    await store.close()


async def test_an_error_is_one_line_and_shows_nothing_that_is_stored(url: str) -> None:
    store = await Kept(url).opened()
    token = TokenRecord(
        id="t", name="ci", role="viewer", prefix="p", hash="h4sh", created_by="a", created_at=NOW
    )
    with pytest.raises(StoreError) as failure:
        async with store.transaction() as tx:
            tx.put_token(token)
            tx.put_token(replace(token, id="other"))
    assert "h4sh" not in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1
    await store.close()


# -- who is in charge


async def test_a_second_gateway_is_refused_with_the_name_of_the_first(url: str) -> None:
    first, second = await Kept(url).opened(), await Kept(url).opened()
    await first.claim("one", "host-1")
    holding = asyncio.ensure_future(first.hold())
    with pytest.raises(StoreTaken, match=r"the gateway 'host-1' has been in charge since"):
        await second.claim("two", "host-2")
    await first.claim("one", "host-1")  # its successor, in the same place
    holding.cancel()
    await first.release()
    await second.claim("two", "host-2")
    await first.close()
    await second.close()


async def test_a_gateway_that_died_is_followed_within_five_seconds_and_can_write_nothing_more(
    url: str,
) -> None:
    first, second = await Kept(url).opened(), await Kept(url).opened()
    await first.claim("one", "host-1")
    await first.raise_epoch()
    await write(first, b"1")
    began = time.monotonic()
    await second.claim("two", "host-2")
    assert time.monotonic() - began < 30  # a busy machine; alone, four seconds and a look
    with pytest.raises(StaleEpoch):
        await write(first, b"2")
    with pytest.raises(StaleEpoch, match="taken over"):
        await first.raise_epoch()
    with pytest.raises(StaleEpoch, match="taken over"):
        await first.hold()
    await write(second, b"3")
    assert await both(url) == (b"3", b"3")
    await first.close()
    await second.close()


async def test_a_lease_that_lapsed_while_nobody_could_renew_it_is_its_holders_first(url: str) -> None:
    """The database was away: who comes back first must not decide whose unstored rollback is lost."""
    first, second = await Kept(url).opened(), await Kept(url).opened()
    await first.claim("one", "host-1")
    lapsed = "UPDATE gateway_lease SET renewed_at = now() - interval '1 hour', lapses_at = renewed_at"
    await asyncio.to_thread(postgres.shared().sql, lapsed, url)
    claiming = asyncio.ensure_future(second.claim("two", "host-2"))
    await asyncio.sleep(1)
    assert not claiming.done()
    holding = asyncio.ensure_future(first.hold())
    with pytest.raises(StoreTaken, match="host-1"):
        await claiming
    holding.cancel()
    await write(first, b"1")
    await first.close()
    await second.close()


# -- a server that is not there


async def test_a_server_that_crashes_loses_nothing_it_answered(mortal: postgres.Server) -> None:
    url = mortal.migrated()
    store = await Kept(url).opened()
    committed: list[bytes] = []

    async def keep_writing() -> None:
        for n in range(1, 100_000):
            await write(store, b"%d" % n, committed)

    writing = asyncio.ensure_future(keep_writing())
    while len(committed) < 20:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(mortal.crash)
    with pytest.raises(StoreUnreachable):
        await writing
    with pytest.raises(StoreUnreachable, match=r"^postgresql://gateway@127.0.0.1:\d+/\w+: "):
        await store.load_services()
    with pytest.raises(StoreUnreachable):
        await write(store, b"lost")
    await asyncio.to_thread(mortal.start)
    left, right = await store.meta("left"), await store.meta("right")
    assert left == right
    await write(store, b"after")  # what was in doubt is settled first
    assert committed[-1] == left or int(left or b"0") == int(committed[-1])
    assert await both(url) == (b"after", b"after")
    await store.close()


async def test_a_database_that_lost_commits_ends_whoever_knows_better(
    tmp_path: Path, mortal: postgres.Server
) -> None:
    """Memory ran ahead of it: the trail was cut back under a gateway that went on, and nobody was told."""
    url = mortal.migrated()
    store = await Kept(url).opened()
    await store.claim("one", "host-1")
    await audited(store, 3)
    await asyncio.to_thread(mortal.stop)
    await asyncio.to_thread(mortal.keep)
    await asyncio.to_thread(mortal.start)
    await audited(store, 1)  # reconnected, and all is there
    await audited(store, 1)
    seen = StoreWatch(store, tmp_path, lambda: NOW)
    await seen.write_head()
    await asyncio.to_thread(mortal.go_back)
    for _ in range(2):
        with pytest.raises(StoreSetBack, match=r"gone back to epoch 1, commit 1\.\w+\.3:"):
            await audited(store, 1)
    with pytest.raises(StoreSetBack):
        await store.hold()
    await store.close()
    again = await Kept(url).opened()
    seen = StoreWatch(again, tmp_path, lambda: NOW)
    await seen.begin()
    assert (seen.audit.ok, seen.audit.row) == (False, 5)
    await again.close()


async def audited(store: Any, rows: int) -> None:
    for n in range(rows):
        async with store.transaction() as tx:
            tx.add_audit(an_entry(n))


async def test_a_frozen_server_holds_nobody_up_for_long(mortal: postgres.Server) -> None:
    url = mortal.migrated()
    store = await Kept(url).opened()
    await write(store, b"1")
    mortal.freeze()
    try:
        began = time.monotonic()
        found = await asyncio.gather(
            *(write(store, b"2") for _ in range(5)),
            *(store.meta("left") for _ in range(5)),
            return_exceptions=True,
        )
        assert {isinstance(each, StoreError) for each in found} == {True}
        assert time.monotonic() - began < 30  # alone, four seconds
    finally:
        mortal.thaw()
    await write(store, b"3")
    assert await both(url) == (b"3", b"3")
    await store.close()


async def test_a_primary_that_became_read_only_is_a_dead_connection(mortal: postgres.Server) -> None:
    url = mortal.migrated()
    store = await Kept(url).opened()
    await write(store, b"1")
    await asyncio.to_thread(mortal.sql, "ALTER SYSTEM SET default_transaction_read_only = on")
    await asyncio.to_thread(mortal.sql, "SELECT pg_reload_conf()")
    try:
        with pytest.raises(StoreUnreachable):
            for _ in range(500):  # until the session has read its configuration anew
                await write(store, b"1")
        with pytest.raises(StoreUnreachable):
            await write(store, b"2")
        with pytest.raises(StoreUnreachable):
            await reach(url)
    finally:
        reset = "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only"
        for statement in reset.split("; ")[1:]:
            await asyncio.to_thread(
                mortal.sql, statement, f"{mortal.url()}?default_transaction_read_only=off"
            )
        await asyncio.to_thread(mortal.sql, "SELECT pg_reload_conf()")
    await _until_written(store, b"3")
    assert await both(url) == (b"3", b"3")
    await store.close()


async def _until_written(store: Any, value: bytes) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await write(store, value)
                return
            except StoreUnreachable:
                await asyncio.sleep(0.05)


async def test_a_network_that_swallows_everything_is_given_up_and_tried_anew(url: str) -> None:
    async with cabled(url) as (store, cable):
        await write(store, b"1")
        await store.meta("left")
        cable.passes.clear()
        with pytest.raises(StoreUnreachable, match="no answer in time"):
            await write(store, b"2")
        with pytest.raises(StoreUnreachable, match=r"no answer in time$"):
            await store.meta("left")
        reads = [await asyncio.gather(store.meta("left"), return_exceptions=True) for _ in range(20)]
        spared = [each for each in reads if str(each[0]).endswith("in time, a moment ago")]
        assert len(spared) >= 10, "a page of several reads does not wait for each"
        cable.passes.set()
        await _until_written(store, b"3")
        await asyncio.sleep(1)
        assert await store.meta("left") == b"3"


# -- how one gets in


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[postgres.Server, str]]:
    """A role that needs a password, in a server of this module alone. The name, and the password."""
    server = postgres.Server()
    rules = server.data / "pg_hba.conf"
    rules.write_text("host all guarded all scram-sha-256\n" + rules.read_text())
    server.start()
    server.sql("CREATE ROLE guarded LOGIN PASSWORD 'p@ssw0rd/#'")
    server.sql("CREATE DATABASE kept OWNER guarded")
    yield server, "p@ssw0rd/#"
    server.remove()


async def test_a_password_comes_by_url_setting_file_or_environment(
    guarded: tuple[postgres.Server, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, password = guarded
    plain = f"postgresql://guarded@127.0.0.1:{server.port}/kept"
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    await reach(plain, password=password)
    await reach(plain, password_file=str(file))
    await reach(plain.replace("guarded@", "guarded:p%40ssw0rd%2F%23@"))
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"127.0.0.1:*:kept:guarded:{password}\n")
    passfile.chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSFILE", str(passfile))
        await reach(plain)
    monkeypatch.setenv("PGPASSWORD", password)
    await (await open_store(plain, now=NOW)).close()


async def test_no_error_shows_a_password(guarded: tuple[postgres.Server, str], tmp_path: Path) -> None:
    server, _ = guarded
    host = f"127.0.0.1:{server.port}"
    for bad in (
        f"postgresql://guarded:s3cr3t@{host}/kept",
        f"postgresql://guarded:s3cr3t@{host}/kept?password=s3cr3t",
        f"postgresql://guarded@{host}/kept?password=s3cr3t",
        "postgresql://guarded:s3cr3t@127.0.0.1:1/kept",
        f"postgresql://guarded:s3cr3t@{host}/kept?sslmode=s3cr3t",
        f"postgresql://guarded:s3cr3t@{host}/kept?target_session_attrs=x",
        f"postgresql://guarded:s3cr3t@{host}x/kept",
        f"postgresql://guarded:s3cr3t@{host}/nothing",
    ):
        with pytest.raises(StoreError) as failure:
            await open_store(bad, now=NOW)
        chain: BaseException | None = failure.value
        assert "s3cr3t" not in str(chain), bad
        assert str(chain).startswith("postgresql://guarded@"), bad
    with pytest.raises(StoreError, match="password_file"):
        await reach(f"postgresql://guarded@{host}/kept", password_file=str(tmp_path / "absent"))
    with pytest.raises(StoreError, match="password authentication failed") as failure:
        await reach(f"postgresql://guarded@{host}/kept", password="s3cr3t")
    assert not isinstance(failure.value, StoreUnreachable), "it would be waited for in vain"


@pytest.fixture
def over_tls(authority: Any) -> Iterator[tuple[postgres.Server, str]]:
    """A server that has a certificate for `localhost` alone. The second: the file of its authority."""
    certificate, key = authority.issue("localhost")
    server = postgres.Server("ssl=on")
    for name, source in (("server.crt", certificate), ("server.key", key)):
        server.give(name, Path(source).read_bytes())
    server.start()
    yield server, str(authority.ca)
    server.remove()


async def test_tls_is_verified_in_full_where_it_is_asked_for(over_tls: tuple[postgres.Server, str]) -> None:
    server, ca = over_tls
    named = server.url().replace("127.0.0.1", "localhost")
    store = await open_store(f"{named}?sslmode=verify-full&sslrootcert={ca}", now=NOW)
    mine = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert (await store.rows(mine))[0][0] is True  # type: ignore[attr-defined]
    await store.close()
    for refused in (
        f"{server.url()}?sslmode=verify-full&sslrootcert={ca}",  # not its name
        f"{named}?sslmode=verify-full",  # nobody we trust
    ):
        with pytest.raises(StoreError, match=r"(?i)certificate") as failure:
            await reach(refused)
        assert not isinstance(failure.value, StoreUnreachable), "it would be waited for in vain"


@pytest.mark.parametrize(
    ("url", "label", "secrets"),
    [
        ("postgresql://u:p%40x@h:1/d?x=1", "postgresql://u@h:1/d", ["p%40x", "p@x"]),
        ("postgresql://h,i:2/d?password=q", "postgresql://h,i:2/d", ["q"]),
        ("postgres:///d?host=/run&password=q", "postgresql:///run/d", ["q"]),
        ("postgresql://u@[::1]:5/d", "postgresql://u@[::1]:5/d", []),
    ],
)
def test_what_is_shown_of_a_url(url: str, label: str, secrets: list[str]) -> None:
    assert (label_of(url), secrets_of(url)) == (label, secrets)


async def test_a_pooler_between_is_refused(url: str) -> None:
    """It hands a session to whoever asks next: neither its limits nor its locks would hold."""

    def its_own(piece: bytes) -> bytes:
        """A pooler has keys for cancelling of its own, and so another process number."""
        at = piece.find(b"K\0\0\0\x0c")
        return piece if at < 0 else piece[: at + 5] + b"\x7f\xff\xff\xf0" + piece[at + 9 :]

    port = int(url.rpartition(":")[2].partition("/")[0])
    async with Cable(port) as cable:
        cable.from_server = its_own
        with pytest.raises(StoreError, match="pgbouncer") as failure:
            await open_store(url.replace(f":{port}/", f":{cable.port}/"), now=NOW)
    assert not isinstance(failure.value, StoreUnreachable)


async def test_a_url_cannot_take_a_limit_away(url: str) -> None:
    store = await Kept(f"{url}?lock_timeout=0&statement_timeout=0").opened()
    assert [tuple(row) for row in await store.rows("SELECT current_setting('lock_timeout')")] == [("1s",)]
    async with store.transaction() as tx:
        assert (await tx.query("SELECT current_setting('statement_timeout')"))[0][0] == "1s"
    await store.close()


async def test_tokens_are_known_while_the_database_is_away(url: str) -> None:
    async with cabled(url) as (store, cable):
        token = TokenRecord(
            id="t", name="ci", role="viewer", prefix="p", hash="00", created_by="a", created_at=NOW
        )
        async with store.transaction() as tx:
            tx.put_token(token)
        await store.raise_epoch()  # others may have written some: they are read again, now
        cable.refuses = True
        cable.cut()
        assert await store.token_by_hash("00") == token
        with pytest.raises(StoreUnreachable):
            await store.tokens()
        assert store.errors.by_kind["unreachable"] == 1


# -- what was released stays as it was


def test_places_and_types_are_those_of_postgresql() -> None:
    assert (
        placed("SELECT ?, ?2 FROM t WHERE a = ? AND b = ?3") == "SELECT $1, $2 FROM t WHERE a = $2 AND b = $3"
    )
    assert defined("id INTEGER PRIMARY KEY AUTOINCREMENT, b BLOB DEFAULT x'', t TEXT, r REAL, n INTEGER") == (
        """id BIGINT PRIMARY KEY, b BYTEA DEFAULT '', t TEXT COLLATE "C", r DOUBLE PRECISION, n BIGINT"""
    )


def test_no_released_migration_has_changed() -> None:
    """A database that was made by it would be refused."""
    released = {
        1: "23755ef4066f",
        2: "c3935f538776",
        3: "20f5fd303efc",
        4: "64a1be493815",
        5: "983eedbebea6",
        6: "e5c9a2b5b743",
        7: "306c685c965a",
        8: "b24171e3236c",
        9: "4992eeda7620",
        10: "0b65c7d193bf",
        11: "50c4d4faffb3",
    }
    assert {step.number: step.checksum[:12] for step in STEPS if step.number in released} == released
