"""Commands about one rollout: start it, watch it, move it."""

import time
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from rich.console import RenderableType
from rich.live import Live

from gateway.cli import tree
from gateway.cli.client import AdminClient, segment
from gateway.cli.connect import client_command
from gateway.cli.exits import FAILED, OK, TIMED_OUT, CliError, Unreachable
from gateway.cli.output import Output, console, local_time
from gateway.cli.params import duration, percents, route, setting

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LOOK_EVERY_S: Final = 0.5
reason_option = click.option("--reason", default="", help="Kept with the move, for those who read it later.")


ROLLOUT_OPTIONS: Final = (
    click.option(
        "--strategy",
        type=click.Choice(["canary", "blue-green", "immediate"]),
        default="canary",
        show_default=True,
    ),
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


def rollout_options(command: F) -> F:
    """Give a command the settings of a rollout."""
    for option in reversed(ROLLOUT_OPTIONS):
        command = option(command)
    return command


@click.command()
@client_command
@click.argument("service")
@click.argument("version")
@click.option("--url", help="Where the version answers; needed unless it is registered already.")
@click.option("--replica", "replicas", multiple=True, help="A further url of the same version; repeatable.")
@click.option("--route", "routes", type=route, multiple=True, help="Makes an unknown service: [HOST]/PATH.")
@click.option("--shutdown-url", help="POSTed when the version may stop.")
@rollout_options
@click.option("--no-test", is_flag=True, help="Skip the test call; the start's own gate still holds.")
@click.option(
    "--wait",
    is_flag=True,
    help="Return once the old version is drained and may be stopped. A pause is said and waited out.",
)
@click.option(
    "--timeout",
    "timeout_ms",
    type=duration,
    default="24h",
    show_default=True,
    help="With --wait: then exit with 3; the rollout goes on, or stays paused.",
)
def deploy(
    api: AdminClient,
    out: Output,
    service: str,
    version: str,
    url: str | None,
    replicas: tuple[str, ...],
    routes: tuple[dict[str, str], ...],
    shutdown_url: str | None,
    strategy: str,
    no_test: bool,
    wait: bool,
    timeout_ms: int,
    **settings: Any,
) -> int:
    """Release VERSION of SERVICE: register it if needed, test it, move the traffic."""
    known = find_version(api, service, version)
    if known is None:
        if url is None:
            raise CliError(f"{service} has no version {version}: say where it answers with --url", 2)
        extra = {"replicas": replicas, "shutdownUrl": shutdown_url, "routes": routes}
        given = {key: value for key, value in extra.items() if value}
        new = {"serviceName": service, "version": version, "url": url, **given}
        known = api.post("deployment/versions", new)
        out.note(f"registered {service} {version} at {url}")
    elif url is not None and known["url"] != url:
        raise CliError(
            f"{service} {version} is registered at {known['url']}: give a new build a new version name"
        )
    if known["weight"] > 0 and tree.open_deployment(api, service) is None:
        return _first_version(api, out, known, wait, timeout_ms)
    if not no_test:
        _test(api, out, known)
    body = {"serviceName": service, "toVersion": version, "strategy": strategy, "config": config_of(settings)}
    started = api.post("deployment/start", body, **{"idempotency-key": str(uuid.uuid4())})
    if not wait:
        out.value(started, tree.rollout_line(started))
        return OK
    ended = follow(api, out, started, timeout_ms)
    out.value(ended, tree.rollout_line(ended))
    return OK if ended["status"] == "completed" else FAILED


def config_of(settings: dict[str, Any]) -> dict[str, Any]:
    names = {
        "steps": "steps",
        "step_interval": "stepInterval",
        "bake_time": "bakeTime",
        "error_threshold": "errorThreshold",
        "min_requests": "minRequests",
    }
    config = {names[key]: settings[key] for key in names if settings.get(key) is not None}
    if settings.get("no_auto_pause"):
        config["autoPause"] = False
    return config | dict(settings.get("others", ()))


def _first_version(
    api: AdminClient, out: Output, version: dict[str, Any], wait: bool, timeout_ms: int
) -> int:
    """Report a version that has the traffic already; there is nothing to move."""
    path = f"deployment/versions/{version['id']}"

    def healthy() -> dict[str, Any] | None:
        now: dict[str, Any] = api.get(path)
        return now if now["healthStatus"] == "healthy" else None

    name = f"{version['serviceName']} {version['version']}"
    if wait:
        version = wait_for(healthy, timeout_ms, f"{name} did not become healthy")
    out.value(version, f"{name} has {version['weight']} % of the traffic already: nothing to move")
    return OK


def _test(api: AdminClient, out: Output, version: dict[str, Any]) -> None:
    report = api.post(f"deployment/versions/{version['id']}/test")
    for test in report["tests"]:
        sign = "ok" if test["ok"] else f"FAILED: {test.get('error') or 'got ' + str(test.get('status'))}"
        out.note(f"test {test['method']} {test['path']}: {sign} ({test['durationMs']} ms)")
    if not report["isHealthy"]:
        raise CliError(
            f"{version['serviceName']} {version['version']} did not pass its tests; nothing was moved"
        )


def follow(api: AdminClient, out: Output, deployment: dict[str, Any], timeout_ms: int) -> dict[str, Any]:
    """Watch a rollout until it ends, saying each change on stderr, and each pause with what it waits for. A
    gateway that restarts meanwhile is waited for.

    Raises CliError (3) after timeout_ms.
    """
    service = deployment["serviceName"]
    seen: object = None
    line = "nothing was heard of it"

    def ended() -> dict[str, Any] | None:
        nonlocal seen, line
        try:
            now: dict[str, Any] = api.get(f"deployment/{deployment['id']}")
        except Unreachable:
            return None
        if (change := _change(now)) != seen:
            seen, line = change, _progress(now)
            out.note(line)
            if now["status"] == "paused":
                out.note(f"waiting for somebody: gateway resume, promote or rollback {service}")
        return now if now["status"] not in tree.OPEN else None

    return wait_for(ended, timeout_ms, lambda: f"the rollout of {service} is still open, {line}")


def _change(deployment: dict[str, Any]) -> tuple[object, ...]:
    """Return what is worth a line when it changes: not the judge's growing numbers."""
    verdict = deployment.get("verdict") or {}
    said = tree.verdict_line(deployment) if deployment["status"] == "paused" else verdict.get("gate")
    return deployment["status"], deployment.get("phase"), deployment["trafficPercent"], said


def _progress(deployment: dict[str, Any]) -> str:
    line = f"{deployment['status']}: {deployment['trafficPercent']} % on {deployment.get('toVersion')}"
    why = tree.verdict_line(deployment)
    return f"{line} ({why})" if why else line


def wait_for(
    look: Callable[[], T | None],
    timeout_ms: int,
    otherwise: str | Callable[[], str],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Look every half second until there is an answer.

    Raises CliError (3) with `otherwise` after timeout_ms.
    """
    deadline = clock() + timeout_ms / 1000
    while (found := look()) is None:
        if clock() >= deadline:
            why = otherwise if isinstance(otherwise, str) else otherwise()
            raise CliError(f"timed out: {why}", TIMED_OUT)
        sleep(LOOK_EVERY_S)
    return found


def find_version(api: AdminClient, service: str, version: str) -> dict[str, Any] | None:
    """Return the version of that name, None if there is none."""
    items = api.items("deployment/versions", serviceName=service)
    return next((item for item in items if item["version"] == version), None)


def rollout_of(api: AdminClient, service: str, *, must_be_open: bool = True) -> dict[str, Any]:
    """Return the service's rollout: the open one, or else the newest if it need not be open.

    Raises CliError.
    """
    newest = tree.latest_deployment(api, service)
    if newest is None:
        raise CliError(f"{service} has had no rollout")
    if must_be_open and newest["status"] not in tree.OPEN:
        raise CliError(f"{service} has no open rollout: the last one ended {newest['status']}")
    return newest


@click.command()
@client_command
@click.argument("service", required=False)
@click.option("-w", "--watch", is_flag=True, help="Stay, and show what changes.")
def get(api: AdminClient, out: Output, service: str | None, watch: bool) -> int:
    """Show services, versions, weights, health, breakers and the open rollout."""
    services = tree.read(api, service)
    if out.is_json:
        out.value(services if service is None else services[0])
        return OK
    if not watch:
        console().print(tree.render(services))
        return OK
    with Live(tree.render(services), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(1.0)
            live.update(_look(api, service), refresh=True)


def _look(api: AdminClient, service: str | None) -> RenderableType:
    """Return the tree as it is now; a gateway that is being replaced is only a line."""
    try:
        return tree.render(tree.read(api, service))
    except Unreachable as exc:
        return str(exc)


@click.command()
@client_command
@click.argument("service")
def status(api: AdminClient, out: Output, service: str) -> int:
    """Say where SERVICE's newest rollout stands: exit code 1 if it failed or was rolled back."""
    newest = rollout_of(api, service, must_be_open=False)
    warning = f"warning: {newest['warning']}" if newest.get("warning") else None
    since = f"started {local_time(newest['startedAt'] or newest['createdAt'])} by {newest['createdBy']}"
    lines = [tree.rollout_line(newest), tree.verdict_line(newest), tree.judge_line(newest), warning, since]
    out.value(newest, *(line for line in lines if line))
    return FAILED if newest["status"] in ("failed", "rolled_back") else OK


def _moved(out: Output, deployment: dict[str, Any]) -> int:
    lines = [tree.rollout_line(deployment), tree.verdict_line(deployment)]
    out.value(deployment, *(line for line in lines if line))
    if deployment.get("warning"):
        out.note(f"warning: {deployment['warning']}")
    return OK


@click.command()
@client_command
@click.argument("service")
@click.option("--full", is_flag=True, help="All traffic now, instead of the next step.")
def promote(api: AdminClient, out: Output, service: str, full: bool) -> int:
    """Take SERVICE's rollout to its next step, or to the end."""
    deployment = rollout_of(api, service)
    return _moved(out, api.post(f"deployment/{deployment['id']}/promote", {"full": full}))


def _move(name: str, help_text: str, *, must_be_open: bool = True) -> click.Command:
    """Return a command that sends an open rollout one event."""

    @click.command(name, help=help_text)
    @client_command
    @click.argument("service")
    @reason_option
    def command(api: AdminClient, out: Output, service: str, reason: str) -> int:
        deployment = rollout_of(api, service, must_be_open=must_be_open)
        return _moved(out, api.post(f"deployment/{deployment['id']}/{name}", {"reason": reason}))

    return command


pause = _move("pause", "Hold SERVICE's rollout where it is; it is still judged.")
resume = _move("resume", "Let SERVICE's paused rollout go on.")
complete = _move("complete", "End SERVICE's rollout now; only at 100 %.")
rollback = _move("rollback", "Move all traffic back to the old version, now.", must_be_open=False)


@click.command()
@client_command
@click.argument("service")
@reason_option
def undo(api: AdminClient, out: Output, service: str, reason: str) -> int:
    """Take back SERVICE's last release: at once while its rollout is open, later by a new one."""
    undone = api.post(f"services/{segment(service)}/undo", {"reason": reason})
    if undone["status"] in ("pending", "testing"):
        out.note(f"the release was over: a new rollout takes {service} back to {undone['toVersion']}")
    return _moved(out, undone)


COMMANDS: Final = (deploy, get, status, promote, pause, resume, complete, rollback, undo)
