"""Versions: what registering, changing, testing, draining and deleting do, and when they are refused."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.actions.access import etag
from gateway.actions.bodies import DrainVersion, PatchVersion, TestVersion
from gateway.actions.problems import Problem
from gateway.core.settings.smoke import SmokeEndpoint, SmokeSettings
from gateway.link.snapshot import BreakerView
from tests.unit.control.console import ANN, OPERATOR, Console, console


def patch(**fields: Any) -> PatchVersion:
    return msgspec.convert(fields, PatchVersion)


async def refusal(work: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await work
    return refused.value


async def test_the_first_version_gets_all_weight_and_begins_with_its_first_probe(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record = await made.register("v1")
        assert (record.weight, record.status, record.is_active) == (100, "testing", False)
        assert not made.catalog.is_usable(record.id)
        await made.pass_probe(record.id)
        record = await made.actions.versions.get(record.id)
        assert (record.is_active, record.status) == (True, "production")
        assert made.catalog.is_usable(record.id)
        assert (await made.actions.services.get("auth")).current_version_id == record.id
        (snap,) = made.links.newest.services["auth"].versions
        assert (snap.active, snap.weight) == (True, 100)


async def test_later_versions_get_no_weight_and_wait(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        assert made.weights() == {"v1": 100, "v2": 0}
        record = await made.actions.versions.get(new)
        assert (record.is_active, record.status, record.health_status) == (False, "testing", "healthy")
        assert (await made.actions.services.get("auth")).current_version_id == old


async def test_a_version_is_stored_audited_and_told_of(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record = await made.register(
            "v1", replicas=["http://127.0.0.1:7300"], shutdownUrl="http://127.0.0.1:7200/stop"
        )
        stored = await made.stored(record.id)
        assert (stored.replicas, stored.shutdown_url) == (
            ("http://127.0.0.1:7300",),
            "http://127.0.0.1:7200/stop",
        )
        row = (await made.audit())[0]
        assert (row.actor, row.action, row.resource, row.resource_id, row.allowed, row.address) == (
            "ann",
            "version.create",
            "version",
            record.id,
            True,
            "10.0.0.9",
        )
        kinds = [event.kind for event in await made.store.events()]
        assert kinds == ["service.created", "version.created"]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"url": "nonsense"}, 422, "/url"),
        ({"url": "http://u:p@x"}, 422, "/url"),
        ({"url": "ftp://127.0.0.1"}, 422, "/url"),
        ({"url": "http://169.254.169.254"}, 422, "/url"),
        ({"url": "http://[fd00:ec2::254]"}, 422, "/url"),
        ({"url": "http://127.0.0.1:4201"}, 422, "/url"),
        ({"url": "http://127.0.0.1:7200/path"}, 422, "/url"),
        ({"replicas": ["http://127.0.0.1:1", "http://169.254.0.1"]}, 422, "/replicas/1"),
        ({"replicas": ["http://127.0.0.1:1", "http://127.0.0.1:1"]}, 422, "/replicas/1"),
        ({"shutdownUrl": "http://127.0.0.1:4201/x"}, 422, "/shutdownUrl"),
        ({"status": "deprecated"}, 422, "/status"),
        ({"routes": []}, 404, None),
    ],
)
async def test_a_bad_registration_is_refused_audited_and_changes_nothing(
    tmp_path: Path, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    async with console(tmp_path) as made:
        problem = await refusal(made.register("v1", **body))
        assert problem.status == status
        assert [error.pointer for error in problem.errors] == ([pointer] if pointer else [])
        assert await made.store.load_services() == [] == await made.store.load_versions()
        assert not made.catalog.services
        (row,) = await made.audit()
        assert (row.action, row.allowed, row.details["reason"]) == ("version.create", False, str(problem))


async def test_credentials_of_a_refused_url_are_not_in_the_audit(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await refusal(made.register("v1", url="http://user:hunter2@127.0.0.1:bad"))
        assert "hunter2" not in str(await made.audit())


async def test_a_name_is_taken_once_and_routes_of_others_are_refused(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        url = (await made.register("v1")).url
        assert (await refusal(made.register("v1", url=url))).status == 409
        problem = await refusal(made.register("v1", service="other", routes=[{"path": "/auth"}]))
        assert problem.status == 409
        assert "'auth'" in problem.detail
        assert "'other'" in problem.detail
        assert (await refusal(made.register("v2", routes=[{"path": "/else"}]))).status == 409


async def test_weight_for_a_later_version_needs_a_deployer(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.register("v1")
        assert (await refusal(made.register("v2", actor=OPERATOR, weight=10))).status == 403
        generation = made.catalog.service_record("auth").generation
        await made.register("v2", actor=ANN, weight=10)
        assert made.catalog.service_record("auth").generation == generation + 1
        assert made.weights() == {"v1": 100, "v2": 10}


async def test_a_named_host_is_looked_up_and_gets_its_endpoints(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        made.addresses["http://auth.test:7200"] = ("10.0.0.1", "10.0.0.2")
        record = await made.register("v1", url="http://auth.test:7200")
        keys = made.catalog.endpoint_keys(record.id)
        assert keys == tuple(f"{record.id}|http://auth.test:7200|10.0.0.{n}" for n in (1, 2))
        (snap,) = made.links.newest.services["auth"].versions
        assert [(endpoint.address, endpoint.port) for endpoint in snap.endpoints] == [
            ("10.0.0.1", 7200),
            ("10.0.0.2", 7200),
        ]


# Changing


async def test_a_new_weight_is_a_new_generation_in_one_transaction(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        generation = (await made.actions.services.get("auth")).generation
        record = await made.actions.versions.patch(ANN, new, patch(weight=25))
        assert (record.weight, record.is_active) == (25, True)
        assert made.weights() == {"v1": 100, "v2": 25}
        (service,) = await made.store.load_services()
        assert service.generation == generation + 1 == made.links.newest.services["auth"].generation
        assert (await made.stored(new)).weight == 25


async def test_the_version_left_alone_with_weight_becomes_current(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        await made.actions.versions.patch(ANN, new, patch(weight=100))
        assert (await made.actions.services.get("auth")).current_version_id == old
        await made.actions.versions.patch(ANN, old, patch(weight=0))
        assert (await made.actions.services.get("auth")).current_version_id == new


async def test_some_version_must_keep_weight(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        assert (await refusal(made.actions.versions.patch(ANN, old, patch(weight=0)))).status == 409


async def test_weights_belong_to_an_open_deployment(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        deployment = await made.start()
        for version in (old, new):
            problem = await refusal(made.actions.versions.patch(ANN, version, patch(weight=50)))
            assert problem.status == 409
            assert deployment.id in problem.detail
        await made.actions.versions.patch(ANN, new, patch(shutdownUrl="http://127.0.0.1:1/x"))
        assert (await refusal(made.register("v3", weight=5))).status == 409


async def test_a_change_of_what_has_changed_is_refused(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        seen = etag(await made.actions.versions.get(new))
        await made.actions.versions.patch(ANN, new, patch(weight=5), if_match=seen)
        problem = await refusal(made.actions.versions.patch(ANN, new, patch(weight=6), if_match=seen))
        assert problem.status == 412
        await made.actions.versions.patch(ANN, new, patch(weight=6), if_match="*")
        latest = etag(await made.actions.versions.get(new))
        await made.actions.versions.patch(ANN, new, patch(weight=7), if_match=f'"x", {latest}')


async def test_workers_are_told_of_a_change_only_where_it_concerns_them(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        before = made.links.newest.number
        await made.actions.versions.patch(ANN, new, patch(shutdownUrl="http://127.0.0.1:7201/stop", weight=0))
        assert (await made.stored(new)).shutdown_url == "http://127.0.0.1:7201/stop"
        assert made.links.newest.number == before
        for change in (patch(weight=10), patch(replicas=["http://127.0.0.1:7301"])):
            await made.actions.versions.patch(ANN, new, change)
            assert made.links.newest.number > before
            before = made.links.newest.number
        assert made.weights() == {"v1": 100, "v2": 10}


async def test_an_operator_may_not_change_a_weight(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        assert (await refusal(made.actions.versions.patch(OPERATOR, new, patch(weight=5)))).status == 403
        row = (await made.audit())[0]
        assert (row.actor, row.allowed, row.details["weight"]) == ("oli", False, 5)


async def test_new_replicas_are_endpoints_that_have_to_pass_first(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        before = made.catalog.endpoint_keys(old)
        await made.actions.versions.patch(ANN, old, patch(replicas=["http://127.0.0.1:9"]))
        endpoints = list(made.catalog.version(old).endpoints.values())
        assert endpoints[0].key == before[0]
        assert [endpoint.is_healthy for endpoint in endpoints] == [True, False]
        await made.actions.versions.patch(ANN, old, patch(replicas=[]))
        assert made.catalog.endpoint_keys(old) == before


# Testing


async def test_a_test_says_what_was_asked_and_how_it_went(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record = await made.register("v1")
        tests = SmokeSettings(endpoints=(SmokeEndpoint(path="/mine"),))
        report = await made.actions.versions.test(ANN, record.id, TestVersion(smoke_tests=tests))
        assert (report.is_healthy, report.response_time, len(report.tests)) == (True, 3, 1)
        assert made.checks.tested == [tests]
        made.checks.probe_error = "status 503"
        report = await made.actions.versions.test(ANN, record.id, TestVersion())
        assert not report.is_healthy
        assert report.tests[0].error == "health check: status 503"
        made.checks.probe_error, made.checks.smoke_ok = None, False
        assert not (await made.actions.versions.test(ANN, record.id, TestVersion())).is_healthy


async def test_what_does_not_exist_is_404(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        for work in (
            made.actions.versions.get("x"),
            made.actions.versions.patch(ANN, "x", patch(weight=1)),
            made.actions.versions.delete(ANN, "x"),
            made.actions.versions.test(ANN, "x", TestVersion()),
            made.actions.versions.drain(ANN, "x", DrainVersion()),
            made.actions.versions.drain_state("x"),
        ):
            assert (await refusal(work)).status == 404


async def test_a_filter_that_nothing_passes_leaves_an_empty_list(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        assert (await made.actions.versions.list_all("x")).items == []
        assert (await made.actions.deployments.list_all(service_name="x")).items == []


# Draining and deleting


async def drained(made: Console, version_id: str) -> None:
    await made.actions.versions.drain(ANN, version_id, DrainVersion(timeout=1000))
    await made.drains.drain(version_id, 0)


async def test_the_last_usable_version_is_not_drained(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        assert (await refusal(made.actions.versions.drain(ANN, old, DrainVersion()))).status == 409
        await made.actions.versions.patch(ANN, new, patch(weight=50))
        key = made.catalog.endpoint_keys(new)[0]
        made.catalog.set_breaker(key, BreakerView(1, "OPEN"))
        assert (await refusal(made.actions.versions.drain(ANN, old, DrainVersion()))).status == 409
        made.catalog.set_breaker(key, BreakerView(2, "CLOSED"))
        assert (await refusal(made.actions.versions.drain(OPERATOR, old, DrainVersion()))).status == 403
        state = await made.actions.versions.drain(ANN, old, DrainVersion(timeout=1000))
        assert state.state == "draining"
        assert made.weights() == {"v1": 0, "v2": 50}
        assert (await made.actions.services.get("auth")).current_version_id == new


async def test_a_drain_waits_for_what_runs_and_then_says_so(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        made.links.in_flight = 2
        state = await made.actions.versions.drain(OPERATOR, new, DrainVersion(timeout=60_000))
        assert (state.state, state.in_flight, state.safe_to_stop) == ("draining", 2, False)
        assert (await refusal(made.actions.versions.delete(ANN, new))).status == 409
        made.links.in_flight = 0
        await made.drains.drain(new, 0)
        state = await made.actions.versions.drain_state(new)
        assert (state.state, state.in_flight, state.safe_to_stop) == ("drained", 0, True)
        again = await made.actions.versions.drain(OPERATOR, new, DrainVersion())
        assert again.state == "drained"
        assert (await made.stored(new)).drained


async def test_a_drained_version_can_be_deleted_and_is_gone(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        await drained(made, new)
        await made.actions.versions.delete(ANN, new)
        assert (await refusal(made.actions.versions.get(new))).status == 404
        assert [version.version for version in await made.store.load_versions()] == ["v1"]
        assert made.weights() == {"v1": 100}
        await made.register("v2")


async def test_a_version_of_an_open_deployment_is_neither_drained_nor_deleted(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        await made.start()
        for version in (old, new):
            assert (await refusal(made.actions.versions.drain(ANN, version, DrainVersion()))).status == 409
            assert (await refusal(made.actions.versions.delete(ANN, version))).status == 409


async def test_a_drained_version_gets_no_weight_by_hand(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        await drained(made, new)
        assert (await refusal(made.actions.versions.patch(ANN, new, patch(weight=5)))).status == 409


# -- a url that was mistyped


async def test_registering_again_corrects_the_url_of_what_never_had_traffic(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        wrong = await made.register("v1", url="http://127.0.0.1:7299")
        right = await made.register("v1", url="http://127.0.0.1:7200")
        assert (right.id, right.url, right.weight) == (wrong.id, "http://127.0.0.1:7200", 100)
        assert [each.url for each in made.catalog.version(right.id).endpoints.values()] == [right.url]
        assert (await made.stored(right.id)).url == right.url


async def test_registering_again_is_refused_once_it_had_traffic(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        assert (await refusal(made.register("v1", url="http://127.0.0.1:7299"))).status == 409
        same = made.catalog.version(new).record
        assert (await refusal(made.register("v2", url=same.url))).status == 409, "nothing is corrected"
        assert made.catalog.version(old).record.is_active


async def test_a_changed_url_is_untested_again(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        moved = await made.actions.versions.patch(OPERATOR, new, patch(url="http://127.0.0.1:7299"))
        assert (moved.url, moved.health_status, moved.ever_healthy) == (
            "http://127.0.0.1:7299",
            "unknown",
            False,
        )
        refused = await refusal(
            made.actions.versions.patch(OPERATOR, old, patch(url="http://127.0.0.1:7298"))
        )
        assert refused.status == 403, "it has weight: that moves live traffic"
        refused = await refusal(made.actions.versions.patch(ANN, new, patch(url="http://169.254.169.254")))
        assert (refused.status, refused.errors[0].pointer) == (422, "/url")


async def test_a_first_version_that_never_was_live_can_be_drained_and_deleted(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        wrong = await made.register("v1", url="http://127.0.0.1:7299")
        await made.actions.versions.drain(ANN, wrong.id, DrainVersion(timeout=0))
        assert made.catalog.version(wrong.id).record.draining
