"""Draining a version: no new exchange, what runs finishes, at the deadline the rest is cut.

The store knows that a version drains and until when, so a drain goes on over a restart of control with the
time that is left. Whether it is over, the workers say.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.errors import StaleEpoch, StoreError
from gateway.link.messages import EndpointLoad
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.records import EventRecord, VersionRecord

log = get_logger(component="drains")

REPORT_S: Final = 0.1
"""Workers report this often while something drains."""
GRACE_S: Final = 2.0
"""After the deadline: what a worker has not reported gone by then died with it."""

AGAIN_S: Final = 1.0
"""Between two tries to store that a version is drained."""


class CatalogView(Protocol):
    """What draining needs of the catalog."""

    def version_record(self, version_id: str) -> VersionRecord: ...
    def put_version(self, record: VersionRecord) -> None: ...
    def publish(self, names: Iterable[str]) -> int: ...
    def endpoint_keys(self, version_id: str) -> tuple[str, ...]: ...


class HubView(Protocol):
    """What draining needs of the links."""

    async def applied(self, number: int, timeout_s: float) -> list[int]: ...
    def drain_endpoints(self, keys: Sequence[str], deadline_s: float) -> None: ...
    def drain_state(self, keys: Iterable[str]) -> Mapping[str, EndpointLoad]: ...
    def forget_endpoints(self, keys: Iterable[str]) -> None: ...


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


class Drains:
    """The drains under way in this process."""

    def __init__(
        self,
        store: Store,
        catalog: CatalogView,
        hub: HubView,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._hub = hub
        self._now = now
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._called_back: dict[str, asyncio.Event] = {}

    async def drain(self, version_id: str, timeout_ms: int) -> None:
        """Drain a version and return when nothing runs at it any more. Asking twice joins the one under way.

        Returns early, without having drained, if the version is called back meanwhile.
        """
        await asyncio.shield(self.begin(version_id, timeout_ms))

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
        """End a drain without finishing it: the version has weight again."""
        event = self._called_back.get(version_id)
        if event is not None:
            event.set()

    def state(self, version_id: str) -> DrainState:
        """Return how far the version's drain has come."""
        record = self._catalog.version_record(version_id)
        loads = self._hub.drain_state(self._catalog.endpoint_keys(version_id)).values()
        drained = record.drained
        return DrainState(
            state="drained" if drained else "draining" if record.draining else "active",
            in_flight=0 if drained else sum(load.in_flight for load in loads),
            streams=0 if drained else sum(load.streams for load in loads),
            oldest_ms=0 if drained else max((load.oldest_ms for load in loads), default=0),
            deadline=record.drain_deadline,
            safe_to_stop=drained,
            forced=sum(load.forced for load in loads),
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
            left_s = await self._mark(version_id, timeout_ms, called_back)
            if left_s is None or called_back.is_set():  # also while the disk took its time
                return
            service = self._catalog.version_record(version_id).service_name
            number = self._catalog.publish([service])
            keys = self._catalog.endpoint_keys(version_id)
            self._hub.drain_endpoints(keys, left_s)
            await self._hub.applied(number, 5.0)
            forced = await self._empty(keys, left_s + GRACE_S, called_back)
            if not called_back.is_set():
                await self._settle_for_sure(version_id, forced)
        finally:
            self._hub.forget_endpoints(self._catalog.endpoint_keys(version_id))

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
            tx.add_event(_event(marked, "version.draining", now, {"deadline": deadline.isoformat()}))
            tx.on_commit(lambda: self._catalog.put_version(marked))
            return timeout_ms / 1000

    async def _empty(self, keys: Sequence[str], timeout_s: float, called_back: asyncio.Event) -> int:
        """Wait until the workers report nothing at `keys`. Returns how many exchanges were cut."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        while not called_back.is_set() and loop.time() < ends_at:
            loads = self._hub.drain_state(keys)
            if all(key in loads and loads[key].in_flight == 0 for key in keys):
                break
            await _pause(called_back, REPORT_S)
        return sum(load.forced for load in self._hub.drain_state(keys).values())

    async def _settle_for_sure(self, version_id: str, forced: int) -> None:
        """Settle; a store that cannot write is asked until it can, or another control is in charge."""
        while True:
            try:
                await self._settle(version_id, forced)
            except StaleEpoch:
                raise
            except StoreError as exc:
                log.error("drain_not_stored", **self._about(version_id), error=str(exc), next_in_s=AGAIN_S)
                await asyncio.sleep(AGAIN_S)
            else:
                return

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


async def _pause(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _event(record: VersionRecord, kind: str, at: datetime, data: dict[str, object]) -> EventRecord:
    return EventRecord(at=at, kind=kind, service=record.service_name, version=record.version, data=data)
