"""What /metrics says of a gateway with one of everything: the names and labels others may use."""

import asyncio
from types import SimpleNamespace as Fake
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.metrics import Metrics, Watched
from gateway.control.sums import VersionSum


def exposed() -> dict[str, set[str]]:
    """Return sample name -> its label names, of every metric but those of the admin process itself."""
    metrics = Metrics(
        catalog=_catalog(),
        tally=_tally(),
        hub=_hub(),
        store=_store(),
        restarts={"hung": 1},
        unready=lambda: None,
        watch=Fake(problem="", audit=Fake(ok=True, reason="")),
        expiries=lambda: {("0.0.0.0:443", "a.example"): 1.0},
        is_reloaded=lambda: True,
        release="1",
        watched=Watched(store_errors={"busy": 1}),
    )
    metrics.admin_request("GET", 200, 0.01)
    metrics.refused("login")
    text = asyncio.run(metrics.exposition()).decode()
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def _catalog() -> Any:
    endpoint = Fake(name="127.0.0.1:7200", breaker=Fake(state="CLOSED"), is_healthy=True, draining=False)
    record = Fake(
        id="v",
        service_name="auth",
        version="v1.0",
        weight=100,
        health_status="healthy",
        is_active=True,
        status="production",
    )
    version = Fake(record=record, endpoints={"e": endpoint})
    services = {"auth": Fake(record=Fake(name="auth"), versions={"v": version})}
    return Fake(services=services, shares=lambda name: {"v": 100.0})


def _tally() -> Any:
    total = VersionSum(
        service="auth", version="v1.0", requests={("GET", 200): 1}, attempts={"answered": 1}, latency_us=1
    )
    workers = Fake(
        accepted=1,
        connections=1,
        forced=0,
        log_dropped=0,
        refused={"no_route": 1},
        spans_dropped=0,
        upstream={},
    )
    return Fake(versions=lambda: {"v": total}, workers=lambda: workers, loop_lag_us={0: 1})


def _hub() -> Any:
    return Fake(apply_us={0: 1}, workers=lambda: [Fake(slot=0, applied=1, draining=False)])


def _store() -> Any:
    rollout = Fake(service_name="auth", strategy="canary", status="rolling", traffic_percent=10)

    async def deployments(limit: int) -> Any:
        return Fake(items=[rollout])

    async def nodes() -> Any:
        return [
            Fake(
                name="a",
                applied_revision=1,
                wanted_revision=1,
                is_silent=False,
                is_isolated=False,
                is_stopping=False,
            )
        ]

    return Fake(epoch=1, deployments=deployments, nodes=nodes)
