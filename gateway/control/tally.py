"""Adds the workers' counts up.

Workers report totals since their own start, so the newest report of each incarnation is kept as it came,
and a sum is made when somebody asks: base (incarnations that ended) + the newest report of each other. A
report that comes twice, or that a restarted control gets again, changes nothing; one that is lost is
made good by the next.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Final, Self

import msgspec

from gateway.control.history import History
from gateway.control.recent import Recent
from gateway.control.sums import (
    Cell,
    CohortError,
    JudgedSum,
    VersionSum,
    WorkerSum,
    above,
    added,
    copied,
    copied_judged,
    joined,
    nothing_of,
)
from gateway.link.messages import Counts
from gateway.link.totals import JudgedTotals, VersionTotals

MAX_ABSENT: Final = 16
"""Incarnations that a whole control has heard nothing of, kept apart in case they come back."""
MAX_KEPT: Final = 1024
"""Incarnations kept apart in all: a control that dies again and again hears of none for long."""
LONG_S: Final = 60.0
"""A worker that lives finds a new control within this."""
MAX_JUDGED: Final = 512
"""(generation, share) pairs kept in a version's base, beside those workers report: some dozen rollouts."""
MAX_COHORT_ERRORS: Final = 10_000
"""Sticky keys' errors kept for each service until they are taken; further ones are dropped."""

_encode: Final = msgspec.msgpack.Encoder().encode


class _Newest(msgspec.Struct):
    """The newest report of one incarnation."""

    counts: Counts
    """Of the worker itself; its versions are below."""
    versions: dict[str, VersionTotals] = {}
    is_gone: bool = False
    """The control that stored this had heard nothing of it for long."""


class Part(msgspec.Struct, omit_defaults=True):
    """What was counted about one service, to be stored with the evidence made of it."""

    serial: int = 0
    """Rises with everything that is stored: the highest knows best."""
    ids: tuple[str, ...] = ()
    """Of every version of the service that was counted."""
    versions: dict[str, VersionSum] = {}
    """What incarnations that ended have counted, by version id."""
    newest: dict[str, dict[str, VersionTotals]] = msgspec.field(default_factory=dict, name="live")
    """The newest reports of the others: incarnation -> version id -> totals."""
    service: str = ""
    met: dict[str, int] = {}
    """How many errors of sticky users were taken from each process of another gateway."""


class _State(msgspec.Struct):
    """What is stored: enough to go on exactly where the last control was."""

    versions: dict[str, VersionSum] = {}
    workers: WorkerSum = msgspec.field(default_factory=WorkerSum)
    newest: dict[str, _Newest] = msgspec.field(default_factory=dict, name="live")
    serial: int = 0

    def take(self, part: Part) -> None:
        """Let a part that was stored later replace what is said here of its service."""
        if part.serial <= self.serial:
            return
        for version_id in part.ids:
            self.versions.pop(version_id, None)
            for newest in self.newest.values():
                newest.versions.pop(version_id, None)
        self.versions.update(part.versions)
        for incarnation, versions in part.newest.items():
            self.newest.setdefault(incarnation, _Newest(Counts())).versions.update(versions)


