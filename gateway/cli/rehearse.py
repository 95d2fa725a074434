"""`gateway rehearse`: is your service safe to deploy without downtime?"""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import click

from gateway.cli import fixes, rehearsal
from gateway.cli.client import AdminClient, segment
from gateway.cli.connect import client_command
from gateway.cli.exits import FAILED, OK, USAGE, ApiError, CliError
from gateway.cli.options import service_argument
from gateway.cli.output import Output
from gateway.cli.rehearsal import Check, Fault, Instance
from gateway.cli.talk import Lost, Place, once
from gateway.cli.text import printable

IDLE_MS: Final = 4000
"""The default of timeouts.upstream_idle."""
HEALTH_PATH: Final = "/api/health"


@click.command()
@client_command
@service_argument
@click.option(
    "--url", required=True, help="An instance without traffic: it is loaded, and stopped at the end."
)
@click.option("--url2", help="Another version, running beside it on the same store.")
@click.option("--stop-command", help="Shell command that asks the instance to stop, as you will.")
@click.option("--shutdown-url", help="POSTed to ask it to stop, instead.")
@click.option("--health-path", help="Instead of the one of SERVICE's settings.")
@click.option("--path", help="A path that is cheap to GET; default: that of SERVICE's first route.")
@click.option("--upload-path", help="Where large bodies are sent; default: the health path.")
def rehearse(
    api: AdminClient,
    out: Output,
    service: str,
    url: str,
    url2: str | None,
    stop_command: str | None,
    shutdown_url: str | None,
    health_path: str | None,
    path: str | None,
    upload_path: str | None,
) -> int:
    """Try whether an instance of SERVICE can be deployed without downtime: exit code 0 or 1.

    Starts nothing and touches no traffic: everything is sent straight to --url, which must not be that of a
    version with weight. Takes up to 40 s.
    """
    refuse_live(api, [each for each in (url, url2) if each])
    settings = settings_of(api, out, service)
    checked_path = health_path or health_path_of(settings)
    instance = Instance(
        place=place_of(url),
        second=place_of(url2) if url2 else None,
        health_path=checked_path,
        path=path or path_of(settings),
        upload_path=upload_path or checked_path,
        idle_s=((settings.get("timeouts") or {}).get("upstreamIdle") or IDLE_MS) / 1000,
        stop=stopping(stop_command, shutdown_url),
    )
    say = (lambda check: None) if out.is_json else _say
    checks = asyncio.run(rehearsal.rehearse(instance, say))
    is_ok = all(check.ok for check in checks)
    out.value({"ok": is_ok, "checks": [as_json(check) for check in checks]}, *closing(service, checks))
    return OK if is_ok else FAILED


# -- what is tried


def place_of(url: str) -> Place:
    """Return where an instance is. Raises CliError (2)."""
    try:
        return Place.of(url)
    except ValueError as exc:
        raise CliError(str(exc), USAGE) from exc


def refuse_live(api: AdminClient, urls: list[str]) -> None:
    """Refuse an instance that has traffic. Raises CliError (2)."""
    places = {place_of(url) for url in urls}
    for version in api.items("deployment/versions"):
        taken = {place_of(each) for each in (version["url"], *version["replicas"])}
        if version["weight"] and places & taken:
            raise CliError(
                f"{version['url']} is {version['serviceName']} {version['version']}, which has weight "
                f"{version['weight']}: name an instance without traffic by --url",
                USAGE,
            )


def settings_of(api: AdminClient, out: Output, service: str) -> dict[str, Any]:
    """Return the service's settings; of one that is not there yet, none, which means the defaults."""
    try:
        settings: dict[str, Any] = api.get(f"services/{segment(service)}")["settings"]
    except ApiError as exc:
        if exc.status != 404:
            raise
        out.note(f"there is no service {service} yet: its health path is taken to be {HEALTH_PATH}")
        return {}
    return settings


def health_path_of(settings: dict[str, Any]) -> str:
    """Return the path a service is probed at."""
    health = settings.get("health")
    return str(health["path"]) if isinstance(health, dict) else HEALTH_PATH


def path_of(settings: dict[str, Any]) -> str:
    """Return a path the service is asked for: that of its first route, as the service sees it."""
    routes = settings.get("routes") or [{}]
    return "/" if routes[0].get("stripPrefix") else str(routes[0].get("path", "/"))


def stopping(command: str | None, url: str | None) -> Callable[[], Awaitable[None]] | None:
    """Return what asks the instance to stop; None: nobody said how. Raises CliError (2)."""
    if command and url:
        raise CliError("--stop-command or --shutdown-url, not both", USAGE)
    if command:
        return lambda: _run(command)
    if url:
        place, path = place_of(url), urlsplit(url).path or "/"
        return lambda: _post(place, path)
    return None


async def _run(command: str) -> None:
    process = await asyncio.create_subprocess_shell(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip()[-200:]
        raise Fault(
            f"the stop command ended with exit code {process.returncode}: {said or 'it said nothing'}"
        )


async def _post(place: Place, path: str) -> None:
    try:
        answer = await once(place, "POST", path)
    except Lost as exc:
        raise Fault(f"the shutdown url: {exc}") from exc
    if answer.status >= 400:
        raise Fault(f"the shutdown url answers {answer.status}")


# -- the report


def _say(check: Check) -> None:
    sign = "–" if check.skipped else "✓" if check.ok else "✗"
    click.echo(f"{sign} {check.name:<13} {printable(check.detail)}")
    for line in fixes.fix_lines(check.name) if not check.ok else ():
        click.echo(f"                {line}")


def as_json(check: Check) -> dict[str, Any]:
    """Return a check as scripts read it."""
    fix = "" if check.ok else fixes.fix_of(check.name)
    shown = {"name": check.name, "ok": check.ok, "detail": check.detail, "fix": fix}
    return shown | ({"skipped": True} if check.skipped else {})


def closing(service: str, checks: list[Check]) -> list[str]:
    """Return the last lines of the report."""
    failed = [check.name for check in checks if not check.ok]
    skipped = [check.name for check in checks if check.skipped]
    rest = [f"not tried: {', '.join(skipped)}"] if skipped else []
    if failed:
        return [*rest, f"{service} would lose requests in a deploy: {', '.join(failed)}"]
    return [*rest, f"{service} is safe to deploy, as far as was tried"]


COMMANDS: Final = (rehearse,)
