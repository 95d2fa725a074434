"""From the tally's running totals to the judge's windows, and to the rows kept for replay."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from gateway.core.judge.window import Cell, KeyError64, Window, merge
from gateway.store.records import WindowRecord

ROW_S: Final = 10.0
"""How many seconds a stored row holds at the most."""


class JudgedTotal(Protocol):
    """First attempts of one version at one (generation, share), since counting began."""

    @property
    def answers(self) -> int: ...
    @property
    def errors(self) -> Mapping[str, int]: ...
    @property
    def latency(self) -> Mapping[int, int]: ...


Key = tuple[str, int, int]
"""(version id, generation, share in hundredths of a percent)."""
Judged = Mapping[Key, JudgedTotal]


class OpenRow(msgspec.Struct, frozen=True):
    """A row being gathered. generation: the service's, when the last one ended."""

    gathered: Window | None = None
    generation: int = -1


class Windows:
    """Cuts one rollout's windows: differences of totals, a second each, gathered into rows of ten."""

    def __init__(self, deployment_id: str, old: str, new: str) -> None:
        self._deployment_id = deployment_id
        self._old = old
        self._new = new
        self._last: dict[Key, Cell] = {}
        self._gathered: Window | None = None
        self._generation = -1

    def start_from(self, judged: Judged) -> None:
        """Count from here: what was counted before belongs to no window of this rollout."""
        self._last = {key: _cell(key, total) for key, total in judged.items()}

    def close(
        self,
        judged: Judged,
        cohort_errors: Iterable[tuple[str, int, int, int, str]],
        *,
        seconds: float,
        usable: tuple[bool, bool],
        percent: int,
    ) -> Window:
        """Return what came since the last window.

        cohort_errors: (version id, generation, share, key, kind) of users who met an error. usable: (old,
        new), at the end.
        """
        cells: dict[str, list[Cell]] = {self._old: [], self._new: []}
        for key, total in judged.items():
            if key[0] not in cells:
                continue
            before = self._last.get(key)
            if before is not None and before.answers == total.answers:
                continue  # most: the weights of earlier steps
            now = self._last[key] = _cell(key, total)
            cell = _difference(now, before)
            if cell is not None:
                cells[key[0]].append(cell)
        met: dict[str, list[KeyError64]] = {self._old: [], self._new: []}
        for version, generation, share, user, kind in cohort_errors:
            if version in met:
                met[version].append(KeyError64(generation, share, user, kind))
        window = Window(
            seconds=seconds,
            old=tuple(cells[self._old]),
            new=tuple(cells[self._new]),
            old_keys=tuple(met[self._old]),
            new_keys=tuple(met[self._new]),
            old_usable=usable[0],
            new_usable=usable[1],
            percent=percent,
        )
        self._gathered = window if self._gathered is None else merge((self._gathered, window))
        return window

    @property
    def open_row(self) -> OpenRow:
        """What was gathered for rows that are not full yet."""
        return OpenRow(self._gathered, self._generation)

    def go_on(self, row: OpenRow) -> None:
        """Gather on where another process was."""
        self._gathered, self._generation = row.gathered, row.generation

    def rows(self, now: datetime, generation: int) -> list[WindowRecord]:
        """Return the rows that are full: ten seconds, or less where the weights have changed. generation: the
        service's.
        """
        seconds = self._gathered.seconds if self._gathered is not None else 0.0
        if seconds < ROW_S and generation == self._generation:
            return []
        self._generation = generation
        return self.last_rows(now)

    def last_rows(self, now: datetime) -> list[WindowRecord]:
        """Return all that was gathered, full or not."""
        whole, self._gathered = self._gathered, None
        if whole is None:
            return []
        return [
            WindowRecord(
                deployment_id=self._deployment_id,
                version_id=version,
                generation=cell.generation,
                share=cell.share,
                started_at=now - timedelta(seconds=whole.seconds),
                seconds=whole.seconds,
                answers=cell.answers,
                errors=cell.errors,
                latency=cell.latency,
            )
            for version, cells in ((self._old, whole.old), (self._new, whole.new))
            for cell in cells
        ]


def cells_of(judged: Judged, version: str) -> list[Cell]:
    """Return all that was counted of one version, a cell for each of its weights."""
    return [_cell(key, total) for key, total in judged.items() if key[0] == version]


def _cell(key: Key, total: JudgedTotal) -> Cell:
    return Cell(
        generation=key[1],
        share=key[2],
        answers=total.answers,
        errors=dict(total.errors),
        latency=dict(total.latency),
    )


def _difference(now: Cell, before: Cell | None) -> Cell | None:
    """Return what came between two totals; None if nothing did."""
    if before is None:
        return now if now.answers else None
    return Cell(
        generation=now.generation,
        share=now.share,
        answers=now.answers - before.answers,
        errors={
            kind: count - before.errors.get(kind, 0)
            for kind, count in now.errors.items()
            if count > before.errors.get(kind, 0)
        },
        latency={
            bucket: count - before.latency.get(bucket, 0)
            for bucket, count in now.latency.items()
            if count > before.latency.get(bucket, 0)
        },
    )
