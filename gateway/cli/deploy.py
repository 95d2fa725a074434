"""`gateway deploy`: register a version, wait until it is healthy, move the traffic."""

import uuid
from typing import Any, Final, NamedTuple

import click

from gateway.cli import overview, waiting
from gateway.cli.client import AdminClient, segment
from gateway.cli.connect import client_command
from gateway.cli.exits import FAILED, INTERRUPTED, OK, USAGE, ApiError, CliError
from gateway.cli.follow import follow
from gateway.cli.lookup import find_version
from gateway.cli.options import (
    config_of,
    rollout_options,
    service_argument,
    strategy_of,
    version_argument,
    wait_timeout_option,
)
from gateway.cli.output import Output
from gateway.cli.params import duration, format_duration, route
from gateway.cli.text import say

Version = dict[str, Any]


class Release(NamedTuple):
    """What is to be released, as it was typed."""

    service: str
    version: str
    url: str | None
    replicas: tuple[str, ...]
    routes: tuple[dict[str, str], ...]
    shutdown_url: str | None

    def __str__(self) -> str:
        return f"{self.service} {self.version}"


@click.command()
@client_command
@service_argument
@version_argument
@click.option("--url", help="Where the version answers; needed unless it is registered already.")
@click.option("--replica", "replicas", multiple=True, help="A further url of the same version; repeatable.")
@click.option("--route", "routes", type=route, multiple=True, help="Makes an unknown service: [HOST]/PATH.")
@click.option("--shutdown-url", help="POSTed when the version may stop.")
@click.option(
    "--deploy-timeout",
    "deploy_timeout_ms",
    type=duration,
    default="30s",
    show_default=True,
    help="How long the version may take to pass its health check; then exit with 1.",
)
@rollout_options
@click.option("--no-test", is_flag=True, help="Skip the test call; the start's own test gate still holds.")
@click.option(
    "--wait",
    is_flag=True,
    help="Return once the old version is drained and may be stopped. A pause is said and waited out.",
)
@wait_timeout_option
def deploy(
    api: AdminClient,
    out: Output,
    service: str,
    version: str,
    url: str | None,
    replicas: tuple[str, ...],
    routes: tuple[dict[str, str], ...],
    shutdown_url: str | None,
    deploy_timeout_ms: int,
    no_test: bool,
    wait: bool,
    timeout_ms: int,
    **settings: Any,
) -> int:
    """Release VERSION of SERVICE: register it if needed, wait until it is healthy, move the traffic.

    The same line may be repeated: it goes on where it was.
    """
    release = Release(service, version, url, replicas, routes, shutdown_url)
    registered = register(api, out, release)
    await_healthy(api, out, registered, deploy_timeout_ms)
    now = overview.one(api, service)
    rollout = now.get("deployment")
    if rollout is None and _has_traffic(now, registered):
        return _already_serves(api, out, registered, now)
    if rollout is not None and rollout["toVersionId"] == registered["id"]:
        out.note(f"a rollout of {release} is open already")
    else:
        if not no_test:
            run_tests(api, out, registered)
        rollout = start(api, release, settings)
    out.note(f"its page, for good: {api.url}/rollouts/{rollout['id']}")
    if wait:
        return _to_its_end(api, out, rollout, timeout_ms)
    out.value(rollout, overview.rollout_line(rollout))
    out.note(f"`gateway get {service} -w` watches it, `gateway rollback {service}` takes it back")
    return OK


def start(api: AdminClient, release: Release, settings: dict[str, Any]) -> dict[str, Any]:
    """Start the rollout."""
    body = {
        "serviceName": release.service,
        "toVersion": release.version,
        "strategy": strategy_of(settings),
        "config": config_of(settings),
    }
    started: dict[str, Any] = api.post("deployment/start", body, **{"idempotency-key": str(uuid.uuid4())})
    return started


def _to_its_end(api: AdminClient, out: Output, rollout: dict[str, Any], timeout_ms: int) -> int:
    ended = follow(api, out, rollout, timeout_ms)
    if not out.is_json:
        out.value(ended, overview.rollout_line(ended))
    if ended["status"] == "completed":
        _say_address(api, out, ended["serviceName"])
        return OK
    out.note(f"`gateway why {ended['serviceName']}` says why")
    return FAILED


# -- the version


def register(api: AdminClient, out: Output, release: Release) -> Version:
    """Return the version, registered now if it was not. Raises CliError."""
    known = find_version(api, release.service, release.version)
    if known is None:
        return _register_new(api, out, release)
    if release.url is not None and known["url"] != release.url:
        return _replace_url(api, out, release, known)
    return known


def _register_new(api: AdminClient, out: Output, release: Release) -> Version:
    if release.url is None:
        raise CliError(
            f"{release.service} has no version {release.version}: say where it answers with --url", USAGE
        )
    extra = {"replicas": release.replicas, "shutdownUrl": release.shutdown_url, "routes": release.routes}
    given = {key: value for key, value in extra.items() if value}
    new = {"serviceName": release.service, "version": release.version, "url": release.url, **given}
    try:
        made: Version = api.post("deployment/versions", new)
    except ApiError as exc:
        if exc.status == 404 and not release.routes:
            raise CliError(
                f"no service {release.service!r}: add --route /{release.service} to make it"
            ) from exc
        raise
    out.note(f"registered {release} at {release.url}")
    return made


