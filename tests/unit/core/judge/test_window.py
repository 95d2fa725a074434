"""Latency buckets and windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.judge.buckets import BUCKETS, bucket_of, bucket_upper_us, quantile_us
from gateway.core.judge.window import Cell, KeyError64, Window, merge


@given(st.integers(0, 2**28 - 1))
def test_a_latency_lies_under_its_buckets_bound_and_within_an_eighth_of_it(us: int) -> None:
    upper = bucket_upper_us(bucket_of(us))
    assert us < upper
    assert us < 64 or upper <= us * 1.125 + 1


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_buckets_keep_the_order(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 0 <= bucket_of(low) <= bucket_of(high) < BUCKETS


def test_a_quantile_is_the_upper_bound_of_the_bucket_it_falls_in() -> None:
    buckets = {bucket_of(1_000): 94, bucket_of(50_000): 6}
    assert quantile_us(buckets, 0.5) == bucket_upper_us(bucket_of(1_000))
    assert quantile_us(buckets, 0.95) == bucket_upper_us(bucket_of(50_000))


@pytest.mark.parametrize("buckets", [{}, {3: 0}])
def test_nothing_has_no_quantile(buckets: dict[int, int]) -> None:
    assert quantile_us(buckets, 0.5) is None


def test_merged_windows_hold_what_their_parts_hold() -> None:
    one = Window(
        seconds=1.0,
        new=(Cell(1, 1000, 3, {"500": 1}, {4: 3}),),
        new_keys=(KeyError64(1, 1000, 7),),
        percent=10,
    )
    other = Window(
        seconds=2.0,
        new=(Cell(1, 1000, 4, {"500": 2, "reset": 1}, {4: 1, 5: 3}), Cell(1, 0, 1)),
        new_usable=False,
        percent=10,
    )
    whole = merge([one, other])
    assert whole.seconds == 3.0
    assert whole.new == (Cell(1, 1000, 7, {"500": 3, "reset": 1}, {4: 4, 5: 3}), Cell(1, 0, 1))
    assert whole.new_keys == (KeyError64(1, 1000, 7),)
    assert not whole.new_usable
