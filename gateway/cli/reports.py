"""Commands that look back: which rollouts there were, what was decided in one, what others would have made of
them.
"""

from typing import Any, Final

import click

from gateway.cli import overview
from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command
from gateway.cli.exits import OK, CliError
from gateway.cli.lookup import OPEN, require_service, rollout_of
from gateway.cli.options import config_of, rollout_options, service_argument, strategy_of
from gateway.cli.output import Output
from gateway.cli.params import format_duration
from gateway.cli.text import local_time

SHORT: Final = 8
"""How much of a rollout's id tables show: enough to name it by."""
WHATIF_COLUMNS: Final = ("ID", "ENDED", "NOW JUDGED", "AFTER", "WHY")


@click.command()
@client_command
@service_argument
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
def history(api: AdminClient, out: Output, service: str, limit: int) -> int:
    """List SERVICE's rollouts, newest first."""
    items = list(api.items("deployment", serviceName=service, limit=limit))
    if not items:
        require_service(api, service)
    out.table(
        items,
        ("ID", "STARTED", "FROM", "TO", "STRATEGY", "STATUS", "SHARE", "BY", "WHY"),
        (
            (
                item["id"][:SHORT],
                local_time(item["startedAt"] or item["createdAt"]),
                item.get("fromVersion"),
                item.get("toVersion"),
                item["strategy"],
                item["status"],
                f"{item['trafficPercent']} %" if item["status"] in OPEN else "-",
                item["createdBy"],
                overview.why_line(item),
            )
            for item in items
        ),
    )
    return OK


@click.command()
@client_command
@service_argument
@click.option("--deployment", "deployment_id", help="An earlier rollout, by id or how its id begins.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
def decisions(api: AdminClient, out: Output, service: str, deployment_id: str | None, limit: int) -> int:
    """Say what was decided in SERVICE's newest rollout, by whom or what, and why; oldest first."""
    if deployment_id is None:
        deployment_id = rollout_of(api, service, must_be_open=False)["id"]
    else:
        deployment_id = _full_id(api, service, deployment_id)
    items = list(api.items(f"deployment/{deployment_id}/decisions", limit=limit))[::-1]
    out.table(
        items,
        ("TIME", "STEP", "SHARE", "VERDICT", "BY", "WHY"),
        (
            (
                local_time(item["at"]),
                item["step"] + 1,
                f"{item['data']['percent']} %" if "percent" in item["data"] else None,
                item["verdict"],
                f"{item['actor']} at {item['node']}" if item.get("node") else item["actor"],
                item["reason"],
            )
            for item in items
        ),
    )
    return OK


def _full_id(api: AdminClient, service: str, begins: str) -> str:
    """Return the id of the service's rollout whose id begins so. Raises CliError unless it is one."""
    found = [item["id"] for item in api.items("deployment", serviceName=service)]
    found = [each for each in found if each.startswith(begins)]
    if len(found) != 1:
        raise CliError(
            f"{len(found)} rollouts of {service} have an id that begins with {begins!r}; "
            f"`gateway history {service}` lists them"
        )
    return str(found[0])


@click.command()
@client_command
@service_argument
@rollout_options
@click.option("--deployment", "deployment_id", help="Only this earlier rollout, by id or how its id begins.")
def whatif(api: AdminClient, out: Output, service: str, deployment_id: str | None, **settings: Any) -> int:
    """Replay SERVICE's earlier rollouts under other settings: when would each have stopped?"""
    body = {"serviceName": service, "strategy": strategy_of(settings), "config": config_of(settings)}
    if deployment_id is not None:
        body["deploymentId"] = _full_id(api, service, deployment_id)
    answer = api.post("deployment/whatif", body)
    out.table(answer["items"], WHATIF_COLUMNS, (_whatif_row(item) for item in answer["items"]))
    return OK


def _whatif_row(item: dict[str, Any]) -> tuple[object, ...]:
    stops = item["verdict"] == "abort"
    after = format_duration(item["afterMs"]) if stops else "-"
    return (item["deploymentId"][:SHORT], item["status"], item["verdict"], after, item["reason"])


COMMANDS: Final = (history, decisions, whatif)
