"""Deployments: what starts, what is refused, and what people may do to a running one."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.actions.access import etag
from gateway.actions.bodies import (
    Explain,
    Freeze,
    PatchVersion,
    Promote,
    RolloutFields,
    StartDeployment,
    Traffic,
    WhatIf,
)
from gateway.actions.problems import Problem
from gateway.control.rollouts.unstored import Ordered
from gateway.core.rollout.plan import RolloutSettings
from gateway.errors import IllegalTransition, StoreUnreachable
from gateway.store.records import WindowRecord
from tests.unit.control.console import ANN, ROOT, START, console


async def refusal(work: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await work
    return refused.value


def start(**fields: Any) -> StartDeployment:
    return msgspec.convert({"serviceName": "auth", "toVersion": "v2", **fields}, StartDeployment)


def test_every_setting_of_a_rollout_may_be_given() -> None:
    ours = {field.name: field for field in msgspec.structs.fields(RolloutFields)}
    for field in msgspec.structs.fields(RolloutSettings):
        assert ours.pop(field.name).encode_name == field.encode_name
    assert not ours


def test_config_is_taken_flat_nested_and_mixed_but_not_twice() -> None:
    flat = start(steps=[5, 100], errorThreshold=2)
    nested = start(config={"steps": [5, 100], "errorThreshold": 2})
    mixed = start(steps=[5, 100], config={"errorThreshold": 2})
    assert flat.rollout() == nested.rollout() == mixed.rollout()
    assert start().rollout() == RolloutSettings()
    with pytest.raises(Problem) as refused:
        start(errorThreshold=5, config={"errorThreshold": 7}).rollout()
    assert refused.value.errors[0].pointer == "/errorThreshold"


async def test_a_start_opens_a_deployment_with_all_it_needs(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        record = await made.start(steps=[10, 100], stepInterval=60_000)
        assert (record.from_version, record.to_version, record.created_by) == ("v1", "v2", "ann")
        assert (record.from_version_id, record.to_version_id) == (old, new)
        assert record.config["steps"] == [10, 100]
        await made.settle()
        record = await made.actions.deployments.get(record.id)
        assert (record.status, record.traffic_percent) == ("rolling", 10)
        assert made.weights() == {"v1": 90, "v2": 10}
        snap = made.links.newest.services["auth"]
        assert snap.rollout is not None
        assert (snap.rollout.old, snap.rollout.new, snap.rollout.percent) == (old, new, 10)
        assert [version.standby for version in snap.versions] == [True, False]
        audited = next(row for row in await made.audit() if row.action == "deployment.start")
        assert (audited.resource_id, audited.allowed) == (record.id, True)


async def test_a_service_made_a_moment_ago_may_start_a_deployment(tmp_path: Path) -> None:
    """Its first version becomes the current one by a probe, which a script does not wait for."""
    async with console(tmp_path) as made:
        old, new = await made.register("v1"), await made.register("v2")
        made.checks.before_probe = made.pass_probe
        record = await made.start()
        assert (record.from_version_id, record.to_version_id) == (old.id, new.id)
        assert made.checks.probed == [old.id]


async def test_without_a_version_that_has_passed_there_is_none_to_start_from(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.register("v1")
        await made.register("v2")
        problem = await refusal(made.start())
        assert problem.status == 409
        assert "has passed a health check yet; give fromVersion" in problem.detail
        assert (await made.start(fromVersion="v1")).from_version == "v1"


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"serviceName": "none"}, 404, None),
        ({"toVersion": "v9"}, 404, None),
        ({"fromVersion": "v9"}, 404, None),
        ({"toVersion": "v1"}, 409, None),
        ({"fromVersion": "v2", "toVersion": "v1"}, 409, None),
        ({"steps": [50, 10, 100]}, 422, "/steps/1"),
        ({"config": {"steps": [10, 50]}}, 422, "/config/steps/1"),
        ({"steps": []}, 422, "/steps"),
        ({"initialPercent": 11}, 422, "/initialPercent"),
    ],
)
async def test_a_bad_start_is_refused_and_opens_nothing(
    tmp_path: Path, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        problem = await refusal(made.actions.deployments.start(ANN, start(**body)))
        assert problem.status == status
        assert [error.pointer for error in problem.errors] == ([pointer] if pointer else [])
        assert await made.store.open_deployments() == []
        assert (await made.audit())[0].allowed is False


async def test_all_the_weight_must_be_on_the_old_version(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        third = await made.register("v3")
        await made.actions.versions.patch(ANN, third.id, PatchVersion(weight=30))
        problem = await refusal(made.start())
        assert problem.status == 409
        assert "v3 has 30" in problem.detail


async def test_a_service_without_a_current_version_has_nothing_to_move(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.register("v1")
        await made.register("v2")
        assert (await refusal(made.start())).status == 409


async def test_one_open_deployment_for_each_service(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await made.register("v3")
        first = await made.start()
        problem = await refusal(made.start("v3"))
        assert problem.status == 409
        assert first.id in problem.detail


async def test_a_newer_start_replaces_an_open_one_if_the_service_says_so(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await made.register("v3")
        await made.actions.services.patch(ANN, "auth", {"onNewVersion": "restart"})
        first = await made.start()
        await made.settle()
        second = await made.start("v3")
        await made.settle()
        assert (await made.actions.deployments.get(first.id)).status == "rolled_back"
        assert (await made.actions.deployments.get(second.id)).status == "rolling"
        assert made.weights() == {"v1": 90, "v2": 0, "v3": 10}


async def test_the_same_key_and_body_start_once(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        first = await made.start(key="k", steps=[10, 100])
        assert (await made.start(key="k", steps=[10, 100])).id == first.id
        assert (await made.start(key="k", config={"steps": [10, 100]})).id == first.id
        assert (await refusal(made.start(key="k", steps=[20, 100]))).status == 422
        assert len((await made.store.deployments()).items) == 1


async def test_the_same_start_twice_at_once_opens_one(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(made.start(key="k")) for _ in range(3)]
        assert len({start.result().id for start in starts}) == 1


async def test_a_freeze_refuses_starts_and_never_a_rollback(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start()
        await made.settle()
        frozen = await made.actions.gateway.put_freeze(ROOT, Freeze(frozen=True, reason="launch day"))
        assert (frozen.frozen, frozen.reason, frozen.actor) == (True, "launch day", "root")
        assert (await made.actions.gateway.get_freeze()).frozen
        with pytest.raises(IllegalTransition):
            await made.actions.deployments.promote(ANN, record.id, Promote())
        await made.actions.deployments.rollback(ANN, record.id, Explain())
        await made.settle()
        assert made.weights() == {"v1": 100, "v2": 0}
        refused = await refusal(made.start())
        assert (refused.status, refused.detail) == (
            409,
            "changes are frozen by root (launch day): no deployment may start",
        )
        await made.actions.gateway.put_freeze(ROOT, Freeze(frozen=False))
        await made.start()


async def test_orders_move_the_deployment_and_are_audited(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start()
        await made.settle()
        await made.actions.deployments.pause(ANN, record.id, Explain(reason="lunch"))
        assert (await made.actions.deployments.get(record.id)).status == "paused"
        await made.actions.deployments.resume(ANN, record.id, Explain())
        await made.actions.deployments.set_traffic(ANN, record.id, Traffic(percent=30))
        await made.settle()
        assert made.weights() == {"v1": 70, "v2": 30}
        await made.actions.deployments.promote(ANN, record.id, Promote())
        await made.settle()
        assert made.weights() == {"v1": 50, "v2": 50}
        with pytest.raises(IllegalTransition):
            await made.actions.deployments.complete(ANN, record.id, Explain())
        await made.actions.deployments.promote(ANN, record.id, Promote(full=True))
        await made.settle()
        await made.actions.deployments.complete(ANN, record.id, Explain())
        await made.settle()
        assert (await made.actions.deployments.get(record.id)).status == "completed"
        rows = [
            (row.action, row.allowed) for row in reversed(await made.audit()) if "deployment" in row.action
        ]
        assert rows == [
            ("deployment.start", True),
            ("deployment.pause", True),
            ("deployment.resume", True),
            ("deployment.traffic", True),
            ("deployment.promote", True),
            ("deployment.complete", False),
            ("deployment.promote", True),
            ("deployment.complete", True),
        ]
        decisions = await made.actions.deployments.decisions(record.id)
        assert any(decision.actor == "ann" for decision in decisions.items)
        assert await made.actions.deployments.events(record.id)


async def test_an_order_for_a_deployment_that_has_changed_is_refused(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start()
        seen = etag(record)
        await made.settle()
        problem = await refusal(made.actions.deployments.promote(ANN, record.id, Promote(), if_match=seen))
        assert problem.status == 412


async def test_an_ended_deployment_takes_no_orders(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start()
        await made.settle()
        ended = (await made.actions.deployments.rollback(ANN, record.id, Explain(reason="no"))).record
        assert (ended.status, ended.traffic_percent) == ("rolled_back", 0), "the answer says how it ended"
        await made.settle()
        with pytest.raises((Problem, IllegalTransition)) as refused:
            await made.actions.deployments.promote(ANN, record.id, Promote())
        assert refused.value.status == 409
        assert (await refusal(made.actions.deployments.promote(ANN, "none", Promote()))).status == 404


async def test_undo_rolls_an_open_deployment_back(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start()
        await made.settle()
        undone = (await made.actions.deployments.undo(ANN, "auth", Explain(reason="support called"))).record
        assert undone.id == record.id
        assert undone.error_message == "Rolled back by ann: support called"
        await made.settle()
        assert (await made.actions.deployments.get(record.id)).status == "rolled_back"


async def test_undo_of_a_completed_release_is_a_new_one_back(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        record = await made.start(strategy="immediate")
        await made.settle()
        await made.actions.deployments.complete(ANN, record.id, Explain())
        await made.settle()
        assert (await made.actions.services.get("auth")).current_version_id == new
        assert (await made.actions.versions.get(old)).status == "deprecated"
        back = (await made.actions.deployments.undo(ANN, "auth", Explain(reason="support called"))).record
        assert (await made.audit())[0].details["reason"] == "support called"
        assert (back.from_version, back.to_version, back.strategy) == ("v2", "v1", "immediate")
        await made.settle()
        assert made.weights() == {"v1": 100, "v2": 0}
        restored = await made.actions.versions.get(old)
        assert (restored.draining, restored.drained, restored.is_active) == (False, False, True)


async def test_a_second_undo_does_not_take_back_the_release_before(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        first = await made.start()
        await made.settle()
        await made.actions.deployments.promote(ANN, first.id, Promote(full=True))
        await made.settle()
        await made.actions.deployments.complete(ANN, first.id, Explain())
        await made.settle()
        await made.pass_probe((await made.register("v3")).id)
        await made.start(to="v3")
        await made.settle()
        await made.actions.deployments.undo(ANN, "auth", Explain())
        await made.settle()
        again = await refusal(made.actions.deployments.undo(ANN, "auth", Explain()))
        assert (again.status, again.detail) == (
            409,
            "the last release, v3, is rolled back already; to go back further, start a deployment of v1",
        )
        assert made.weights() == {"v1": 0, "v2": 100, "v3": 0}


async def test_without_an_earlier_release_there_is_nothing_to_undo(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        assert (await refusal(made.actions.deployments.undo(ANN, "auth", Explain()))).status == 409
        assert (await refusal(made.actions.deployments.undo(ANN, "none", Explain()))).status == 404
        assert [(row.action, row.allowed) for row in (await made.audit())[:2]] == [
            ("service.undo", False)
        ] * 2


async def test_a_version_that_was_rolled_back_may_be_tried_again(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        made.links.in_flight = 1  # its drain takes its time
        first = await made.start()
        while (await made.actions.deployments.get(first.id)).status in ("pending", "testing"):
            await made.settle_once()
        await made.actions.deployments.rollback(ANN, first.id, Explain())
        while made.rollouts.open_for("auth") is not None:
            await made.settle_once()
        second = await made.start()
        while made.weights() != {"v1": 90, "v2": 10}:
            await made.settle_once()
        assert (await made.actions.deployments.get(second.id)).traffic_percent == 10
        made.links.in_flight = 0


async def test_deployments_are_listed_newest_first(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        ids = []
        for _ in range(3):
            record = await made.start()
            await made.settle()
            await made.actions.deployments.rollback(ANN, record.id, Explain())
            await made.settle()
            ids.append(record.id)
        page = await made.actions.deployments.list_all("auth", limit=2)
        assert [record.id for record in page.items] == [ids[2], ids[1]]
        rest = await made.actions.deployments.list_all("auth", limit=2, cursor=page.next)
        assert ([record.id for record in rest.items], rest.next) == ([ids[0]], None)


async def test_whatif_judges_earlier_rollouts_again(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        record = await made.start()
        await made.settle()
        rows = [
            WindowRecord(
                deployment_id=record.id,
                version_id=version,
                generation=1,
                share=share,
                started_at=START + timedelta(seconds=10 * second),
                seconds=10,
                answers=100,
                errors={"500": errors} if errors else {},
            )
            for second in range(12)
            for version, share, errors in ((old, 9000, 0), (new, 1000, 8))
        ]
        async with made.store.transaction() as tx:
            tx.add_windows(rows)

        def body(**config: Any) -> WhatIf:
            return msgspec.convert({"serviceName": "auth", "config": config}, WhatIf)

        strict = (await made.actions.whatif.replay(body(errorThreshold=1))).items[0]
        assert (strict.deployment_id, strict.status, strict.verdict) == (record.id, "rolling", "abort")
        assert strict.after_ms < 120_000
        assert strict.reason
        kinder = (await made.actions.whatif.replay(body(errors=["connect"]))).items[0]
        assert kinder.verdict != "abort"
        problem = await refusal(made.actions.whatif.replay(body(steps=[50, 10])))
        assert (problem.status, problem.errors[0].pointer) == (422, "/config/steps/1")
        missing = msgspec.convert({"serviceName": "auth", "deploymentId": "none"}, WhatIf)
        assert (await refusal(made.actions.whatif.replay(missing))).status == 404


async def test_an_order_that_nobody_keeps_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was answered 202, and was lost when control was killed: no worker was connected."""
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start(steps=[10, 100], stepInterval=60_000)

        async def unkept(*_: Any) -> Ordered:
            return Ordered(record, stored=False, is_kept=False)

        with monkeypatch.context() as patch:
            patch.setattr(made.rollouts, "order_at_once", unkept)
            for order in (
                made.actions.deployments.rollback(ANN, record.id, Explain()),
                made.actions.deployments.pause(ANN, record.id, Explain()),
                made.actions.deployments.undo(ANN, "auth", Explain()),
            ):
                done = await order
                assert not (done.stored or done.is_kept)
        assert all(entry.allowed for entry in await made.audit()), "it is done, and stored later"


