"""Commands about versions: list them, weigh them, drain them."""

from typing import Any, Final

import click

from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command
from gateway.cli.exits import OK
from gateway.cli.lookup import version_of
from gateway.cli.options import any_service_argument, service_argument, version_argument
from gateway.cli.output import Output
from gateway.cli.params import duration
from gateway.cli.text import local_time, share_text
from gateway.cli.waiting import wait_for


@click.command()
@client_command
@any_service_argument
def versions(api: AdminClient, out: Output, service: str | None) -> int:
    """List the versions of SERVICE, or of all services."""
    items = list(api.items("deployment/versions", serviceName=service))
    if service is not None and not items:
        api.get(f"services/{service}")  # says so if there is none
    out.table(
        items,
        ("SERVICE", "VERSION", "SHARE", "STATUS", "HEALTH", "BREAKER", "URL", "REGISTERED"),
        (
            (
                item["serviceName"],
                item["version"],
                share_text(item),
                item["status"],
                item["healthStatus"],
                item["circuitState"].lower(),
                item["url"],
                local_time(item["createdAt"]),
            )
            for item in items
        ),
    )
    return OK


@click.command("set-weight")
@client_command
@service_argument
@version_argument
@click.argument("weight", type=click.IntRange(0, 100))
def set_weight(api: AdminClient, out: Output, service: str, version: str, weight: int) -> int:
    """Give VERSION a weight; refused while a rollout of SERVICE is open."""
    found = version_of(api, service, version)
    changed = api.call("PATCH", f"deployment/versions/{found['id']}", body={"weight": weight})
    out.value(changed, f"{service} {version} has weight {changed['weight']}")
    return OK


@click.command()
@client_command
@service_argument
@version_argument
@click.option("--deadline", "deadline_ms", type=duration, help="Then what still runs is cut.")
@click.option("--wait", is_flag=True, help="Return once the version may be stopped.")
@click.option("--timeout", "timeout_ms", type=duration, default="10m", show_default=True, help="With --wait.")
def drain(
    api: AdminClient,
    out: Output,
    service: str,
    version: str,
    deadline_ms: int | None,
    wait: bool,
    timeout_ms: int,
) -> int:
    """Take VERSION out: nothing new goes there, what runs may finish."""
    path = f"deployment/versions/{version_of(api, service, version)['id']}/drain"
    state: dict[str, Any] = api.post(path, None if deadline_ms is None else {"timeout": deadline_ms})

    def stoppable() -> dict[str, Any] | None:
        now: dict[str, Any] = api.get(path)
        return now if now["safeToStop"] else None

    if wait:
        state = wait_for(api, stoppable, timeout_ms, f"timed out: {service} {version} is still busy")
    safe = (
        "may be stopped"
        if state["safeToStop"]
        else f"{state['inFlight']} running, {state['streams']} streams"
    )
    held = f", waiting for {', '.join(state['waitsFor'])}" if state.get("waitsFor") else ""
    out.value(state, f"{service} {version}: {state['state']}, {safe}{held}")
    return OK


COMMANDS: Final = (versions, set_weight, drain)
