"""What a rollout's page draws: its stored windows, the judge's statistic, and what was decided when."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from gateway.actions.access import Access
from gateway.actions.problems import invalid, not_found
from gateway.actions.reports import Report, quantile_ms
from gateway.core.judge.limits import ADVANCE_SHARE
from gateway.core.judge.rules import Rules
from gateway.core.judge.window import error_of
from gateway.store.records import DecisionRecord, DeploymentRecord, StatisticRecord, WindowRecord

MOST_POINTS: Final = 2_000
"""Windows shown at once: of a longer rollout neighbours are joined."""
MARKS: Final = 500
"""The newest decisions shown beside them."""


class VersionWindow(Report, frozen=True, kw_only=True):
    """What one version did in a window: first attempts that the split chose. Quantiles in milliseconds."""

    share: float
    """Percent of the traffic it had in force."""
    requests: int
    failed: int
    """Of those, with what the rollout's `errors` counts as one."""
    errors: dict[str, int]
    """All, by kind: `connect`, `reset`, `timeout`, `bad_response`, `abandoned`, `outcome:NAME`, a status."""
    routes: dict[str, int]
    """The same errors by route class, as far as it is known."""
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class RolloutWindow(Report, frozen=True, kw_only=True):
    """Some seconds of a rollout, never across a change of weights. A version that got no request is null."""

    start: datetime
    seconds: float
    old: VersionWindow | None
    new: VersionWindow | None


class StatisticPoint(Report, frozen=True, kw_only=True):
    """Where the judge's statistic stood. 1 is no difference; at `limit` it has its effect."""

    at: datetime
    step: int
    percent: int
    statistic: float
    limit: float
    advance_below: float
    """A step passes only below this."""
    verdict: str
    gate: str
    """Which test it is of, or what stands against an advance."""


class Mark(Report, frozen=True, kw_only=True):
    """A decision: `GET deployment/:id/decisions` has its evidence."""

    at: datetime
    step: int
    percent: int | None
    verdict: str
    reason: str
    actor: str


class RolloutWindows(Report, frozen=True, kw_only=True):
    """A rollout as it went, oldest first."""

    deployment_id: str
    service_name: str
    from_version: str | None
    to_version: str
    windows: list[RolloutWindow]
    statistics: list[StatisticPoint]
    marks: list[Mark]


class Charts:
    """Everything that is drawn of rollouts."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def windows(self, deployment_id: str, since: datetime | None = None) -> RolloutWindows:
        """Return how a rollout went. since: only what began from then on. Raises Problem 404 or 422."""
        store, since = self._access.store, _utc(since)
        record = await store.deployment(deployment_id)
        if record is None:
            raise not_found("deployment", deployment_id)
        rows = await store.windows(deployment_id=deployment_id, since=since)
        points = await store.statistics(deployment_id, since=since)
        decisions = (await store.decisions(deployment_id, limit=MARKS)).items[::-1]
        return RolloutWindows(
            deployment_id=record.id,
            service_name=record.service_name,
            from_version=record.from_version,
            to_version=record.to_version,
            windows=drawn(rows, record),
            statistics=[_point(each) for each in _thinned(points)],
            marks=[_mark(each) for each in decisions if since is None or each.at >= since],
        )


def _utc(since: datetime | None) -> datetime | None:
    try:
        return since.astimezone(UTC) if since is not None else None
    except OverflowError as exc:  # year 0 or 10000 there
        raise invalid("?since", "is no time we know") from exc


def drawn(rows: Sequence[WindowRecord], record: DeploymentRecord) -> list[RolloutWindow]:
    """Return stored rows (oldest first) as windows of both versions.

    Where they are many, neighbours are joined.
    """
    windows = [list(each) for _, each in groupby(rows, key=lambda row: row.started_at)]
    size = -(-len(windows) // MOST_POINTS) or 1
    parts = [windows[at : at + size] for at in range(0, len(windows), size)]
    counted = record.config.get("errors")
    rules = Rules(errors=tuple(counted)) if counted is not None else Rules()
    return [_window(part, record, rules) for part in parts]


def _window(part: Sequence[Sequence[WindowRecord]], record: DeploymentRecord, rules: Rules) -> RolloutWindow:
    rows = [row for window in part for row in window]
    return RolloutWindow(
        start=rows[0].started_at,
        seconds=round(sum(window[0].seconds for window in part), 3),
        old=_version((row for row in rows if row.version_id == record.from_version_id), rules),
        new=_version((row for row in rows if row.version_id == record.to_version_id), rules),
    )


def _version(found: Iterable[WindowRecord], rules: Rules) -> VersionWindow | None:
    """Return one version's rows as one; the share is that of the newest generation."""
    rows = list(found)
    if not rows:
        return None
    errors: dict[str, int] = {}
    routes: dict[str, int] = {}
    latency: dict[int, int] = {}
    for row in rows:
        for key, count in row.errors.items():
            error = error_of(key)
            errors[error.kind] = errors.get(error.kind, 0) + count
            if error.route:
                routes[error.route] = routes.get(error.route, 0) + count
        for bucket, count in row.latency.items():
            latency[bucket] = latency.get(bucket, 0) + count
    return VersionWindow(
        share=max(rows, key=lambda row: row.generation).share / 100,
        requests=sum(row.answers for row in rows),
        failed=sum(count for kind, count in errors.items() if rules.is_error(kind)),
        errors=errors,
        routes=routes,
        p50_ms=quantile_ms(latency, 0.50),
        p95_ms=quantile_ms(latency, 0.95),
        p99_ms=quantile_ms(latency, 0.99),
    )


def _thinned(points: Sequence[StatisticRecord]) -> list[StatisticRecord]:
    """Return at most `MOST_POINTS` of the points: of neighbours the one that is nearest to its limit."""
    size = -(-len(points) // MOST_POINTS) or 1
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [
        max(part, key=lambda point: point.statistic / point.limit if point.limit else 0.0) for part in parts
    ]


def _point(record: StatisticRecord) -> StatisticPoint:
    return StatisticPoint(
        at=record.at,
        step=record.step,
        percent=record.percent,
        statistic=record.statistic,
        limit=record.limit,
        advance_below=record.limit * ADVANCE_SHARE,
        verdict=record.verdict,
        gate=record.gate,
    )


def _mark(record: DecisionRecord) -> Mark:
    return Mark(
        at=record.at,
        step=record.step,
        percent=record.data.get("percent"),
        verdict=record.verdict,
        reason=record.reason,
        actor=record.actor,
    )
