"""Alert rules and dashboards ask only for metrics and labels that the gateway exposes."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.unit.exposed import exposed

CONFIG: Final = Path(__file__).parents[2] / "config"
ALL: Final = [
    rule for group in yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
RULES: Final = [rule for rule in ALL if "alert" in rule]
RECORDED: Final = [rule for rule in ALL if "record" in rule]
DASHBOARDS: Final = [
    json.loads(path.read_text()) for path in sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
]
TARGETS: Final = [
    (panel["title"], target["expr"])
    for board in DASHBOARDS
    for panel in board["panels"]
    for target in panel["targets"]
]
OF_THE_SCRAPE: Final = {"instance", "job"}
"""Labels that Prometheus adds to every series."""
EXPOSED: Final = exposed()
OF_CONTROL: Final = re.compile("gateway_control_process_")
"""Prometheus' own collector makes these, where the system lets it."""
SELECTOR: Final = re.compile(r"(?<![:\w])(gateway_\w+)(?:\{([^}]*)\})?")
GROUPING: Final = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def unknown(expression: str) -> list[str]:
    """Return the metrics of a PromQL expression that are not exposed, and the labels they lack."""
    metrics = SELECTOR.findall(expression)
    metrics = [each for each in metrics if not OF_CONTROL.match(each[0])]
    wrong = [name for name, _ in metrics if name not in EXPOSED]
    wrong += set(re.findall(r"\b\w+:gateway_\w+:\w+", expression)) - {rule["record"] for rule in RECORDED}
    known = OF_THE_SCRAPE.union(*(EXPOSED.get(name, set()) for name, _ in metrics))
    for name, selector in metrics:
        labels = set(re.findall(r"(\w+)\s*[=!]~?", re.sub(r'"[^"]*"', "", selector)))
        wrong += [f"{name}{{{label}}}" for label in labels - EXPOSED.get(name, set()) - OF_THE_SCRAPE]
    for names in GROUPING.findall(expression):
        wrong += [label for label in re.findall(r"\w+", names) if label not in known]
    return wrong


def test_no_two_rules_have_one_name() -> None:
    """Guards: of two rules of one name the runbook, a silence and `promtool` know one."""
    names = [rule.get("alert") or rule["record"] for rule in ALL]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_asks_for_what_is_exposed(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"]) == []
    assert "gateway_" in rule["expr"] or rule["expr"].startswith("up{")


@pytest.mark.parametrize("rule", RECORDED, ids=lambda rule: rule["record"])
def test_recorded_series_are_made_of_what_is_exposed(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"]) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_leads_to_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["runbook"] == f"config/README.md#{rule['alert'].lower()}"
    _, _, section = (CONFIG / "README.md").read_text().partition(f"\n### {rule['alert']}\n")
    assert "**Do**: " in section.partition("\n### ")[0]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_says_how_bad_it_is_and_what_happened(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_has_a_case_that_fires_it(rule: dict[str, Any]) -> None:
    """The cases themselves are run by promtool, where there is one."""
    cases = yaml.safe_load((CONFIG / "alerts.test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert rule["alert"] in fired


@pytest.mark.parametrize(("title", "expression"), TARGETS, ids=lambda value: value.replace(" ", "-")[:40])
def test_panel_asks_for_what_is_exposed(title: str, expression: str) -> None:
    assert unknown(expression) == []


def test_unknown_names_are_seen() -> None:
    """Guards the check itself."""
    assert unknown("service:gateway_nothing:rate5m") == ["service:gateway_nothing:rate5m"]
    assert unknown("gateway_nothing_total") == ["gateway_nothing_total"]
    assert unknown('gateway_ready_status{colour="red"}') == ["gateway_ready_status{colour}"]
    assert unknown("sum by (colour) (gateway_ready_status)") == ["colour"]
