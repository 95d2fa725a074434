"""Commands that show how things are: `get`, `top`, `why`."""

import itertools
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from gateway.cli import overview, progress
from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command
from gateway.cli.exits import OK, Unreachable
from gateway.cli.follow import watch as watch_all
from gateway.cli.lookup import OPEN, rollout_of
from gateway.cli.options import any_service_argument, service_argument
from gateway.cli.output import Output
from gateway.cli.text import is_terminal, local_time, table_lines

TOP_COLUMNS: Final = ("SERVICE", "VERSION", "RATE/s", "ERRORS", "P95", "SHARE", "HEALTH", "ROLLOUT")
FIRST_TO_GO: Final = ("ROLLOUT", "P95", "HEALTH")
"""Columns a narrow terminal does without."""
TOP_ROWS: Final = 40


@click.command()
@client_command
@any_service_argument
@click.option("-w", "--watch", is_flag=True, help="Stay, and show what changes.")
@click.option("-a", "--all", "everything", is_flag=True, help="Past versions too.")
def get(api: AdminClient, out: Output, service: str | None, watch: bool, everything: bool) -> int:
    """Show services: versions, share of traffic, health, rates, errors, p95, urls, the open rollout.

    Where nobody looks (a pipe, a file) it prints one line for each version.
    """
    if watch:
        watch_all(api, out, service, everything=everything)
        return OK
    seen = overview.read(api, service)
    items = seen["items"]
    if out.is_json:
        out.value(items if service is None else items[0])
    elif is_terminal():
        from gateway.cli import terminal

        terminal.draw_once(terminal.overview_lines(seen, everything=everything))
    else:
        _print_lines(out, seen, everything=everything)
    return OK


def _print_lines(out: Output, seen: dict[str, Any], *, everything: bool) -> None:
    if seen.get("frozen"):
        out.note(overview.frozen_line(seen))
    if not seen["items"]:
        out.note("no services yet: gateway deploy SERVICE VERSION --url URL --route /path")
    rows = [
        overview.cells(service, version)
        for service in seen["items"]
        for version in overview.shown(service, everything=everything)
    ]
    for line in table_lines(rows, overview.COLUMNS):
        click.echo(line)


# -- top


@click.command()
@client_command
@click.option(
    "--sort",
    "order",
    type=click.Choice(["rate", "errors", "p95", "name"]),
    default="rate",
    show_default=True,
    help="What comes first.",
)
@click.option("--every", "every_s", type=click.FloatRange(0.2, 60), default=1.0, show_default=True)
def top(api: AdminClient, out: Output, order: str, every_s: float) -> int:
    """Show the busiest versions of all services, live, until Ctrl-C; once where nobody looks."""
    if out.is_json or not is_terminal():
        _top_once(api, out, order)
        return OK
    from gateway.cli import terminal

    try:
        with terminal.live_block() as draw:
            while True:
                try:
                    seen = overview.read(api)
                    rows = [_top_row(*each) for each in sorted_versions(seen, order)[:TOP_ROWS]]
                    draw([top_line(seen), terminal.fitting(TOP_COLUMNS, rows, FIRST_TO_GO)])
                except Unreachable as exc:
                    draw([str(exc)])
                time.sleep(every_s)
    except KeyboardInterrupt:
        return OK


def _top_once(api: AdminClient, out: Output, order: str) -> None:
    seen = overview.read(api)
    found = sorted_versions(seen, order)
    items = [{"serviceName": service["name"], **version} for service, version in found]
    out.table(items, TOP_COLUMNS, (_top_row(*each) for each in found))


def top_line(seen: dict[str, Any]) -> str:
    """Return the sum of what is below: services, open rollouts, requests and errors a second."""
    versions = [version for service in seen["items"] for version in service["versions"]]
    rollouts = sum(service.get("deployment") is not None for service in seen["items"])
    rate = sum(each.get("rate") or 0.0 for each in versions)
    failing = sum((each.get("rate") or 0.0) * (each.get("errorPercent") or 0.0) / 100 for each in versions)
    frozen = "   frozen" if seen.get("frozen") else ""
    return (
        f"services {len(seen['items'])}   open rollouts {rollouts}   {overview.rate(rate)} requests/s   "
        f"{overview.rate(failing)} errors/s{frozen}"
    )


