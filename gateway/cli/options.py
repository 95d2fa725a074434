"""Arguments and options that several commands take."""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from gateway.cli import connect
from gateway.cli.exits import CliError
from gateway.cli.params import duration, percents, setting

F = TypeVar("F", bound=Callable[..., Any])

reason_option = click.option("--reason", default="", help="Kept with the move, for those who read it later.")
wait_timeout_option = click.option(
    "--timeout",
    "timeout_ms",
    type=duration,
    default="24h",
    show_default=True,
    help="With --wait: then exit with 3; the rollout goes on, or stays paused.",
)


def _services(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete a service's name, by what the gateway knows; nothing if it cannot be asked."""
    try:
        names = [each["name"] for each in _client(context).get("services", limit=200)["items"]]
    except CliError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def _versions(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete a version's name."""
    service = context.params.get("service")
    try:
        found = _client(context).get("deployment/versions", serviceName=service, limit=200)["items"]
    except CliError:
        return []
    return [CompletionItem(each["version"]) for each in found if each["version"].startswith(begun)]


def _client(context: click.Context) -> Any:
    """Return a client by what was typed so far, one that does not wait long."""
    given = context.params
    api = connect.connect(given.get("admin_url"), given.get("token"), given.get("config_path"))
    api.timeout_s = 1.0
    return api


service_argument: Final = click.argument("service", shell_complete=_services)
any_service_argument: Final = click.argument("service", required=False, shell_complete=_services)
version_argument: Final = click.argument("version", shell_complete=_versions)


_ROLLOUT_OPTIONS: Final = (
    click.option(
        "--strategy",
        type=click.Choice(["canary", "blue-green", "immediate"]),
        default="canary",
        show_default=True,
    ),
    click.option("--immediate", is_flag=True, help="The same as --strategy immediate."),
    click.option("--steps", type=percents, help="Percentages, for example 10,50,100."),
    click.option("--step-interval", type=duration, help="How long each step lasts, for example 5m."),
    click.option(
        "--bake-time", type=duration, help="How long all traffic is watched before the old version goes."
    ),
    click.option("--error-threshold", type=float, help="Highest error rate of the new version, in percent."),
    click.option("--min-requests", type=int, help="Requests a step needs before it may pass."),
    click.option(
        "--no-auto-pause", is_flag=True, help="Do not pause for a person when a step ends undecided."
    ),
    click.option(
        "--set",
        "others",
        type=setting,
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other rollout setting, by its name in the API; repeatable.",
    ),
)
_NAMES: Final = {
    "steps": "steps",
    "step_interval": "stepInterval",
    "bake_time": "bakeTime",
    "error_threshold": "errorThreshold",
    "min_requests": "minRequests",
}


def rollout_options(command: F) -> F:
    """Give a command the settings of a rollout."""
    wrapped: Any = command
    for option in reversed(_ROLLOUT_OPTIONS):
        wrapped = option(wrapped)
    return cast(F, wrapped)


def strategy_of(settings: dict[str, Any]) -> str:
    """Return the strategy the options name."""
    return "immediate" if settings.get("immediate") else str(settings["strategy"])


def config_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the options as a rollout's `config`: only what was given."""
    config = {_NAMES[key]: settings[key] for key in _NAMES if settings.get(key) is not None}
    if settings.get("no_auto_pause"):
        config["autoPause"] = False
    return config | dict(settings.get("others", ()))
