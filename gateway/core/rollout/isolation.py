"""What a gateway does that had no word of the store, once it has one again."""

import enum

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """Who is in charge of the store, as one gateway has found it."""

    at: float
    """When it asked: monotonic seconds."""
    is_held: bool = True
    """Whether the one in charge has been heard of within the time of its lease."""
    is_ours: bool = False
    vacant_s: float | None = None
    """For how long nobody had been in charge, until what follows from that is stored; None: it is."""


class Then(enum.Enum):
    """What follows."""

    WAIT = enum.auto()
    """Nobody is in charge, or whoever is has yet to say what holds: stay as it is, and never go forward."""
    FOLLOW = enum.auto()
    """Somebody was in charge meanwhile: what is stored holds."""
    ROLL_BACK = enum.auto()
    """Nobody was, for so long that every node has gone back: whoever is now stores that, first of all."""


def on_return(found: Lease, isolation_s: float) -> Then:
    """Return what a gateway does that finds the lease like this.

    isolation_s: after so long without a word each goes back to the old version.
    """
    if not found.is_held:
        return Then.WAIT
    if found.vacant_s is None:
        return Then.FOLLOW
    if not found.is_ours:
        return Then.WAIT
    return Then.ROLL_BACK if found.vacant_s > isolation_s else Then.FOLLOW
