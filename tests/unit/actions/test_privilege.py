"""Who may move live requests: decided by what a change does, not by the call it is made with."""

from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from gateway.actions.access import Actor
from gateway.actions.bodies import CreateService, DrainVersion, Explain, Freeze, PatchVersion, TestVersion
from gateway.actions.problems import Problem
from gateway.core.settings.smoke import SmokeSettings
from tests.unit.control.console import ANN, OPERATOR, ROOT, Console, console

ELSEWHERE = "http://127.0.0.1:999"
AUTH_ONLY = Actor(name="ci", role="deployer", services="auth*")


async def refusal(work: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await work
    return refused.value


async def moved_by(made: Console, actor: Actor, version_id: str) -> list[int]:
    """Return the statuses of an actor's attempts to point a version elsewhere; 0: done."""
    statuses = []
    for body in (PatchVersion(url=ELSEWHERE), PatchVersion(replicas=(f"{ELSEWHERE}8",))):
        try:
            await made.actions.versions.patch(actor, version_id, body)
            statuses.append(0)
        except Problem as problem:
            statuses.append(problem.status)
    return statuses


async def test_an_operator_points_only_unused_versions_elsewhere(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        assert await moved_by(made, OPERATOR, old) == [403, 403]
        assert await moved_by(made, OPERATOR, new) == [0, 0]
        assert await moved_by(made, ANN, old) == [0, 0]


async def test_a_version_in_an_open_rollout_is_the_deployers(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        await made.start()
        assert await moved_by(made, OPERATOR, old) == [403, 403]
        assert await moved_by(made, OPERATOR, new) == [403, 403]
        for version in (old, new):
            drain = made.actions.versions.drain(ANN, version, DrainVersion())
            assert (await refusal(drain)).status == 409


async def test_a_version_that_the_settings_name_is_the_deployers(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        await made.actions.services.patch(ROOT, "auth", {"fallback": {"version": "v2"}})
        assert await moved_by(made, OPERATOR, new) == [403, 403]
        testers = {"cookie": "release", "values": {"s3cret": "v2"}}
        await made.actions.services.patch(ROOT, "auth", {"fallback": None, "testers": testers})
        assert await moved_by(made, OPERATOR, new) == [403, 403]
        await made.actions.services.patch(ROOT, "auth", {"fallback": {"version": "v3"}})
        assert (await refusal(made.register("v3", actor=OPERATOR))).status == 403
        assert (await made.register("v3", actor=ANN)).weight == 0


TESTS: Final = msgspec.convert(
    {"endpoints": [{"method": "GET", "path": "/none", "expectedStatus": 200}]}, SmokeSettings
)


@pytest.mark.parametrize(
    "body",
    [
        PatchVersion(status="staging"),
        PatchVersion(shutdown_url=ELSEWHERE),
        PatchVersion(smoke_tests=TESTS),
        PatchVersion(smoke_tests=TESTS, weight=100),
    ],
)
async def test_what_moves_traffic_in_the_end_is_the_deployers(tmp_path: Path, body: PatchVersion) -> None:
    """Guards against an operator who takes a rollout back by tests that fail, or stops a live version."""
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        patch = made.actions.versions.patch
        assert (await refusal(patch(OPERATOR, old, body))).status == 403
        await patch(OPERATOR, old, PatchVersion(status="production", weight=100))
        await patch(OPERATOR, new, replace(body, weight=UNSET))
        await made.actions.services.patch(ROOT, "auth", {"fallback": {"version": "v2"}})
        other = PatchVersion(shutdown_url=f"{ELSEWHERE}/other")
        assert (await refusal(patch(OPERATOR, new, other))).status == 403
        assert (await refusal(made.actions.versions.drain(OPERATOR, new, DrainVersion()))).status == 403
        await made.actions.versions.drain(ANN, new, DrainVersion())


async def test_where_an_undo_goes_back_to_is_the_deployers(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        record = await made.start(strategy="immediate")
        await made.settle()
        await made.actions.deployments.complete(ANN, record.id, Explain())
        await made.settle()
        assert (await made.actions.deployments.get(record.id)).status == "completed"
        assert await moved_by(made, OPERATOR, old) == [403, 403]
        deletion = made.actions.versions.delete(OPERATOR, old)
        problem = await refusal(deletion)
        assert (problem.status, "undo" in problem.detail) == (403, True)
        await made.actions.versions.delete(ANN, old)


async def test_the_first_version_of_a_service_needs_a_deployer(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.service("auth")
        assert (await refusal(made.register("v1", actor=OPERATOR))).status == 403
        assert (await made.register("v0", actor=OPERATOR, weight=0)).weight == 0


async def test_a_changed_url_is_untested_again(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        assert made.catalog.is_usable(old)
        record = await made.actions.versions.patch(ANN, old, PatchVersion(url=ELSEWHERE))
        assert (record.url, record.is_active, record.health_status) == (ELSEWHERE, False, "unknown")
        assert not made.catalog.is_usable(old)
        assert not (await made.stored(old)).ever_healthy
        await made.pass_probe(old)
        assert made.catalog.is_usable(old)
        assert made.catalog.version_record(old).status == "production"
        assert (await made.actions.versions.patch(ANN, new, PatchVersion(replicas=(ELSEWHERE,)))).replicas


async def test_the_last_usable_version_is_not_drained_but_a_dead_one_may_be(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        assert (await refusal(made.actions.versions.drain(ANN, old, DrainVersion()))).status == 409
        dead = await made.register("v1", service="other")
        assert (await made.actions.versions.drain(ANN, dead.id, DrainVersion())).state in (
            "draining",
            "drained",
        )


@pytest.mark.parametrize(
    "route",
    [{"path": "/mail/inbox"}, {"path": "/mail", "host": "a.example"}, {"path": "/mail", "methods": ["GET"]}],
)
async def test_routes_that_take_another_services_requests_need_a_token_for_both(
    tmp_path: Path, route: dict[str, Any]
) -> None:
    async with console(tmp_path) as made:
        await made.service("mail")
        one = made.register("v1", actor=AUTH_ONLY, service="auth", routes=[route])
        problem = await refusal(one)
        assert (problem.status, "mail" in problem.detail) == (403, True)
        assert (await refusal(made.register("v1", actor=OPERATOR, routes=[route]))).status == 403
        body = msgspec.convert({"name": "auth", "routes": [route]}, CreateService)
        narrow = replace(AUTH_ONLY, role="admin")
        assert (await refusal(made.actions.services.create(narrow, body))).status == 403
        await made.register("v1", actor=AUTH_ONLY, service="auth", routes=[{"path": "/auth"}])
        patch = made.actions.services.patch(narrow, "auth", {"routes": [{"path": "/auth"}, route]})
        assert (await refusal(patch)).status == 403
        await made.actions.services.patch(ROOT, "auth", {"routes": [{"path": "/auth"}, route]})


async def test_a_token_for_some_services_changes_no_other(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        record = await made.start()
        ann = replace(ANN, services="mail")
        root = replace(ROOT, services="mail")
        act, rollouts, services = made.actions.versions, made.actions.deployments, made.actions.services
        for work in (
            made.register("v3", actor=ann),
            act.patch(ann, new, PatchVersion(status="staging")),
            act.drain(ann, old, DrainVersion()),
            act.delete(ann, old),
            act.test(ann, old, TestVersion()),
            rollouts.rollback(ann, record.id, Explain()),
            rollouts.pause(ann, record.id, Explain()),
            rollouts.undo(ann, "auth", Explain()),
            services.pause(ann, "auth", Explain()),
            services.patch(root, "auth", {"slowStart": 1}),
            services.delete(root, "auth"),
            made.actions.gateway.put_freeze(root, Freeze(frozen=True)),
            made.actions.gateway.upgrade(root),
        ):
            assert (await refusal(work)).status == 403
        assert (await made.actions.deployments.get(record.id)).status != "rolled_back"


async def test_a_service_that_never_worked_takes_nothing_from_one_that_does(tmp_path: Path) -> None:
    """Guards a working route from a dead url: it would be 503 instead."""
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        assert old
        new = await made.register("v1", service="login", routes=[{"path": "/auth/login"}, {"path": "/login"}])
        routes = made.links.newest.services["login"].settings.routes
        assert [route.path for route in routes] == ["/login"]
        assert [route.path for route in made.catalog.whole().services["login"].settings.routes] == ["/login"]
        await made.pass_probe(new.id)
        routes = made.links.newest.services["login"].settings.routes
        assert [route.path for route in routes] == ["/auth/login", "/login"]


async def test_what_was_withheld_is_followed_once_nobody_would_lose_it(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await made.register("v1", service="login", routes=[{"path": "/auth/login"}])
        assert made.links.newest.services["login"].settings.routes == ()
        await made.actions.services.delete(ROOT, "auth")
        assert [each.path for each in made.links.newest.services["login"].settings.routes] == ["/auth/login"]
