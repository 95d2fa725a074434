"""Where the admin API is and which token to show it."""

import functools
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from gateway import config
from gateway.cli.client import AdminClient
from gateway.cli.exits import USAGE, CliError
from gateway.cli.output import Output
from gateway.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "json")


def client_command(command: F) -> F:
    """Give a command what every client of the admin API takes; it is called with `api` and `out` instead."""

    @functools.wraps(command)
    def run(
        admin_url: str | None, token: str | None, config_path: str | None, output: str, **arguments: Any
    ) -> Any:
        api = connect(
            _chosen("admin_url", admin_url), _chosen("token", token), _chosen("config_path", config_path)
        )
        out = Output(_chosen("output", output) or "table")
        api.is_for_people = not out.is_json
        return command(api=api, out=out, **arguments)

    wrapped: Any = run
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return cast(F, wrapped)


def client_group(group: F) -> F:
    """Let a group take the same options before its command's name; behind it they are stronger."""
    output = click.option("-o", "--output", type=click.Choice(FORMATS), hidden=True)
    url, token = (click.option(name, hidden=True) for name in ("--admin-url", "--token"))
    file = click.option("--config", "config_path", type=click.Path(dir_okay=False), hidden=True)
    return output(url(token(file(group))))


def _chosen(name: str, value: str | None) -> str | None:
    """Return an option of the command: as given to it, else to the root, else by environment or default."""
    context = click.get_current_context()
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        return value
    above: str | None = context.find_root().params.get(name)
    return value if above is None else above


def chosen_config() -> str | None:
    """Return the configuration file the command was given; None: the usual places."""
    return _chosen("config_path", click.get_current_context().params.get("config_path"))


_OPTIONS = (
    click.option("--admin-url", envvar="GATEWAY_ADMIN_URL", hidden=True),
    click.option("--token", envvar="GATEWAY_TOKEN", hidden=True),
    click.option("--config", "config_path", type=click.Path(dir_okay=False), hidden=True),
    click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="table", envvar="GATEWAY_OUTPUT", hidden=True
    ),
)
"""Explained once, by `gateway --help` (helping.CONNECTION)."""


def connect(admin_url: str | None, token: str | None, config_path: str | None) -> AdminClient:
    """Return a client of the admin API; what is not given comes from the configuration.

    Raises CliError (2) for a configuration that cannot be read, when it is needed.
    """
    try:
        settings = config.load(config_path)
    except ConfigError as exc:
        if admin_url is None or token is None:
            raise CliError(str(exc), USAGE) from exc
        return AdminClient(admin_url, token, tls=_tls(None))
    runtime = runtime_of(settings)
    scheme = "https" if settings.admin.tls is not None else "http"
    here = f"{scheme}://{reachable(str(runtime.get('admin', settings.admin.address)))}"
    pinned = settings.admin.tls.certificate if settings.admin.tls is not None and not admin_url else None
    given, folder = token, settings.store.folder
    token = given or bootstrap_token(folder)
    api = AdminClient(admin_url or here, token, tls=_tls(pinned))
    api.token_file = str(folder / "admin.token") if token and not given else ""
    if api.url == here:
        schemes = ["http" if each.tls is None else "https" for each in settings.listeners]
        api.listen = tuple(
            f"{scheme}://{each}" for scheme, each in zip(schemes, _listen(runtime), strict=False)
        )
    return api


def _tls(pinned: str | None) -> Callable[[], ssl.SSLContext]:
    """Return what makes the context to meet an https admin API with.

    pinned: the certificate file of the gateway on this machine, which is trusted as it is, whatever name it
    has; None: GATEWAY_ADMIN_CA, else the system's CAs. GATEWAY_ADMIN_CERTIFICATE and GATEWAY_ADMIN_KEY say
    who we are.
    """

    def context() -> ssl.SSLContext:
        ca = os.environ.get("GATEWAY_ADMIN_CA")
        try:
            made = ssl.create_default_context(cafile=ca or pinned)
            if pinned and not ca:
                made.check_hostname = False
                made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            if certificate := os.environ.get("GATEWAY_ADMIN_CERTIFICATE"):
                made.load_cert_chain(certificate, os.environ.get("GATEWAY_ADMIN_KEY"))
        except OSError as exc:
            files = "GATEWAY_ADMIN_CA, GATEWAY_ADMIN_CERTIFICATE, GATEWAY_ADMIN_KEY or admin.tls.certificate"
            raise CliError(f"a file of {files} cannot be used: {exc}", USAGE) from exc
        return made

    return context


def runtime_of(settings: config.Config) -> dict[str, Any]:
    """Return what the running gateway wrote beside its store; empty: nothing readable."""
    try:
        runtime = json.loads((settings.store.folder / "gateway.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return runtime if isinstance(runtime, dict) else {}


def _listen(runtime: dict[str, Any]) -> list[str]:
    found = runtime.get("listen")
    return [str(each) for each in found] if isinstance(found, list) else []


def reachable(address: str) -> str:
    """Return an address to ask at: a wildcard is no place."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]") else address  # noqa: S104


def bootstrap_token(folder: Path) -> str | None:
    """Return the token of the file beside the store; None if there is none to read."""
    try:
        return (folder / "admin.token").read_text("utf-8").strip() or None
    except OSError:
        return None
