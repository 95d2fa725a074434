"""What is recorded of requests, and what clients are shown of it."""

from typing import Annotated, Literal

from msgspec import Meta

from gateway.core.settings.base import Settings
from gateway.core.settings.limits import Millis
from gateway.core.settings.text import FieldValue, FilePath, Token

StatusRange = Annotated[str, Meta(pattern=r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$")]
"""`500` or `500-599`."""


class LogFilter(Settings, frozen=True, kw_only=True):
    """Which requests have a line: those that any of the conditions holds for."""

    status: StatusRange | None = None
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
