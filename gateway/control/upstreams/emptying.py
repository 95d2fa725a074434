"""What still runs on this gateway at a version that drains: it may finish until the deadline, and is cut.

The same for the gateway in charge and for one that follows.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from gateway.link.messages import EndpointLoad
from gateway.store.records import VersionRecord

REPORT_S: Final = 0.1
"""Workers report this often while something drains."""
GRACE_S: Final = 2.0
"""After the deadline: what a worker has not reported gone by then died with it."""
APPLY_S: Final = 5.0
"""How long a worker is waited for that does not take the table."""


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


class Load(msgspec.Struct, frozen=True):
    """What runs at a version here, as far as the workers have said."""

    in_flight: int
    streams: int
    oldest_ms: int
    forced: int
    """Exchanges cut at the deadline."""
    is_known: bool
    """Whether every worker has said so of each of its endpoints."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs there any more."""
        return self.is_known and self.in_flight == 0


class Emptying:
    """Has the workers of this gateway come to an end with a version, and hears when they have."""

    def __init__(self, catalog: CatalogView, hub: HubView) -> None:
        self._catalog = catalog
        self._hub = hub

    def load(self, version_id: str) -> Load:
        """Return what runs at the version here."""
        return self._load_at(self._catalog.endpoint_keys(version_id))

    def _load_at(self, keys: Sequence[str]) -> Load:
        found = self._hub.drain_state(keys)
        loads = found.values()
        return Load(
            in_flight=sum(load.in_flight for load in loads),
            streams=sum(load.streams for load in loads),
            oldest_ms=max((load.oldest_ms for load in loads), default=0),
            forced=sum(load.forced for load in loads),
            is_known=all(key in found for key in keys),
        )

    async def empty(self, version_id: str, left_s: float, is_wanted: Callable[[], bool]) -> int:
        """Send the table that says that the version drains, have what runs there cut after `left_s` seconds,
        and return once nothing does.

        is_wanted: whether it still drains. Returns how many exchanges were cut. `forget` comes last.
        """
        loop = asyncio.get_running_loop()
        number = self._catalog.publish([self._catalog.version_record(version_id).service_name])
        keys = self._catalog.endpoint_keys(version_id)
        self._hub.drain_endpoints(keys, left_s)
        await self._hub.applied(number, APPLY_S)
        ends_at = loop.time() + left_s + GRACE_S
        while is_wanted() and loop.time() < ends_at:
            if self._load_at(keys).is_empty:
                break
            await asyncio.sleep(REPORT_S)
        return self._load_at(keys).forced

    def forget(self, version_id: str) -> None:
        """The version is drained, gone, or in use again: new workers hear of no deadline."""
        self._hub.forget_endpoints(self._catalog.endpoint_keys(version_id))
