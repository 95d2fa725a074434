"""Commands about one rollout: where it stands, and how it is moved."""

from typing import Any, Final

import click

from gateway.cli import overview
from gateway.cli.client import AdminClient, segment
from gateway.cli.connect import client_command
from gateway.cli.exits import FAILED, OK, CliError
from gateway.cli.lookup import rollout_of
from gateway.cli.options import reason_option, service_argument
from gateway.cli.output import Output
from gateway.cli.text import local_time


@click.command()
@client_command
@service_argument
def status(api: AdminClient, out: Output, service: str) -> int:
    """Say where SERVICE's newest rollout stands: exit code 1 if it failed or was rolled back."""
    newest = rollout_of(api, service, must_be_open=False)
    warning = f"warning: {newest['warning']}" if newest.get("warning") else None
    since = f"started {local_time(newest['startedAt'] or newest['createdAt'])} by {newest['createdBy']}"
    lines = [
        overview.rollout_line(newest),
        overview.why_line(newest),
        overview.judge_line(newest),
        warning,
        since,
    ]
    out.value(newest, *(line for line in lines if line))
    return FAILED if newest["status"] in ("failed", "rolled_back") else OK


def _ordered(api: AdminClient, out: Output, path: str, reason: str) -> dict[str, Any]:
    """Give an order, and give it to each other gateway too while no store can tell them of it.

    Returns the deployment; `nodes`: everywhere it is in force.
    """
    deployment: dict[str, Any] = api.post(path, {"reason": reason})
    if deployment.get("stored") is not False:
        return deployment
    for other in api.others():
        try:
            there = other.post(path, {"reason": reason})
        except CliError as exc:
            out.note(f"warning: {other.url} was not told: {exc}")
            continue
        if there.get("stored") is not False:
            return dict(there)
        deployment["nodes"] = [*deployment.get("nodes", []), *there.get("nodes", [])]
    return deployment


def _moved(out: Output, deployment: dict[str, Any]) -> int:
    lines = [overview.rollout_line(deployment), overview.why_line(deployment)]
    out.value(deployment, *(line for line in lines if line))
    if deployment.get("warning"):
        out.note(f"warning: {deployment['warning']}")
    if deployment.get("stored") is False:
        where = f" at {', '.join(deployment['nodes'])}" if deployment.get("nodes") else ""
        out.note(f"warning: it is in force{where}, but the store cannot take it yet; it is stored later")
        if deployment.get("kept") is False:
            out.note("warning: no worker says that it has it: if control ends before that, order it again")
    return OK


@click.command()
@client_command
@service_argument
@click.option("--full", is_flag=True, help="All traffic now, instead of the next step.")
def promote(api: AdminClient, out: Output, service: str, full: bool) -> int:
    """Take SERVICE's rollout to its next step, or to the end."""
    deployment = rollout_of(api, service)
    return _moved(out, api.post(f"deployment/{deployment['id']}/promote", {"full": full}))


def _move(name: str, help_text: str, *, must_be_open: bool = True) -> click.Command:
    """Return a command that sends an open rollout one event."""

    @click.command(name, help=help_text)
    @client_command
    @service_argument
    @reason_option
    def command(api: AdminClient, out: Output, service: str, reason: str) -> int:
        deployment = rollout_of(api, service, must_be_open=must_be_open)
        return _moved(out, _ordered(api, out, f"deployment/{deployment['id']}/{name}", reason))

    return command


pause = _move("pause", "Hold SERVICE's rollout where it is; it is still judged.")
resume = _move("resume", "Let SERVICE's paused rollout go on.")
complete = _move("complete", "End SERVICE's rollout now; only at 100 %.")
rollback = _move("rollback", "Move all traffic back to the old version, now.", must_be_open=False)


@click.command()
@client_command
@service_argument
@reason_option
def undo(api: AdminClient, out: Output, service: str, reason: str) -> int:
    """Take back SERVICE's last release: at once while its rollout is open, later by a new one."""
    undone = _ordered(api, out, f"services/{segment(service)}/undo", reason)
    if undone["status"] in ("pending", "testing"):
        out.note(f"the release was over: a new rollout takes {service} back to {undone['toVersion']}")
    return _moved(out, undone)


COMMANDS: Final = (status, promote, pause, resume, complete, rollback, undo)
