"""Login against the real store: what is kept of a token, and what the audit trail says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from gateway.actions.problems import Problem
from gateway.actions.tokens import digest, new_token
from gateway.admin.auth import Authenticator, Unauthorized, ensure_bootstrap_token
from gateway.errors import StoreError
from gateway.store.sqlite import SqliteStore

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(f"sqlite:///{folder}/gateway.db", now=AT)
    try:
        yield store
    finally:
        await store.close()


def fields(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "user-agent": "test"}


async def test_the_bootstrap_token_is_an_admins_in_a_private_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "admin.token"
    async with opened(tmp_path) as store:
        assert await ensure_bootstrap_token(store, file, AT) == file
        token = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        actor = await Authenticator(store).identify(fields(token), "127.0.0.1")
        assert (actor.name, actor.role) == ("bootstrap", "admin")
        assert await ensure_bootstrap_token(store, file, AT) is None
        assert file.read_text().strip() == token
    written = "".join(capfd.readouterr())
    assert str(file) in written
    assert token not in written
    assert token.encode() not in (tmp_path / "gateway.db").read_bytes()


async def test_a_left_over_file_is_replaced_whatever_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "admin.token"
    file.write_text("gw_old\n")
    file.chmod(0o644)
    async with opened(tmp_path) as store:
        await ensure_bootstrap_token(store, file, AT)
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text() != "gw_old\n"


async def test_a_file_that_cannot_be_written_makes_no_token(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError, match="cannot be written"):
            await ensure_bootstrap_token(store, tmp_path / "absent" / "admin.token", AT)
        assert await store.tokens() == []


def test_a_token_is_32_random_bytes_behind_a_prefix() -> None:
    first, second = new_token(), new_token()
    assert first.startswith("gw_")
    assert len(first) == 3 + 43
    assert first != second
    assert len(digest(first)) == 64


async def test_a_revoked_token_is_refused_and_using_a_token_never_brings_it_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await ensure_bootstrap_token(store, tmp_path / "admin.token", AT)
        token = (tmp_path / "admin.token").read_text().strip()
        auth = Authenticator(store)
        await auth.identify(fields(token), "127.0.0.1")
        [record] = await store.tokens()
        assert record.last_used_at is not None
        async with store.transaction() as tx:
            tx.put_token(msgspec.structs.replace(record, revoked_at=AT))
        auth.learn(msgspec.structs.replace(record, revoked_at=AT))
        with pytest.raises(Unauthorized):
            await auth.identify(fields(token), "127.0.0.1")
        assert not await auth.is_valid(fields(token))
        [record] = await store.tokens()
        assert record.revoked_at is not None


async def test_wrong_tokens_are_audited_up_to_the_limit_and_counted_beyond(tmp_path: Path) -> None:
    now = 0.0
    async with opened(tmp_path) as store:
        auth = Authenticator(store, failed_logins=2, clock=lambda: now)
        for expected in (401, 401, 429, 429):
            with pytest.raises(Problem) as caught:
                await auth.identify(fields("gw_wrong"), "192.0.2.1")
            assert caught.value.status == expected
        with pytest.raises(Unauthorized):
            await auth.identify(fields("gw_wrong"), "192.0.2.2")
        rows = (await store.audit()).items
        assert [(row.action, row.allowed, row.address) for row in rows] == [
            ("login", False, "192.0.2.2"),
            ("login", False, "192.0.2.1"),
            ("login", False, "192.0.2.1"),
        ]
        assert auth.refused_logins == 2
        assert (await store.verify_audit()).ok


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic Z3c6", "gw_x", "bearergw_x"])
async def test_what_is_no_bearer_token_is_401_without_a_trace(tmp_path: Path, value: str) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(Unauthorized):
            await Authenticator(store).identify({"authorization": value}, "127.0.0.1")
        assert (await store.audit()).items == []


async def test_the_scheme_is_case_insensitive(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await ensure_bootstrap_token(store, tmp_path / "admin.token", AT)
        token = (tmp_path / "admin.token").read_text().strip()
        assert (
            await Authenticator(store).identify({"authorization": f"bearer {token}"}, "::1")
        ).role == "admin"
