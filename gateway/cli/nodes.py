"""The gateways that share a store."""

from typing import Any, Final
from urllib.parse import quote

import click

from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command
from gateway.cli.exits import OK, CliError
from gateway.cli.output import Output
from gateway.cli.text import local_time

COLUMNS: Final = ("NODE", "STATE", "RELEASE", "REVISION", "LAST SEEN", "LISTEN", "ADMIN")


@click.command()
@client_command
@click.argument("what", required=False, type=click.Choice(["rm"]))
@click.argument("name", required=False)
def nodes(api: AdminClient, out: Output, what: str | None, name: str | None) -> int:
    """List the gateways that share the store, and which of them is in charge.

    rm NAME: forget one that will not come back.
    """
    if what is None:
        items = list(api.items("nodes"))
        out.table(items, COLUMNS, map(_row, items))
        return OK
    if name is None:
        raise CliError("say which: gateway nodes rm NAME")
    api.call("DELETE", f"nodes/{quote(name, safe='')}")
    out.value({"removed": name}, f"node {name} is forgotten")
    return OK


def _row(node: dict[str, Any]) -> tuple[object, ...]:
    applied, wanted = node["appliedRevision"], node["wantedRevision"]
    revision = "-" if applied is None else applied if applied == wanted else f"{applied} of {wanted}"
    return (
        node["name"],
        state_of(node),
        node["release"],
        revision,
        local_time(node["lastSeen"]),
        ", ".join(node["listen"]),
        node["admin"],
    )


def state_of(node: dict[str, Any]) -> str:
    """Return what a node does, in a word or two."""
    if node["isSilent"]:
        return "silent, in charge" if node["isLeader"] else "silent"
    if node["isIsolated"]:
        return "isolated"
    if node["isLeader"]:
        return "in charge"
    if node.get("isStopping"):
        return "stops"
    return "stands by" if node["appliedRevision"] is None else "serves"


COMMANDS: Final = (nodes,)
