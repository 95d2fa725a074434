"""The last hour of every version, in windows of ten seconds: charts for whoever looks.

Made of the workers' reports, which are totals: at a window's end, what came since the last one is a
difference. Windows lie on the wall clock, so that those of all versions are of the same seconds. Those in
which a version answered nothing are left out. Each minute is stored under a name of its own, which the same
minute of the next hour takes over: after a restart of control the charts go on, and nothing has to be pruned.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from gateway.core.judge.buckets import quantile_us
from gateway.errors import StaleEpoch, StoreError
from gateway.link.totals import VersionTotals
from gateway.log import get_logger
from gateway.store.api import Store

WINDOW_S: Final = 10
KEPT_S: Final = 3_600
REPORTS_S: Final = 0.25
"""After a window's end, until the workers have reported what was in it."""
MINUTES: Final = 60
NAME: Final = "history/{minute:02}"
"""Under these names the minutes of an hour are stored."""

log = get_logger(component="history")


class Slice(msgspec.Struct, frozen=True, array_like=True):
    """What one version answered in one window. The quantiles are of the time to the answer's head."""

    start: int
    """Unix seconds."""
    classes: tuple[int, ...]
    """Answers by class of status, 1xx to 5xx."""
    p50_us: int
    p95_us: int
    p99_us: int

    @property
    def requests(self) -> int:
        """All answers."""
        return sum(self.classes)


class _Total(NamedTuple):
    """One worker's totals of a version: answers by class, 1xx to 5xx, and latency by bucket."""

    classes: tuple[int, ...]
    latency: dict[int, int]


class _Minute(msgspec.Struct, frozen=True):
    """What is stored: which minute it is, since the epoch, and its windows by version id."""

    minute: int
    versions: dict[str, list[Slice]]


_NOTHING: Final = _Total((0,) * 5, {})
_Place = tuple[str, str]
"""(version id, incarnation)."""


