"""Sticky keys -> versions, monotone: who saw the new version keeps it as its share grows."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

UNIT: Final = 2.0**52
"""Numbers are cut to 52 bits so that (n + 0.5) / UNIT is exact, above 0 and under 1."""


class Cohorts:
    """The cohorts of one rollout: the same on every worker and machine, other ones for the next rollout.

    salt: the deployment's id (or, while none is open, the service's).
    """

    __slots__ = ("_salt",)

    def __init__(self, salt: str) -> None:
        self._salt = blake2b(salt.encode(), digest_size=32).digest()

    def number(self, key: bytes) -> int:
        """Return the key's 64-bit number in this rollout: what is counted instead of the key itself."""
        return int.from_bytes(blake2b(key, digest_size=8, key=self._salt).digest())

    def position(self, key: bytes) -> float:
        """Return where in [0, 100) the key falls; it sees the new version if that is under its percentage."""
        return _fraction(self.number(key)) * 100.0

    def choose(self, key: bytes, weighted: Sequence[tuple[str, float]]) -> int:
        """Return the index of the key's version among (id, weight > 0) pairs: weighted rendezvous hashing.

        A key moves only to a version whose weight grew, or from one whose weight shrank; versions that come
        and go move no other keys. Version i scores -weight/ln(u), u uniform in (0, 1) by (salt, id, key); the
        highest score wins.
        """
        best, best_score = 0, -1.0
        for index, (version, weight) in enumerate(weighted):
            number = int.from_bytes(
                blake2b(key, digest_size=8, key=self._salt, person=_person(version)).digest()
            )
            score = -weight / math.log(_fraction(number))
            if score > best_score:
                best, best_score = index, score
        return best


def _fraction(number: int) -> float:
    """Return a 64-bit number as a fraction in (0, 1), both ends excluded."""
    return ((number >> 12) + 0.5) / UNIT


def _person(version: str) -> bytes:
    """Return 16 bytes that stand for a version's id."""
    return blake2b(version.encode(), digest_size=16).digest()
