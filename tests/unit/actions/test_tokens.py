"""Tokens: expiry, services, rotation, and what an Idempotency-Key stands for."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.actions.bodies import CreateToken, RotateToken
from gateway.actions.problems import Problem
from gateway.actions.tokens import digest, is_live
from gateway.store.records import TokenRecord
from tests.unit.control.console import ROOT, START, Console, console

CI = CreateToken(name="ci", role="deployer", services="auth*", expires_in=3_600_000)


async def refusal(work: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await work
    return refused.value


async def stored(made: Console, token_id: str) -> TokenRecord:
    return next(each for each in await made.store.tokens() if each.id == token_id)


async def test_a_token_is_kept_with_its_services_and_its_end(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record, _ = await made.actions.tokens.create(ROOT, CI)
        kept = await stored(made, record.id)
        assert (kept.services, kept.expires_at) == ("auth*", kept.created_at + timedelta(hours=1))
        assert is_live(kept, START + timedelta(minutes=59))
        assert not is_live(kept, START + timedelta(hours=2))


async def test_a_rotated_token_has_a_new_secret_and_the_old_one_works_on_for_a_while(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.actions.tokens.create(ROOT, CI)
        new, secret = await made.actions.tokens.rotate(ROOT, old.id, RotateToken(overlap=60_000))
        assert (new.name, new.role, new.services, new.hash) == ("ci", "deployer", "auth*", digest(secret))
        assert new.id != old.id
        assert new.expires_at == new.created_at + timedelta(hours=1)
        assert (await stored(made, old.id)).expires_at == new.created_at + timedelta(minutes=1)
        await made.actions.tokens.rotate(ROOT, new.id, RotateToken())
        assert (await stored(made, new.id)).revoked_at is not None
        assert (await refusal(made.actions.tokens.rotate(ROOT, new.id, RotateToken()))).status == 409
        assert (await refusal(made.actions.tokens.rotate(ROOT, "none", RotateToken()))).status == 404
        assert {row.action for row in await made.audit()} == {"token.create", "token.rotate"}


async def test_a_name_is_free_again_once_its_token_has_expired(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.actions.tokens.create(ROOT, CI)
        assert (await refusal(made.actions.tokens.create(ROOT, CI))).status == 409
        made.time += timedelta(hours=2)
        await made.actions.tokens.create(ROOT, CI)


async def test_the_last_admin_token_that_lasts_is_not_revoked(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        lasting, _ = await made.actions.tokens.create(ROOT, CreateToken(name="a", role="admin"))
        await made.actions.tokens.create(ROOT, CreateToken(name="b", role="admin", expires_in=60_000))
        await made.actions.tokens.create(ROOT, CreateToken(name="c", role="admin", services="auth"))
        assert (await refusal(made.actions.tokens.revoke(ROOT, lasting.id))).status == 409


async def test_a_key_that_made_a_token_makes_no_second_one_and_shows_no_secret(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        tokens = made.actions.tokens
        root = replace(ROOT, token_id="t-1")
        await tokens.create(root, CI, idempotency_key="k")
        assert (await refusal(tokens.create(root, CI, idempotency_key="k"))).status == 409
        other = replace(CI, name="other")
        assert (await refusal(tokens.create(root, other, idempotency_key="k"))).status == 422
        await tokens.create(replace(root, token_id="t-2"), other, idempotency_key="k")
        assert len(await made.store.tokens()) == 2


async def test_a_key_belongs_to_its_token(tmp_path: Path) -> None:
    """Guards one token's rollout from being what another's key answers."""
    async with console(tmp_path) as made:
        await made.two_versions()
        first = await made.start(key="k")
        assert (await made.start(key="k")).id == first.id
        assert first.idempotency_key not in (None, "k")


async def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    """A script whose variable is not set would be answered with its last rollout for ever."""
    async with console(tmp_path) as made:
        await made.two_versions()
        with pytest.raises(Problem, match="empty") as refused:
            await made.start(key=" ")
        assert refused.value.status == 400


async def test_a_token_for_some_services_makes_and_ends_none(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record, _ = await made.actions.tokens.create(ROOT, CI)
        narrow = replace(ROOT, services="auth*")
        tokens = made.actions.tokens
        for work in (
            tokens.create(narrow, CreateToken(name="x", role="admin")),
            tokens.rotate(narrow, record.id, RotateToken()),
            tokens.revoke(narrow, record.id),
        ):
            assert (await refusal(work)).status == 403
