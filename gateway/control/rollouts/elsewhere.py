"""What other gateways have served of the open rollouts, added to the counts of the one in charge."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec.structs import replace

from gateway.control.rollouts.running import Running
from gateway.control.rollouts.served import later, served_of
from gateway.control.sums import CohortError
from gateway.errors import StoreError
from gateway.link.totals import JudgedTotals
from gateway.log import get_logger
from gateway.store.records import ServedRecord

log = get_logger(component="rollouts")


class CountsElsewhere(Protocol):
    """What is done with it."""

    def take_elsewhere(
        self, incarnation: str, service: str, version: tuple[str, str], cells: Iterable[JudgedTotals]
    ) -> None: ...
    def take_met(self, service: str, run: str, errors: Iterable[tuple[int, CohortError]]) -> None: ...
    def settle(self, service: str) -> None: ...


class Shared(Protocol):
    """Where it is stored."""

    @property
    def is_shared(self) -> bool: ...
    async def served(self, known: Iterable[ServedRecord]) -> list[ServedRecord]: ...
    async def drop_served(self) -> None: ...


class Elsewhere:
    """Reads what is new of it, before each tick."""

    def __init__(self, store: Shared, tally: CountsElsewhere) -> None:
        self._store = store
        self._tally = tally
        self._known: dict[tuple[str, str], ServedRecord] = {}
        """The newest row taken, by deployment and process."""
        self._judged: dict[str, Running] = {}
        """Rollouts whose rows are looked for, by deployment."""
        self._reading: asyncio.Task[None] | None = None
        self._reads = 0

    async def look(self, rollouts: Iterable[Running], patience_s: float) -> None:
        """Take what is new, unless the store needs longer: then the next look finds it taken."""
        if not self._store.is_shared:
            return
        found = {running.record.id: running for running in rollouts}
        ended = [running for each, running in self._judged.items() if each not in found]
        self._judged = found
        for running in ended:
            self._tally.settle(running.state.service)
        if self._reading is None:
            if not found and not ended:
                return
            work = self._read(is_over=bool(ended))
            self._reading = asyncio.get_running_loop().create_task(work, name="elsewhere")
        await asyncio.wait({self._reading}, timeout=patience_s)
        if self._reading.done():
            reading, self._reading = self._reading, None
            reading.result()

    async def _read(self, *, is_over: bool) -> None:
        try:
            rows = await self._store.served(self._known.values())
            self.take(rows)
            self._reads += 1
            # What we said ourselves, before we were in charge, is in our counts since the first read.
            if self._reads == 2 or is_over or any(row.deployment_id not in self._judged for row in rows):
                await self._store.drop_served()
        except StoreError as exc:
            log.warning("served_elsewhere_unread", error=str(exc))

    def take(self, rows: Sequence[ServedRecord]) -> None:
        """Take rows, in any order, and again as often as they come; one that does not load is left out."""
        for row in rows:
            if (running := self._judged.get(row.deployment_id)) is not None:
                try:
                    self._take(running, row)
                except StoreError as exc:
                    log.error("served_elsewhere_unread", error=str(exc))
                self._known[row.deployment_id, row.run] = replace(row, data=b"")
        self._known = {key: row for key, row in self._known.items() if key[0] in self._judged}

    def _take(self, running: Running, row: ServedRecord) -> None:
        record, state, served = running.record, running.state, served_of(row)
        names = {state.old: record.from_version or state.old, state.new: record.to_version}
        for incarnation, versions in later(served.cells, running.windows.floor).items():
            for version_id, cells in versions.items():
                if cells and version_id in names:
                    version = names[version_id], version_id
                    self._tally.take_elsewhere(incarnation, state.service, version, cells)
        self._tally.take_met(state.service, row.run, served.errors)
