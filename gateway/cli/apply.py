"""`plan`, `apply`, `export`: services, versions and tokens as a file says."""

import json
from collections.abc import Sequence
from typing import Any, Final

import click

from gateway.cli import changes, toml, wanted
from gateway.cli.changes import Change, Plan, Present
from gateway.cli.client import AdminClient, segment
from gateway.cli.connect import client_command
from gateway.cli.edit import forget_version
from gateway.cli.exits import OK, CliError
from gateway.cli.output import Output
from gateway.cli.text import is_terminal
from gateway.core.settings.faults import snake
from gateway.core.settings.secrets import HIDDEN

CHANGES: Final = 3
"""Exit code of `plan` and `apply --dry-run` when there is something to do."""

file_option = click.option(
    "-f", "--file", "path", required=True, metavar="FILE", help="TOML or JSON; -: standard input."
)
prune_option = click.option("--prune", is_flag=True, help="Delete what the file does not name, too.")


def present(api: AdminClient, *, tokens: bool) -> Present:
    """Return what there is. tokens: look at them too, which only an admin may."""
    return Present(
        services=list(api.items("services")),
        versions=list(api.items("deployment/versions")),
        tokens=list(api.items("tokens")) if tokens else [],
        you=str(api.get("gateway")["you"]["name"]) if tokens else "",
    )


def planned(api: AdminClient, path: str) -> Plan:
    """Return what would have to be done for the gateway to be what the file says."""
    said = wanted.read(path)
    return changes.plan(said, present(api, tokens=bool(said.tokens)))


@click.command("plan")
@client_command
@file_option
@prune_option
def plan_command(api: AdminClient, out: Output, path: str, prune: bool) -> int:
    """Say what `apply` would change: exit code 3 if anything, 0 if nothing, 2 for a wrong key."""
    found = planned(api, path)
    show(out, found, prune=prune)
    return CHANGES if todo(found, prune=prune) else OK


