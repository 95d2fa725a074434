"""Smoke tests: what is asked of a version, and whether an answer passes (SPEC T-011)."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from gateway.core.limits import PositiveMillis
from gateway.core.settings import Settings


class SmokeEndpoint(Settings, frozen=True, kw_only=True):
    """One request and what its answer must be."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: Annotated[str, Meta(pattern=r"^/")]
    expected_status: int = 200
    body: object | UnsetType = UNSET
    """Sent as JSON."""
    headers: dict[str, str] = {}
    body_contains: str | None = None
    json_path: str | None = None
    """A dotted path into a JSON answer (`data.items.0.id`) that must exist, or equal `json_value`."""
    json_value: object | UnsetType = UNSET


class SmokeSettings(Settings):
    """A set of smoke tests."""

    endpoints: tuple[SmokeEndpoint, ...] = ()
    timeout: PositiveMillis = 5_000
    retries: Annotated[int, Meta(ge=0, le=10)] = 1
