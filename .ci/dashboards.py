"""Makes the Grafana dashboards in config/grafana/dashboards: `python .ci/dashboards.py`.

A test holds what is committed against what this makes, and asks each expression of a gateway that runs.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "config" / "grafana" / "dashboards"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
HEIGHT: Final = 8
S: Final = 'service=~"$service"'
RATE: Final = "[$__rate_interval]"

Panel = dict[str, Any]


def panel(
    title: str, unit: str, *targets: tuple[str, str], width: int = 8, text: str = "", **custom: Any
) -> Panel:
    """Return a graph. targets: (expression, legend)."""
    return {
        "type": "timeseries",
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": HEIGHT},
        "targets": [
            {"refId": chr(65 + number), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for number, (expression, legend) in enumerate(targets)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "custom": {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"} | custom,
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi"},
        },
    }


def variable(name: str, label: str, query: str, *, multi: bool) -> dict[str, Any]:
    """Return a variable with the values of a label."""
    found: dict[str, Any] = {
        "name": name,
        "type": "query",
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": multi,
        "includeAll": multi,
    }
    if multi:
        found |= {"allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    return found


def dashboard(
    uid: str, title: str, variables: list[dict[str, Any]], panels: list[Panel], of: str
) -> dict[str, Any]:
    """Return a dashboard. of: the selector of the deployments that are noted in its graphs."""
    x = y = 0
    for number, each in enumerate(panels, 1):
        width = each["gridPos"]["w"]
        if x + width > WIDTH:
            x, y = 0, y + HEIGHT
        each["gridPos"] |= {"x": x, "y": y}
        each["id"] = number
        x += width
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    notes = (
        (
            "Shares",
            "orange",
            f"changes(gateway_deployment_traffic_percent{{{of}}}[1m]) > 0",
            "the share has changed",
        ),
        (
            "Rollbacks",
            "red",
            f"sum by (service, reason) (increase(gateway_rollbacks_total{{{of}}}[1m])) > 0",
            "{{reason}}",
        ),
    )
    return {
        "title": title,
        "uid": uid,
        "tags": ["gateway"],
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "editable": True,
        "templating": {"list": [source, *variables]},
        "annotations": {
            "list": [
                {
                    "name": name,
                    "enable": True,
                    "iconColor": colour,
                    "datasource": SOURCE,
                    "expr": expression,
                    "titleFormat": "{{service}}",
                    "textFormat": text,
                }
                for name, colour, expression, text in notes
            ]
        },
        "panels": panels,
    }


def rate(metric: str, by: str, selector: str = S) -> str:
    """Return a counter's rate, summed up."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}{RATE}))"


def quantile(q: float, metric: str, by: str = "service, version") -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', f'{by}, le')})"


def share(part: str, whole: str) -> str:
    """Return a part of the whole; 0 where there is nothing."""
    return f"{part} / {above_zero(whole)}"


def above_zero(value: str) -> str:
    """Return a value that may be divided by."""
    return f"clamp_min({value}, 1e-9)"


