"""All services at a glance, read in one call, and how its numbers are written."""

from collections.abc import Sequence
from typing import Any, Final

from gateway.cli.client import AdminClient
from gateway.cli.exits import ApiError
from gateway.cli.lookup import OPEN
from gateway.cli.params import format_duration
from gateway.cli.text import local_time

MOST_ODDS: Final = 1_000_000
COLUMNS: Final = (
    "SERVICE",
    "VERSION",
    "SHARE",
    "HEALTH",
    "RATE",
    "ERRORS",
    "P95",
    "URL",
    "STATUS",
    "ROLLOUT",
)


def read(api: AdminClient, service: str | None = None) -> dict[str, Any]:
    """Return the overview: `frozen`, `listen`, and `items`, the services with their versions and rollouts.

    Raises ApiError (404) if there is no such service.
    """
    found: dict[str, Any] = api.get("overview", serviceName=service)
    if service is not None and not found["items"]:
        raise ApiError(404, {}, f"no service {service!r}; `gateway get` lists those there are")
    return found


def one(api: AdminClient, service: str) -> dict[str, Any]:
    """Return the overview of one service. Raises ApiError (404) if there is none."""
    found: dict[str, Any] = read(api, service)["items"][0]
    return found


def is_shown(version: dict[str, Any], service: dict[str, Any]) -> bool:
    """Whether a version is worth a line by itself: not if it is past, and nothing goes there."""
    rollout = service.get("deployment") or {}
    in_use = version["weight"] > 0 or version["id"] == service.get("currentVersionId")
    named = version["id"] in (rollout.get("fromVersionId"), rollout.get("toVersionId"))
    return in_use or named or version["status"] != "deprecated" or bool(version.get("inFlight"))


def shown(service: dict[str, Any], *, everything: bool) -> list[dict[str, Any]]:
    """Return the versions of a service that are to be shown."""
    return [each for each in service["versions"] if everything or is_shown(each, service)]


# -- numbers


def share(version: dict[str, Any]) -> str:
    """Return the part of the service's traffic the version gets now, in percent."""
    return f"{round(version['share'])}%"


def rate(value: float | None) -> str:
    """Return requests a second: three digits, as many as anybody reads."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def errors(version: dict[str, Any]) -> str:
    """Return the share of failed answers; `-` without answers."""
    percent = version.get("errorPercent")
    return "-" if percent is None else f"{percent:.1f}%"


def p95(version: dict[str, Any]) -> str:
    """Return the time within which 95 % of answers began; `-` without answers."""
    value = version.get("p95Ms")
    if value is None:
        return "-"
    return f"{value:.1f}ms" if value < 10 else f"{value:.0f}ms"


def odds(value: float) -> str:
    """Return how much likelier something is: three digits, never an exponent, nor a line of digits."""
    if value > MOST_ODDS:
        return f"over {MOST_ODDS:,}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.01 else "0"


def health(version: dict[str, Any]) -> str:
    """Return a version's health in one word: why it gets nothing, if it does not."""
    if version.get("draining") and not version.get("drained"):
        return "draining"
    if version["circuitState"] == "OPEN":
        return "breaker-open"
    return str(version["healthStatus"])


def rollout_word(service: dict[str, Any], version: dict[str, Any]) -> str:
    """Return where the open rollout is that the version is the new one of; `-` otherwise."""
    rollout = service.get("deployment")
    if rollout is None or rollout["toVersionId"] != version["id"]:
        return "-"
    return f"{rollout['status']}:{rollout['trafficPercent']}%"


def cells(service: dict[str, Any], version: dict[str, Any]) -> tuple[str, ...]:
    """Return a version's row under COLUMNS."""
    return (
        service["name"],
        version["version"],
        share(version),
        health(version),
        rate(version.get("rate")),
        errors(version),
        p95(version),
        version["url"],
        version["status"],
        rollout_word(service, version),
    )


# -- rollouts


def rollout_line(deployment: dict[str, Any]) -> str:
    """Return a rollout in one line: from, to, step, share, time left; once it has ended: where and when."""
    steps, left = deployment.get("steps") or [], deployment.get("remainingMs")
    old, new = deployment.get("fromVersion") or "-", deployment.get("toVersion") or "-"
    step = f"step {min(deployment['currentStep'] + 1, len(steps))}/{len(steps)}" if steps else ""
    head = f"{deployment['status']} {old} → {new} ({deployment['strategy']})"
    if deployment["status"] in OPEN:
        percent, rest = f"{deployment['trafficPercent']} %", f"{format_duration(left)} left" if left else ""
        return f"{head}: {', '.join(part for part in (step, percent, rest) if part)}"
    where = f" in {step}" if step and deployment["status"] == "rolled_back" else ""
    when = deployment.get("completedAt") or deployment.get("rolledBackAt") or deployment.get("updatedAt")
    return f"{head}{where}, {local_time(when)}" if when else f"{head}{where}"


def why_line(deployment: dict[str, Any]) -> str | None:
    """Return why the rollout stands where it stands, None when there is nothing to say yet."""
    return deployment.get("summary") or deployment.get("errorMessage") or None


def judge_line(deployment: dict[str, Any]) -> str | None:
    """Return what the judge says now of a paused rollout: its pause's reason may be hours old."""
    verdict = deployment.get("verdict")
    if deployment["status"] != "paused" or not verdict:
        return None
    return f"judged now: {verdict['verdict']}: {verdict['reason']}"


def frozen_line(seen: dict[str, Any]) -> str:
    """Return that changes are frozen, and why."""
    return f"frozen: {seen.get('freezeReason') or 'no reason given'} (rollbacks work; `gateway freeze off`)"


def live_addresses(listen: Sequence[str], routes: Sequence[dict[str, Any]]) -> list[str]:
    """Return where clients reach a service: each route at the first listener.

    listen: base urls, as bound; none known: only the routes are said. A wildcard address or host stands for
    this machine.
    """
    if not listen:
        return [
            f"{'' if route.get('host', '*') == '*' else route['host']}{route['path']}" for route in routes
        ]
    base = listen[0]
    scheme, _, place = base.partition("://")
    host, _, port = place.rpartition(":")
    here = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host  # noqa: S104  # shown, not bound
    hosts = [(here if "*" in route.get("host", "*") else route["host"], route["path"]) for route in routes]
    return [f"{scheme}://{name}:{port}{path}" for name, path in hosts]
