"""Rolling counts and mergeable latency buckets."""

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
