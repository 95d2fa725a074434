"""Bounds on what one client or one upstream may cost: times, sizes, counts."""

from typing import Annotated

from msgspec import Meta

from gateway.core.settings.base import Settings

Millis = Annotated[int, Meta(ge=0, le=86_400_000)]
PositiveMillis = Annotated[int, Meta(ge=1, le=86_400_000)]
Count = Annotated[int, Meta(ge=0)]


class UpstreamTimeouts(Settings):
    """The timeouts a service may override; None takes the gateway's."""

    body_idle: Millis | None = None
    stream_idle: Millis | None = None
    connect: PositiveMillis | None = None
    response_header: PositiveMillis | None = None
    upstream_idle: PositiveMillis | None = None


class Timeouts(Settings):
    """Milliseconds. Zero means never, where the type allows zero."""

    client_header: PositiveMillis = 10_000
    """From a head's first byte to its last; then 408."""
    client_idle: PositiveMillis = 75_000
    """Between two requests of a connection."""
    body_idle: Millis = 30_000
    """Without a body byte moving, either way; not for event streams and tunnels."""
    stream_idle: Millis = 0
    """The same for event streams and tunnels."""
    connect: PositiveMillis = 2_000
    response_header: PositiveMillis = 10_000
    """From the request's last byte to the response's head; then 504."""
    upstream_idle: PositiveMillis = 4_000
    """How long an idle pooled connection is kept; under the 5 s most servers use."""


class Limits(Settings):
    """Sizes in bytes, counts in things."""

    header_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 32_768
    header_fields: Annotated[int, Meta(ge=8, le=10_000)] = 100
    uri_bytes: Annotated[int, Meta(ge=64, le=1_048_576)] = 8_192
    body_bytes: Count = 0
    """0: no limit. Bodies are streamed either way."""
    connections: Annotated[int, Meta(ge=1)] = 20_000
    """Client connections of the whole gateway, shared out evenly over the workers."""
    connections_per_client: Count = 0
    """Per client address and worker; 0: no limit. Of what trusted proxies bring, requests under way count."""
