"""The exposition is what Prometheus reads, and its numbers are the tally's."""

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.metrics import newest_by_service
from gateway.link.counts import VersionCounts, totals_of
from gateway.link.messages import Counts
from gateway.store.records import DeploymentRecord
from tests.unit.admin.bench import Bench


async def test_counts_of_workers_are_exposed_by_version(bench: Bench, deployment: DeploymentRecord) -> None:
    counts = VersionCounts("auth", "v1.1", "ver-1")
    counts.request("GET", 200, 1_000, 900)
    counts.request("GET", 503, 2_000, 900)
    counts.attempt("answered")
    report = Counts(
        versions=(totals_of(counts),),
        connections=4,
        accepted=9,
        refused={"no_route": 2},
        log_dropped=3,
        loop_lag_us=1500,
    )
    bench.tally.on_counts(0, "incarnation", report)
    bench.store.deployment_records = [deployment]
    response = await bench.ask("GET", "/metrics", role="viewer")
    assert dict(response.fields)["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }
    version = (("service", "auth"), ("version", "v1.1"))
    assert samples["gateway_requests_total", ("code", "503"), ("method", "GET"), *version] == 1
    assert samples["gateway_attempts_total", ("outcome", "answered"), *version] == 1
    assert samples["gateway_request_duration_seconds_count", *version] == 2
    assert samples["gateway_request_duration_seconds_sum", *version] == 0.003
    assert samples["gateway_connections_total",] == 9
    assert samples["gateway_connections_open",] == 4
    assert samples["gateway_access_log_dropped_total",] == 3
    assert samples["gateway_refused_total", ("reason", "no_route")] == 2
    assert samples["gateway_worker_loop_lag_seconds", ("slot", "0")] == 0.0015
    assert samples["gateway_snapshot_apply_seconds", ("slot", "0")] == 0.00025
    assert samples["gateway_worker_restarts_total", ("cause", "exited")] == 2
    certificate = (("listen", "0.0.0.0:443"), ("name", "a.example"))
    assert samples["gateway_certificate_expiry_timestamp_seconds", *certificate] == 1_800_000_000
    assert samples["gateway_ready_status",] == 1
    status = (("service", "auth"), ("status", "pending"), ("strategy", "canary"))
    assert samples["gateway_deployment_status", *status] == 1


async def test_answers_of_the_admin_listener_are_counted(bench: Bench) -> None:
    await bench.ask("GET", "/livez", role=None)
    await bench.ask("BREW", "/livez", role=None)
    await bench.ask("POST", "/api/v1/admin/tokens", role="viewer")
    text = (await bench.ask("GET", "/metrics")).body.decode()
    assert 'gateway_admin_request_duration_seconds_count{code="200",method="GET"} 1.0' in text
    assert 'gateway_admin_request_duration_seconds_count{code="405",method="other"} 1.0' in text
    assert 'gateway_admin_refused_total{reason="role"} 1.0' in text


def test_only_the_newest_deployment_of_a_service_is_shown(deployment: DeploymentRecord) -> None:
    older = msgspec.structs.replace(deployment, id="older", status="rolled_back")
    assert newest_by_service([deployment, older]) == [deployment]
