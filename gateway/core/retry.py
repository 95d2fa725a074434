"""May this attempt be sent again, and where?"""

from typing import Annotated

from msgspec import Meta

from gateway.core.settings import Settings


class RetrySettings(Settings):
    """When an attempt is made again (SPEC §7)."""

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
