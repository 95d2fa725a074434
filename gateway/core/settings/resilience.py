"""When an endpoint is taken out, and when an attempt is made again."""

from typing import Annotated

from msgspec import Meta

from gateway.core.settings.base import Settings
from gateway.core.settings.limits import PositiveMillis


class BreakerSettings(Settings):
    """When an endpoint is taken out for answering badly, and how it comes back."""

    failure_threshold: Annotated[int, Meta(ge=1, le=10_000)] = 5
    """Consecutive failures that open it."""
    reset_timeout: PositiveMillis = 60_000
    """Milliseconds open before trial calls."""
    half_open_max_calls: Annotated[int, Meta(ge=1, le=1_000)] = 3
    """Trial calls in total over all workers; that many successes close it."""
    on: tuple[str, ...] = ("connect", "reset", "timeout", "502", "503", "504")
    """What counts as a failure: connect, reset, timeout, or a status."""


class RetrySettings(Settings):
    """When an attempt is made again."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Tries in all, the first included."""
    on: tuple[str, ...] = ("connect", "reset", "502", "503", "504")
    """What is worth another try: connect, reset, timeout, or a status."""
    budget_percent: Annotated[float, Meta(ge=0, le=100)] = 20
    """Retries per hundred requests, over ten seconds."""
    budget_min_per_second: Annotated[int, Meta(ge=0)] = 10
    """Retries always allowed, so that a quiet service may retry at all."""
    body_bytes: Annotated[int, Meta(ge=0, le=16_777_216)] = 65_536
    """A body up to this size is kept for another try."""
