"""How often each version is slow, measured by the old one's latencies in earlier windows."""

import math
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.statistics import Mixture, rate_factors
from gateway.core.judge.tallies import Falls, Tally, fallen
from gateway.core.judge.window import WHOLE, Cell, Window, bucket_of, quantile_us

LATENCY_ANSWERS: Final = 200
"""Old answers needed before "slow" means anything, new ones before it is held against them."""
LATENCY_MEMORY: Final = 4000
"""Old latencies in memory before they fade to half of it."""


class Slow(msgspec.Struct, frozen=True):
    """How often each was slow: over `maxLatencyRatio` times the old version's p95 of earlier windows."""

    old_buckets: dict[int, float] = {}
    """The old version's latencies, fading."""
    new: Tally = Tally()
    old: Tally = Tally()
    rate: Mixture = Mixture()
    """Is the new one slow more often than one in twenty?"""
    comparison: Mixture = Mixture()
    """Does slowness fall on the new one more often than its share explains?"""
    bound_us: int = 0


def slower(slow: Slow, window: Window, ratio: float) -> Slow:
    """Fold the window's latencies in: first judged by earlier windows, then remembered."""
    known = sum(slow.old_buckets.values())
    if known >= LATENCY_ANSWERS:
        bound_us = round((quantile_us(slow.old_buckets, 0.95) or 0) * ratio)
        bound = bucket_of(bound_us)
        new, new_falls = _timed(window.new, bound, is_new=True)
        old, old_falls = _timed(window.old, bound, is_new=False)
        factors = rate_factors(_slow_rate(known), new.errors, new.answers) if new.answers else None
        slow = Slow(
            new=slow.new.plus(new.answers, new.errors),
            old=slow.old.plus(old.answers, old.errors),
            rate=slow.rate.times(factors, window.seconds),
            comparison=slow.comparison.times(fallen(new_falls, old_falls), window.seconds),
            bound_us=bound_us,
            old_buckets=slow.old_buckets,
        )
    return replace(slow, old_buckets=faded(slow, window))


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


def _timed(cells: tuple[Cell, ...], bound: int, *, is_new: bool) -> tuple[Tally, Falls]:
    """Return the answers of one version, and how slow ones, those in a bucket above `bound`, fell."""
    answers = slow = 0
    falls: Falls = []
    for cell in cells:
        late = sum([count for index, count in cell.latency.items() if index > bound])
        answers += sum(cell.latency.values())
        slow += late
        if late:
            falls.append((cell.generation, (cell.share if is_new else WHOLE - cell.share) / WHOLE, late))
    return Tally(answers, slow), falls


def _slow_rate(samples: float) -> float:
    """Return how often an equally fast version may be slow, as a fraction.

    One in twenty, and what a p95 of `samples` may be off by (99 %, normal approximation).
    """
    return round(0.05 + 2.33 * math.sqrt(0.05 * 0.95 / samples), 3)
