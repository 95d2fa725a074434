"""Stores what this gateway serves of open rollouts, while another one is in charge and judges."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from gateway.control.rollouts.elsewhere import take_cells
from gateway.control.rollouts.gates import GatesHere
from gateway.control.rollouts.rows import Asked, asked_of
from gateway.control.rollouts.running import Running
from gateway.control.rollouts.served import Cells, Served, Word, encoded, later, together, untaken
from gateway.control.sums import CohortError
from gateway.control.tally import Tally
from gateway.control.upstreams.drains_elsewhere import pause
from gateway.core.rollout.state import Phase, Rollout
from gateway.errors import StoreError
from gateway.link.totals import VersionTotals
from gateway.log import get_logger
from gateway.store.records import ServedRecord

log = get_logger(component="rollouts")

REPORT_S: Final = 1.0
MAX_ERRORS: Final = 10_000
"""Errors of sticky users kept for each rollout until they are taken; further ones are dropped."""

Numbered = list[tuple[int, CohortError]]


class Shared(Protocol):
    """Where it is stored."""

    def now(self) -> datetime: ...
    async def put_served(self, records: Sequence[ServedRecord]) -> None: ...


class CatalogView(Protocol):
    """How the versions look from here."""

    def is_usable(self, version_id: str) -> bool: ...
    def is_healthy(self, version_id: str) -> bool: ...


class Reporting:
    """One process of a gateway that follows."""

    def __init__(
        self,
        store: Shared,
        tally: Tally,
        rollouts: Callable[[], Iterable[Running]],
        catalog: CatalogView,
        gates: GatesHere,
        *,
        node: str,
    ) -> None:
        """rollouts: those that are open. node: this gateway's id."""
        self._catalog = catalog
        self._gates = gates
        self._news = asyncio.Event()
        gates.on_news = self._news.set
        # Earlier releases say it by either clock: of two processes here the later one has to win by both.
        self._begun = max(store.now().timestamp(), time.time())
        self._store = store
        self._tally = tally
        self._rollouts = rollouts
        self._node = node
        self._run = secrets.token_hex(8)
        """Which process this is: two of one gateway are two rows."""
        self._ended: Cells = {}
        """The last totals of workers that ended meanwhile."""
        self._errors: dict[str, Numbered] = {}
        """By deployment: of sticky users, and not taken as far as we know."""
        self._number = 0
        self._serial = 0
        self._stored: dict[str, bytes] = {}
        """By deployment: what was said last."""
        tally.on_ending = self._keep

    async def run(self) -> None:
        """Say it once a second for as long as this runs, and what a gate's probes found at once; what the
        store does not take is said later.
        """
        self._gates.begin()
        try:
            while True:
                started = time.monotonic()
                self._news.clear()
                try:
                    await self.report()
                except StoreError as exc:
                    log.warning("served_not_stored", error=str(exc))
                await pause(self._news, max(0.05, REPORT_S - (time.monotonic() - started)))
        finally:
            await self._gates.stop()

    async def report(self) -> None:
        """Say it once, of every rollout of which there is more to say. Raises StoreError."""
        rollouts = list(self._rollouts())
        self._gates.follow(running.state for running in rollouts)
        said = {running.record.id: self._served(running) for running in rollouts}
        news = {each: data for each, data in said.items() if data and data != self._stored.get(each)}
        self._serial += 1
        await self._store.put_served([self._row(each, data) for each, data in news.items()])
        self._stored = said
        self._errors = {each: errors for each, errors in self._errors.items() if each in said}
        if not rollouts:
            self._ended = {}

    def give_back(self) -> None:
        """We are in charge now: leave all that was not taken of ours to our own tally, before it loads."""
        self._tally.on_ending = lambda incarnation, last: None
        for running in self._rollouts():
            state, asked = running.state, asked_of(running.record)
            errors = [error for _, error in self._errors.get(running.record.id, [])]
            self._tally.give_back(state.service, (state.old, state.new), errors)
            if asked is not None and asked.floor is not None:
                take_cells(self._tally, running, self._ended, asked.floor)

    def _served(self, running: Running) -> bytes:
        """Return what is to be said of a rollout; empty: nothing."""
        state, asked = running.state, asked_of(running.record)
        if asked is None or asked.floor is None:  # nobody in charge has taken it up, or has asked for counts
            return encoded(Served({}, [], self._word(state))) if state.phase is Phase.GATE else b""
        versions = {state.old, state.new}
        ended = {
            incarnation: {each: last[each] for each in versions & last.keys()}
            for incarnation, last in self._ended.items()
        }
        cells = together(later(ended, asked.floor), self._tally.cells_above(versions, asked.floor))
        errors = self._untaken(running, asked)
        return encoded(Served(cells, errors, self._word(state)))

    def _word(self, state: Rollout) -> Word:
        return Word(
            self._begun,
            (self._catalog.is_usable(state.old), self._catalog.is_usable(state.new)),
            self._catalog.is_healthy(state.new),
            self._tally.answers_lately((state.old, state.new)),
            self._gates.word(state.id) if state.phase is Phase.GATE else None,
        )

    def _untaken(self, running: Running, asked: Asked) -> Numbered:
        """Return the errors that sticky users met, and the judge has not taken yet."""
        taken = asked.counted.met.get(self._run, 0)
        errors = untaken(self._errors.get(running.record.id, []), taken)
        for error in self._tally.take_cohort_errors(running.state.service):
            if error[1] > (asked.floor or 0) and len(errors) < MAX_ERRORS:
                self._number += 1
                errors.append((self._number, error))
        self._errors[running.record.id] = errors
        return errors

    def _row(self, deployment_id: str, data: bytes) -> ServedRecord:
        return ServedRecord(
            deployment_id=deployment_id, run=self._run, node=self._node, serial=self._serial, data=data
        )

    def _keep(self, incarnation: str, last: Mapping[str, VersionTotals]) -> None:
        """A worker has ended: the tally adds up what it has counted, and we must say it apart."""
        cells = {version_id: list(totals.judged) for version_id, totals in last.items()}
        self._ended = together(self._ended, {incarnation: cells})