def _replace_url(api: AdminClient, out: Output, release: Release, known: Version) -> Version:
    """Correct the url of a version that never had traffic: its name is not burnt by a mistyped url."""
    if has_had_traffic(known):
        raise CliError(
            f"{release} is registered at {known['url']} and has had traffic: give a new build a new version "
            f"name, or `gateway edit {release} --url {release.url}` if it is the same build at another place"
        )
    changed: Version = api.call("PATCH", f"deployment/versions/{known['id']}", body={"url": release.url})
    out.note(f"{release} was registered at {known['url']}, without traffic so far: it is now {release.url}")
    return changed


def has_had_traffic(version: Version) -> bool:
    """Whether clients may have been answered by it: its test gate has passed, or it is past that."""
    return bool(version.get("isActive")) or version["status"] != "testing"


# -- its health


def await_healthy(api: AdminClient, out: Output, version: Version, timeout_ms: int) -> None:
    """Wait until the version passes its health check, saying what is waited for.

    Raises CliError (1) with the last check's error after timeout_ms.
    """
    name = f"{version['serviceName']} {version['version']}"
    seen = ""

    def healthy() -> bool | None:
        nonlocal seen
        now = api.get(f"deployment/versions/{version['id']}")
        if now["healthStatus"] == "healthy":
            return True
        error = last_error(api, version)
        if error and error != seen:
            seen = error
            out.note(f"not healthy yet: {error}")
        return None

    if version["healthStatus"] == "healthy":
        return
    out.note(f"waiting up to {format_duration(timeout_ms)} for {version['url']} to pass its health check")
    try:
        waiting.wait_for(
            api,
            healthy,
            timeout_ms,
            lambda: (
                f"{name} is not healthy after {format_duration(timeout_ms)}: "
                f"{seen or 'no check has ended yet'}. "
                "It has no traffic; the same line tries again, with another --url too"
            ),
            code=FAILED,
        )
    except KeyboardInterrupt:
        then = "takes all the traffic once it is healthy" if version["weight"] else "gets no traffic"
        raise CliError(
            f"not waited for: {name} stays registered and {then}; "
            f"the same line goes on, `gateway rm {name}` forgets it",
            INTERRUPTED,
        ) from None


def last_error(api: AdminClient, version: Version) -> str:
    """Return what the newest health check of a version saw, or why there can be none; empty: none failed."""
    health = api.get(f"services/{segment(version['serviceName'])}/health")
    seen = [each for each in health["versions"] if each["versionId"] == version["id"]]
    if any(each.get("endpoints") == [] for each in seen):
        return f"the host in {version['url']} has no address, or none that may be called"
    checks = [check for each in seen for check in each["checks"]]
    of_this_url = [check for check in checks if f"|{version['url']}|" in check["endpoint"]]
    if not of_this_url or of_this_url[0]["isHealthy"]:
        return ""
    newest = of_this_url[0]
    return str(newest.get("errorMessage") or f"status {newest.get('statusCode')}")


def run_tests(api: AdminClient, out: Output, version: Version) -> None:
    """Probe the version and run its smoke tests now. Raises CliError if it does not pass."""
    report = api.post(f"deployment/versions/{version['id']}/test")
    for test in report["tests"]:
        sign = "ok" if test["ok"] else f"FAILED: {test.get('error') or 'got ' + str(test.get('status'))}"
        out.note(f"test {test['method']} {test['path']}: {sign} ({test['durationMs']} ms)")
    if not report["isHealthy"]:
        raise CliError(
            f"{version['serviceName']} {version['version']} did not pass its tests; nothing was moved. "
            f"The same line tries again; `gateway events {version['serviceName']}` says more"
        )


# -- a version that serves already


def _has_traffic(service: dict[str, Any], version: Version) -> bool:
    return any(each["id"] == version["id"] and each["weight"] > 0 for each in service["versions"])


LIVE_MS: Final = 10_000
"""How long a first version may take from its health check to its traffic."""


def _already_serves(api: AdminClient, out: Output, version: Version, seen: dict[str, Any]) -> int:
    """Say of a version with weight what it gets: a service's first takes all without a rollout."""
    name = f"{version['serviceName']} {version['version']}"

    def live() -> dict[str, Any] | None:
        nonlocal seen
        found = [each for each in seen["versions"] if each["id"] == version["id"] and each["share"] > 0]
        if found:
            now: Version = found[0]
            return now
        seen = overview.one(api, version["serviceName"])
        return None

    now = waiting.wait_for(
        api, live, LIVE_MS, f"{name} is healthy and gets no traffic: {_why_none(seen)}", code=FAILED
    )
    if now["share"] < 100:
        hint = f"`gateway set-weight {name} WEIGHT` moves it"
        out.value(now, f"{name} has {overview.share(now)} of the traffic, by weight: {hint}")
        return OK
    out.value(now, f"{name} takes all the traffic")
    _say_address(api, out, version["serviceName"])
    return OK


def _why_none(service: dict[str, Any]) -> str:
    return "its service is paused" if service.get("paused") else f"`gateway get {service['name']}` shows why"


def _say_address(api: AdminClient, out: Output, service: str) -> None:
    """Say where clients reach the service."""
    if out.is_json:
        return
    addresses = overview.live_addresses(api.listen, overview.one(api, service).get("routes") or ())
    say(f"live at {' '.join(addresses)}")


COMMANDS: Final = (deploy,)
