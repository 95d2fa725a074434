"""Which available endpoint of a version takes the attempt: the less busy of two picked by chance.

Two choices keep the longest queue short without knowing all queues (Mitzenmacher, 2001), and unlike "least
busy of all" they do not send every worker's next request to the same endpoint.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal, Protocol, TypeVar

RAMP_FLOOR: Final = 0.05
"""The least chance a ramping endpoint has against one at full share: it must see some traffic to warm up."""


class Loaded(Protocol):
    """What balancing reads of an endpoint."""

    healthy: bool
    draining: bool
    in_flight: int
    available_since: float

    @property
    def admits(self) -> bool:
        """Whether its breaker lets an attempt through."""


E = TypeVar("E", bound=Loaded)


def available(endpoints: Sequence[E], panic: Literal["fail", "use_all"]) -> tuple[E, ...]:
    """Return the endpoints that may take an attempt: healthy, not draining, breaker not open.

    panic: what to do when none is healthy; `use_all` takes them all for healthy, `fail` none. A draining
    endpoint or an open breaker is never overruled.
    """
    open_to_us = [each for each in endpoints if not each.draining and each.admits]
    healthy = tuple(each for each in open_to_us if each.healthy)
    if healthy or panic == "fail" or any(each.healthy for each in endpoints if not each.draining):
        return healthy
    return tuple(open_to_us)


def pick(
    endpoints: Sequence[E],
    *,
    now: float,
    tried: Collection[E],
    slow_start_s: float,
    chance: Callable[[], float],
) -> E | None:
    """Return the endpoint for the next attempt, or None if all have been tried.

    endpoints: those `available`. chance: a draw from [0, 1).
    """
    if tried:
        endpoints = [each for each in endpoints if each not in tried]
    count = len(endpoints)
    if count < 2:
        return endpoints[0] if count else None
    first = int(chance() * count)
    second = int(chance() * (count - 1))
    if second >= first:
        second += 1
    one, other = endpoints[first], endpoints[second]
    if not _takes(one, now, slow_start_s, chance):
        return other
    if not _takes(other, now, slow_start_s, chance):
        return one
    return one if one.in_flight <= other.in_flight else other


def _takes(endpoint: Loaded, now: float, slow_start_s: float, chance: Callable[[], float]) -> bool:
    """Return whether a picked endpoint stays in the comparison: one that ramps up does by its ramp.

    Least in flight alone would send everything to the endpoint that has just come back, with nothing running.
    """
    age = now - endpoint.available_since
    if age >= slow_start_s:
        return True
    return chance() < max(age / slow_start_s, RAMP_FLOOR)
