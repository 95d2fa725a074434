"""What was counted in the last seconds, version by version: rates and latency for whoever looks.

Kept beside the tally's totals and made of the same reports: every few seconds a report's totals are
remembered, and what came since is a difference. Nothing is measured while nobody reports.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from gateway.link.totals import VersionTotals

LOOK_BACK_S: Final = 10.0
MARK_EVERY_S: Final = 2.5


class Lately(msgspec.Struct, frozen=True):
    """A version's answers in about the last ten seconds. latency: bucket -> count."""

    rate: float = 0.0
    """Answers a second."""
    answers: int = 0
    errors: int = 0
    """Of those, with a status of 500 and above."""
    latency: dict[int, int] = {}


class _Mark(NamedTuple):
    """One worker's totals of a version at a time (monotonic seconds)."""

    at: float
    totals: VersionTotals

    @property
    def answers(self) -> int:
        return sum(n for _, _, n in self.totals.requests)

    @property
    def errors(self) -> int:
        return sum(n for _, status, n in self.totals.requests if status >= 500)


class Recent:
    """The last seconds of every version, over all workers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: dict[str, dict[str, deque[_Mark]]] = {}
        """Version id -> incarnation -> marks, oldest first; the last is the newest report."""

    def note(self, incarnation: str, totals: VersionTotals) -> None:
        """Take a worker's newest totals of a version. The first ones say nothing of when they came."""
        mark = _Mark(self._clock(), totals)
        marks = self._marks.setdefault(totals.version_id, {}).setdefault(incarnation, deque())
        if len(marks) > 1 and marks[-1].at - marks[-2].at < MARK_EVERY_S:
            marks.pop()
        marks.append(mark)
        while len(marks) > 2 and marks[1].at <= mark.at - LOOK_BACK_S - MARK_EVERY_S:
            marks.popleft()

    def forget_worker(self, incarnation: str) -> None:
        """A worker ended."""
        for marks in self._marks.values():
            marks.pop(incarnation, None)

    def forget_version(self, version_id: str) -> None:
        """A version was deleted."""
        self._marks.pop(version_id, None)

    def version(self, version_id: str) -> Lately:
        """Return what was counted of a version lately."""
        now = self._clock()
        rate, answers, errors = 0.0, 0, 0
        latency: dict[int, int] = {}
        for marks in self._marks.get(version_id, {}).values():
            begun, newest = _since(marks, now), marks[-1]
            came = newest.answers - begun.answers
            answers += came
            errors += newest.errors - begun.errors
            seconds = min(now - begun.at, LOOK_BACK_S + MARK_EVERY_S)
            rate += came / max(seconds, 1.0)
            _add_difference(latency, newest.totals.latency, begun.totals.latency)
        return Lately(rate, answers, errors, latency)


def _since(marks: deque[_Mark], now: float) -> _Mark:
    """Return the newest mark that is old enough, else the oldest."""
    old = [mark for mark in marks if mark.at <= now - LOOK_BACK_S]
    return old[-1] if old else marks[0]


def _add_difference(into: dict[int, int], now: dict[int, int], before: dict[int, int]) -> None:
    for bucket, count in now.items():
        came = count - before.get(bucket, 0)
        if came:
            into[bucket] = into.get(bucket, 0) + came
