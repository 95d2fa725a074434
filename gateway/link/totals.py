"""What a worker counted, on the wire.

Never compiled: mypyc keeps neither the options of a struct nor what its lists hold (`test_compiled.py`).
"""

import msgspec


class JudgedTotals(msgspec.Struct, frozen=True, array_like=True):
    """`JudgedCounts` on the wire. latency: sparse (bucket -> count)."""

    generation: int
    share: int
    answers: int
    errors: dict[str, int]
    latency: dict[int, int]


class VersionTotals(msgspec.Struct, frozen=True, array_like=True):
    """`VersionCounts` on the wire: totals since the worker's start, and two gauges."""

    service: str
    version: str
    version_id: str
    requests: list[tuple[str, int, int]]
    """(method, status, total)."""
    attempts: dict[str, int]
    latency: dict[int, int]
    latency_us: int
    in_flight: int
    streams: int
    judged: list[JudgedTotals]
    cohort_errors: list[tuple[int, int, int, str]] = []
    seconds: list[int] = []
    """By place among EDGES_US, as the next two; empty: of a worker that does not count so."""
    upstream: list[int] = []
    upstream_us: int = 0
    own: list[int] = []
    own_us: int = 0
    retries: dict[str, int] = {}
    abandoned: int = 0
