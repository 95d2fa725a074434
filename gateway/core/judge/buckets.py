"""Mergeable latency buckets, log-linear."""

from collections.abc import Mapping
from typing import Final

SUB_BITS: Final = 3
"""Eight buckets per power of two: a quantile is off by at most 12.5 %."""
FIRST_BIT: Final = 6
"""Everything under 64 µs is one bucket."""
BUCKETS: Final = 1 + (28 - FIRST_BIT) * 8
"""Up to 2^28 µs (268 s); slower falls in the last bucket."""


def bucket_of(us: int) -> int:
    """Return the index in [0, BUCKETS) of the log-linear bucket that holds a latency of `us` microseconds."""
    if us < 64:
        return 0
    exponent = us.bit_length() - 1
    index = ((exponent - FIRST_BIT) << SUB_BITS) + ((us >> (exponent - SUB_BITS)) & 7) + 1
    return index if index < BUCKETS else BUCKETS - 1


def bucket_upper_us(index: int) -> int:
    """Return the exclusive upper bound, in microseconds, of bucket `index`."""
    if index <= 0:
        return 64
    exponent, sub = divmod(index - 1, 8)
    return (8 + sub + 1) << (exponent + FIRST_BIT - SUB_BITS)


def quantile_us(buckets: Mapping[int, float], q: float) -> int | None:
    """Return an upper bound, in microseconds, of the `q` quantile (0–1); None when `buckets` is empty."""
    total = sum(buckets.values())
    if total <= 0:
        return None
    seen = 0.0
    last = 0
    for index in sorted(buckets):
        seen += buckets[index]
        last = index
        if seen >= q * total:
            break
    return bucket_upper_us(last)
