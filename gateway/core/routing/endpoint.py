"""One address of a version, as a worker sees it."""

from typing import Final, Protocol
from urllib.parse import urlsplit

from gateway.core.resilience.breaker import Breaker, BreakerState


class EndpointPool(Protocol):
    """What keeps an endpoint's connections: whoever makes tables makes them, core never touches one."""

    def close(self) -> None:
        """No new lease; idle connections are closed, running ones finish."""


class _NoPool:
    """Before there is one."""

    def close(self) -> None:
        """Nothing to close."""


NO_POOL: Final = _NoPool()


class Endpoint:
    """One address of a version, as this worker sees it. Kept over table swaps, by `key`."""

    __slots__ = (
        "address",
        "authority",
        "available_since",
        "breaker",
        "draining",
        "forced",
        "healthy",
        "in_flight",
        "key",
        "pool",
        "port",
        "streams",
        "url",
    )

    def __init__(self, key: str, *, url: str, address: str = "", port: int = 0) -> None:
        self.key = key
        self.url = url
        self.address = address
        """Numeric; empty for `unix:`."""
        self.port = port
        self.authority = urlsplit(url).netloc.encode() or b"localhost"
        """The Host of a request that named none."""
        self.healthy = False
        self.draining = False
        """Once true it stays so."""
        self.available_since = 0.0
        """Monotonic seconds: when it last became healthy or its breaker closed; slow start begins here."""
        self.in_flight = 0
        """Attempts now running here."""
        self.streams = 0
        """Of those, tunnels and event streams."""
        self.forced = 0
        """Attempts cut at a drain deadline: total."""
        self.breaker: Breaker | None = None
        """None: switched off."""
        self.pool: EndpointPool = NO_POOL
        """Made by the factory that the worker's table was given."""

    @property
    def is_closed(self) -> bool:
        """Whether the breaker lets everything through."""
        return self.breaker is None or self.breaker.state is BreakerState.CLOSED

    @property
    def admits(self) -> bool:
        """Whether the breaker lets an attempt through now."""
        return self.breaker is None or self.breaker.is_available
