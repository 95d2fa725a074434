"""Traffic for the judge, made up: two versions, their error rates over time, breakers, sticky users.

A run is a list of spans of seconds, each with both versions' counts; a stretch without an error is one span.
It does not depend on what a judge makes of it, so that several can be shown the same.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from gateway.core.judge.tallies import Tally
from gateway.core.judge.window import WHOLE, Cell, KeyError64, Window

BASE: Final = 0.005
"""How often a good version fails."""
FAILURES_TO_OPEN: Final = 5
RESET_S: Final = 60
TRIALS: Final = 3
MINUTE: Final = 60

Rates = Callable[[int, int], tuple[float, float]]
"""(second, percent) -> the error rates of the old and the new version."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of."""

    rates: Rates
    changes: tuple[int, ...] = ()
    """Seconds at which `rates` changes, steps aside."""
    per_second: int = 10
    seconds: int = 1800
    steps: tuple[int, ...] = (10,)
    """Percentages, each for an equal part of the time."""
    breakers: bool = False
    users: tuple[int, int] = (0, 0)
    """Sticky users in all, and those of them who meet half of the errors; (0, 0): not sticky."""

    def begin_of(self, step: int) -> int:
        """Return the first second of a step."""
        return step * self.seconds // len(self.steps)


class Span(msgspec.Struct, frozen=True):
    """Seconds [end - window.seconds, end) of one step."""

    end: int
    step: int
    window: Window
    new: Tally
    """All of the window's, for who does not care about shares."""
    old: Tally
    ends_minute: bool


def spans(scene: Scene, rng: random.Random) -> Iterator[Span]:
    """Yield one run, in order."""
    if scene.breakers:
        yield from _Guarded(scene, rng).spans()
        return
    salt = rng.getrandbits(64)
    for begin, end, step in _constant(scene):
        if scene.users[0]:
            yield from _sticky(scene, begin, end, step, rng, salt)
        else:
            yield from _plain(scene, begin, end, step, rng)


def _constant(scene: Scene) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, end, step) of stretches of at most a minute in which nothing changes."""
    begins = [scene.begin_of(step) for step in range(len(scene.steps))]
    edges = sorted({*begins, *scene.changes, *range(0, scene.seconds, MINUTE), scene.seconds})
    for begin, end in itertools.pairwise(edges):
        yield begin, end, sum(1 for first in begins if first <= begin) - 1


def _answers(per_second: float, begin: int, end: int) -> int:
    """Return how many of requests spread evenly over all time end in seconds [begin, end)."""
    return math.floor(end * per_second + 1e-9) - math.floor(begin * per_second + 1e-9)


def _errors(per_second: float, begin: int, end: int, rate: float, rng: random.Random) -> dict[int, int]:
    """Return second -> errors, where any: gaps between errors are geometric, so good requests cost
    nothing."""
    errors: dict[int, int] = {}
    if per_second <= 0 or rate <= 0:
        return errors
    log_good = math.log1p(-rate) if rate < 1 else -math.inf
    index = math.floor(begin * per_second + 1e-9)
    last = math.floor(end * per_second + 1e-9)
    while True:
        index += int(math.log(1 - rng.random()) / log_good)
        if index >= last:
            return errors
        second = math.ceil((index + 1 - 1e-9) / per_second) - 1
        errors[second] = errors.get(second, 0) + 1
        index += 1


def _span(
    scene: Scene, begin: int, end: int, step: int, new: int, old: int, keys: "_Keys | None" = None
) -> Span:
    percent = scene.steps[step]
    generation, share = step + 1, percent * 100
    # No fewer than the errors: those of sticky users come when they come.
    new_answers = max(_answers(scene.per_second * percent / 100, begin, end), new)
    old_answers = max(_answers(scene.per_second * (100 - percent) / 100, begin, end), old)
    window = Window(
        seconds=float(end - begin),
        old=(Cell(generation, WHOLE - share, old_answers, {"500": old} if old else {}),)
        if old_answers
        else (),
        new=(Cell(generation, share, new_answers, {"500": new} if new else {}),) if new_answers else (),
        old_keys=tuple([KeyError64(generation, WHOLE - share, key) for key in keys[1]]) if keys else (),
        new_keys=tuple([KeyError64(generation, share, key) for key in keys[0]]) if keys else (),
        percent=percent,
    )
    return Span(end, step, window, Tally(new_answers, new), Tally(old_answers, old), end % MINUTE == 0)


_Keys = tuple[list[int], list[int]]


def _plain(scene: Scene, begin: int, end: int, step: int, rng: random.Random) -> Iterator[Span]:
    percent = scene.steps[step]
    old_rate, new_rate = scene.rates(begin, percent)
    new = _errors(scene.per_second * percent / 100, begin, end, new_rate, rng)
    old = _errors(scene.per_second * (100 - percent) / 100, begin, end, old_rate, rng)
    done = begin
    for second in sorted({*new, *old}):
        if second > done:
            yield _span(scene, done, second, step, 0, 0)
        yield _span(scene, second, second + 1, step, new.get(second, 0), old.get(second, 0))
        done = second + 1
    if done < end:
        yield _span(scene, done, end, step, 0, 0)


def _sticky(scene: Scene, begin: int, end: int, step: int, rng: random.Random, salt: int) -> Iterator[Span]:
    """Like `_plain`, but each error meets a user, whose version is a hash of the user's name and `salt`."""
    everyone, unlucky = scene.users
    percent = scene.steps[step]
    errors = _errors(scene.per_second, begin, end, scene.rates(begin, percent)[0], rng)
    done = begin
    for second in sorted(errors):
        if second > done:
            yield _span(scene, done, second, step, 0, 0)
        keys: _Keys = ([], [])
        for _ in range(errors[second]):
            user = rng.randrange(unlucky) if rng.random() < 0.5 else rng.randrange(unlucky, everyone)
            place, key = _cohort(salt, user)
            keys[0 if 100 * place < percent else 1].append(key)
        yield _span(scene, second, second + 1, step, len(keys[0]), len(keys[1]), keys)
        done = second + 1
    if done < end:
        yield _span(scene, done, end, step, 0, 0)