@click.command()
@client_command
@file_option
@prune_option
@click.option("--dry-run", is_flag=True, help="Only say what would change, as plan does.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def apply(api: AdminClient, out: Output, path: str, prune: bool, dry_run: bool, yes: bool) -> int:
    """Make services, versions, policies and tokens what the file says. Asks on a terminal.

    Weight is never moved in a service that has a version with weight: a new version is registered at 0, and
    the command that releases it is named.
    """
    found = planned(api, path)
    steps = todo(found, prune=prune)
    if dry_run or not steps:
        show(out, found, prune=prune)
        return CHANGES if steps else OK
    if not out.is_json:
        show(out, found, prune=prune)
    if is_terminal() and not yes and not click.confirm(f"apply {len(steps)} changes?", err=True):
        raise CliError("nothing was changed; --yes does not ask")
    done = [carry_out(api, out, each, index, len(steps)) for index, each in enumerate(steps)]
    out.value({"applied": done}, f"{len(done)} changes applied", *next_lines(steps))
    return OK


def todo(found: Plan, *, prune: bool) -> list[Change]:
    """Return what `apply` would do."""
    return [*found.changes, *(found.deletions if prune else ())]


def show(out: Output, found: Plan, *, prune: bool) -> None:
    """Print a plan: the changes, the deletions, and what is left to a person."""
    if out.is_json:
        names = ("action", "kind", "name", "body", "lines")
        shown = [{name: getattr(each, name) for name in names} for each in todo(found, prune=prune)]
        kept = [f"{each.kind} {each.name}" for each in found.deletions if not prune]
        out.value({"changes": shown, "wouldPrune": kept, "notes": found.notes})
        return
    steps = todo(found, prune=prune)
    for line in changes.lines_of(steps):
        click.echo(line)
    if found.deletions and not prune:
        click.echo("not in the file, and kept (--prune deletes them):")
        for each in found.deletions:
            click.echo(f"  - {each.kind} {each.name}")
    for note in found.notes:
        click.echo(f"! {note}")
    if not steps:
        click.echo("nothing to change")


def next_lines(steps: Sequence[Change]) -> list[str]:
    """Return the commands that go on from here: new versions have no traffic yet."""
    return [f"next: {each.next}" for each in steps if each.next]


def carry_out(api: AdminClient, out: Output, change: Change, index: int, count: int) -> dict[str, Any]:
    """Do one thing. Raises CliError that says how far it came."""
    try:
        answer = _send(api, change)
    except CliError as exc:
        said = f"{changes.SIGNS[change.action]} {change.kind} {change.name}: {exc}"
        raise CliError(
            f"{said}; {index} of {count} changes were applied; the same line does the rest", exc.code
        ) from exc
    if change.kind == "token" and change.action == "create" and not out.is_json:
        click.echo(f"token {change.name}: {answer['token']}  (keep it, it is not shown again)")
    shown = {"action": change.action, "kind": change.kind, "name": change.name}
    return shown | ({"token": answer["token"]} if change.kind == "token" and answer else {})


def _send(api: AdminClient, change: Change) -> Any:
    match change.action, change.kind:
        case "create", "service":
            return api.post("services", change.body)
        case "create", "version":
            return api.post("deployment/versions", change.body)
        case "create", "token":
            return api.post("tokens", change.body)
        case "change", "service":
            return api.call("PATCH", f"services/{segment(change.name)}", body=change.body)
        case "change", _:
            return api.call("PATCH", f"deployment/versions/{change.id}", body=change.body)
        case "delete", "service":
            return api.call("DELETE", f"services/{segment(change.id)}")
        case "delete", "version":
            return forget_version(api, change.name, change.id)
    return api.call("DELETE", f"tokens/{change.id}")


# -- export


@click.command()
@client_command
@click.option("--tokens", is_flag=True, help="Tokens' names and roles too, which only an admin may see.")
def export(api: AdminClient, out: Output, tokens: bool) -> int:
    """Print services, policies and versions as a file that `apply` takes; secrets are left out."""
    found = present(api, tokens=tokens)
    tree = exported(found)
    click.echo(
        json.dumps(tree, indent=2, ensure_ascii=False) if out.is_json else as_toml(tree), nl=out.is_json
    )
    return OK


def exported(found: Present) -> dict[str, Any]:
    """Return what there is as a file's tables, without what is the default anyway."""
    services, defaults = [], changes.default_settings()
    for service in found.services:
        settings = {
            key: _without_defaults(each, defaults.get(key))
            for key, each in service["settings"].items()
            if each != defaults.get(key)
        }
        versions = [_version(each) for each in found.versions_of(service["name"]) if _is_current(each)]
        services.append(
            {"name": service["name"], **_snake(settings), **({"version": versions} if versions else {})}
        )
    named = [each for each in found.tokens if each["revokedAt"] is None and each["name"] != "bootstrap"]
    tokens = [{"name": each["name"], "role": each["role"]} for each in named]
    return {"service": services, **({"token": tokens} if tokens else {})}


def _is_current(version: dict[str, Any]) -> bool:
    return bool(version["weight"]) or version["status"] != "deprecated"


def _version(version: dict[str, Any]) -> dict[str, Any]:
    shown = {"version": version["version"], "url": version["url"]}
    shown |= {"weight": version["weight"]} if version["weight"] else {}
    shown |= {"replicas": version["replicas"]} if version["replicas"] else {}
    is_shown = version.get("shutdownUrl") and HIDDEN not in version["shutdownUrl"]
    return shown | ({"shutdown_url": version["shutdownUrl"]} if is_shown else {})


def _without_defaults(value: Any, default: Any) -> Any:
    """Return a value without the parts of a table that are the default anyway."""
    if not isinstance(value, dict) or not isinstance(default, dict):
        return value
    return {
        key: _without_defaults(each, default.get(key))
        for key, each in value.items()
        if each != default.get(key)
    }


def _snake(value: Any) -> Any:
    """Return settings with the file's keys: snake_case, no secrets, nothing that is null."""
    if isinstance(value, list | tuple):
        return [_snake(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: each for key, each in value.items() if each is not None and not _is_secret(each)}
    return {snake(key): each if key == "headers" else _snake(each) for key, each in kept.items()}


def _is_secret(value: Any) -> bool:
    return isinstance(value, str) and HIDDEN in value


def as_toml(tree: dict[str, Any]) -> str:
    """Return the tables as TOML."""
    parts = []
    for service in tree["service"]:
        settings = {key: each for key, each in service.items() if key != "version"}
        parts.append(toml.table("[[service]]", settings))
        parts += [toml.table("[[service.version]]", each) for each in service.get("version", ())]
    parts += [toml.table("[[token]]", each) for each in tree.get("token", ())]
    return "\n\n".join(parts) + "\n" if parts else "# no services yet\n"


COMMANDS: Final = (plan_command, apply, export)
