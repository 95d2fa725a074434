"""The exposition is what Prometheus reads, and its numbers are the tally's."""

import re
from types import SimpleNamespace as Fake
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.exposition import Family, labels, text_of, wants_open_metrics
from gateway.admin.metrics import Watched, newest_by_service
from gateway.admin.rollout_series import decision_families, deployment_families, evidence_families
from gateway.admin.version_series import Retired, version_families
from gateway.control.rollouts.counted import RolloutCounts
from gateway.control.spans import Exemplar
from gateway.control.sums import VersionSum
from gateway.link.counts import EDGES_US, PLACES, VersionCounts, totals_of
from gateway.link.messages import Counts
from gateway.store.records import ANY_VERSION, DeploymentRecord
from tests.unit.admin.bench import AT, Bench
from tests.unit.store.rows import a_node


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


async def test_open_metrics_is_for_who_prefers_it_and_has_exemplars(bench: Bench) -> None:
    counts = VersionCounts("auth", "v1.1", "ver-1")
    counts.request("GET", 200, 1_000, 900)
    bench.tally.on_counts(0, "incarnation", Counts(versions=(totals_of(counts),)))
    response = await bench.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert dict(response.fields)["Content-Type"].startswith("application/openmetrics-text")
    text = response.body.decode()
    assert text.endswith("# EOF\n")
    names = {family.name for family in open_metrics_families(text)}
    assert {
        "gateway_requests",
        "gateway_request_duration_seconds",
        "gateway_control_process_cpu_seconds",
    } <= names
    assert len(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) == len(names), "each family once"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;q=0.5, text/plain", False),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)
def test_accept_field_chooses_the_format(accept: str, wanted: bool) -> None:
    assert wants_open_metrics(accept) is wanted


def test_histogram_is_cumulative_and_names_its_exemplars() -> None:
    family = Family("gateway_x_seconds", "histogram", "text")
    places = [0] * PLACES
    places[0], places[2], places[-1] = 3, 2, 1
    exemplar = Exemplar("a" * 32, 0.0026, 1_700_000_000.5)
    family.add_histogram(places, 5_000_000, labels(service='a"b\\c\n'), {2: exemplar})
    lines = family.rendered(is_open=True).splitlines()[2:]
    assert lines[0] == 'gateway_x_seconds_bucket{service="a\\"b\\\\c\\n",le="0.001"} 3'
    assert lines[2].endswith(f'le="0.005"}} 5 # {{trace_id="{"a" * 32}"}} 0.0026 1700000000.500')
    assert [line.rpartition(" ")[2] for line in lines[-3:]] == ["6", "5.0", "6"]
    bounds = [line.partition('le="')[2].partition('"')[0] for line in lines[:-2]]
    assert [float(bound) for bound in bounds] == [*(edge / 1e6 for edge in EDGES_US), float("inf")]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_series_of_a_retired_version_end_an_hour_after_its_last_request() -> None:
    clock, total = Clock(), VersionSum(service="auth", version="v1", attempts={"answered": 5})
    serving: Any = Fake(service_name="auth", version="v1", status="production", weight=100)
    deprecated: Any = Fake(service_name="auth", version="v1", status="deprecated", weight=0)
    retired = Retired(clock)
    for record in (serving, deprecated):
        clock.now += 7200
        assert set(retired.shown({"id": total}, {"id": record})) == ({"id"} if record is serving else set())
    total = replace(total, attempts={"answered": 6})
    assert set(retired.shown({"id": total}, {"id": deprecated})) == {"id"}, "it was asked again"
    clock.now += 3599
    assert set(retired.shown({"id": total}, {})) == {"id"}, "deleted, but a while ago only"
    clock.now += 1
    assert retired.shown({"id": total}, {}) == {}
    assert retired.shown({}, {}) == {}
    assert retired._seen == {}


def test_version_that_nobody_asked_yet_is_shown_with_zeros() -> None:
    record: Any = Fake(service_name="auth", version="v1", status="testing", weight=0)
    shown = Retired(Clock()).shown({}, {"id": record})
    text = text_of(version_families(shown, {"id": record}, {}, lambda _: {}), is_open=False)
    for series in (
        'gateway_requests_total{service="auth",version="v1",method="GET",code="503"} 0',
        'gateway_attempts_total{service="auth",version="v1",outcome="connect"} 0',
        'gateway_retries_total{service="auth",version="v1",outcome="no_budget"} 0',
        'gateway_abandoned_total{service="auth",version="v1"} 0',
        'gateway_probes_total{service="auth",version="v1",result="failed"} 0',
        'gateway_own_duration_seconds_count{service="auth",version="v1"} 0',
    ):
        assert f"\n{series}\n" in text


def test_service_without_a_deployment_is_shown_with_zeros() -> None:
    watched = Watched()
    families = [
        *deployment_families(["auth"], []),
        *evidence_families(["auth"], watched.rollouts),
        *decision_families(["auth"], RolloutCounts()),
    ]
    text = text_of(families, is_open=False)
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.endswith((" 0", " 0.0")) for line in samples)
    assert 'gateway_rollbacks_total{service="auth",reason="comparison"} 0' in samples
    assert 'gateway_deployment_status{service="auth",strategy="none",status="rolling"} 0' in samples


async def test_nodes_are_counted_by_state_and_those_of_one_name_are_one_series(bench: Bench) -> None:
    node = a_node(AT, id="1", name="a", applied_revision=7, wanted_revision=9, is_leader=True)
    bench.store.node_states = [
        node,
        replace(node, id="2", applied_revision=4),
        replace(node, id="3", name="b", applied_revision=None),
        replace(node, id="4", name="c", is_silent=True, is_isolated=True),
        replace(node, id="5", name="d", is_silent=True),
        replace(node, id="6", name="e", applied_revision=None, draining=(ANY_VERSION,)),
    ]
    lines = (await bench.ask("GET", "/metrics", role="viewer")).body.decode().splitlines()
    assert {line for line in lines if line.startswith("gateway_node")} == {
        'gateway_nodes{state="live"} 2',
        'gateway_nodes{state="standby"} 1',
        'gateway_nodes{state="stopping"} 1',
        'gateway_nodes{state="isolated"} 1',
        'gateway_nodes{state="silent"} 1',
        'gateway_node_revision{node="a"} 4',
        'gateway_node_revision{node="c"} 7',
        'gateway_node_revision{node="d"} 7',
        'gateway_node_revisions_behind{node="a"} 5',
        'gateway_node_revisions_behind{node="c"} 2',
        'gateway_node_revisions_behind{node="d"} 2',
    }
