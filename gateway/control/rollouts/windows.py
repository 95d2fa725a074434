"""From the tally's running totals to the judge's windows, and to the rows kept for replay."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.core.judge.window import Cell, KeyError64, Window, merge
from gateway.store.records import WindowRecord

ROW_S: Final = 10.0
"""How many seconds a stored row holds at the most …"""
FINE_ROW_S: Final = 0.5
"""… and while a rollout is young, when it is watched: each tick is a row."""
FINE_FOR: Final = timedelta(minutes=5)
MAX_PENDING: Final = 10
"""Windows kept apart while nothing can be committed; beyond that, neighbours are joined."""


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
    """Cuts one rollout's windows: differences of totals, about a second each, gathered into rows of ten.

    A closed window is pending until a state that was made of it is in force: if its commit fails, the next
    one is made of it again.
    """

    def __init__(self, deployment_id: str, old: str, new: str) -> None:
        self._deployment_id = deployment_id
        self._old = old
        self._new = new
        self._last: dict[Key, Cell] = {}
        self._pending: list[Window] = []
        self._row = OpenRow()
        self.floor = -1
        """The service's generation when the rollout was begun: of other gateways, only what was counted under
        later ones is its evidence."""

    def start_from(self, judged: Judged, row: OpenRow | None = None) -> None:
        """Count from here: what was counted before belongs to no window of this rollout.

        row: being gathered by another process, to be gathered on.
        """
        self._last = {key: _cell(key, total) for key, total in judged.items()}
        self._row = row or OpenRow()

    @property
    def open_row(self) -> OpenRow:
        """What was gathered, before the pending windows, for a row that is not full yet."""
        return self._row

    @property
    def pending(self) -> tuple[Window, ...]:
        """Closed windows that no state in force was made of, oldest first."""
        return tuple(self._pending)

    def close(
        self,
        judged: Judged,
        cohort_errors: Iterable[tuple[str, int, int, int, str]],
        *,
        seconds: float,
        usable: tuple[bool, bool],
        percent: int,
    ) -> None:
        """Make what came since the last window a pending one.

        cohort_errors: (version id, generation, share, key, kind) of users who met an error. usable: (old,
        new), at the end.
        """
        cells = self._cells(judged)
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
        self._pending.append(window)
        if len(self._pending) > MAX_PENDING:
            _join_two(self._pending)

    def _cells(self, judged: Judged) -> dict[str, list[Cell]]:
        """Return what came since the last call, by version id."""
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
        return cells

    def rows(
        self, now: datetime, generation: int, *, begun: datetime | None = None, is_last: bool = False
    ) -> tuple[list[WindowRecord], OpenRow]:
        """Return the rows that are full with the pending windows, and what is gathered on.

        A row is full after ten seconds, or less where the weights have changed or the rollout has begun
        lately. generation: the service's. begun: when it did; None: not yet. is_last: the rollout has
        ended; whatever there is makes a row.
        """
        parts = [window for window in (self._row.gathered, *map(_without_keys, self._pending)) if window]
        whole = merge(parts) if parts else None
        seconds = whole.seconds if whole is not None else 0.0
        full_s = FINE_ROW_S if begun is not None and now - begun < FINE_FOR else ROW_S
        if seconds < full_s and generation == self._row.generation and not is_last:
            return [], OpenRow(whole, generation)
        return self._records(whole, now), OpenRow(None, generation)

    def taken(self, windows: int, row: OpenRow) -> None:
        """A state made of the first `windows` pending ones is in force, and `row` is gathered on."""
        del self._pending[:windows]
        self._row = row

    def _records(self, whole: Window | None, now: datetime) -> list[WindowRecord]:
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
    """Return what came between two totals; None if nothing did. One that fell was forgotten meanwhile."""
    if before is None or now.answers < before.answers:
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


def _without_keys(window: Window) -> Window:
    """Return a window as rows need it: they name no users."""
    return replace(window, old_keys=(), new_keys=())


def _join_two(windows: list[Window]) -> None:
    """Join the oldest neighbours between which no share and nobody's usability changed; else the oldest."""
    places = range(len(windows) - 1)
    at = next((k for k in places if _situation(windows[k]) == _situation(windows[k + 1])), 0)
    windows[at : at + 2] = [merge(windows[at : at + 2])]


def _situation(window: Window) -> tuple[bool, bool, int]:
    return window.old_usable, window.new_usable, window.percent
