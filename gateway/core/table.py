"""The routing table a worker serves by: host + path -> route -> service -> version -> endpoint.

A table is immutable and swapped whole; what must outlive a swap (breaker, pool, counts, the splitter's place in its
round) hangs on objects that the next table takes over.
"""

from typing import Any


class Endpoint:
    """One address of a version, as this worker sees it. Kept over table swaps, by `key`."""

    __slots__ = (
        "address",
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

    key: str
    url: str
    address: str
    port: int
    healthy: bool
    draining: bool
    available_since: float
    in_flight: int
    streams: int
    forced: int
    breaker: Any
    """core.breaker.Breaker: `admit(now) -> epoch | None`, `settle(now, epoch, ok=…)`."""
    pool: Any
    """worker.pool.Pool, made by the factory that `worker.live` was given; core never touches it."""
