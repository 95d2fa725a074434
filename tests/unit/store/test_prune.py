"""What is forgotten, and what is kept."""

import uuid
from datetime import timedelta

import pytest

from gateway.store.records import (
    DecisionRecord,
    EventRecord,
    HealthCheckRecord,
    Retention,
    StatisticRecord,
    WindowRecord,
)
from tests.unit.store.rows import NOW, Kept, a_deployment


async def test_pruning_keeps_the_newest_probes_of_each_endpoint(kept: Kept) -> None:
    store = await kept.with_service()
    async with store.transaction() as tx:
        tx.add_health(
            HealthCheckRecord(
                id=str(uuid.uuid4()),
                version_id="auth-v1",
                endpoint=endpoint,
                is_healthy=True,
                response_time=n,
                checked_at=NOW + timedelta(seconds=n),
            )
            for endpoint in ("a", "b")
            for n in range(12 if endpoint == "a" else 3)
        )
    deleted = await store.prune(NOW, Retention(health_checks_per_endpoint=5))
    assert deleted == {"gateway_health_check": 7}
    kept = [(probe.endpoint, probe.response_time) for probe in (await store.health("auth-v1")).items]
    assert sorted(kept) == [("a", n) for n in range(7, 12)] + [("b", n) for n in range(3)]
    await store.close()


async def test_pruning_forgets_by_age_and_never_gives_an_event_id_twice(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.prune.STRIDE", 4)
    store = await kept.with_service()
    async with store.transaction() as tx:
        tx.put_deployment(a_deployment("d"))
        for n in range(10):
            at = NOW + timedelta(days=n)
            tx.add_event(EventRecord(at=at, kind="k"))
            tx.add_decision(DecisionRecord(deployment_id="d", at=at, step=0, verdict="hold", reason=""))
            tx.add_statistic(
                StatisticRecord(
                    deployment_id="d",
                    at=at,
                    step=0,
                    percent=1,
                    verdict="hold",
                    gate="rate",
                    statistic=1,
                    limit=2,
                )
            )
            tx.add_windows(
                [
                    WindowRecord(
                        deployment_id="d",
                        version_id="v",
                        generation=1,
                        share=1,
                        started_at=at,
                        seconds=1,
                        answers=1,
                    )
                ]
            )
    keep = Retention(events_days=3, decisions_days=2, windows_days=1)
    deleted = await store.prune(NOW + timedelta(days=9), keep)
    assert deleted == {"gateway_event": 6, "gateway_decision": 7, "gateway_window": 8, "gateway_statistic": 8}
    assert [event.id for event in await store.events()] == [7, 8, 9, 10]
    await store.prune(NOW + timedelta(days=90), keep)
    async with store.transaction() as tx:
        assert tx.add_event(EventRecord(at=NOW, kind="k")) == 11
    await store.close()
