"""Commands about the gateway itself: events, audit, tokens, freeze."""

import json
import time
from typing import Any, Final

import click

from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command
from gateway.cli.exits import FAILED, OK, CliError, Unreachable
from gateway.cli.lookup import require_service
from gateway.cli.options import any_service_argument
from gateway.cli.output import Output
from gateway.cli.params import duration, format_duration
from gateway.cli.text import local_time, print_line, yes_no

BOOTSTRAP: Final = "bootstrap"
"""The token that a first start makes, and writes beside the store."""
RETRY_S: Final = 1.0


@click.command()
@client_command
@any_service_argument
@click.option("-f", "--follow", is_flag=True, help="Stay, and print what happens.")
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=50, show_default=True)
def events(api: AdminClient, out: Output, service: str | None, follow: bool, limit: int) -> int:
    """Print what happened, oldest first."""
    shown = api.get("events", serviceName=service, limit=limit)["items"]
    if service and not shown:
        require_service(api, service)
    for event in shown:
        _print_event(out, event)
    last = str(shown[-1]["id"]) if shown else None
    while follow:
        last = _follow(api, out, service, last)
        time.sleep(RETRY_S)
    return OK


def _follow(api: AdminClient, out: Output, service: str | None, last: str | None) -> str | None:
    """Print events until the stream ends, as it does when the gateway is replaced.

    Returns the last id seen.
    """
    try:
        for event in api.events("events", last_id=last, serviceName=service):
            last = event.id
            _print_event(out, event.data)
    except Unreachable as exc:
        out.note(str(exc))
    return last


def _print_event(out: Output, event: dict[str, Any]) -> None:
    """Print one event a line: JSON lines for scripts, so that following needs no end."""
    print_line(json.dumps(event, ensure_ascii=False) if out.is_json else event_line(event))


def event_line(event: dict[str, Any]) -> str:
    """Return an event as people read it."""
    about = " ".join(part for part in (event["service"], event.get("version")) if part)
    data = event["data"]
    detail = data.get("text") or data.get("reason")
    detail = detail or ", ".join(f"{key}={value}" for key, value in data.items() if value not in (None, ""))
    head = f"{local_time(event['at'])}  {event['kind']:<22}  {about:<20}  {event['actor']:<12}"
    if event.get("node"):  # several gateways share the store
        head = f"{head}  {event['node']:<12}"
    return f"{head}  {detail}".rstrip()


@click.command()
@client_command
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--actor", help="Only what this token did.")
@click.option("--action", help="Only this action, for example deployment.start.")
@click.option("--note", default="", help="With acknowledge: what was found.")
@click.argument("what", required=False, type=click.Choice(["verify", "acknowledge"]))
def audit(
    api: AdminClient,
    out: Output,
    limit: int,
    actor: str | None,
    action: str | None,
    note: str,
    what: str | None,
) -> int:
    """List who changed what, allowed or refused, newest first.

    verify: walk along the whole trail; exit code 1 if it is broken. acknowledge: a break was looked into.
    """
    if what == "verify":
        return _verify(api, out)
    if what == "acknowledge":
        out.value(api.post("audit/acknowledge", {"note": note}), "acknowledged")
        return OK
    items = list(api.items("audit", limit=limit, actor=actor, action=action))
    out.table(
        items,
        ("TIME", "ACTOR", "ACTION", "ON", "ALLOWED", "FROM", "DETAILS"),
        (
            (
                local_time(item["at"]),
                item["actor"],
                item["action"],
                f"{item['resource']} {item['resourceId']}".strip(),
                yes_no(item["allowed"]),
                item["address"],
                json.dumps(item["details"], ensure_ascii=False) if item["details"] else "",
            )
            for item in items
        ),
    )
    return OK


def _verify(api: AdminClient, out: Output) -> int:
    found = api.get("audit/verify")
    sound = f"{found['count']} rows, sound; the newest is {found['headId']}, {found['headHash']}"
    out.value(found, sound if found["ok"] else f"broken at row {found['brokenAt']}: {found['reason']}")
    return OK if found["ok"] else FAILED


@click.group()
def token() -> None:
    """Make, list, rotate and revoke the tokens of the admin API."""