def services() -> dict[str, Any]:
    """Return what clients get, by version."""
    version, both = "{{service}} {{version}}", "service, version"
    requests = "gateway_requests_total"
    errors = rate(requests, both, f'{S}, code=~"5.."')
    panels = [
        panel("Requests", "reqps", (rate(requests, both), version)),
        panel("Errors", "percentunit", (share(errors, rate(requests, both)), version), text="Answers 5xx."),
        panel(
            "Share of traffic",
            "percentunit",
            (
                f"{rate(requests, both)} / on (service) group_left {above_zero(rate(requests, 'service'))}",
                version,
            ),
            text="What was answered, not what was asked for: compare with the weights.",
            stacking={"mode": "normal"},
        ),
        panel("Duration, p50", "s", (quantile(0.5, "gateway_request_duration_seconds"), version)),
        panel("Duration, p95", "s", (quantile(0.95, "gateway_request_duration_seconds"), version)),
        panel("Duration, p99", "s", (quantile(0.99, "gateway_request_duration_seconds"), version)),
        panel("Upstream's time, p95", "s", (quantile(0.95, "gateway_upstream_duration_seconds"), version)),
        panel("Our own time, p95", "s", (quantile(0.95, "gateway_own_duration_seconds"), version)),
        panel(
            "Weights",
            "percent",
            (f"max by ({both}) (gateway_version_weight_percent{{{S}}})", version),
        ),
        panel(
            "Attempts that failed",
            "reqps",
            (
                rate("gateway_attempts_total", f"{both}, outcome", f'{S}, outcome!="answered"'),
                version + " {{outcome}}",
            ),
            text="Before retries: what clients did not have to see.",
        ),
        panel(
            "Retries", "reqps", (rate("gateway_retries_total", f"{both}, outcome"), version + " {{outcome}}")
        ),
        panel("Clients that left waiting", "reqps", (rate("gateway_abandoned_total", both), version)),
        panel(
            "Health",
            "short",
            (f"min by ({both}) (gateway_version_healthy{{{S}}})", version),
            text="1 healthy, 0 unhealthy, 0.5 not known yet.",
        ),
        panel(
            "Breakers not closed",
            "short",
            (
                f'sum by ({both}, state) (gateway_endpoint_breaker_state{{{S}, state!="closed"}})',
                version + " {{state}}",
            ),
        ),
        panel(
            "Probes that failed",
            "reqps",
            (rate("gateway_probes_total", both, f'{S}, result="failed"'), version),
        ),
        panel(
            "In flight, and streams",
            "short",
            (f"sum by ({both}) (gateway_requests_in_flight{{{S}}})", version),
            (f"sum by ({both}) (gateway_streams_open{{{S}}})", version + " streams"),
        ),
    ]
    chosen = variable(
        "service", "Service", "label_values(gateway_version_weight_percent, service)", multi=True
    )
    return dashboard("gateway-services", "Gateway: services", [chosen], panels, S)


def rollout() -> dict[str, Any]:
    """Return one service's rollout: its steps, and what the judge holds of it."""
    both = "service, version"
    panels = [
        panel(
            "Share of the new version",
            "percent",
            (f"max by (service) (gateway_deployment_traffic_percent{{{S}}})", "{{service}}"),
            lineInterpolation="stepAfter",
        ),
        panel(
            "Step",
            "short",
            (f"max by (service) (gateway_deployment_step{{{S}}})", "step"),
            text="0: none is open.",
        ),
        panel(
            "Status",
            "short",
            (f"max by (strategy, status) (gateway_deployment_status{{{S}}})", "{{strategy}} {{status}}"),
            stacking={"mode": "normal"},
        ),
        panel(
            "Odds that the new version is worse",
            "short",
            (f"max by (service) (gateway_deployment_statistic{{{S}}})", "odds"),
            (f"max by (service) (gateway_deployment_statistic_limit{{{S}}})", "limit"),
            width=12,
            scaleDistribution={"type": "symlog", "log": 10, "linearThreshold": 1},
        ),
        panel(
            "Errors in this step",
            "percent",
            (f"max by (of) (gateway_deployment_error_percent{{{S}}})", "{{of}}"),
            width=12,
            text="First attempts that failed, as the judge counts them.",
        ),
        panel("Requests by version", "reqps", (rate("gateway_requests_total", both), "{{version}}")),
        panel(
            "Errors by version",
            "percentunit",
            (
                share(
                    rate("gateway_requests_total", both, f'{S}, code=~"5.."'),
                    rate("gateway_requests_total", both),
                ),
                "{{version}}",
            ),
        ),
        panel("p95 by version", "s", (quantile(0.95, "gateway_request_duration_seconds"), "{{version}}")),
        panel(
            "The old version is asked",
            "short",
            (f"max by (service) (gateway_deployment_asking{{{S}}})", "asking"),
            (f"sum by (service) (increase(gateway_asks_total{{{S}}}{RATE}))", "asks"),
        ),
        panel(
            "Decisions",
            "short",
            (f"sum by (action) (increase(gateway_decisions_total{{{S}}}{RATE}))", "{{action}}"),
        ),
        panel(
            "Rollbacks, and shifts of 4xx",
            "short",
            (f"sum by (reason) (increase(gateway_rollbacks_total{{{S}}}{RATE}))", "{{reason}}"),
            (f"sum by (service) (increase(gateway_4xx_shifts_total{{{S}}}{RATE}))", "4xx shifts"),
        ),
    ]
    chosen = variable(
        "service", "Service", "label_values(gateway_version_weight_percent, service)", multi=False
    )
    return dashboard("gateway-rollout", "Gateway: one rollout", [chosen], panels, S)


