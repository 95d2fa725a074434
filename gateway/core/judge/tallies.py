"""What is counted of a version: answers, the errors among them, and under which shares they fell."""

from typing import Final, NamedTuple

import msgspec

from gateway.core.judge.rules import Rules
from gateway.core.judge.window import WHOLE, Cell, error_of

ABANDONED: Final = "abandoned"
MAX_KINDS: Final = 16
"""Kinds of errors counted each by itself, to say which is the commonest."""


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """Answers, and the errors among them."""

    answers: int = 0
    errors: int = 0

    def plus(self, answers: int, errors: int) -> "Tally":
        """Return the tally with more counted."""
        return Tally(self.answers + answers, self.errors + errors)

    @property
    def rate(self) -> float:
        """Errors per answer; 0 without answers."""
        return self.errors / self.answers if self.answers else 0.0


class Fall(NamedTuple):
    """Errors that fell on one version."""

    share: float
    """The chance, 0-1, that such an error falls on the new version if the two are alike."""
    errors: int
    route: str


def share_of(share: int, kind: str) -> float:
    """Return `Fall.share` of errors of `kind` while the new version had `share` (hundredths of a percent).

    A version that is honestly a little slower loses more of its impatient clients: twice as many abandoned
    requests are still "alike".
    """
    part = share / WHOLE
    return 2 * part / (1 + part) if kind == ABANDONED else part


class Side(msgspec.Struct):
    """One version's window as the rules read it."""

    answers: int = 0
    errors: int = 0
    abandoned: int = 0
    """Of the errors."""
    kinds: dict[str, int] = {}
    """The errors by kind."""
    step_answers: int = 0
    """Under the weights in force; so the next."""
    step_errors: int = 0
    step_keyed: int = 0
    """Of the step's errors: those of users known by a key."""
    falls: list[Fall] = []
    """Errors of whom no key is known: each counts."""
    fresh: list[Fall] = []
    """Of those: of the weights in force."""
    shifts: list[Fall] = []
    """4xx answers of whom no key is known."""

    @property
    def fallen(self) -> int:
        """How many errors count in the comparison."""
        return sum([fall.errors for fall in self.falls])


def side_of(cells: tuple[Cell, ...], rules: Rules, live: int | None, *, is_new: bool) -> Side:
    """Return what `cells` hold of one version. live: the share's first generation, once it is in force."""
    side = Side(kinds={}, falls=[], fresh=[], shifts=[])
    for cell in cells:
        is_live = live is not None and cell.generation >= live
        side.answers += cell.answers
        if is_live:
            side.step_answers += cell.answers
        if cell.errors:
            _read(side, cell, rules, is_new=is_new, is_live=is_live)
    return side


def _read(side: Side, cell: Cell, rules: Rules, *, is_new: bool, is_live: bool) -> None:
    """Sort a cell's errors into `side`."""
    share = cell.share if is_new else WHOLE - cell.share
    for key, count in cell.errors.items():
        kind, route, is_keyed = error_of(key)
        is_error = rules.is_error(kind)
        if is_error:
            side.errors += count
            side.abandoned += count if kind == ABANDONED else 0
            side.kinds[kind] = side.kinds.get(kind, 0) + count
            if is_live:
                side.step_errors += count
                side.step_keyed += count if is_keyed else 0
        if is_keyed:
            continue
        fall = Fall(share_of(share, kind), count, route)
        if is_error:
            side.falls.append(fall)
            if is_live:
                side.fresh.append(fall)
        elif rules.is_shift(kind):
            side.shifts.append(fall)


def tallies_of(cells: tuple[Cell, ...], rules: Rules) -> dict[int, Tally]:
    """Return answers and errors by generation."""
    tallies: dict[int, Tally] = {}
    for cell in cells:
        side = side_of((cell,), rules, None, is_new=True)
        known = tallies.get(cell.generation, Tally())
        tallies[cell.generation] = known.plus(side.answers, side.errors)
    return tallies


def by_kind(kinds: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """Return both added up, of the first `MAX_KINDS` kinds."""
    if not more:
        return kinds
    total = dict(kinds)
    for kind, count in more.items():
        if kind in total or len(total) < MAX_KINDS:
            total[kind] = total.get(kind, 0) + count
    return total