class History:
    """The windows of all versions, over all workers."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        """The clock that windows lie on, Unix seconds."""
        self._slices: dict[str, deque[Slice]] = {}
        self._known: set[str] = set()
        """Incarnations that have reported: a version that one of them is new to has begun at zero."""
        self._counted: dict[_Place, _Total] = {}
        """Up to where the closed windows go."""
        self._reported: dict[_Place, VersionTotals] = {}
        """What was reported since."""
        self._gone: set[str] = set()
        """Incarnations that have ended since."""

    # -- reports

    def report(self, incarnation: str, versions: Iterable[VersionTotals]) -> None:
        """Take a worker's newest totals. The first ones say nothing of when they came."""
        is_first = incarnation not in self._known
        self._known.add(incarnation)
        for totals in versions:
            place = (totals.version_id, incarnation)
            if is_first:
                self._counted[place] = _total(totals)
            else:
                self._reported[place] = totals

    def forget_worker(self, incarnation: str) -> None:
        """A worker ended: what it reported last is still to be counted."""
        self._gone.add(incarnation)

    def forget_version(self, version_id: str) -> None:
        """A version was deleted."""
        self._slices.pop(version_id, None)
        for places in (self._counted, self._reported):
            for place in [place for place in places if place[0] == version_id]:
                del places[place]

    # -- windows

    def close(self, start: int) -> None:
        """Make what was reported since the last call the window that began at `start` (Unix seconds)."""
        came: dict[str, _Total] = {}
        for place, totals in self._reported.items():
            now = _total(totals)
            more = _difference(now, self._counted.get(place, _NOTHING))
            came[place[0]] = _sum(came.get(place[0], _NOTHING), more)
            self._counted[place] = now
        self._reported.clear()
        for place in [place for place in self._counted if place[1] in self._gone]:
            del self._counted[place]
        self._known -= self._gone
        self._gone.clear()
        for version_id, total in came.items():
            if any(total.classes):
                self._append(version_id, _slice(start, total))

    def _append(self, version_id: str, new: Slice) -> None:
        slices = self._slices.setdefault(version_id, deque(maxlen=KEPT_S // WINDOW_S))
        while slices and slices[-1].start > new.start:
            slices.pop()  # the clock was set back
        if slices and slices[-1].start == new.start:
            new = _joined(slices.pop(), new)
        slices.append(new)

    def version(self, version_id: str) -> list[Slice]:
        """Return the windows of the last hour in which a version answered, oldest first."""
        since = self.wall() - KEPT_S
        return [each for each in self._slices.get(version_id, ()) if each.start >= since]

    def minutes(self, version_ids: Iterable[str]) -> tuple[list[int], list[int]]:
        """Return (answers, those of 500 and above) of some versions in each of the last sixty minutes.

        Oldest first; the last is the minute under way.
        """
        first = int(self.wall()) // 60 - MINUTES + 1
        answers, failed = [0] * MINUTES, [0] * MINUTES
        for version_id in version_ids:
            for each in self._slices.get(version_id, ()):
                place = each.start // 60 - first
                if 0 <= place < MINUTES:
                    answers[place] += sum(each.classes)
                    failed[place] += each.classes[-1]
        return answers, failed

    # -- over a restart of control

    async def load(self, store: Store) -> None:
        """Go on from what is stored of the last hour. Raises StoreError."""
        newest = int(self.wall()) // 60
        found: list[_Minute] = []
        for place in range(MINUTES):
            data = await store.meta(NAME.format(minute=place))
            if data:
                found.append(_decoded(data))
        for minute in sorted(found, key=lambda each: each.minute):
            if newest - MINUTES < minute.minute <= newest:
                for version_id, slices in minute.versions.items():
                    for each in slices:
                        self._append(version_id, each)

    async def save(self, store: Store, start: int) -> None:
        """Store the minute that the window of `start` is in, if anything was answered in it."""
        minute = start // 60
        versions = {name: _in_minute(slices, minute) for name, slices in self._slices.items()}
        answered = {name: slices for name, slices in versions.items() if slices}
        if not answered:
            return
        async with store.transaction() as tx:
            name = NAME.format(minute=minute % MINUTES)
            tx.set_meta(name, msgspec.msgpack.encode(_Minute(minute, answered)))

    async def run(self, store: Store) -> None:
        """Close and store a window every ten seconds, until cancelled, or replaced by a newer control."""
        while True:
            now = self.wall()
            end = (int(now) // WINDOW_S + 1) * WINDOW_S
            await asyncio.sleep(end - now + REPORTS_S)
            self.close(end - WINDOW_S)
            try:
                await self.save(store, end - WINDOW_S)
            except StaleEpoch:
                return
            except StoreError as exc:
                log.error("history_not_stored", error=str(exc))

    async def flush(self, store: Store) -> None:
        """Store the window under way: whoever comes next goes on with it. Raises StoreError."""
        start = int(self.wall()) // WINDOW_S * WINDOW_S
        self.close(start)
        await self.save(store, start)


def _decoded(data: bytes) -> _Minute:
    """Return a stored minute; an empty one if another release wrote it otherwise: they are only charts."""
    try:
        return msgspec.msgpack.decode(data, type=_Minute)
    except msgspec.MsgspecError as exc:
        log.warning("history_not_read", error=str(exc))
        return _Minute(0, {})


def _in_minute(slices: Sequence[Slice], minute: int) -> list[Slice]:
    """Return those of a minute: they are among the last."""
    found = []
    for each in reversed(slices):
        if each.start // 60 < minute:
            break
        found.append(each)
    return found[::-1]


def _total(totals: VersionTotals) -> _Total:
    classes = [0] * 5
    for _, status, count in totals.requests:
        classes[min(max(status // 100, 1), 5) - 1] += count
    return _Total(tuple(classes), totals.latency)


def _difference(now: _Total, before: _Total) -> _Total:
    """Return what came between two totals; all of it, if the earlier one is of another beginning."""
    classes = tuple(a - b for a, b in zip(now.classes, before.classes, strict=True))
    if min(classes) < 0:
        return now
    latency = {bucket: count - before.latency.get(bucket, 0) for bucket, count in now.latency.items()}
    return _Total(classes, {bucket: count for bucket, count in latency.items() if count > 0})


def _sum(one: _Total, other: _Total) -> _Total:
    latency = dict(one.latency)
    for bucket, count in other.latency.items():
        latency[bucket] = latency.get(bucket, 0) + count
    return _Total(tuple(a + b for a, b in zip(one.classes, other.classes, strict=True)), latency)


def _slice(start: int, total: _Total) -> Slice:
    quantiles = [quantile_us(total.latency, q) or 0 for q in (0.50, 0.95, 0.99)]
    return Slice(start, total.classes, quantiles[0], quantiles[1], quantiles[2])


def _joined(one: Slice, other: Slice) -> Slice:
    """Return two parts of one window as one; its quantiles are those of the part with more answers."""
    more = max(one, other, key=lambda each: each.requests)
    classes = tuple(a + b for a, b in zip(one.classes, other.classes, strict=True))
    return Slice(one.start, classes, more.p50_us, more.p95_us, more.p99_us)
