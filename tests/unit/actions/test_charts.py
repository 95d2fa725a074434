"""A rollout's windows as they are drawn, and what somebody has said of its end."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.actions.access import Actor
from gateway.actions.bodies import Acknowledge, Explain
from gateway.actions.charts import MOST_POINTS, drawn
from gateway.actions.problems import Problem
from gateway.store.records import StatisticRecord, WindowRecord
from tests.unit.control.console import ANN, OPERATOR, START, Console, console
from tests.unit.store.rows import a_deployment

SECOND = timedelta(seconds=1)


def row(
    deployment: str, version: str, at: int, answers: int, *, share: int = 1000, **errors: int
) -> WindowRecord:
    return WindowRecord(
        deployment_id=deployment,
        version_id=version,
        generation=share,
        share=share,
        started_at=START + at * SECOND,
        seconds=1.0,
        answers=answers,
        errors={key.replace("_", "|"): count for key, count in errors.items()},
        latency={40: answers} if answers else {},
    )


def point(deployment: str, at: int, statistic: float) -> StatisticRecord:
    return StatisticRecord(
        deployment_id=deployment,
        at=START + at * SECOND,
        step=0,
        percent=10,
        verdict="hold",
        gate="requests",
        statistic=statistic,
        limit=200.0,
    )


async def test_windows_show_both_versions_errors_by_kind_and_the_statistic(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        record = await made.start()
        await made.settle()
        async with made.store.transaction() as tx:
            tx.add_windows([row(record.id, old, 0, 90, share=9000), row(record.id, new, 0, 10)])
            tx.add_windows([row(record.id, new, 1, 20, **{"500_GET /a": 3, "404": 2, "500": 1})])
            tx.add_statistic(point(record.id, 1, 3.5))
        shown = await made.actions.charts.windows(record.id)
        first, second = shown.windows
        assert first.old is not None
        assert first.new is not None
        assert (first.old.share, first.old.requests, first.new.share) == (90.0, 90, 10.0)
        assert first.new.p50_ms
        assert second.old is None
        assert second.new is not None
        assert second.new.errors == {"500": 4, "404": 2}
        assert second.new.failed == 4, "404 is no error unless the rollout's settings say so"
        assert second.new.routes == {"GET /a": 3}
        [only] = shown.statistics
        assert (only.statistic, only.limit, only.advance_below) == (3.5, 200.0, 20.0)
        assert shown.marks[0].verdict == "start"
        assert [mark.at for mark in shown.marks] == sorted(mark.at for mark in shown.marks)
        later = await made.actions.charts.windows(record.id, START + SECOND)
        assert (len(later.windows), len(later.statistics)) == (1, 1)
        with pytest.raises(Problem) as refused:
            await made.actions.charts.windows("nowhere")
        assert refused.value.status == 404


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
async def test_a_time_that_utc_does_not_have_is_a_wrong_parameter(tmp_path: Path, text: str) -> None:
    """It was a 500."""
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start()
        with pytest.raises(Problem) as refused:
            await made.actions.charts.windows(record.id, datetime.fromisoformat(text))
        assert (refused.value.status, refused.value.errors[0].pointer) == (422, "?since")


def test_neighbours_of_a_long_rollout_are_joined_and_nothing_is_lost() -> None:
    record = replace(a_deployment("d"), from_version_id="o", to_version_id="n")
    rows = [row("d", version, at, 2) for at in range(MOST_POINTS + 1) for version in ("o", "n")]
    windows = drawn(rows, record)
    assert len(windows) <= MOST_POINTS
    assert sum(each.new.requests for each in windows if each.new) == 2 * (MOST_POINTS + 1)
    assert windows[0].seconds == 2.0
    assert drawn([], record) == []


async def rolled_back(made: Console) -> str:
    await made.two_versions()
    record = await made.start()
    await made.settle()
    await made.actions.deployments.rollback(ANN, record.id, Explain(reason="it smells"))
    await made.settle()
    return record.id


async def test_a_rollback_is_an_alert_until_somebody_has_acknowledged_it(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        deployment = await rolled_back(made)
        [alert] = await made.actions.acknowledgements.alerts()
        assert (alert.deployment_id, alert.kind, alert.to_version) == (deployment, "rolled_back", "v2")
        assert "it smells" in alert.reason
        assert await made.actions.acknowledgements.alerts("basket") == []
        await made.actions.acknowledgements.acknowledge(OPERATOR, deployment, Acknowledge(note="known"))
        assert await made.actions.acknowledgements.alerts() == []
        seen = (await made.actions.acknowledgements.of([deployment]))[deployment]
        assert (seen.actor, seen.note) == ("oli", "known")
        [row] = [row for row in await made.audit() if row.action == "deployment.ack"]
        assert (row.actor, row.allowed, row.resource_id) == ("oli", True, deployment)
        assert row.details == {"note": "known", "service": "auth"}


async def test_a_pause_after_the_acknowledgement_is_news(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        record = await made.start()
        await made.settle()
        deployments, acks = made.actions.deployments, made.actions.acknowledgements
        await deployments.pause(ANN, record.id, Explain(reason="first"))
        assert [alert.kind for alert in await acks.alerts()] == ["paused"]
        await acks.acknowledge(ANN, record.id, Acknowledge())
        assert await acks.alerts() == []
        await deployments.resume(ANN, record.id, Explain())
        assert await acks.alerts() == [], "it goes on"
        await deployments.pause(ANN, record.id, Explain(reason="second"))
        assert [alert.kind for alert in await acks.alerts()] == ["paused"]


async def test_a_token_for_other_services_acknowledges_nothing(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        deployment = await rolled_back(made)
        stranger = Actor(name="eve", role="admin", services="basket")
        for actor, name, status in ((stranger, deployment, 403), (ANN, "nowhere", 404)):
            with pytest.raises(Problem) as refused:
                await made.actions.acknowledgements.acknowledge(actor, name, Acknowledge())
            assert refused.value.status == status
        assert len(await made.actions.acknowledgements.alerts()) == 1