@token.command("create")
@client_command
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "deployer", "admin"]), required=True)
@click.option("--services", help="Which it may change, with * and ? for parts of names; else all.")
@click.option("--expires", type=duration, help="Then it ends by itself.")
@click.option("--owner", help="Whose it is, where one person has several tokens (two-person rule).")
def token_create(
    api: AdminClient,
    out: Output,
    name: str,
    role: str,
    services: str | None,
    expires: int | None,
    owner: str | None,
) -> int:
    """Make a token. It is printed this once."""
    given = {"services": services, "expiresIn": expires, "owner": owner}
    asked = {key: value for key, value in given.items() if value is not None}
    made = api.post("tokens", {"name": name, "role": role} | asked)
    out.note(f"token {made['name']} ({made['role']}): keep it, it is not shown again")
    out.value(made, made["token"])
    return OK


@token.command("list")
@client_command
def token_list(api: AdminClient, out: Output) -> int:
    """List tokens by what may be shown of them."""
    items = list(api.items("tokens"))
    out.table(
        items,
        ("ID", "NAME", "ROLE", "STARTS WITH", "MADE", "BY", "LAST USED", "REVOKED"),
        (
            (
                item["id"],
                item["name"],
                item["role"],
                item["prefix"],
                local_time(item["createdAt"]),
                item["createdBy"],
                local_time(item["lastUsedAt"]),
                local_time(item["revokedAt"]),
            )
            for item in items
        ),
    )
    return OK


@token.command("revoke")
@client_command
@click.argument("name_or_id")
def token_revoke(api: AdminClient, out: Output, name_or_id: str) -> int:
    """Revoke a token, by id or by its name if only one unrevoked token has it."""
    found = _live_token(api, name_or_id)
    api.call("DELETE", f"tokens/{found['id']}")
    out.value(found, f"revoked {found['name']}")
    return OK


@token.command("rotate")
@client_command
@click.argument("name_or_id")
@click.option("--overlap", type=duration, default="0ms", help="How long the old secret works on.")
def token_rotate(api: AdminClient, out: Output, name_or_id: str, overlap: int) -> int:
    """Put a new secret in a token's place. It is printed this once."""
    found = _live_token(api, name_or_id)
    made = api.post(f"tokens/{found['id']}/rotate", {"overlap": overlap})
    out.note(f"token {made['name']} ({made['role']}): keep it, it is not shown again")
    if api.token_file and made["name"] == BOOTSTRAP:
        out.note(f"{api.token_file} holds the old one: put this one there, or use GATEWAY_TOKEN")
    out.value(made, made["token"])
    return OK


def _live_token(api: AdminClient, name_or_id: str) -> dict[str, Any]:
    """Return the one unrevoked token of that id or name. Raises CliError."""
    live = [item for item in api.items("tokens") if item["revokedAt"] is None]
    found = [item for item in live if name_or_id in (item["id"], item["name"])]
    if len(found) != 1:
        raise CliError(
            f"{len(found)} unrevoked tokens are called {name_or_id!r}; `gateway token list` shows their ids"
        )
    return found[0]


@click.command()
@client_command
@click.argument("state", type=click.Choice(["on", "off"]), required=False)
@click.option("--reason", default="", help="Shown to whoever is refused a start.")
def freeze(api: AdminClient, out: Output, state: str | None, reason: str) -> int:
    """Refuse starts and hold advances (on), allow them again (off), or say which it is.

    Rollbacks always work.
    """
    if state is None:
        now = api.get("freeze")
    else:
        now = api.call("PUT", "freeze", body={"frozen": state == "on", "reason": reason})
    out.value(now, "\n".join(_freeze_lines(now)))
    return OK


def _freeze_lines(now: dict[str, Any]) -> list[str]:
    """Return whether changes are frozen, until when, and what is scheduled."""
    until = f", until {local_time(now['until'])}" if now.get("until") else ""
    first = f"frozen: {now.get('reason') or 'no reason given'}{until}" if now["frozen"] else "not frozen"
    return [first, *(_window_line(window) for window in now.get("windows", ()))]


def _window_line(window: dict[str, Any]) -> str:
    of = f"{window['service']}: " if window.get("service") else ""
    name = f"{of}{window['cron']} {window['tz']}, for {format_duration(window['duration'])}"
    if window["start"] is None:
        return f"  {name}: not within years"
    when = "now" if window["inForce"] else f"next {local_time(window['start'])}"
    why = f"  {window['reason']}" if window["reason"] else ""
    return f"  {name}: {when}, until {local_time(window['end'])}{why}"


COMMANDS: Final = (events, audit, token, freeze)
