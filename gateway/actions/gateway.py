"""What operators may do with the gateway itself: events, audit, tokens, freeze, upgrade."""

import os
from datetime import datetime

import msgspec
from msgspec.structs import replace

from gateway.actions.access import Access, Actor, require_unscoped
from gateway.actions.bodies import Freeze
from gateway.control.rollouts.rows import FreezeState, ScheduledFreeze
from gateway.core.settings.freeze_window import FreezeWindow, in_force, upcoming
from gateway.store.api import Page
from gateway.store.records import AuditRecord, EventRecord


class WorkerSeen(msgspec.Struct, frozen=True, rename="camel"):
    """One worker. applied: number of the snapshot it serves by."""

    slot: int
    pid: int
    applied: int


class GatewayInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The control process in charge."""

    node: str
    """What it is called among those that share its store."""
    pid: int
    epoch: int
    release: str
    native: str
    """What of the data plane is compiled: `all`, the head `codec`, or `none`."""
    table: int
    """Number of the newest routing table: a worker that has applied it goes by all that was answered."""
    workers: list[WorkerSeen]
    frozen: bool


class Gateway:
    """Everything about the gateway itself."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def info(self) -> GatewayInfo:
        """Return the process in charge and its workers."""
        workers = self._access.hub.workers()
        return GatewayInfo(
            node=self._access.node,
            pid=os.getpid(),
            epoch=self._access.store.epoch,
            release=self._access.release,
            native=self._access.native,
            table=self._access.catalog.number,
            workers=[WorkerSeen(worker.slot, worker.pid, worker.applied) for worker in workers],
            frozen=bool(self._access.why_frozen()),
        )

    async def upgrade(self, actor: Actor) -> GatewayInfo:
        """Hand over to a control started from the code now on disk. Returns what is known of it."""
        info = await self.info()
        async with self._access.change(actor, "gateway.upgrade", "", {"from": info.pid}):
            require_unscoped(actor, "an upgrade of the gateway")
        pid = await self._access.upgrade()
        is_anothers = self._access.store.follows
        return replace(info, pid=pid, epoch=info.epoch if is_anothers else info.epoch + 1)

    # -- what happened

    async def events(
        self, *, after: int | None = None, limit: int = 100, service: str | None = None
    ) -> list[EventRecord]:
        """Return events, oldest first. after: an event's id; None: the newest `limit`, of that service."""
        if after is None:
            return await self._access.store.newest_events(limit=limit, service=service)
        return await self._access.store.events(after=after, limit=limit, service=service)

    async def audit(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        actor: str | None = None,
        action: str | None = None,
    ) -> Page[AuditRecord]:
        """Return the audit trail, newest first."""
        return await self._access.store.audit(cursor=cursor, limit=limit, actor=actor, action=action)

    # -- freeze

    async def get_freeze(self) -> FreezeState:
        """Return whether changes are frozen, by a person or by schedule, and what is scheduled."""
        return self._seen(self._access.rollouts.freeze_state)

    def _seen(self, state: FreezeState) -> FreezeState:
        """Return a person's freeze with what the schedule has to say."""
        now, schedule = self._access.now(), self._access.rollouts.schedule
        current = schedule.in_force()
        windows = [_scheduled(each, now) for each in schedule.windows]
        for name, entry in self._access.catalog.services.items():
            windows += [_scheduled(each, now, name) for each in entry.record.settings.freeze_windows]
        if current is not None and not state.frozen:
            state = FreezeState(
                frozen=True, reason=current.title, actor="schedule", at=current.start, until=current.end
            )
        return replace(state, windows=tuple(windows))

    async def put_freeze(self, actor: Actor, body: Freeze) -> FreezeState:
        """Refuse starts and hold advances, or allow them again. Rollbacks always work."""
        state = FreezeState(frozen=body.frozen, reason=body.reason, actor=actor.name, at=self._access.now())
        details = {"frozen": body.frozen, "reason": body.reason}
        async with self._access.change(actor, "freeze.put", "", details) as tx:
            require_unscoped(actor, "a freeze")
            self._access.rollouts.freeze(tx, state)
            kind = "gateway.frozen" if body.frozen else "gateway.thawed"
            self._access.add_event(tx, kind, actor, reason=body.reason)
        return self._seen(state)


def _scheduled(window: FreezeWindow, now: datetime, service: str = "") -> ScheduledFreeze:
    current = in_force([window], now)
    shown = current or upcoming(window, now)
    return ScheduledFreeze(
        service=service,
        cron=window.cron,
        duration=window.duration,
        tz=window.tz,
        reason=window.reason,
        in_force=current is not None,
        start=shown.start if shown else None,
        end=shown.end if shown else None,
    )
