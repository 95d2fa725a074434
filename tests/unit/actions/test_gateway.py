"""The gateway itself: tokens, audit, events, upgrade."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gateway.actions.access import Actor
from gateway.actions.bodies import CreateToken
from gateway.actions.problems import Problem
from gateway.errors import StoreError
from gateway.store.api import BadCursor
from tests.unit.control.console import ROOT, console


async def refusal(work: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await work
    return refused.value


async def test_a_token_is_shown_once_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record, token = await made.actions.tokens.create(ROOT, CreateToken(name="ci", role="deployer"))
        assert token.startswith("gw_")
        assert record.prefix == token[:9]
        assert record.hash == hashlib.sha256(token.encode()).hexdigest()
        assert await made.store.token_by_hash(record.hash) == record
        assert token not in str(await made.audit())
        assert (await made.actions.tokens.list_all()).items == [record]


async def test_two_live_tokens_do_not_share_a_name(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record, _ = await made.actions.tokens.create(ROOT, CreateToken(name="ci", role="viewer"))
        assert (
            await refusal(made.actions.tokens.create(ROOT, CreateToken(name="ci", role="admin")))
        ).status == 409
        await made.actions.tokens.revoke(ROOT, record.id)
        await made.actions.tokens.create(ROOT, CreateToken(name="ci", role="admin"))


async def test_a_revoked_token_stays_revoked_and_the_last_admin_stays(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        admin, _ = await made.actions.tokens.create(ROOT, CreateToken(name="a", role="admin"))
        assert (await refusal(made.actions.tokens.revoke(ROOT, admin.id))).status == 409
        await made.actions.tokens.create(ROOT, CreateToken(name="b", role="admin"))
        await made.actions.tokens.revoke(ROOT, admin.id)
        first = next(each for each in await made.store.tokens() if each.id == admin.id).revoked_at
        await made.actions.tokens.revoke(ROOT, admin.id)
        assert first == next(each for each in await made.store.tokens() if each.id == admin.id).revoked_at
        assert (await refusal(made.actions.tokens.revoke(ROOT, "none"))).status == 404


async def test_the_gateway_says_who_is_in_charge_and_hands_over(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        info = await made.actions.gateway.info()
        assert (info.release, info.epoch, info.frozen) == ("1.2.3", 0, False)
        assert [(worker.slot, worker.pid, worker.applied) for worker in info.workers] == [(0, 4711, 7)]
        after = await made.actions.gateway.upgrade(ROOT)
        assert (after.pid, after.epoch, made.upgraded) == (4712, 1, 1)
        assert (await made.audit())[0].action == "gateway.upgrade"


async def test_the_audit_holds_every_change_and_refusal_in_one_sound_chain(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await refusal(made.actions.services.delete(ROOT, "none"))
        await made.service("mail")
        rows = await made.audit()
        assert [(row.action, row.allowed) for row in rows] == [
            ("service.create", True),
            ("service.delete", False),
            ("version.create", True),
            ("version.create", True),
        ]
        assert (await made.store.verify_audit()).ok
        page = await made.actions.gateway.audit(limit=1, actor="root", action="service.create")
        assert [row.resource_id for row in page.items] == ["mail"]
        with pytest.raises(BadCursor):
            await made.actions.gateway.audit(cursor="nonsense")


async def test_a_change_that_cannot_be_audited_does_not_happen(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        async with made.store.transaction() as tx:
            await tx.execute(
                "CREATE TRIGGER full BEFORE INSERT ON gateway_audit "
                "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
        with pytest.raises(StoreError, match="disk full"):
            await made.service("mail")
        assert "mail" not in made.catalog.services


async def test_events_come_newest_first_asked_or_after_an_id(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        for name in ("one", "two", "three"):
            await made.service(name)
        assert [event.service for event in await made.actions.gateway.events(limit=2)] == ["two", "three"]
        assert [event.id for event in await made.actions.gateway.events(after=1)] == [2, 3]
        assert [event.service for event in await made.actions.gateway.events(after=0, service="two")] == [
            "two"
        ]


async def test_who_did_it_is_told(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.register("v1", actor=Actor(name="zoe", role="deployer", address="::1", user_agent="cli"))
        row = (await made.audit())[0]
        assert (row.actor, row.address, row.user_agent) == ("zoe", "::1", "cli")
        assert (await made.actions.gateway.events(after=0))[0].actor == "zoe"