def sorted_versions(seen: dict[str, Any], order: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return (service, version) of all that is in use, in the wanted order."""
    found = [
        (service, version)
        for service in seen["items"]
        for version in overview.shown(service, everything=False)
    ]
    field = {"rate": "rate", "errors": "errorPercent", "p95": "p95Ms", "name": ""}[order]

    def place(each: tuple[dict[str, Any], dict[str, Any]]) -> tuple[float, str, str]:
        service, version = each
        return -(version.get(field) or 0.0), service["name"], version["version"]

    return sorted(found, key=place)


def _top_row(service: dict[str, Any], version: dict[str, Any]) -> tuple[str, ...]:
    name, build, share, health, rate, errors, p95, _, _, rollout = overview.cells(service, version)
    return name, build, rate, errors, p95, share, health, rollout


# -- why


@click.command()
@client_command
@service_argument
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=200, show_default=True)
def why(api: AdminClient, out: Output, service: str, limit: int) -> int:
    """Tell SERVICE's newest rollout as a story: what was decided, by whom or what, on which numbers."""
    rollout = rollout_of(api, service, must_be_open=False)
    found = list(api.items(f"deployment/{rollout['id']}/decisions", limit=limit))[::-1]
    out.value({"deployment": rollout, "decisions": found}, *story(rollout, found))
    return OK


def story(rollout: dict[str, Any], decisions: list[dict[str, Any]]) -> list[str]:
    """Return a rollout as lines: how it stands, what led there, and what can be done next."""
    service = rollout["serviceName"]
    began = local_time(rollout.get("startedAt") or rollout["createdAt"])
    head = f"{service}: {overview.rollout_line(rollout)}"
    since = (
        f"started {began} by {rollout.get('createdBy') or '-'}; {progress.steps_line(rollout) or 'no steps'}"
    )
    last = [overview.judge_line(rollout), next_line(rollout)]
    return [head, since, "", *_chapters(decisions), "", *(line for line in last if line)]


def _chapters(decisions: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each decision with a line of numbers below; verdicts that repeat have one line."""
    for _, run in itertools.groupby(decisions, key=_same):
        same = list(run)
        first, last = same[0], same[-1]
        times = (
            f" (and {len(same) - 1} times more, until {local_time(last['at'])[11:]})" if len(same) > 1 else ""
        )
        share = f"{last['data']['percent']} %" if "percent" in last["data"] else ""
        head = f"{local_time(first['at'])[11:]}  {share:>5}  {last['verdict']:<9} {last['actor']}: "
        yield f"{head}{last['reason']}{times}"
        if numbers := numbers_line(last["data"]):
            yield f"{'':28}{numbers}"


def _same(decision: dict[str, Any]) -> tuple[object, ...]:
    return decision["verdict"], decision["actor"], decision["step"], decision["data"].get("gate")


def numbers_line(data: dict[str, Any]) -> str:
    """Return the evidence of a verdict in one line; empty if it had none."""
    if "newAnswers" not in data:
        return ""
    sides = [
        f"{side} {data[f'{side}Errors']} of {data[f'{side}Answers']} failed"
        for side in ("new", "old")
        if data.get(f"{side}Answers")
    ]
    if data.get("statistic") is not None and data.get("limit"):
        sides.append(progress.odds_text(data["statistic"], data["limit"]))
    return ", ".join(sides)


def next_line(rollout: dict[str, Any]) -> str:
    """Return what can be done about a rollout as it stands."""
    service, status = rollout["serviceName"], rollout["status"]
    if status == "paused":
        return f"next: gateway resume {service}, gateway promote {service}, or gateway rollback {service}"
    if status in OPEN:
        return f"next: gateway get {service} -w watches it, gateway rollback {service} takes it back"
    if status == "completed":
        return f"next: gateway undo {service} takes it back"
    return f"next: repair it and deploy it under a new name; gateway whatif {service} replays it otherwise"


COMMANDS: Final = (get, top, why)