async def test_what_is_under_way_is_found_without_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback acted without a database, but whoever wanted one could not learn of what."""
    async with console(tmp_path) as made:
        await made.two_versions()
        older = await made.start(strategy="immediate")
        await made.actions.deployments.rollback(ANN, older.id, Explain())
        record = await made.start(steps=[10, 100], stepInterval=60_000)
        read = made.store.rows

        async def away(*_: Any) -> Any:
            raise StoreUnreachable("away")

        with monkeypatch.context() as patch:
            patch.setattr(made.store, "rows", away)
            page = await made.actions.deployments.list_all("auth", limit=1)
            assert [each.id for each in page.items] == [record.id]
            assert (await made.actions.deployments.get(record.id)).id == record.id
            [glance] = await made.actions.overview.services("auth")
            assert glance.deployment is not None
            assert (glance.deployment.id, glance.last) == (record.id, glance.deployment)
            for unknown in (
                made.actions.deployments.list_all("auth"),
                made.actions.deployments.list_all("nobody", limit=1),
                made.actions.deployments.list_all("auth", limit=1, cursor=page.next),
                made.actions.deployments.get("nothing"),
            ):
                with pytest.raises(StoreUnreachable):
                    await unknown
        assert made.store.rows == read
        older_page = await made.actions.deployments.list_all("auth", limit=1, cursor=page.next)
        assert [each.id for each in older_page.items] == [older.id]
