"""Services: declared, changed by merge patch, held, deleted, looked at."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.actions.bodies import Explain
from gateway.actions.problems import Problem
from gateway.actions.reports import quantile_ms
from gateway.actions.services import merged
from gateway.control.upstreams.breakers import BreakerStatus
from gateway.core.judge.buckets import bucket_of
from gateway.link.messages import Counts
from gateway.link.snapshot import BreakerView
from gateway.link.totals import VersionTotals
from gateway.store.records import HealthCheckRecord
from tests.unit.control.console import ANN, ROOT, START, console


async def refusal(work: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        await work
    return refused.value


async def test_a_service_is_made_and_told_of(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record = await made.service("mail", slowStart=7)
        assert (record.source, record.settings.slow_start) == ("api", 7)
        assert made.links.newest.services["mail"].settings.slow_start == 7
        assert await made.store.load_services() == [record]
        assert [each.name for each in (await made.actions.services.list_all()).items] == ["mail"]
        assert (await refusal(made.service("mail"))).status == 409
        assert (await refusal(made.actions.services.get("none"))).status == 404


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"routes": []}, 422, "/routes"),
        ({"routes": [{"path": "/taken"}]}, 409, None),
        ({"fallback": {"url": "http://169.254.169.254"}}, 422, "/fallback/url"),
        ({"webhooks": [{"url": "nonsense"}]}, 422, "/webhooks/0/url"),
        ({"tls": {"ca": "/nowhere/ca.pem"}}, 422, "/tls"),
    ],
)
async def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    async with console(tmp_path) as made:
        await made.service("taken")
        await made.service("other")
        for work in (made.service("mail", **body), made.actions.services.patch(ROOT, "other", body)):
            problem = await refusal(work)
            assert problem.status == status
            assert [error.pointer for error in problem.errors] == ([pointer] if pointer else [])
        assert len(await made.store.load_services()) == 2


async def test_a_patch_merges_and_null_restores_the_default(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.service("mail", slowStart=7, health={"interval": 500, "timeout": 100})
        record = await made.actions.services.patch(
            ROOT, "mail", {"slowStart": None, "health": {"timeout": 200}}
        )
        assert record.settings.slow_start == 10_000
        health = record.settings.health
        assert not isinstance(health, bool)
        assert (health.interval, health.timeout) == (500, 200)
        assert made.links.newest.services["mail"].settings == record.settings
        problem = await refusal(made.actions.services.patch(ROOT, "mail", {"health": {"interval": "x"}}))
        assert (problem.status, problem.errors[0].pointer) == (422, "/health/interval")


async def test_testers_secrets_are_replaced_as_a_whole_and_are_not_in_the_audit(tmp_path: Path) -> None:
    """Nobody can read their names to null one of them; one that leaked must stop working."""
    async with console(tmp_path) as made:
        await made.service("mail", testers={"cookie": "release", "values": {"hunter2": "v1"}})
        record = await made.actions.services.patch(ROOT, "mail", {"testers": {"values": {"hunter3": "v2"}}})
        assert record.settings.testers is not None
        assert (record.settings.testers.cookie, record.settings.testers.values) == (
            "release",
            {"hunter3": "v2"},
        )
        problem = await refusal(
            made.actions.services.patch(ROOT, "mail", {"testers": {"values": {"1***": "v2"}}})
        )
        assert (problem.status, problem.errors[0].pointer) == (422, "/testers/values")
        record = await made.actions.services.patch(ROOT, "mail", {"testers": None})
        assert record.settings.testers is None
        assert "hunter" not in str(await made.audit())


async def test_a_webhook_secret_is_not_in_the_audit(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.service("mail")
        hook = {"url": "http://127.0.0.1:1/x", "secret": "hunter2"}
        await made.actions.services.patch(ROOT, "mail", {"webhooks": [hook]})
        await made.actions.services.patch(ROOT, "mail", {"health": {"headers": {"X-Key": "hunter2"}}})
        slack = {"url": "http://127.0.0.1:1/hunter2", "format": "slack"}
        await made.actions.services.patch(ROOT, "mail", {"webhooks": [slack]})
        assert "hunter2" not in str(await made.audit())


async def test_what_stands_for_a_secret_does_not_become_one(tmp_path: Path) -> None:
    """Guards a webhook's signature from settings that were read, edited and sent back."""
    async with console(tmp_path) as made:
        await made.service("mail")
        hook = {"url": "http://127.0.0.1:1/x", "secret": "***"}
        problem = await refusal(made.actions.services.patch(ROOT, "mail", {"webhooks": [hook]}))
        assert (problem.status, problem.errors[0].pointer) == (422, "/webhooks/0/secret")
        headers = {"health": {"headers": {"X-Key": "***"}}}
        problem = await refusal(made.actions.services.patch(ROOT, "mail", headers))
        assert (problem.status, problem.errors[0].pointer) == (422, "/health/headers/X-Key")


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [1]}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "foo"}, "bar", "bar"),
    ],
)
def test_merge_patch_does_what_rfc_7396_says(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


async def test_a_paused_service_is_told_of_and_stays_paused_over_a_restart(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.service("mail")
        assert (await made.actions.services.pause(ANN, "mail", Explain(reason="database"))).paused
        assert made.links.newest.services["mail"].paused
        (stored,) = await made.store.load_services()
        assert stored.paused
        assert not (await made.actions.services.resume(ANN, "mail", Explain())).paused
        assert [event.kind for event in await made.store.events()][-2:] == [
            "service.paused",
            "service.resumed",
        ]


async def test_a_deleted_service_is_gone_with_its_versions(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        deployment = await made.start()
        assert (await refusal(made.actions.services.delete(ROOT, "auth"))).status == 409
        await made.settle()
        made.links.in_flight = 1  # the drain of the new version goes on
        await made.actions.deployments.rollback(ANN, deployment.id, Explain())
        while made.rollouts.open_for("auth") is not None:
            await made.settle_once()
        assert made.rollouts.state_of(deployment.id) is not None
        await made.actions.services.delete(ROOT, "auth")
        state = made.rollouts.state_of(deployment.id)
        assert state is None or state.cleaned
        assert made.links.newest.removed == ("auth",)
        assert await made.store.load_versions() == []
        assert (await made.actions.deployments.list_all("auth")).items[0].id == deployment.id


async def test_health_shows_endpoints_breakers_and_probes(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        (key,) = made.catalog.endpoint_keys(old)
        made.catalog.set_breaker(key, BreakerView(1, "OPEN", 0, 2.5))
        made.breakers[key] = BreakerStatus(5, START, START + timedelta(seconds=2.5))
        probe = HealthCheckRecord(
            id="h", version_id=old, endpoint=key, is_healthy=True, response_time=3, checked_at=START
        )
        async with made.store.transaction() as tx:
            tx.add_health([probe])
        health = await made.actions.reports.health("auth")
        assert [version.version for version in health.versions] == ["v1", "v2"]
        first = health.versions[0]
        assert (first.circuit_state, [check.id for check in first.checks]) == ("OPEN", ["h"])
        (endpoint,) = first.endpoints
        assert (endpoint.key, endpoint.circuit_state, endpoint.failure_count) == (key, "OPEN", 5)
        assert endpoint.last_failure_time == START
        assert endpoint.next_attempt_time == START + timedelta(seconds=2.5)
        assert (await made.actions.versions.get(old)).failure_count == 5


async def test_stats_add_up_what_was_counted(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        totals = VersionTotals(
            service="auth",
            version="v1",
            version_id=old,
            requests=[("GET", 200, 90), ("POST", 200, 5), ("GET", 503, 5)],
            attempts={"answered": 100},
            latency={bucket_of(1_000): 95, bucket_of(50_000): 5},
            latency_us=0,
            in_flight=3,
            streams=1,
            judged=[],
        )
        made.tally.on_counts(0, "incarnation", Counts(versions=(totals,)))
        stats = (await made.actions.reports.stats("auth")).versions[0]
        assert (stats.requests, stats.total, stats.errors) == ({"200": 95, "503": 5}, 100, 5)
        assert (stats.in_flight, stats.streams) == (3, 1)
        assert stats.p50_ms is not None
        assert stats.p99_ms is not None
        assert 1 <= stats.p50_ms < 1.2
        assert 50 <= stats.p99_ms < 60
        assert quantile_ms({}, 0.5) is None
