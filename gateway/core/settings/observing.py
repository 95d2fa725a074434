"""What is recorded of requests, and what clients are shown of it."""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta

from gateway.core.settings.base import Settings
from gateway.core.settings.limits import Millis
from gateway.core.settings.text import FieldValue, FilePath, Token

_STATUSES: Final = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")


def statuses_of(text: str) -> tuple[int, int]:
    """Return the first and the last of `404` or `500-599`. Raises ValueError for anything else."""
    found = _STATUSES.fullmatch(text)
    if found is None or (found[2] or found[1]) < found[1]:
        raise ValueError(f"{text!r} is neither a status such as 404 nor a range such as 500-599")
    return int(found[1]), int(found[2] or found[1])


class LogFilter(Settings, frozen=True, kw_only=True):
    """Which requests have a line: those that any of the conditions holds for."""

    status: str | None = None
    """`404` or `500-599`."""
    min_duration: Millis | None = None
    """Those that took as long, or longer."""
    retried: bool = False
    """Those that were tried more than once."""


class AccessLogSettings(Settings, frozen=True, kw_only=True):
    """One line a request, or none."""

    format: Literal["off", "json", "combined"] = "off"
    path: FilePath = "-"
    """`-`: standard output."""
    query: Literal["keep", "redact", "drop"] = "keep"
    """What is written of a target's query: all, the names of its parameters, or nothing."""
    only: LogFilter | None = None
    """None: every request."""


class OtelSettings(Settings, frozen=True, kw_only=True):
    """Where spans are sent: an OpenTelemetry collector that speaks OTLP over HTTP."""

    endpoint: str
    """`http://collector:4318/v1/traces`."""
    headers: dict[Token, FieldValue] = {}
    """Fields of each request to it, for its keys."""
    timeout: Annotated[int, Meta(ge=100, le=60_000)] = 5_000
    """Milliseconds for one batch."""
    queue: Annotated[int, Meta(ge=1, le=100_000)] = 4_096
    """Requests whose spans may wait; more are dropped and counted."""


class TraceSettings(Settings, frozen=True, kw_only=True):
    """Trace context, and what becomes of sampled requests."""

    sample: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """Percentage of requests that are recorded, of those whose trusted proxy has not decided."""
    expose: tuple[Literal["request_id", "server_timing"], ...] = ()
    """What answers tell clients: X-Request-ID, Server-Timing."""
    otel: OtelSettings | None = None
    """None: spans go nowhere."""
