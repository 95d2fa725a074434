"""Smoke tests: what is asked of a version, and whether an answer passes."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.core.settings.base import Settings
from gateway.core.settings.limits import PositiveMillis
from gateway.core.settings.text import FieldValue, RequestPath, Token, refuse_framing


class SmokeEndpoint(Settings, frozen=True, kw_only=True):
    """One request and what its answer must be."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: RequestPath
    expected_status: int = 200
    body: object | UnsetType = UNSET
    """Sent as JSON."""
    headers: dict[Token, FieldValue] = {}
    body_contains: str | None = None
    json_path: str | None = None
    """A dotted path into a JSON answer (`data.items.0.id`) that must exist, or equal `json_value`."""
    json_value: object | UnsetType = UNSET

    def __post_init__(self) -> None:
        refuse_framing(self.headers)


class SmokeSettings(Settings):
    """A set of smoke tests."""

    endpoints: tuple[SmokeEndpoint, ...] = ()
    timeout: PositiveMillis = 5_000
    retries: Annotated[int, Meta(ge=0, le=10)] = 1


_ABSENT: Final = object()


def complaint(test: SmokeEndpoint, status: int, body: bytes) -> str | None:
    """Return why an answer fails `test`, or None if it passes."""
    if status != test.expected_status:
        return f"answered {status}, expected {test.expected_status}"
    if test.body_contains is not None and test.body_contains.encode() not in body:
        return "the body does not contain what it should"  # which may be a secret, like the other values
    if test.json_path is None:
        return None
    try:
        found = look_up(msgspec.json.decode(body), test.json_path)
    except msgspec.DecodeError as exc:
        return f"the body is not JSON: {exc}"
    if found is _ABSENT:
        return f"the body has no {test.json_path}"
    if test.json_value is not UNSET and found != test.json_value:
        return f"{test.json_path} is not what it should be"
    return None


def look_up(value: object, path: str) -> object:
    """Return what `path` (`data.items.0.id`) leads to in a JSON value, or _ABSENT."""
    for key in path.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return _ABSENT
    return value
