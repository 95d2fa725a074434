"""Breakers as the store keeps them: monotonic times become Unix seconds there, and back."""

from datetime import UTC, datetime

import msgspec

from gateway.core.resilience.breaker import BreakerState
from gateway.core.resilience.merged_breaker import MergedBreaker
from gateway.core.settings.resilience import BreakerSettings
from gateway.store.records import BreakerRecord


class Stored(msgspec.Struct, frozen=True):
    """A breaker in the store. Times are Unix seconds."""

    state: BreakerState
    epoch: int
    open_until: float = 0.0
    """When trial calls begin."""
    failures: int = 0
    last_failure_at: float | None = None


def merged_of(record: BreakerRecord, settings: BreakerSettings, *, now: float, wall: float) -> MergedBreaker:
    """Return the breaker a row keeps. now, wall: the same instant in monotonic and Unix seconds.

    A clock that was set back must not keep it open for longer than its reset timeout.
    """
    stored = msgspec.json.decode(record.state, type=Stored)
    left_s = min(max(stored.open_until - wall, 0.0), settings.reset_timeout / 1000)
    failed_at = stored.last_failure_at
    return MergedBreaker(
        settings,
        state=stored.state,
        epoch=stored.epoch,
        open_until=now + left_s,
        failures=stored.failures,
        last_failure_at=None if failed_at is None else now - max(wall - failed_at, 0.0),
    )


def record_of(key: str, merged: MergedBreaker, *, now: float, wall: float) -> BreakerRecord:
    """Return the row that keeps a breaker. now, wall: the same instant in monotonic and Unix seconds."""
    failed_at = merged.last_failure_at
    stored = Stored(
        state=merged.state,
        epoch=merged.epoch,
        open_until=max(unix(merged.open_until, now=now, wall=wall), wall),
        failures=merged.failures,
        last_failure_at=None if failed_at is None else unix(failed_at, now=now, wall=wall),
    )
    return BreakerRecord(
        key=key,
        version_id=key.partition("|")[0],
        state=msgspec.json.encode(stored),
        updated_at=datetime.fromtimestamp(wall, UTC),
    )


def unix(at: float, *, now: float, wall: float) -> float:
    """Return monotonic seconds as Unix seconds."""
    return wall + at - now
