"""Sticky users who met an error: each counts once, within bounded memory."""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.tallies import Falls
from gateway.core.judge.window import WHOLE, KeyError64

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
    on_new: int = 0
    lately: bytes = b""
    """Those that failed on the new version in the tail within the last `LATELY_S`, encoded alike."""
    lately_s: float = 0.0
    """Observed seconds since they were last forgotten."""


def first_falls(users: Users, new: Met, old: Met) -> tuple[Users, Falls, Falls]:
    """Return each sticky user's first error on either version."""
    if not new and not old:
        return users, [], []
    known = _unpacked(users.hashes)
    new_falls = [(met.generation, met.share / WHOLE, 1) for met in new if _is_first(met, known, users.mask)]
    old_falls = [
        (met.generation, 1 - met.share / WHOLE, 1) for met in old if _is_first(met, known, users.mask)
    ]
    if not new_falls and not old_falls:
        return users, [], []
    mask = users.mask
    while len(known) > MAX_USERS:
        mask = mask * 2 + 1
        known = {key for key in known if not _mixed(key) & mask}
    on_new = users.on_new + len(new_falls)
    return replace(users, hashes=_packed(known), mask=mask, on_new=on_new), new_falls, old_falls


def failed_lately(users: Users, new: Met, first_generation: int, seconds: float) -> tuple[Users, int]:
    """Return how many of the new version's errors since then count as a rate: one a minute of a user.

    Where there is no old version to compare users with, their rates are compared; one user who tries again
    and again would pass for many.
    """
    lately, lately_s, errors = users.lately, users.lately_s + seconds, 0
    if new:
        known = _unpacked(lately)
        for met in new:
            if met.generation < first_generation or met.key & _BITS in known:
                continue
            if len(known) >= MAX_LATELY:
                known.clear()
            known.add(met.key & _BITS)
            errors += 1
        lately = _packed(known)
    if lately_s >= LATELY_S:
        lately, lately_s = b"", 0.0
    return replace(users, lately=lately, lately_s=lately_s), errors


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
