"""Probe results -> healthy or not."""

from typing import Annotated, Literal

from msgspec import Meta

from gateway.core.limits import PositiveMillis
from gateway.core.settings import Settings


class HealthSettings(Settings):
    """How an endpoint is probed (SPEC T-001)."""

    kind: Literal["http", "tcp"] = "http"
    path: Annotated[str, Meta(pattern=r"^/")] = "/api/health"
    interval: PositiveMillis = 10_000
    timeout: PositiveMillis = 5_000
    retries: Annotated[int, Meta(ge=0, le=10)] = 1
    """Further tries inside one check."""
    healthy_threshold: Annotated[int, Meta(ge=1, le=100)] = 2
    unhealthy_threshold: Annotated[int, Meta(ge=1, le=100)] = 3
    expected_status: str = "200-299"
    """Statuses and ranges, comma-separated: `200-299,304`."""
    expected_body: str | None = None
    """Text the body must contain."""
    headers: dict[str, str] = {}
    host: str | None = None
    """Host field of the probe; None: the endpoint's own."""
