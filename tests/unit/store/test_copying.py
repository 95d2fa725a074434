"""A store goes over into another kind whole, with every id, order and audit row, or not at all."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreError
from gateway.serve.moving import copy_store
from gateway.store import copying
from gateway.store.records import EventRecord, Retention, SmokeRecord, TokenRecord, WindowRecord
from tests.unit.store.rows import NOW, Kept, a_deployment, an_entry


@pytest.fixture
def other(kept: Kept, tmp_path: Path) -> Kept:
    """An empty store of the other kind; of the same where there is only one."""
    from tests import postgres

    if kept.url.startswith("sqlite") and not postgres.missing():
        return Kept(postgres.shared().migrated())
    return Kept(f"sqlite:///{tmp_path / 'other.db'}")


async def filled(kept: Kept) -> Any:
    """Return a store with rows of many kinds, some of them pruned."""
    store = await kept.with_service()
    async with store.transaction() as tx:
        tx.put_deployment(a_deployment("d", state=b"\x00\xff", config={"steps": [1, 2.5]}))
        for n in range(7):
            tx.add_event(EventRecord(at=NOW + timedelta(days=n), kind="k", data={"n": n}))
            tx.add_audit(an_entry(n, NOW + timedelta(days=n)))
        tx.add_windows(
            WindowRecord(
                deployment_id="d",
                version_id="v",
                generation=n,
                share=1,
                started_at=NOW,
                seconds=0.5,
                answers=n,
            )
            for n in range(7)
        )
        tx.add_smoke(
            SmokeRecord(id="s", version_id="auth-v1", is_healthy=True, response_time=1, tests=[], at=NOW)
        )
        tx.put_token(
            TokenRecord(
                id="t", name="ci", role="viewer", prefix="p", hash="00", created_by="a", created_at=NOW
            )
        )
        tx.set_meta("tally", b"\x00\xff")
    await store.prune(NOW + timedelta(days=7), Retention(events_days=1, audit_days=3))
    await store.raise_epoch()
    return store


async def everything(store: Any) -> dict[str, Any]:
    return {
        "services": await store.load_services(),
        "versions": await store.load_versions(),
        "deployments": (await store.deployments()).items,
        "events": await store.events(),
        "last_event": await store.last_event_id(),
        "windows": await store.windows(deployment_id="d"),
        "smoke": (await store.smoke("auth-v1")).items,
        "tokens": await store.tokens(),
        "tally": await store.meta("tally"),
        "epoch": await store.meta("epoch"),
        "gateway": await store.meta("gateway_id"),
        "audit": (await store.audit()).items,
        "report": await store.verify_audit(),
    }


async def test_a_copy_holds_what_was_there_and_counts_on(
    kept: Kept, other: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PAGE", 3)
    source, target = await filled(kept), await other.opened()
    copied = await copying.copy(source, target)
    assert copied["gateway_window"] == 7
    await target.close()
    target = await other.opened()
    assert await everything(target) == await everything(source)
    async with target.transaction() as tx:
        assert tx.add_event(EventRecord(at=NOW, kind="k")) == 8
        tx.add_audit(an_entry(9))
    assert (await target.verify_audit()).ok
    await source.close()
    await target.close()


async def test_a_copy_is_of_one_moment_while_others_write(kept: Kept, other: Kept) -> None:
    source, writing, target = await filled(kept), await kept.opened(), await other.opened()
    read = source.standing_still

    def with_writes(*_: Any) -> Any:
        class Reading:
            async def __aenter__(self) -> Any:
                self.inner = read()
                rows = await self.inner.__aenter__()

                async def rows_beside_writes(query: str, *parameters: object) -> Any:
                    found = await rows(query, *parameters)
                    async with writing.transaction() as tx:
                        tx.add_audit(an_entry(1))
                        tx.add_event(EventRecord(at=NOW, kind="later"))
                    return found

                return rows_beside_writes

            async def __aexit__(self, *exc: object) -> Any:
                return await self.inner.__aexit__(*exc)

        return Reading()

    before = (await source.verify_audit()).count
    source.standing_still = with_writes
    await copying.copy(source, target)
    assert (await target.verify_audit()).count == before
    assert {event.kind for event in await target.events()} == {"k"}
    assert (await source.verify_audit()).count > before
    for each in (source, writing, target):
        await each.close()


async def test_a_copy_into_a_store_that_holds_something_is_refused(kept: Kept, other: Kept) -> None:
    source, target = await filled(kept), await other.with_service()
    with pytest.raises(StoreError, match="not empty"):
        await copying.copy(source, target)
    assert await target.tokens() == []
    await source.close()
    await target.close()


async def test_a_broken_audit_trail_is_said(kept: Kept, other: Kept) -> None:
    source, target = await filled(kept), await other.opened()
    kept.change("UPDATE gateway_audit SET actor = 'eve' WHERE id = 6")
    with pytest.raises(StoreError, match="all is copied, and the audit trail is broken, at row 6"):
        await copying.copy(source, target)
    await source.close()
    await target.close()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        copy_store(f"sqlite:///{tmp_path / 'x.db'}", f"sqlite:///{tmp_path / 'y.db'}")
    assert list(tmp_path.iterdir()) == []
