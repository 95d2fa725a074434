"""Sums of what workers count: of each version, of the judge's cells, of the workers themselves."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from gateway.link.counts import PLACES
from gateway.link.messages import Counts
from gateway.link.totals import JudgedTotals, VersionTotals

Key = TypeVar("Key")


def _places() -> list[int]:
    return [0] * PLACES


Cell = tuple[str, int, int]
"""(version id, generation, share in hundredths of a percent)."""
CohortError = tuple[str, int, int, int, str]
"""(version id, generation, share, key hash, kind): an error that a sticky user met."""


class JudgedSum(msgspec.Struct):
    """Evidence of one cell over all workers, cumulative. latency: bucket -> count."""

    answers: int = 0
    errors: dict[str, int] = {}
    latency: dict[int, int] = {}

    def add(self, totals: JudgedTotals) -> None:
        """Add one worker's."""
        self.answers += totals.answers
        added(self.errors, totals.errors)
        added(self.latency, totals.latency)


class VersionSum(msgspec.Struct):
    """Everything counted about one version over all workers, cumulative; `in_flight` and `streams` are
    now.
    """

    service: str = ""
    version: str = ""
    requests: dict[tuple[str, int], int] = {}
    """(method, status) -> exchanges."""
    attempts: dict[str, int] = {}
    latency: dict[int, int] = {}
    latency_us: int = 0
    judged: dict[tuple[int, int], JudgedSum] = {}
    """By (generation, share)."""
    in_flight: int = 0
    streams: int = 0
    seconds: list[int] = msgspec.field(default_factory=_places)
    """By place among EDGES_US, as the next two."""
    upstream: list[int] = msgspec.field(default_factory=_places)
    upstream_us: int = 0
    own: list[int] = msgspec.field(default_factory=_places)
    own_us: int = 0
    retries: dict[str, int] = {}
    abandoned: int = 0

    def add(self, totals: VersionTotals) -> None:
        """Add one worker's totals, gauges apart."""
        self.service, self.version = totals.service, totals.version
        for method, status, n in totals.requests:
            self.requests[method, status] = self.requests.get((method, status), 0) + n
        added(self.attempts, totals.attempts)
        added(self.latency, totals.latency)
        self.latency_us += totals.latency_us
        _add_places(self.seconds, totals.seconds)
        _add_places(self.upstream, totals.upstream)
        self.upstream_us += totals.upstream_us
        _add_places(self.own, totals.own)
        self.own_us += totals.own_us
        added(self.retries, totals.retries)
        self.abandoned += totals.abandoned
        for judged in totals.judged:
            self.judge(judged)

    def judge(self, totals: JudgedTotals) -> None:
        """Add one cell of one worker's evidence."""
        cell = (totals.generation, totals.share)
        if cell not in self.judged:
            self.judged[cell] = JudgedSum()
        self.judged[cell].add(totals)


class WorkerSum(msgspec.Struct):
    """What workers count of themselves: totals, and the gauges of those connected."""

    accepted: int = 0
    requests: int = 0
    forced: int = 0
    log_dropped: int = 0
    refused: dict[str, int] = {}
    connections: int = 0
    spans_dropped: int = 0
    upstream: dict[str, int] = {}
    """Connections to upstreams now, by what they do."""

    def add(self, counts: Counts) -> None:
        """Add one worker's totals, gauges apart."""
        self.accepted += counts.accepted
        self.requests += counts.requests
        self.forced += counts.forced
        self.log_dropped += counts.log_dropped
        self.spans_dropped += counts.spans_dropped
        added(self.refused, counts.refused)


def copied(total: VersionSum | None) -> VersionSum:
    """Return a sum that can be added to."""
    if total is None:
        return VersionSum()
    return msgspec.structs.replace(
        total,
        requests=dict(total.requests),
        attempts=dict(total.attempts),
        latency=dict(total.latency),
        seconds=list(total.seconds),
        upstream=list(total.upstream),
        own=list(total.own),
        retries=dict(total.retries),
        judged=copied_judged(total),
    )


def copied_judged(total: VersionSum) -> dict[tuple[int, int], JudgedSum]:
    """Return a version's cells, to be added to."""
    return {
        cell: JudgedSum(judged.answers, dict(judged.errors), dict(judged.latency))
        for cell, judged in total.judged.items()
    }


def _add_places(into: list[int], more: list[int]) -> None:
    for place, n in enumerate(more):
        into[place] += n


def added(into: dict[Key, int], more: dict[Key, int]) -> None:
    """Add counts to others, in place."""
    for key, n in more.items():
        into[key] = into.get(key, 0) + n


def above(cells: Iterable[JudgedTotals], floor: int) -> list[JudgedTotals]:
    """Return the cells of generations above `floor`."""
    return [cell for cell in cells if cell.generation > floor]


def joined(cells: Iterable[JudgedTotals], others: Iterable[JudgedTotals]) -> list[JudgedTotals]:
    """Return one worker's cells from two of its reports: totals only grow, so the greater is the newer."""
    found = {(cell.generation, cell.share): cell for cell in cells}
    for cell in others:
        known = found.get((cell.generation, cell.share))
        if known is None or known.answers < cell.answers:
            found[cell.generation, cell.share] = cell
    return list(found.values())


def nothing_of(service: str, version: str, version_id: str) -> VersionTotals:
    """Return what a worker has counted of a version before it has served it."""
    return VersionTotals(service, version, version_id, [], {}, {}, 0, 0, 0, [])
