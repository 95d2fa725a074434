"""The breaker of one endpoint: closed, open, half-open."""

from typing import Annotated

from msgspec import Meta

from gateway.core.limits import PositiveMillis
from gateway.core.settings import Settings


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
