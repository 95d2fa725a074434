"""Slowness: whose answers are slow, and from where on."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.judge.buckets import bucket_of, bucket_upper_us
from gateway.core.judge.latency import Slow, p95_us, slower
from gateway.core.judge.window import Cell, Window


def _cells(times_us: list[int]) -> tuple[Cell, ...]:
    return (Cell(1, 5000, len(times_us), latency=Counter(map(bucket_of, times_us))),)


def test_the_95th_percentile_lies_within_its_bucket() -> None:
    rng = random.Random(3)
    for scale in range(1_000, 100_000, 1_370):
        times = sorted(int(scale * rng.lognormvariate(0, 0.5)) for _ in range(20_000))
        assert p95_us(Counter(map(bucket_of, times))) == pytest.approx(times[19_000], rel=0.03)
    assert p95_us({0: 100}) == pytest.approx(0.95 * 64)
    assert p95_us({3: 5, 7: 95}) < bucket_upper_us(7)
    assert p95_us({}) == 0


@given(st.lists(st.integers(1_000, 1_000_000), min_size=100, max_size=200), st.floats(1, 10))
def test_a_version_that_is_just_as_much_slower_as_it_may_be_is_not_slow(
    times_us: list[int], ratio: float
) -> None:
    slow = slower(Slow(), Window(seconds=1.0, old=_cells(times_us)), ratio, 300.0)
    window = Window(seconds=1.0, old=_cells(times_us), new=_cells([int(ratio * each) for each in times_us]))
    for _ in range(3):
        slow = slower(slow, window, ratio, 300.0)
        assert slow.comparison.value <= 1 + 1e-9
        assert slow.held_s == 0
