"""What other gateways have served of the open rollouts, added to the counts of the one in charge."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from gateway.control.rollouts.barrier import AGAIN_S, Barrier
from gateway.control.rollouts.barrier import Shared as WithNodes
from gateway.control.rollouts.gates import Missing, failure, not_passed
from gateway.control.rollouts.running import Running
from gateway.control.rollouts.served import Cells, Word, later, served_of, usable_by
from gateway.control.sums import CohortError
from gateway.core.rollout.state import Rollout
from gateway.errors import StoreError
from gateway.link.totals import JudgedTotals
from gateway.log import get_logger
from gateway.store.records import ServedRecord

log = get_logger(component="rollouts")

GATE_S: Final = 15.0
"""How long a test gate waits for the probes of other gateways."""


class CountsElsewhere(Protocol):
    """What is done with it."""

    def take_elsewhere(
        self, incarnation: str, service: str, version: tuple[str, str], cells: Iterable[JudgedTotals]
    ) -> None: ...
    def take_met(self, service: str, run: str, errors: Iterable[tuple[int, CohortError]]) -> None: ...
    def settle(self, service: str) -> None: ...
    def answers_lately(self, version_ids: Iterable[str]) -> int: ...


class Shared(WithNodes, Protocol):
    """Where it is stored."""

    async def served(self, known: Iterable[ServedRecord]) -> list[ServedRecord]: ...
    async def drop_served(self) -> None: ...


class Elsewhere:
    """Reads what is new of it, before each tick."""

    def __init__(self, store: Shared, tally: CountsElsewhere) -> None:
        self._store = store
        self._tally = tally
        self.barrier = Barrier(store)
        self._words: dict[str, dict[str, Word]] = {}
        """What each gateway says of the two versions, by deployment and node."""
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
        """Take rows, again as often as they come; one that does not load is left out.

        Totals may come in any order. How the versions look is what came last: of the processes of one gateway
        the store has the rows in the order in which they began to say something.
        """
        for row in rows:
            if (running := self._judged.get(row.deployment_id)) is not None:
                try:
                    self._take(running, row)
                except StoreError as exc:
                    log.error("served_elsewhere_unread", error=str(exc))
                self._known[row.deployment_id, row.run] = replace(row, data=b"")
        self._known = {key: row for key, row in self._known.items() if key[0] in self._judged}
        self._words = {each: words for each, words in self._words.items() if each in self._judged}

    def usable(self, state: Rollout, own: tuple[bool, bool]) -> tuple[bool, bool]:
        """Return whether the old and the new version count as usable on all gateways that live.

        own: whether they are here.
        """
        words = self._words.get(state.id, {})
        if not words:
            return own
        here = Word(usable=own, lately=self._tally.answers_lately((state.old, state.new)))
        alive = {each.id for each in self.barrier.nodes or () if not each.is_silent and not each.is_leader}
        return usable_by([here, *(word for node, word in words.items() if node in alive)])

    async def gate(self, state: Rollout) -> str:
        """Wait until the new version has passed the probes of every gateway that lives, but not for long.

        Returns who has not found it healthy, and why; empty: nobody. One that says nothing of it, of another
        release, is not asked then. Raises StoreError: nobody knows which gateways there are.
        """
        if not self._store.is_shared:
            return ""
        give_up_at = time.monotonic() + GATE_S
        while missing := await self._not_passed(state.id):
            if time.monotonic() >= give_up_at:
                break
            await asyncio.sleep(AGAIN_S)
        unasked = [name for name, why in missing if not why]
        if unasked:
            log.warning("gate_not_asked", service=state.service, deployment=state.id, nodes=unasked)
        return failure(missing)

    async def _not_passed(self, deployment: str) -> Missing:
        return not_passed(await self.barrier.read(), self._words.get(deployment, {}))

    def _take(self, running: Running, row: ServedRecord) -> None:
        served = served_of(row)
        take_cells(self._tally, running, served.cells, running.windows.floor)
        self._tally.take_met(running.state.service, row.run, served.errors)
        if served.word is not None:
            self._words.setdefault(running.record.id, {})[row.node] = served.word


def take_cells(tally: CountsElsewhere, running: Running, cells: Cells, floor: int) -> None:
    """Let `tally` take what other workers have counted of a rollout, under generations above `floor`."""
    record, state = running.record, running.state
    names = {state.old: record.from_version or state.old, state.new: record.to_version}
    for incarnation, versions in later(cells, floor).items():
        for version_id, theirs in versions.items():
            if theirs and version_id in names:
                version = names[version_id], version_id
                tally.take_elsewhere(incarnation, state.service, version, theirs)
