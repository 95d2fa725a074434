"""Sticky users who met an error: each counts once, within bounded memory."""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.tallies import Fall, share_of
from gateway.core.judge.window import WHOLE, KeyError64, error_of

MAX_USERS: Final = 1024
"""Failing users remembered, 8 bytes each; then a fair sample of them by hash."""
MAX_LATELY: Final = 256
"""Users remembered who failed lately; with more they are forgotten sooner, and one of many weighs little."""
LATELY_S: Final = 60.0
_BITS: Final = 0xFFFF_FFFF_FFFF_FFFF

Met = Sequence[KeyError64]


class Users(msgspec.Struct, frozen=True):
    """Sticky users who have met an error, each counted once."""

    hashes: bytes = b""
    """Eight little-endian bytes each."""
    mask: int = 0
    """Only users whose mixed hash has these bits clear are counted: it grows as memory fills up."""


def first_falls(users: Users, new: Met, old: Met) -> tuple[Users, list[Fall], list[Fall]]:
    """Return each sticky user's first error on either version."""
    if not new and not old:
        return users, [], []
    known = _unpacked(users.hashes)
    new_falls = [_fall(met, met.share) for met in new if _is_first(met, known, users.mask)]
    old_falls = [_fall(met, WHOLE - met.share) for met in old if _is_first(met, known, users.mask)]
    if not new_falls and not old_falls:
        return users, [], []
    mask = users.mask
    while len(known) > MAX_USERS:
        mask = mask * 2 + 1
        known = {key for key in known if not _mixed(key) & mask}
    return Users(_packed(known), mask), new_falls, old_falls


class Lately(msgspec.Struct, frozen=True):
    """Users whose error on the new version is not long ago: where there is no old version to compare users
    with, rates are compared, and one user who tries again and again would pass for many.
    """

    hashes: bytes = b""
    seconds: float = 0.0
    """Since they were last forgotten."""

    def times(self, met: Met, seconds: float) -> tuple["Lately", int]:
        """Return them after a window, and how many of its errors count: one a minute of a user."""
        kept, seconds, errors = self.hashes, self.seconds + seconds, 0
        if met:
            known = _unpacked(kept)
            for each in met:
                if each.key & _BITS in known:
                    continue
                if len(known) >= MAX_LATELY:
                    known.clear()
                known.add(each.key & _BITS)
                errors += 1
            kept = _packed(known)
        return (Lately() if seconds >= LATELY_S else replace(self, hashes=kept, seconds=seconds)), errors


def _fall(met: KeyError64, share: int) -> Fall:
    error = error_of(met.kind)
    return Fall(share_of(share, error.kind), 1, error.route)


def _packed(keys: set[int]) -> bytes:
    return struct.pack(f"<{len(keys)}Q", *sorted(keys))


def _unpacked(keys: bytes) -> set[int]:
    return set(struct.unpack(f"<{len(keys) // 8}Q", keys))


def _is_first(met: KeyError64, known: set[int], mask: int) -> bool:
    """Whether this user's error counts; remembers the user if so."""
    key = met.key & _BITS
    if key in known or _mixed(key) & mask:
        return False
    known.add(key)
    return True


def _mixed(key: int) -> int:
    """Return 32 bits of `key` that say nothing about its cohort (Knuth's multiplicative hashing)."""
    return (key * 0x9E37_79B9_7F4A_7C15 >> 32) & 0xFFFF_FFFF
