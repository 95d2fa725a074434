"""How often each version is slow, measured by the old one's latencies in earlier windows."""

import math
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.buckets import bucket_of, bucket_upper_us
from gateway.core.judge.statistics import Mixture, comparison_factors, rate_factors
from gateway.core.judge.tallies import Tally
from gateway.core.judge.window import WHOLE, Cell, Window

OLD_ANSWERS: Final = 100
"""Old latencies needed before "slow" means anything."""
LATENCY_MEMORY: Final = 20_000
"""Old latencies in memory before they fade to half of it."""
SHIFT_ODDS: Final = 1000.0
"""Odds at which a shift, of slowness or of 4xx answers, is one."""


class Slow(msgspec.Struct, frozen=True):
    """How often each was slow: over `maxLatencyRatio` times the old version's p95 of earlier windows."""

    old_buckets: dict[int, float] = {}
    """The old version's latencies, fading."""
    new: Tally = Tally()
    rate: Mixture = Mixture()
    """Is the new one slow more often than one in twenty?"""
    comparison: Mixture = Mixture()
    """Does slowness fall on the new one more often than its share explains? The old one's begins at its p95:
    what makes both slow, at whatever time, makes a new one within the ratio slow no more often."""
    bound_us: int = 0
    held_s: float = 0.0
    """Seconds for which slowness that was shown still holds up an advance; 0: it does not."""

    @property
    def value(self) -> float:
        """How many times likelier it all is if the new version is slower than allowed, and alone with it."""
        return min(self.rate.value, self.comparison.value)


def slower(slow: Slow, window: Window, ratio: float, held_s: float) -> Slow:
    """Fold the window's latencies in: first judged by earlier windows, then remembered.

    held_s: how long slowness holds once shown; from each time on, it is to be shown anew.
    """
    known = sum(slow.old_buckets.values())
    left_s = max(0.0, slow.held_s - window.seconds)
    if known >= OLD_ANSWERS and window.old:
        slow = _judged(slow, window, ratio, known)
        if slow.value >= SHIFT_ODDS:
            slow, left_s = replace(slow, rate=Mixture(), comparison=Mixture()), held_s
    return replace(slow, old_buckets=faded(slow, window), held_s=left_s)


def _judged(slow: Slow, window: Window, ratio: float, known: float) -> Slow:
    bound_us = round(p95_us(slow.old_buckets) * ratio)
    bound = bucket_of(bound_us)
    old_bound = bucket_of(int(bucket_upper_us(bound) / ratio)) - 1
    new = _timed(window.new, bound)
    factors = rate_factors(_slow_rate(known), new.errors, new.answers) if new.answers else None
    return replace(
        slow,
        new=slow.new.plus(new.answers, new.errors),
        rate=slow.rate.times(factors, window.seconds),
        comparison=slow.comparison.times(_fallen(window, bound, old_bound), window.seconds),
        bound_us=bound_us,
    )


def p95_us(buckets: Mapping[int, float]) -> float:
    """Return the 95th percentile of some answers, in microseconds, as if spread evenly over their bucket.

    The bucket's upper end would be up to 12.5 % more, and so much slower a new version's would be good.
    """
    left = 0.95 * sum(buckets.values())
    for index in sorted(buckets):
        if buckets[index] >= left:
            low, high = bucket_upper_us(index - 1) if index else 0, bucket_upper_us(index)
            return low + (high - low) * left / buckets[index]
        left -= buckets[index]
    return 0.0


def faded(slow: Slow | None, window: Window) -> dict[int, float]:
    """Return the old version's latencies with the window's; when there are many, the older half fades."""
    buckets = dict(slow.old_buckets) if slow else {}
    for cell in window.old:
        for index, count in cell.latency.items():
            buckets[index] = buckets.get(index, 0) + count
    total = sum(buckets.values())
    if total > LATENCY_MEMORY:
        buckets = {index: count * LATENCY_MEMORY / 2 / total for index, count in buckets.items()}
    return buckets


def _timed(cells: tuple[Cell, ...], bound: int) -> Tally:
    """Return the answers of one version, and the slow ones: those in a bucket above `bound`."""
    return Tally(
        sum([sum(cell.latency.values()) for cell in cells]), sum([_late(cell, bound) for cell in cells])
    )


def _late(cell: Cell, bound: int) -> int:
    return sum([count for index, count in cell.latency.items() if index > bound])


def _fallen(window: Window, new_bound: int, old_bound: int) -> tuple[float, ...] | None:
    """Return, per odds, how much likelier slow answers fell so if the new version is slower than allowed.

    A version's answers are slow above its bucket: where the new one may be, divided by the ratio, the old
    one's are, rounded so that no more of the new one's are slow if it keeps to the ratio.
    """
    shares: dict[float, list[int]] = {}
    for cells, side, bound in ((window.new, 0, new_bound), (window.old, 1, old_bound)):
        for cell in cells:
            share = (cell.share if side == 0 else WHOLE - cell.share) / WHOLE
            shares.setdefault(share, [0, 0])[side] += _late(cell, bound)
    factors = [comparison_factors(share, new, old) for share, (new, old) in shares.items() if new or old]
    return tuple(map(sum, zip(*factors, strict=True))) if factors else None


def _slow_rate(samples: float) -> float:
    """Return how often an equally fast version may be slow, as a fraction.

    One in twenty, and what a p95 of `samples` may be off by (99 %, normal approximation).
    """
    return round(0.05 + 2.33 * math.sqrt(0.05 * 0.95 / samples), 3)
