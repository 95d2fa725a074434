"""Commands of the second person: what waits, yes, no."""

from typing import Any, Final

import click

from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command
from gateway.cli.exits import OK, CliError
from gateway.cli.output import Output
from gateway.cli.text import local_time

SHORT: Final = 8
"""How much of an id tables show: enough to name it by."""


@click.command()
@client_command
@click.option("-a", "--all", "everything", is_flag=True, help="Also what was decided, or waited too long.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
def approvals(api: AdminClient, out: Output, everything: bool, limit: int) -> int:
    """List calls that wait for a second person (admin.second_person), newest first."""
    found = list(api.items("approvals", limit=limit, state=None if everything else "pending"))
    items = found if everything else [item for item in found if item["state"] == "pending"]
    out.table(
        items,
        ("ID", "ASKED", "BY", "UNTIL", "STATE", "WHAT", "DECIDED BY", "OUTCOME"),
        (
            (
                item["id"][:SHORT],
                local_time(item["createdAt"]),
                item["askedBy"],
                local_time(item["expiresAt"]),
                item["state"],
                item["what"],
                item["decidedBy"],
                item["outcome"],
            )
            for item in items
        ),
    )
    return OK


@click.command()
@client_command
@click.argument("approval_id", metavar="ID")
@click.option("--deny", is_flag=True, help="Say no instead.")
def approve(api: AdminClient, out: Output, approval_id: str, deny: bool) -> int:
    """Confirm what somebody else has asked for: it is carried out as it was asked.

    ID may be only its beginning.
    """
    found = _found(api, approval_id)
    method = "DELETE" if deny else "POST"
    done = api.call(method, f"approvals/{found['id']}")
    verb = "refused" if deny else "carried out"
    out.value(done, f"{verb}: {done['what']}, as {done['askedBy']} has asked")
    return OK


def _found(api: AdminClient, begins: str) -> dict[str, Any]:
    """Return the approval whose id begins so: one that waits, if there is one. Raises CliError."""
    found = [item for item in api.items("approvals", limit=1_000) if item["id"].startswith(begins)]
    waiting = [item for item in found if item["state"] == "pending"]
    chosen = waiting or found
    if len(chosen) != 1:
        raise CliError(
            f"{len(chosen)} approvals have an id that begins with {begins!r}: `gateway approvals -a`"
        )
    return chosen[0]


COMMANDS: Final = (approvals, approve)