def internals() -> dict[str, Any]:
    """Return how the gateway itself fares."""
    i = 'instance=~"$instance"'

    def by(metric: str, *names: str, kind: str = "max") -> str:
        return f"{kind} by ({', '.join(('instance', *names))}) ({metric}{{{i}}})"

    def rated(metric: str, *names: str) -> str:
        return rate(metric, ", ".join(("instance", *names)), i)

    panels = [
        panel(
            "Answers of our own",
            "reqps",
            (rated("gateway_refused_total", "reason"), "{{instance}} {{reason}}"),
        ),
        panel(
            "Client connections",
            "short",
            (by("gateway_connections_open", kind="sum"), "{{instance}} open"),
            (rated("gateway_connections_total"), "{{instance}} new a second"),
        ),
        panel(
            "Upstream connections",
            "short",
            (by("gateway_upstream_connections", "state", kind="sum"), "{{instance}} {{state}}"),
        ),
        panel(
            "Our own time, p99",
            "s",
            (
                f"histogram_quantile(0.99, {rate('gateway_own_duration_seconds_bucket', 'instance, le', i)})",
                "{{instance}}",
            ),
        ),
        panel("Loop lag", "s", (by("gateway_worker_loop_lag_seconds", "slot"), "{{instance}} {{slot}}")),
        panel(
            "Time for a table to go live",
            "s",
            (by("gateway_snapshot_apply_seconds", "slot"), "{{instance}} {{slot}}"),
        ),
        panel(
            "Workers",
            "short",
            (by("gateway_workers_live"), "{{instance}}"),
            (
                f"sum by (instance, cause) (increase(gateway_worker_restarts_total{{{i}}}{RATE}))",
                "{{instance}} {{cause}}",
            ),
        ),
        panel("Table in force", "short", (by("gateway_snapshot_number", "slot"), "{{instance}} {{slot}}")),
        panel(
            "Ready, configuration, store, audit",
            "short",
            (by("gateway_ready_status", kind="min"), "{{instance}} ready"),
            (by("gateway_config_reload_ok", kind="min"), "{{instance}} configuration"),
            (by("gateway_store_ok", kind="min"), "{{instance}} store"),
            (by("gateway_audit_ok", kind="min"), "{{instance}} audit"),
            text="1: all is well.",
        ),
        panel(
            "Nodes: revisions behind, cut off",
            "short",
            (f"max by (node) (gateway_node_revisions_behind{{{i}}})", "{{node}} behind"),
            (by("gateway_isolated_status"), "{{instance}} isolated"),
            text="A commit each second leaves one behind; it must not grow.",
        ),
        panel("Store errors", "ops", (rated("gateway_store_errors_total", "kind"), "{{instance}} {{kind}}")),
        panel(
            "Lost lines and spans",
            "ops",
            (rated("gateway_access_log_dropped_total"), "{{instance}} access log"),
            (rated("gateway_spans_total", "result"), "{{instance}} spans {{result}}"),
        ),
        panel("Requests cut by a drain", "reqps", (rated("gateway_drain_forced_total"), "{{instance}}")),
        panel(
            "Admin API",
            "reqps",
            (rated("gateway_admin_request_duration_seconds_count", "code"), "{{instance}} {{code}}"),
            (rated("gateway_admin_refused_total", "reason"), "{{instance}} refused: {{reason}}"),
        ),
        panel(
            "Control's CPU",
            "percentunit",
            (rated("gateway_control_process_cpu_seconds_total"), "{{instance}}"),
        ),
        panel(
            "Control's memory",
            "bytes",
            (by("gateway_control_process_resident_memory_bytes"), "{{instance}}"),
        ),
    ]
    chosen = variable("instance", "Gateway", "label_values(gateway_ready_status, instance)", multi=True)
    return dashboard("gateway-internals", "Gateway: internals", [chosen], panels, i)


def made() -> dict[str, str]:
    """Return each file's name and text."""
    boards = {"services": services(), "rollout": rollout(), "internals": internals()}
    return {f"{name}.json": json.dumps(board, indent=2) + "\n" for name, board in boards.items()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in made().items():
        (FOLDER / name).write_text(text)
    sys.stdout.write(f"{FOLDER}\n")