@lru_cache(maxsize=1024)
def _cohort(salt: int, user: int) -> tuple[float, int]:
    """Return where in [0, 1) a user's name falls, and the key the judge knows the user by."""
    drawn = random.Random(f"{salt}:{user}")
    return drawn.random(), drawn.getrandbits(64)


class _Version:
    """One version behind its breaker."""

    def __init__(self) -> None:
        self.failures = 0
        self.open_until = -1.0
        self.trials: int | None = None
        """Good trials still wanted; None: closed or open."""
        self.answers: dict[int, int] = {}
        """By share in force, hundredths of a percent."""
        self.errors: dict[int, int] = {}

    def is_usable(self, now: float) -> bool:
        """Whether a request may go here; an open breaker goes half-open when its time is up."""
        if self.open_until < 0:
            return True
        if now < self.open_until:
            return False
        self.open_until, self.trials = -1.0, TRIALS
        return True

    def settle(self, now: float, share: int, *, failed: bool) -> None:
        """Count an answer and move the breaker."""
        self.answers[share] = self.answers.get(share, 0) + 1
        if not failed:
            self.failures = 0
            if self.trials is not None:
                self.trials = self.trials - 1 or None
            return
        self.errors[share] = self.errors.get(share, 0) + 1
        self.failures += 1
        if self.trials is not None or self.failures >= FAILURES_TO_OPEN:
            self.open_until, self.trials, self.failures = now + RESET_S, None, 0

    def take(self, generation: int) -> tuple[Cell, ...]:
        """Return the counts since the last call."""
        cells = tuple(
            [
                Cell(generation, share, answers, {"500": self.errors[share]} if share in self.errors else {})
                for share, answers in self.answers.items()
            ]
        )
        self.answers, self.errors = {}, {}
        return cells


class _Guarded:
    """A run request by request, with a breaker before each version."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene = scene
        self.rng = rng
        self.old = _Version()
        self.new = _Version()
        self.credit = 0.0

    def spans(self) -> Iterator[Span]:
        scene = self.scene
        for begin, end, step in _constant(scene):
            percent = scene.steps[step]
            old_rate, new_rate = scene.rates(begin, percent)
            for second in range(begin, end):
                self.serve(second, percent, old_rate, new_rate)
                yield self.span(second + 1, step)

    def serve(self, second: int, percent: int, old_rate: float, new_rate: float) -> None:
        """Send a second's requests to the version whose turn it is, or to the other if that one is out."""
        old, new, chance = self.old, self.new, self.rng.random
        per_second = self.scene.per_second
        for index in range(per_second):
            now = second + index / per_second
            old_usable = old.open_until < 0 or old.is_usable(now)
            new_usable = new.open_until < 0 or new.is_usable(now)
            if not old_usable and not new_usable:
                continue
            share = percent * 100 if old_usable and new_usable else WHOLE if new_usable else 0
            self.credit += share / WHOLE
            if self.credit >= 1:
                self.credit -= 1
                new.settle(now, share, failed=chance() < new_rate)
            else:
                old.settle(now, WHOLE - share, failed=chance() < old_rate)

    def span(self, end: int, step: int) -> Span:
        """Return what was counted in the second that ends at `end`."""
        old, new = self.old.take(step + 1), self.new.take(step + 1)
        window = Window(
            seconds=1.0,
            old=old,
            new=new,
            old_usable=self.old.is_usable(end),
            new_usable=self.new.is_usable(end),
            percent=self.scene.steps[step],
        )
        return Span(end, step, window, _sum(new), _sum(old), end % MINUTE == 0)


def _sum(cells: tuple[Cell, ...]) -> Tally:
    answers = sum([cell.answers for cell in cells])
    return Tally(answers, sum([sum(cell.errors.values()) for cell in cells if cell.errors]))
