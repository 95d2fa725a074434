"""Draining a version: no new exchange, what runs finishes, at the deadline the rest is cut.

The store knows that a version drains and until when, so a drain goes on over a restart of control with the
time that is left. Whether it is over, the workers say.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.control.upstreams.drains_elsewhere import DrainedElsewhere, Others, Waiting
from gateway.control.upstreams.drains_here import DrainsHere, Versions
from gateway.control.upstreams.emptying import GRACE_S, Emptying, HubView
from gateway.errors import StaleEpoch, StoreError
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.records import EventRecord, VersionRecord

T = TypeVar("T")

log = get_logger(component="drains")

DRAINING: Final = "version.draining"
"""The kind of the event that a drain begins with."""
AGAIN_S: Final = 1.0
"""Between two tries to store that a version is drained."""


class DrainState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a version's drain has come."""

    state: str
    """`active`, `draining` or `drained`."""
    in_flight: int
    streams: int
    oldest_ms: int
    deadline: datetime | None
    safe_to_stop: bool
    """Nothing runs at it and nothing new will: its process may be stopped."""
    forced: int = 0
    """Exchanges cut at the deadline."""
    waits_for: tuple[str, ...] = ()
    """Other gateways where requests may still run at it, by name."""


class Drains:
    """The drains under way, on the gateway in charge of them."""

    def __init__(
        self,
        store: Store,
        catalog: Versions,
        hub: HubView,
        others: Others | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """others: the gateways that share the store; None: nobody can."""
        self._store = store
        self._catalog = catalog
        self._emptying = Emptying(catalog, hub)
        self._elsewhere = DrainedElsewhere(others) if others is not None and store.is_shared else None
        self.here = DrainsHere(catalog, self._emptying, now)
        """What this gateway does while another one is in charge."""
        self._now = now
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._called_back: dict[str, asyncio.Event] = {}

    async def drain(self, version_id: str, timeout_ms: int) -> None:
        """Drain a version and return when nothing runs at it any more. Asking twice joins the one under way.

        Returns early, without having drained, if the version is called back meanwhile.
        """
        await asyncio.shield(self.begin(version_id, timeout_ms))

    def ordered(self, version_id: str, timeout_ms: int) -> None:
        """Somebody has drained the version here, and it is stored: begin, or have a part in it."""
        if self._store.follows:
            self.here.follow([version_id])
        else:
            self.begin(version_id, timeout_ms)

    def begin(self, version_id: str, timeout_ms: int) -> asyncio.Task[None]:
        """Start draining a version, or join the drain under way. Returns the task that ends with it."""
        before = self._under_way.get(version_id)
        if before is not None and not self._called_back[version_id].is_set():
            return before
        called_back = self._called_back[version_id] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(
            self._drain(version_id, timeout_ms, called_back, before), name=f"drain {version_id}"
        )
        self._under_way[version_id] = task
        task.add_done_callback(partial(self._ended, version_id))
        return task

    def _ended(self, version_id: str, task: asyncio.Task[None]) -> None:
        if self._under_way.get(version_id) is task:
            del self._under_way[version_id], self._called_back[version_id]
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("drain_failed", **self._about(version_id), error=repr(exc))

    def _about(self, version_id: str) -> dict[str, str]:
        """Return what a log event says of a version, which may be deleted by now."""
        try:
            record = self._catalog.version_record(version_id)
        except KeyError:
            return {"version": version_id}
        return {"service": record.service_name, "version": record.version}

    def call_back(self, version_id: str) -> None:
        """End a drain without finishing it: the version has weight again.

        A worker whose link comes back is not told of the drain any more, even if it is it that is waited for.
        """
        event = self._called_back.get(version_id)
        if event is not None and not event.is_set():
            event.set()
            self._emptying.forget(version_id)

    def state(self, version_id: str) -> DrainState:
        """Return how far the version's drain has come."""
        record = self._catalog.version_record(version_id)
        load = self._emptying.load(version_id)
        drained = record.drained
        return DrainState(
            state="drained" if drained else "draining" if record.draining else "active",
            in_flight=0 if drained else load.in_flight,
            streams=0 if drained else load.streams,
            oldest_ms=0 if drained else load.oldest_ms,
            deadline=record.drain_deadline,
            safe_to_stop=drained,
            forced=load.forced,
            waits_for=self._elsewhere.held.get(version_id, ()) if self._elsewhere is not None else (),
        )

    def recover(self, versions: Iterable[VersionRecord]) -> None:
        """Go on with the drains a former control began, unless what is in force has called them back.

        versions: as stored. A rollback that was not stored has given one of them all the traffic.
        """
        for each in versions:
            try:
                record = self._catalog.version_record(each.id)
            except KeyError:
                continue  # of a service that the file no longer declares
            if record.draining and not record.drained:
                self.begin(record.id, 0)  # the stored deadline stands

    async def stop(self) -> None:
        """Leave every drain to the next control."""
        for task in list(self._under_way.values()):
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _drain(
        self,
        version_id: str,
        timeout_ms: int,
        called_back: asyncio.Event,
        before: asyncio.Task[None] | None,
    ) -> None:
        """before: a drain that was called back, and tidies up."""
        if before is not None:
            await asyncio.wait({before})
        if self._catalog.version_record(version_id).drained:
            return  # whoever asked was killed before it knew
        try:
            left_s = await self._marked(version_id, timeout_ms, called_back)
            if left_s is None or called_back.is_set():  # also while the disk took its time
                return
            over_at = time.monotonic() + left_s + GRACE_S
            record, revision = self._catalog.version_record(version_id), self._store.revision
            forced = await self._emptying.empty(version_id, left_s, lambda: not called_back.is_set())
            if self._elsewhere is not None:
                waiting = await self._waiting(record, revision, called_back)
                await self._elsewhere.passed(waiting, over_at - time.monotonic(), called_back)
            if not called_back.is_set():
                await self._for_sure(version_id, lambda: self._settle(version_id, forced))
        finally:
            if not called_back.is_set():
                self._emptying.forget(version_id)

    async def _waiting(self, record: VersionRecord, revision: int, called_back: asyncio.Event) -> Waiting:
        """Return what is asked of other gateways of a drain that is stored. revision: when, or later."""
        return Waiting(
            service=record.service_name,
            version=record.version,
            version_id=record.id,
            revision=revision,
            began=await self._began(record, called_back),
        )

    async def _began(self, record: VersionRecord, called_back: asyncio.Event) -> datetime:
        """Return since when the version drains: its row may have been changed since, the event says it.

        A store that fails is asked again until the drain is called back. Where no such event is left, since
        there is such a version: rather wait for too many.
        """

        async def read() -> Sequence[EventRecord]:
            if called_back.is_set():
                return ()
            return await self._store.newest_events(service=record.service_name, kinds=(DRAINING,))

        deadline = record.drain_deadline.isoformat() if record.drain_deadline is not None else ""
        for event in reversed(await self._for_sure(record.id, read)):
            if (event.version, event.data.get("deadline")) == (record.version, deadline):
                return event.at
        return record.created_at

    async def _marked(self, version_id: str, timeout_ms: int, called_back: asyncio.Event) -> float | None:
        """Mark it, as `_mark` does. Who begins a drain hears that it could not be stored, and asks again; of
        one that goes on nobody does.
        """
        if not self._catalog.version_record(version_id).draining:
            return await self._mark(version_id, timeout_ms, called_back)
        return await self._for_sure(version_id, lambda: self._mark(version_id, timeout_ms, called_back))

    async def _mark(self, version_id: str, timeout_ms: int, called_back: asyncio.Event) -> float | None:
        """Store that the version drains, unless it is stored already.

        Returns the seconds that are left, all of them once it is stored, however long that took: nothing has
        been told to end by then. None if it was called back while others wrote: it may have all the traffic
        now. One that is called back while this is being stored is stored all the same; then the rollback is.
        """
        async with self._store.transaction() as tx:
            if called_back.is_set():
                return None
            record = self._catalog.version_record(version_id)
            if record.draining and record.drain_deadline is not None:
                return max(0.0, (record.drain_deadline - self._now()).total_seconds())
            now = self._now()
            deadline = now + timedelta(milliseconds=timeout_ms)
            marked = replace(
                record, draining=True, drained=False, drain_deadline=deadline, weight=0, updated_at=now
            )
            tx.put_version(marked)
            tx.add_event(_event(marked, DRAINING, now, {"deadline": deadline.isoformat()}))
            tx.on_commit(lambda: self._catalog.put_version(marked))
            return timeout_ms / 1000

    async def _for_sure(self, version_id: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the store; one that fails is asked until it does not, or another control is in charge."""
        while True:
            try:
                return await ask()
            except StaleEpoch:
                raise
            except StoreError as exc:
                log.error("drain_not_stored", **self._about(version_id), error=str(exc), next_in_s=AGAIN_S)
                await asyncio.sleep(AGAIN_S)

    async def _settle(self, version_id: str, forced: int) -> None:
        async with self._store.transaction() as tx:
            record = self._catalog.version_record(version_id)
            if not record.draining:
                return
            now = self._now()
            drained = replace(record, drained=True, updated_at=now)
            tx.put_version(drained)
            tx.add_event(_event(drained, "version.drained", now, {"forced": forced}))
            tx.on_commit(lambda: self._catalog.put_version(drained))
        log.info("version_drained", service=record.service_name, version=record.version, forced=forced)


def _event(record: VersionRecord, kind: str, at: datetime, data: dict[str, object]) -> EventRecord:
    return EventRecord(at=at, kind=kind, service=record.service_name, version=record.version, data=data)
