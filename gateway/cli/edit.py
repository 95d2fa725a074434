"""Commands that correct what is registered: `edit`, `rm`."""

from typing import Any, Final

import click

from gateway.cli.client import AdminClient, segment
from gateway.cli.connect import client_command
from gateway.cli.exits import OK, USAGE, CliError
from gateway.cli.lookup import version_of
from gateway.cli.options import service_argument
from gateway.cli.output import Output
from gateway.cli.params import route, setting
from gateway.cli.text import is_terminal
from gateway.cli.waiting import wait_for

DRAIN_MS: Final = 60_000
"""How long `rm` waits for what still runs."""


@click.command()
@client_command
@service_argument
@click.argument("version", required=False)
@click.option("--url", help="VERSION answers there now; it is untested again.")
@click.option("--replica", "replicas", multiple=True, help="All further urls of VERSION; repeatable.")
@click.option("--no-replicas", is_flag=True, help="VERSION has no further urls.")
@click.option("--shutdown-url", help="POSTed when VERSION may stop; empty: nothing is.")
@click.option("--route", "routes", type=route, multiple=True, help="All routes of SERVICE; repeatable.")
@click.option(
    "--set",
    "settings",
    type=setting,
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of SERVICE by its path, such as health.path=/up; null: back to its default.",
)
def edit(
    api: AdminClient,
    out: Output,
    service: str,
    version: str | None,
    url: str | None,
    replicas: tuple[str, ...],
    no_replicas: bool,
    shutdown_url: str | None,
    routes: tuple[dict[str, str], ...],
    settings: tuple[tuple[str, object], ...],
) -> int:
    """Change SERVICE's policies, or where its VERSION answers."""
    patch: dict[str, Any] = {}
    if url is not None:
        patch["url"] = url
    if replicas or no_replicas:
        patch["replicas"] = [] if no_replicas else list(replicas)
    if shutdown_url is not None:
        patch["shutdownUrl"] = shutdown_url or None
    policies = service_patch(routes, settings)
    if bool(patch) == bool(policies) or bool(patch) != (version is not None):
        raise CliError(
            "say what to change: `gateway edit SERVICE VERSION --url URL` (or --replica, --shutdown-url), "
            "or `gateway edit SERVICE --set health.path=/up` (or --route)",
            USAGE,
        )
    if version is not None:
        found = version_of(api, service, version)
        changed = api.call("PATCH", f"deployment/versions/{found['id']}", body=patch)
        out.value(changed, f"{service} {version}: {', '.join(sorted(patch))} changed")
        return OK
    changed = api.call("PATCH", f"services/{segment(service)}", body=policies)
    out.value(changed, f"{service}: {', '.join(sorted(policies))} changed")
    return OK


def service_patch(
    routes: tuple[dict[str, str], ...], settings: tuple[tuple[str, object], ...]
) -> dict[str, Any]:
    """Return a JSON merge patch of routes and dotted settings."""
    patch: dict[str, Any] = {"routes": list(routes)} if routes else {}
    for name, value in settings:
        *path, last = name.split(".")
        place = patch
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return patch


@click.command()
@client_command
@service_argument
@click.argument("version", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(api: AdminClient, out: Output, service: str, version: str | None, yes: bool) -> int:
    """Forget VERSION of SERVICE, or all of SERVICE. Asks on a terminal."""
    if version is None:
        api.get(f"services/{segment(service)}")
        _confirm(f"forget the service {service} with all its versions?", yes=yes)
        api.call("DELETE", f"services/{segment(service)}")
        out.value({"serviceName": service}, f"{service} is forgotten")
        return OK
    found = version_of(api, service, version)
    if found["weight"] and found["isActive"]:
        raise CliError(
            f"{service} {version} has weight {found['weight']}: deploy another version first, "
            f"or forget all of it: `gateway rm {service}`"
        )
    _confirm(f"forget {service} {version} ({found['url']})?", yes=yes)
    forget_version(api, f"{service} {version}", found["id"])
    out.value(found, f"{service} {version} is forgotten")
    return OK


def forget_version(api: AdminClient, name: str, version_id: str) -> None:
    """Drain a version and delete it: what still runs there finishes first. Raises CliError."""
    path = f"deployment/versions/{version_id}"

    def drained() -> bool | None:
        return True if api.get(f"{path}/drain")["safeToStop"] else None

    api.post(f"{path}/drain")
    busy = f"timed out: {name} is still busy; `gateway drain {name} --wait` waits longer"
    wait_for(api, drained, DRAIN_MS, busy)
    api.call("DELETE", path)


def _confirm(question: str, *, yes: bool) -> None:
    if not yes and is_terminal() and not click.confirm(question):
        raise CliError("nothing was changed; --yes does not ask")


COMMANDS: Final = (edit, rm)
