"""Weights -> which version takes this request."""

from collections.abc import Sequence
from random import Random


class Splitter:
    """Smooth weighted round robin over positive integer weights."""

    def __init__(self, weights: Sequence[int], *, chance: Random, phase: float = 0.0) -> None:
        self._weights = list(weights)
        self._total = sum(weights)
        self._credit = [0] * len(weights)

    def pick(self) -> int:
        """Return the index of the version that takes the next request."""
        credit = self._credit
        for index, weight in enumerate(self._weights):
            credit[index] += weight
        best = max(range(len(credit)), key=credit.__getitem__)
        credit[best] -= self._total
        return best
