"""Weights as shares: whole numbers that sum to everything."""

from collections.abc import Sequence
from typing import Final

ALL: Final = 10_000
"""A share of everything, in hundredths of a percent."""


def weight_units(weight: float) -> int:
    """Return a weight above zero in hundredths, at least one: what `core.split` deals in."""
    return max(round(weight * 100), 1)


def shares_of(units: Sequence[int]) -> list[int]:
    """Return weights above zero as shares, each at least 1, that sum to exactly ALL; none of none.

    Rounded by largest remainder; what tiny weights get too much is taken from the largest.
    """
    if not units:
        return []
    total = sum(units)
    shares = [max(unit * ALL // total, 1) for unit in units]
    missing = ALL - sum(shares)
    by_remainder = sorted(range(len(units)), key=lambda index: units[index] * ALL % total, reverse=True)
    for index in by_remainder[: max(missing, 0)]:
        shares[index] += 1
    shares[shares.index(max(shares))] += min(missing, 0)
    return shares
