"""The command line's root, and the commands that run something instead of asking the admin API."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from gateway import __version__, config
from gateway.cli import (
    apply,
    approvals,
    completion,
    deploy,
    edit,
    logs,
    nodes,
    operate,
    rehearse,
    reports,
    rollouts,
    show,
    upkeep,
    versions,
    waiting,
)
from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command, client_group
from gateway.cli.exits import FAILED, INTERRUPTED, OK, USAGE, ApiError, CliError, Unreachable
from gateway.cli.helping import Root, add_examples
from gateway.cli.output import Output
from gateway.cli.params import duration
from gateway.cli.text import say
from gateway.errors import ConfigError, GatewayError


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gateway")
@client_group
def root(**_: str | None) -> None:
    """An HTTP gateway that deploys the services behind it with zero downtime."""


for room in (
    deploy,
    rollouts,
    rehearse,
    show,
    reports,
    versions,
    edit,
    apply,
    approvals,
    logs,
    upkeep,
    nodes,
    operate,
    completion,
):
    for command in room.COMMANDS:
        root.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command. Returns the exit code; what went wrong is one line on stderr."""
    is_json = wants_json([*arguments])
    try:
        try:
            code = root.main(args=list(arguments), prog_name="gateway", standalone_mode=False)
        except click.ClickException as exc:
            exc.show()
            used = isinstance(exc, click.UsageError)
            return _failed(exc.format_message(), USAGE if used else FAILED, is_json=is_json)
        except CliError as exc:
            say(f"gateway: {exc}", err=True)
            problem = exc.problem if isinstance(exc, ApiError) else {}
            return _failed(str(exc), exc.code, is_json=is_json, problem=problem)
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). Python would complain once more when it flushes at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except OSError as exc:
        with suppress(OSError):
            say(f"gateway: the output cannot be written: {exc.strerror or exc}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    return code if isinstance(code, int) else OK


def wants_json(arguments: list[str]) -> bool:
    """Whether whoever typed this wants JSON, also where it cannot be understood."""
    for index, word in enumerate(arguments):
        if word in ("-o", "--output"):
            return arguments[index + 1 : index + 2] == ["json"]
        if word in ("-ojson", "--output=json"):
            return True
    return os.environ.get("GATEWAY_OUTPUT") == "json"


def _failed(message: str, code: int, *, is_json: bool, problem: Mapping[str, object] | None = None) -> int:
    """Tell a script why, on stdout: nothing is no JSON. Returns the exit code."""
    if is_json:
        said: dict[str, object] = {"error": message, "exitCode": code}
        click.echo(json.dumps(said | ({"problem": problem} if problem else {}), ensure_ascii=False))
    return code


@root.command()
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="Configuration file (TOML).")
@click.option("--listen", metavar="HOST:PORT", help="Where clients connect, instead of listen.address.")
@click.option("--admin", metavar="HOST:PORT", help="Where operators connect, instead of admin.address.")
@click.option("--store", metavar="URL", help="Where state is kept, instead of store.url.")
@click.option("--workers", type=click.IntRange(0, 1024), help="Worker processes; 0: one per core.")
def serve(
    config_path: str | None, listen: str | None, admin: str | None, store: str | None, workers: int | None
) -> int:
    """Run the gateway until SIGTERM."""
    from gateway.serve import main as control

    given = {"listen.address": listen, "admin.address": admin, "store.url": store, "workers": workers}
    overrides = {key: value for key, value in given.items() if value is not None}
    try:
        return control.main(config_path, overrides)
    except ConfigError as exc:
        raise CliError(str(exc), USAGE) from exc
    except GatewayError as exc:
        raise CliError(str(exc)) from exc


@root.command()
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="Configuration file (TOML).")
def check(config_path: str | None) -> int:
    """Check a configuration file: exit code 0, or 2 with the path of the first wrong key."""
    from gateway.serve import loading

    try:
        settings = loading.load(config_path)
    except ConfigError as exc:
        raise CliError(str(exc), USAGE) from exc
    found = config.find(config_path)
    click.echo(f"{found or 'defaults'}: ok, {len(settings.service)} services")
    return OK


@root.command()
@click.option(
    "--headless", is_flag=True, help="End with the story: exit code 0 if it went well, 3 after 60 s."
)
def demo(headless: bool) -> int:
    """Play a good and a bad release on this machine, with real traffic; then it is your turn."""
    from gateway import demo as story

    return story.main(headless=headless)


@root.command()
@client_command
@click.option("--live", is_flag=True, help="Only whether it runs, not whether it is ready.")
def healthcheck(api: AdminClient, out: Output, live: bool) -> int:
    """Ask the gateway whether it is ready: exit code 0 or 1, for containers and init systems."""
    api.stay()  # of several gateways this one is meant
    reply = api.raw("GET", "/livez" if live else "/readyz")
    is_ok = reply.status == 200
    out.value({"status": reply.status, "ok": is_ok}, reply.body.decode(errors="replace").strip())
    return OK if is_ok else FAILED


@root.command()
@client_command
@click.option("--timeout", "timeout_ms", type=duration, default="60s", show_default=True)
def upgrade(api: AdminClient, out: Output, timeout_ms: int) -> int:
    """Replace the running gateway by the release now on disk; returns when the new control is in charge."""
    before = api.get("gateway")
    api.stay()  # of several gateways this one is meant, also while it does not answer
    try:
        api.post("gateway/upgrade")
    except Unreachable as exc:
        out.note(f"{exc}; looking who is in charge")  # the old control may leave before its answer does

    def in_charge() -> dict[str, object] | None:
        now: dict[str, object] = api.get("gateway")
        return now if now["pid"] != before["pid"] else None

    after = waiting.wait_for(
        api, in_charge, timeout_ms, "timed out: no new control took over; the old one serves on"
    )
    does = f"is in charge, epoch {after['epoch']}" if after["epoch"] != before["epoch"] else "follows on"
    out.value(after, f"release {after['release']} {does}, pid {after['pid']}")
    return OK


add_examples(root)
