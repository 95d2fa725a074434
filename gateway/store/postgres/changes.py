"""The log of what each transaction has changed: other gateways read by it what they have in memory."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.core.rollout.isolation import Lease
from gateway.store.postgres.dialect import CHANGES, LEASE
from gateway.store.prune import STRIDE, Prunable
from gateway.store.records import Change, Changes, Position

KEPT: Final = "1 hour"
"""Whoever has not looked for longer reads everything, and that is no more than a start does."""
MOST: Final = 1000
"""Rows that are read at once; with more to catch up on, reading everything is cheaper."""

SINCE: Final = f"""
    SELECT
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
        newest.revision,
        convert_from(coalesce((SELECT value FROM gateway_meta WHERE key = 'commit'), ''), 'UTF8'),
        lease.lapses_at > clock_timestamp(),
        lease.holder,
        extract(epoch FROM lease.renewed_at - lease.vacated_at)::float8,
        clock_timestamp(),
        log.revision,
        log.follows,
        log.mark,
        log.topics
    FROM (SELECT max(revision) AS revision FROM {CHANGES}) AS newest
    JOIN {CHANGES} AS log ON log.revision >= least(?, newest.revision)
    LEFT JOIN {LEASE} AS lease ON true
    ORDER BY log.revision LIMIT {MOST}
"""
"""Timeline, newest revision, mark of the last commit, and the lease: in each row, as of one moment. Then what
time it is, and the log."""
TIME: Final = 6
"""Where in a row it says so."""
_PRUNE: Final = f"""
    DELETE FROM {CHANGES} WHERE at < clock_timestamp() - interval '{KEPT}'
    AND revision IN (SELECT revision FROM {CHANGES} ORDER BY revision LIMIT {STRIDE})
"""


def found_in(rows: Sequence[Any], asked_at: float, holder: str) -> Changes:
    """Return what the rows of SINCE say: at least one, as the newest is never pruned.

    asked_at: monotonic seconds, before that. holder: who we are, where we have claimed the lease.
    """
    log = tuple(
        Change(revision, follows, mark, msgspec.json.decode(topics, type=tuple[str, ...]))
        for *_, revision, follows, mark, topics in rows
    )
    timeline, revision, commit, is_held, held_by, vacant_s, *_ = rows[0]
    lease = Lease(asked_at, bool(is_held), held_by == holder, vacant_s)
    return Changes(Position(timeline, revision, commit), log, lease)


async def forget_old(store: Prunable) -> int:
    """Prune the log. Returns how many rows. The transaction that does it leaves a newer one."""
    total = 0
    while True:
        async with store.transaction() as tx:
            deleted = await tx.execute(_PRUNE)
        total += deleted
        if deleted < STRIDE:
            return total


def is_lost(ours: tuple[int, str] | None, found: str | None, oldest: int) -> bool:
    """Return whether a database has lost our last commit: a log that goes back so far has another there.

    ours: its revision and mark; None: we have made none. found: the mark in the log at that revision; None:
    there is none. oldest: where the log begins.
    """
    return ours is not None and found != ours[1] and (found is not None or ours[0] >= oldest)
