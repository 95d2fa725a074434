"""Services with their versions and the open rollout, as a tree."""

from typing import Any

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from gateway.cli.client import AdminClient, segment
from gateway.cli.output import local_time, make_table, word
from gateway.cli.params import format_duration

OPEN = frozenset({"pending", "testing", "rolling", "paused"})


def read(api: AdminClient, service: str | None) -> list[dict[str, Any]]:
    """Return the services (or the one named), each with `versions`, its open `deployment` or None, and its
    `last`, open or not.
    """
    services = [api.get(f"services/{segment(service)}")] if service else list(api.items("services"))
    return [_with_rollouts(api, one) for one in services]


def _with_rollouts(api: AdminClient, service: dict[str, Any]) -> dict[str, Any]:
    last = latest_deployment(api, service["name"])
    is_open = last is not None and last["status"] in OPEN
    versions = list(api.items("deployment/versions", serviceName=service["name"]))
    return {**service, "versions": versions, "deployment": last if is_open else None, "last": last}


def open_deployment(api: AdminClient, service: str) -> dict[str, Any] | None:
    """Return the service's open deployment: there is at most one, and it is the newest."""
    newest = latest_deployment(api, service)
    return newest if newest is not None and newest["status"] in OPEN else None


def latest_deployment(api: AdminClient, service: str) -> dict[str, Any] | None:
    """Return the service's newest deployment."""
    return next(api.items("deployment", serviceName=service, limit=1), None)


def render(services: list[dict[str, Any]]) -> Group:
    """Return the tree of what `read` returned."""
    if not services:
        return Group(Text("no services yet: gateway deploy SERVICE VERSION --url URL --route /path"))
    return Group(*(_service(one) for one in services))


def rollout_line(deployment: dict[str, Any]) -> str:
    """Return a rollout in one line: from, to, step, share, time left; once it has ended: where and when."""
    steps, left = deployment.get("steps") or [], deployment.get("remainingMs")
    old, new = deployment.get("fromVersion") or "-", deployment.get("toVersion") or "-"
    step = f"step {min(deployment['currentStep'] + 1, len(steps))}/{len(steps)}" if steps else ""
    head = f"{deployment['status']} {old} → {new} ({deployment['strategy']})"
    if deployment["status"] in OPEN:
        share, rest = f"{deployment['trafficPercent']} %", f"{format_duration(left)} left" if left else ""
        return f"{head}: {', '.join(part for part in (step, share, rest) if part)}"
    where = f" in {step}" if step and deployment["status"] == "rolled_back" else ""
    when = deployment.get("completedAt") or deployment.get("rolledBackAt") or deployment.get("updatedAt")
    return f"{head}{where}, {local_time(when)}" if when else f"{head}{where}"


def verdict_line(deployment: dict[str, Any]) -> str | None:
    """Return why the rollout stands where it stands, None when there is nothing to say yet."""
    return deployment.get("summary") or deployment.get("errorMessage") or None


def judge_line(deployment: dict[str, Any]) -> str | None:
    """Return what the judge says now of a paused rollout: its pause's reason may be hours old."""
    verdict = deployment.get("verdict")
    if deployment["status"] != "paused" or not verdict:
        return None
    return f"judged now: {verdict['verdict']}: {verdict['reason']}"


def _service(service: dict[str, Any]) -> Tree:
    head = Text(service["name"], style="bold")
    if service.get("paused"):
        head.append("  paused: requests are held", style="yellow")
    tree = Tree(head)
    columns = ("VERSION", "WEIGHT", "HEALTH", "BREAKER", "STATUS", "URL")
    tree.add(make_table(columns, (_version(service, version) for version in service["versions"])))
    deployment = service["last"]
    if deployment is not None:
        branch = tree.add(word_line(rollout_line(deployment)))
        if deployment["status"] == "completed":
            return tree
        for line in (verdict_line(deployment), judge_line(deployment)):
            if line:
                branch.add(Text(line))
    return tree


def word_line(line: str) -> Text:
    """Return a line whose first word carries its colour."""
    first, _, rest = line.partition(" ")
    return word(first) + Text(f" {rest}")


def _version(service: dict[str, Any], version: dict[str, Any]) -> list[object]:
    current = version["id"] == service.get("currentVersionId")
    draining = version.get("draining") and not version.get("drained")
    return [
        version["version"] + (" *" if current else ""),
        f"{version['weight']} %",
        version["healthStatus"],
        version["circuitState"].lower(),
        "draining" if draining else version["status"],
        version["url"],
    ]
