"""Drains on a gateway that follows: it cuts at the stored deadline too, and says where requests still run.

Nothing is stored from here. What its beat says, the one in charge reads before it calls a version drained.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from gateway.control.upstreams.emptying import GRACE_S, CatalogView, Emptying
from gateway.log import get_logger
from gateway.store.records import VersionRecord

log = get_logger(component="drains")

Drain = tuple[str, datetime | None]
"""A version's id and the deadline: one that drains again has another."""


class Versions(CatalogView, Protocol):
    """What is in memory."""

    def has_version(self, version_id: str) -> bool: ...
    def version_records(self) -> Iterable[VersionRecord]: ...


def still_draining(versions: Iterable[VersionRecord], emptied: Collection[Drain]) -> dict[str, Drain]:
    """Return the drains, by version, that are not over here: of all that is in memory, but for what was found
    empty. So none is missed that is there, however it came there.
    """
    drains = {each.id: drain_of(each) for each in versions if each.draining and not each.drained}
    return {version_id: drain for version_id, drain in drains.items() if drain not in emptied}


def drain_of(version: VersionRecord) -> Drain:
    """Return which drain of the version is under way."""
    return version.id, version.drain_deadline


class DrainsHere:
    """The drains that another gateway is in charge of, as far as this one has a part in them."""

    def __init__(self, catalog: Versions, emptying: Emptying, now: Callable[[], datetime]) -> None:
        """now: by the clock that the deadlines are of."""
        self.on_emptied: Callable[[], object] = lambda: None
        """Called when nothing runs any more at a version here: somebody may wait to hear it."""
        self._catalog = catalog
        self._emptying = emptying
        self._now = now
        self._emptied: set[Drain] = set()
        self._under_way: dict[str, tuple[Drain, asyncio.Task[None]]] = {}

    def busy(self) -> tuple[str, ...]:
        """Return the ids of the versions that drain and where requests may still run here."""
        versions = [each for each in self._catalog.version_records() if each.draining]
        self._emptied &= set(map(drain_of, versions))
        return tuple(still_draining(versions, {each for each in self._emptied if not self._runs_on(each)}))

    def _runs_on(self, drain: Drain) -> bool:
        """Whether what was found empty is not: in an upgrade workers of the predecessor may come later."""
        version_id, deadline = drain
        if deadline is None or self._now() > deadline + timedelta(seconds=GRACE_S):
            return False
        return self._emptying.load(version_id).in_flight > 0

    def follow(self, version_ids: Iterable[str]) -> None:
        """Have a part in the drains of those that drain, as they are in memory now; again changes nothing."""
        known = [each for each in version_ids if self._catalog.has_version(each)]
        found = still_draining(map(self._catalog.version_record, known), self._emptied)
        for version_id, drain in found.items():
            before = self._under_way.get(version_id)
            if drain[1] is None or (before is not None and before[0] == drain):
                continue  # without a deadline the one in charge gives it one
            task = asyncio.get_running_loop().create_task(
                self._empty(version_id, drain[1], before and before[1]), name=f"drain {version_id} here"
            )
            self._under_way[version_id] = drain, task
            task.add_done_callback(partial(self._ended, version_id))

    async def stop(self) -> None:
        """Leave them to whoever is next; deadlines that workers know of stand."""
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _empty(self, version_id: str, deadline: datetime, before: asyncio.Task[None] | None) -> None:
        """before: of an earlier drain of the same version, which was called back and tidies up."""
        if before is not None:
            await asyncio.wait({before})
        drain = version_id, deadline
        if not self._is_under_way(drain):
            return
        record = self._catalog.version_record(version_id)
        left_s = max(0.0, (deadline - self._now()).total_seconds())
        try:
            forced = await self._emptying.empty(version_id, left_s, lambda: self._is_under_way(drain))
            if self._is_under_way(drain):
                self._emptied.add(drain)
                log.info("drained_here", service=record.service_name, version=record.version, forced=forced)
                self.on_emptied()
        finally:
            self._emptying.forget(version_id)

    def _is_under_way(self, drain: Drain) -> bool:
        if not self._catalog.has_version(drain[0]):
            return False
        record = self._catalog.version_record(drain[0])
        return record.draining and not record.drained and drain_of(record) == drain

    def _ended(self, version_id: str, task: asyncio.Task[None]) -> None:
        if version_id in self._under_way and self._under_way[version_id][1] is task:
            del self._under_way[version_id]
        if task.cancelled() or (exc := task.exception()) is None:
            return
        known = self._catalog.has_version(version_id)
        record = self._catalog.version_record(version_id) if known else None
        about = {"service": record.service_name, "version": record.version} if record else {}
        log.error("drain_failed", **about, error=repr(exc))