class Tally:
    """The counts of all workers, dead ones included."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: monotonic seconds."""
        self._clock = clock
        self._loaded_at = clock()
        self._unheard: set[str] = set()
        """Incarnations that were loaded, and have not reported since."""
        self._is_known: Callable[[str], bool] = lambda version_id: True
        self._forgotten: set[str] = set()
        self.loop_lag_us: dict[int, int] = {}
        """By slot: how late its last heartbeat was, microseconds."""
        self._ended = 0
        """How often a worker ended, or left."""
        self._dumped_ended = 0
        """How many of them the last dump holds, and the last one that was stored."""
        self._stored_ended = 0
        self._base: dict[str, VersionSum] = {}
        self._base_workers = WorkerSum()
        self._newest: dict[str, _Newest] = {}
        self._present: dict[str, int] = {}
        """Connected incarnation -> slot: whose gauges count."""
        self._services: dict[str, set[str]] = {}
        """Service -> ids of its versions that were counted."""
        self._cohort_errors: dict[str, list[CohortError]] = {}
        self._met: dict[str, dict[str, int]] = {}
        """By service, see `Part.met`."""
        self._elsewhere: set[str] = set()
        """Incarnations of other gateways."""
        self.on_ending: Callable[[str, Mapping[str, VersionTotals]], object] = lambda incarnation, last: None
        """Called with the last totals of a worker that ended, before they are added to all others'."""
        self._serial = 0
        """Of what was stored last."""
        self.recent = Recent()
        """The same reports, by when they came."""
        self.history = History()
        """What came of them in each window of the last hour."""

    @property
    def has_ended(self) -> bool:
        """Whether a worker ended, or left, since the last stored dump: its totals are nowhere else."""
        return self._ended > self._stored_ended

    # -- reports

    def on_counts(self, slot: int, incarnation: str, counts: Counts) -> None:
        """Take a worker's newest totals; versions it leaves out have not changed."""
        self._present[incarnation] = slot
        self.loop_lag_us[slot] = counts.loop_lag_us
        newest = self._newest.get(incarnation)
        if newest is None:
            newest = self._newest[incarnation] = _Newest(counts)
        self._unheard.discard(incarnation)
        self._elsewhere.discard(incarnation)
        newest.is_gone = False
        versions = tuple(each for each in counts.versions if self._is_there(each.version_id))
        self.history.report(incarnation, versions)
        newest.counts = msgspec.structs.replace(counts, versions=())
        for totals in versions:
            self._keep_evicted(newest.versions.get(totals.version_id), totals)
            if totals.cohort_errors:
                totals = self._without_cohorts(totals)
            self.recent.note(incarnation, totals)
            newest.versions[totals.version_id] = totals
            self._services.setdefault(totals.service, set()).add(totals.version_id)

    def on_absent(self, incarnation: str) -> None:
        """Its link ended: its gauges no longer count, its totals do, and it may come back."""
        self._present.pop(incarnation, None)
        self._ended += 1

    def on_ended(self, incarnation: str) -> None:
        """Its process is gone for good."""
        self._present.pop(incarnation, None)
        self._unheard.discard(incarnation)
        self.recent.forget_worker(incarnation)
        self.history.forget_worker(incarnation)
        newest = self._newest.pop(incarnation, None)
        if newest is None:
            return
        self._ended += 1
        self.on_ending(incarnation, newest.versions)
        self._base_workers.add(newest.counts)
        for totals in newest.versions.values():
            self._base_of(totals.version_id).add(totals)
            self._bound_judged(totals.version_id)

    def forget(self, version_ids: Iterable[str]) -> None:
        """The versions were deleted: nobody asks for their counts again."""
        for version_id in version_ids:
            self._forgotten.add(version_id)
            self._base.pop(version_id, None)
            self.recent.forget_version(version_id)
            self.history.forget_version(version_id)
            for newest in self._newest.values():
                newest.versions.pop(version_id, None)
            for ids in self._services.values():
                ids.discard(version_id)

    def keep(self, is_known: Callable[[str], bool]) -> None:
        """Forget versions that are not known, and take no more reports of such.

        Workers go on counting what they no longer serve, and say so to each new control.
        """
        self._is_known = is_known
        counted = set(self._base).union(*(newest.versions for newest in self._newest.values()))
        self.forget([each for each in sorted(counted) if not is_known(each)])

    def _is_there(self, version_id: str) -> bool:
        return version_id not in self._forgotten and self._is_known(version_id)

    # -- sums

    def version(self, version_id: str) -> VersionSum:
        """Return what was ever counted about one version."""
        total = copied(self._base.get(version_id))
        for incarnation, newest in self._newest.items():
            totals = newest.versions.get(version_id)
            if totals is None:
                continue
            total.add(totals)
            if incarnation in self._present:
                total.in_flight += totals.in_flight
                total.streams += totals.streams
        return total

    def running(self, version_id: str) -> tuple[int, int]:
        """Return what runs at a version now: (requests, of those tunnels and event streams)."""
        reports = (
            self._newest[each].versions.get(version_id) for each in self._present if each in self._newest
        )
        found = [(totals.in_flight, totals.streams) for totals in reports if totals is not None]
        return sum(each[0] for each in found), sum(each[1] for each in found)

    def versions(self) -> dict[str, VersionSum]:
        """Return every version's sum, by version id."""
        ids = set(self._base).union(*(newest.versions for newest in self._newest.values()))
        return {version_id: self.version(version_id) for version_id in sorted(ids)}

    def judged(self, service: str) -> dict[Cell, JudgedSum]:
        """Return the judge's evidence for one service: cumulative, by (version id, generation, share)."""
        cells: dict[Cell, JudgedSum] = {}
        for version_id in self._services.get(service, ()):
            for (generation, share), judged in self._judged_of(version_id).items():
                cells[version_id, generation, share] = judged
        return cells

    def workers(self) -> WorkerSum:
        """Return what all workers counted of themselves."""
        total = msgspec.structs.replace(
            self._base_workers, refused=dict(self._base_workers.refused), upstream={}
        )
        for incarnation, newest in self._newest.items():
            total.add(newest.counts)
            if incarnation in self._present:
                total.connections += newest.counts.connections
                added(total.upstream, newest.counts.upstream)
        return total

    # -- cohorts

    def take_cohort_errors(self, service: str) -> list[CohortError]:
        """Return the sticky keys that met an error since the last call: (version id, generation, share, key
        hash, kind).

        A key may come more than once, from several workers: whoever judges counts it once a rollout.
        """
        return self._cohort_errors.pop(service, [])

    def _without_cohorts(self, totals: VersionTotals) -> VersionTotals:
        """Keep the keys for whoever takes them: they are news, not totals."""
        kept = self._cohort_errors.setdefault(totals.service, [])
        room = max(0, MAX_COHORT_ERRORS - len(kept))
        kept.extend((totals.version_id, *error) for error in totals.cohort_errors[:room])
        return msgspec.structs.replace(totals, cohort_errors=[])

    # -- other gateways

    def cells_above(
        self, version_ids: Collection[str], floor: int
    ) -> dict[str, dict[str, list[JudgedTotals]]]:
        """Return what each worker has counted under generations above `floor`: incarnation -> version id."""
        found: dict[str, dict[str, list[JudgedTotals]]] = {}
        for incarnation, newest in self._newest.items():
            for version_id in newest.versions.keys() & set(version_ids):
                if cells := above(newest.versions[version_id].judged, floor):
                    found.setdefault(incarnation, {})[version_id] = cells
        return found

    def take_elsewhere(
        self, incarnation: str, service: str, version: tuple[str, str], cells: Iterable[JudgedTotals]
    ) -> None:
        """Take what a worker of another gateway has counted of one version: (name, id).

        All of it, so that nothing is counted twice, in whatever order it comes, and nothing that comes late
        is lost.
        """
        name, version_id = version
        if not self._is_there(version_id):
            return
        newest = self._newest.setdefault(incarnation, _Newest(Counts()))
        newest.is_gone = False
        self._unheard.discard(incarnation)
        if incarnation not in self._present:
            self._elsewhere.add(incarnation)
        versions = newest.versions
        before = versions.get(version_id) or nothing_of(service, name, version_id)
        versions[version_id] = msgspec.structs.replace(before, judged=joined(before.judged, cells))
        self._services.setdefault(service, set()).add(version_id)

    def take_met(self, service: str, run: str, errors: Iterable[tuple[int, CohortError]]) -> None:
        """Take the errors of sticky users that a process of another gateway has numbered: each once."""
        known = self._met.setdefault(service, {})
        kept = self._cohort_errors.setdefault(service, [])
        for number, error in errors:
            if number > known.get(run, 0):
                known[run] = number
                if len(kept) < MAX_COHORT_ERRORS:
                    kept.append(error)

    def give_back(self, service: str, version_ids: Iterable[str], errors: Iterable[CohortError]) -> None:
        """Prepare to go on with another's counts of a rollout, which hold ours: forget what is added up.

        errors: of sticky users, that it has not taken.
        """
        for version_id in version_ids:
            self._base.pop(version_id, None)
        self._cohort_errors.setdefault(service, []).extend(errors)

    def answers_lately(self, version_ids: Iterable[str]) -> int:
        """Return how many answers our own workers gave in about the last ten seconds."""
        return sum(self.recent.version(each).answers for each in version_ids)

    def settle(self, service: str) -> None:
        """A rollout has ended, and nobody reports what belonged to it: add up what other gateways did."""
        self._met.pop(service, None)
        for incarnation in sorted(self._elsewhere):
            versions = self._newest[incarnation].versions if incarnation in self._newest else {}
            for version_id in self._services.get(service, set()) & versions.keys():
                self._base_of(version_id).add(versions.pop(version_id))
                self._bound_judged(version_id)
            if not versions:
                self._newest.pop(incarnation, None)
                self._elsewhere.discard(incarnation)

    def start_of(self, part: Part, service: str, floor: int) -> dict[Cell, JudgedSum]:
        """Return what a rollout's next window begins from: what `part` knows, and where it does not know of a
        cell up to the generation `floor`, that: another gateway made it, which is not asked for such.
        """
        total = self.of(part).judged(service)
        for incarnation, newest in self._newest.items():
            known = part.newest.get(incarnation, {})
            for version_id in self._services.get(service, set()) & newest.versions.keys():
                there = known[version_id].judged if version_id in known else []
                cells = {(cell.generation, cell.share) for cell in there}
                for cell in newest.versions[version_id].judged:
                    if cell.generation <= floor and (cell.generation, cell.share) not in cells:
                        place = (version_id, cell.generation, cell.share)
                        total.setdefault(place, JudgedSum()).add(cell)
        return total

    # -- over a restart of control

    def dump(self) -> bytes:
        """Return everything, to be stored now and then, and soon if `has_ended`; then say `dump_stored`."""
        self._dumped_ended = self._ended
        self._serial += 1
        if self._clock() - self._loaded_at >= LONG_S:
            for incarnation in self._unheard:
                self._newest[incarnation].is_gone = True
        return _encode(_State(self._base, self._base_workers, self._newest, self._serial))

    def dump_stored(self) -> None:
        """The last dump is committed."""
        self._stored_ended = self._dumped_ended

    def part(self, service: str) -> Part:
        """Return what was counted about one service. It is to be encoded at once: it changes with us."""
        self._serial += 1
        ids = tuple(self._services.get(service, ()))
        base = {each: self._base[each] for each in ids if each in self._base}
        newest = {
            incarnation: {each: one.versions[each] for each in ids if each in one.versions}
            for incarnation, one in self._newest.items()
        }
        return Part(self._serial, ids, base, newest, service, dict(self._met.get(service, {})))

    @classmethod
    def of(cls, part: Part) -> Self:
        """Return a tally of what a stored part says, and nothing else."""
        tally = cls()
        tally.load(b"", [part])
        return tally

    def load(self, data: bytes, parts: Iterable[Part] = ()) -> None:
        """Go on from a dump (empty: none was stored) and what was stored of single services since.

        Workers that still run report again and replace what is said of them there. Raises
        msgspec.MsgspecError if `data` is not a dump.
        """
        state = msgspec.msgpack.decode(data, type=_State) if data else _State()
        stored = sorted(parts, key=lambda part: part.serial)
        for part in stored:
            state.take(part)
        self._serial = max([self._serial, state.serial, *(part.serial for part in stored[-1:])])
        self._met.update({part.service: dict(part.met) for part in stored if part.met})
        for version_id, total in state.versions.items():
            self._base[version_id] = total
            self._services.setdefault(total.service, set()).add(version_id)
        self._base_workers = state.workers
        for incarnation, newest in state.newest.items():
            if self._newest.setdefault(incarnation, newest) is newest:
                self._unheard.add(incarnation)
            for totals in newest.versions.values():
                self._services.setdefault(totals.service, set()).add(totals.version_id)
        self._end_the_longest_absent()

    # -- inside

    def _base_of(self, version_id: str) -> VersionSum:
        if version_id not in self._base:
            self._base[version_id] = VersionSum()
        return self._base[version_id]

    def _judged_of(self, version_id: str) -> dict[tuple[int, int], JudgedSum]:
        total = VersionSum()
        if (base := self._base.get(version_id)) is not None:
            total.judged = copied_judged(base)
        for newest in self._newest.values():
            for judged in newest.versions[version_id].judged if version_id in newest.versions else ():
                total.judge(judged)
        return total.judged

    def _keep_evicted(self, before: VersionTotals | None, now: VersionTotals) -> None:
        """Save evidence that the worker has thrown away: it keeps a bounded number of cells, oldest first."""
        if before is None:
            return
        kept = {(judged.generation, judged.share): judged.answers for judged in now.judged}
        evicted = [
            judged
            for judged in before.judged
            if kept.get((judged.generation, judged.share), -1) < judged.answers
        ]
        if not evicted:
            return
        base = self._base_of(now.version_id)
        base.service, base.version = now.service, now.version
        for judged in evicted:
            base.judge(judged)
        self._bound_judged(now.version_id)

    def _bound_judged(self, version_id: str) -> None:
        """Forget a version's cells that were added up first, but none that is reported: no sum falls."""
        cells = self._base[version_id].judged
        if len(cells) <= MAX_JUDGED:
            return
        reports = (newest.versions.get(version_id) for newest in self._newest.values())
        reported = {
            (judged.generation, judged.share) for totals in reports if totals for judged in totals.judged
        }
        for cell in list(islice(cells, len(cells) - MAX_JUDGED)):
            if cell not in reported:
                del cells[cell]

    def _end_the_longest_absent(self) -> None:
        """Add up for good what is not coming back: one that does, after that, is counted twice."""
        gone = [each for each in self._newest if each in self._unheard and self._newest[each].is_gone]
        for incarnation in gone[: max(0, len(gone) - MAX_ABSENT)]:
            self.on_ended(incarnation)
        absent = [each for each in self._newest if each in self._unheard]
        for incarnation in absent[: max(0, len(absent) - MAX_KEPT)]:
            self.on_ended(incarnation)
