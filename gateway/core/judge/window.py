"""Rolling counts: what the judge is shown."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

import msgspec

_Key = TypeVar("_Key")

WHOLE: Final = 10_000
"""All of the traffic, in the unit of `Cell.share`."""


class Error(NamedTuple):
    """What an error is counted by. As a key of `Cell.errors` it is written `kind`, `kind|route` or
    `kind|route|user`.
    """

    kind: str
    """`connect`, `reset`, `timeout`, `bad_response`, `abandoned`, `outcome:NAME`, or a status >= 400."""
    route: str = ""
    """Its route class (`core/judge/route_class.py`); empty: not known."""
    is_keyed: bool = False
    """A user of a sticky service, known by a key, met it: a `KeyError64` says who."""

    @property
    def key(self) -> str:
        """The error as a key of `Cell.errors`."""
        if self.is_keyed:
            return f"{self.kind}|{self.route}|user"
        return f"{self.kind}|{self.route}" if self.route else self.kind


@lru_cache(maxsize=4096)
def error_of(key: str) -> Error:
    """Return what a key of `Cell.errors` says."""
    kind, _, rest = key.partition("|")
    route, _, user = rest.partition("|")
    return Error(kind, route, bool(user))


class Cell(msgspec.Struct, frozen=True, omit_defaults=True):
    """First attempts of one version that began at one (generation, share), in one window."""

    generation: int
    """The service's generation when the version was chosen; rises with every change of weights."""
    share: int
    """Hundredths of a percent of the traffic that this version had in force then (0–10000)."""
    answers: int
    """Attempts that ended, well or badly, and those whose client left while it waited for the head."""
    errors: dict[str, int] = {}
    """By `Error.key`."""
    latency: dict[int, int] = {}
    """Bucket -> answers."""


class KeyError64(msgspec.Struct, frozen=True, array_like=True):
    """An error a sticky user met: when, under which share of the version met, and who (a 64-bit hash)."""

    generation: int
    share: int
    key: int
    kind: str = "500"
    """As in `Cell.errors`, the mark of a user left out: `kind` or `kind|route`."""


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """What both versions of a rollout did during some observed seconds; never across a change of weights."""

    seconds: float
    old: tuple[Cell, ...] = ()
    new: tuple[Cell, ...] = ()
    old_keys: tuple[KeyError64, ...] = ()
    """Sticky services only: users whose request failed on the old version."""
    new_keys: tuple[KeyError64, ...] = ()
    old_usable: bool = True
    """At the window's end."""
    new_usable: bool = True
    percent: int = 0
    """The new version's share as the rollout set it."""


def merge(windows: Iterable[Window]) -> Window:
    """Return one window that holds what `windows` (one weight, oldest first, at least one) hold together."""
    parts = tuple(windows)
    return Window(
        seconds=sum([part.seconds for part in parts], 0.0),
        old=merge_cells(cell for part in parts for cell in part.old),
        new=merge_cells(cell for part in parts for cell in part.new),
        old_keys=tuple(key for part in parts for key in part.old_keys),
        new_keys=tuple(key for part in parts for key in part.new_keys),
        old_usable=parts[-1].old_usable,
        new_usable=parts[-1].new_usable,
        percent=parts[-1].percent,
    )


def merge_cells(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return one cell per (generation, share), in the order first met."""
    merged: dict[tuple[int, int], Cell] = {}
    for cell in cells:
        place = (cell.generation, cell.share)
        known = merged.get(place)
        merged[place] = cell if known is None else _sum(known, cell)
    return tuple(merged.values())


def _sum(one: Cell, other: Cell) -> Cell:
    return Cell(
        generation=one.generation,
        share=one.share,
        answers=one.answers + other.answers,
        errors=_added(one.errors, other.errors),
        latency=_added(one.latency, other.latency),
    )


def _added(one: Mapping[_Key, int], other: Mapping[_Key, int]) -> dict[_Key, int]:
    total = dict(one)
    for key, count in other.items():
        total[key] = total.get(key, 0) + count
    return total
