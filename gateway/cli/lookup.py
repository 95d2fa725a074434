"""Find what a command is about: a version by its name, a rollout by its service."""

from typing import Any, Final

from gateway.cli.client import AdminClient, segment
from gateway.cli.exits import CliError

OPEN: Final = frozenset({"pending", "testing", "rolling", "paused"})
"""Statuses of a rollout that is under way."""


def find_version(api: AdminClient, service: str, version: str) -> dict[str, Any] | None:
    """Return the version of that name, None if there is none."""
    items = api.items("deployment/versions", serviceName=service)
    return next((item for item in items if item["version"] == version), None)


def version_of(api: AdminClient, service: str, version: str) -> dict[str, Any]:
    """Return the version of that name. Raises CliError."""
    items = list(api.items("deployment/versions", serviceName=service))
    for item in items:
        if item["version"] == version:
            return item
    names = ", ".join(item["version"] for item in items) or "none"
    raise CliError(
        f"{service} has no version {version}; it has {names}; "
        f"`gateway deploy {service} {version} --url URL` registers one"
    )


def require_service(api: AdminClient, service: str) -> None:
    """Raise ApiError if there is no such service: nothing found of a mistyped one is no answer."""
    api.get(f"services/{segment(service)}")


def latest_deployment(api: AdminClient, service: str) -> dict[str, Any] | None:
    """Return the service's newest rollout, None if there was none."""
    return next(api.items("deployment", serviceName=service, limit=1), None)


def rollout_of(api: AdminClient, service: str, *, must_be_open: bool = True) -> dict[str, Any]:
    """Return the service's rollout: the open one, or else the newest if it need not be open.

    Raises CliError.
    """
    newest = latest_deployment(api, service)
    if newest is None:
        require_service(api, service)
        raise CliError(
            f"{service} has had no rollout; `gateway deploy {service} VERSION --url URL` starts one"
        )
    if must_be_open and newest["status"] not in OPEN:
        raise CliError(
            f"{service} has no open rollout: the last one ended {newest['status']}; "
            f"`gateway why {service}` says why"
        )
    return newest
