"""What a rollout knows about its two versions. Kept for all of it and stored with it; no step resets it."""

import math
import struct
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.statistics import Mixture, added, comparison_factors, rate_factors, upper_bound
from gateway.core.window import WHOLE, Cell, KeyError64, Window, bucket_of, quantile_us

TAIL_PERCENT: Final = 95
"""From this share on too little old traffic is left to compare with."""
BASELINE_ANSWERS: Final = 200
"""Fewer old answers than this before the switch are no baseline."""
SEED_ANSWERS: Final = 1000
"""Totals from before the rollout weigh no more than this: weeks' average is no measure for one evening."""
FAILING: Final = 0.05
"""An old version whose rate is above this is in trouble itself."""
BASELINE_CHUNK_S: Final = 10.0
BASELINE_CHUNKS: Final = 30
"""The baseline reaches back five minutes, further only while it lacks answers."""
RECENT_CHUNKS: Final = 30
"""How many windows with new answers the ceiling looks back over."""
MAX_USERS: Final = 1024
"""Failing users remembered, 8 bytes each; then a fair sample of them by hash."""
LATENCY_ANSWERS: Final = 200
"""Old answers needed before "slow" means anything, new ones before it is held against them."""
LATENCY_MEMORY: Final = 4000
"""Old latencies in memory before they fade to half of it."""


class Rules(msgspec.Struct, frozen=True):
    """What the judge goes by."""

    error_threshold: float = 0.05
    """Highest error rate a new version may have, as a fraction."""
    min_requests: int = 20
    max_latency_ratio: float | None = None
    errors: tuple[str, ...] = ("5xx", "connect", "reset", "timeout")
    false_alarm_rate: float = 0.01
    sticky: bool = False
    """Users stay on a version: in the comparison, a user's first error stands for all of that user's."""

    def is_error(self, kind: str) -> bool:
        """Whether an error of `kind` (a status, or a failure without an answer) counts."""
        if kind == "bad_response":
            kind = "reset"
        return kind in self.errors or (kind[0] in "45" and f"{kind[0]}xx" in self.errors)


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """Answers, and the errors among them."""

    answers: int = 0
    errors: int = 0

    def plus(self, answers: int, errors: int) -> "Tally":
        """Return the tally with more counted."""
        return Tally(self.answers + answers, self.errors + errors)

    @property
    def rate(self) -> float:
        """Errors per answer; 0 without answers."""
        return self.errors / self.answers if self.answers else 0.0

    @property
    def is_failing(self) -> bool:
        """Whether this is trouble, and more than the odd error in few requests."""
        return self.errors >= 5 and self.rate > FAILING


class Lean(msgspec.Struct, frozen=True, array_like=True):
    """Which way errors lean, weighted by the share in force (the two sums of a Mantel–Haenszel ratio).

    new: Σ (1 - share) over the new version's errors. old: Σ share over the old one's. If the versions are
    alike both grow alike, whatever the shares and the common rate did meanwhile; new / old estimates how many
    times worse the new one is.
    """

    new: float = 0.0
    old: float = 0.0


class Recent(msgspec.Struct, frozen=True, array_like=True):
    """Both versions over the same few seconds of one step, with at least one answer of the new one."""

    new_answers: int
    new_errors: int
    old_answers: int
    old_errors: int


class Outage(msgspec.Struct, frozen=True, array_like=True):
    """The new version is unusable."""

    seconds: float = 0.0
    """Observed while the old one was usable."""
    old: Tally = Tally()
    """How the old one did meanwhile."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Some seconds of the old version, for the baseline."""

    seconds: float
    tally: Tally


class Slow(msgspec.Struct, frozen=True):
    """How often each was slow: over `maxLatencyRatio` times the old version's p95 of earlier windows."""

    old_buckets: dict[int, float] = {}
    """The old version's latencies, fading."""
    new: Tally = Tally()
    old: Tally = Tally()
    rate: Mixture = Mixture()
    """Is the new one slow more often than one in twenty?"""
    comparison: Mixture = Mixture()
    """Does slowness fall on the new one more often than its share explains?"""
    bound_us: int = 0


class Users(msgspec.Struct, frozen=True):
    """Sticky users who have met an error, each counted once."""

    hashes: bytes = b""
    """Eight little-endian bytes each."""
    mask: int = 0
    """Only users whose mixed hash has these bits clear are counted: it grows as memory fills up."""
    on_new: int = 0


class Evidence(msgspec.Struct, frozen=True):
    """Everything the verdict is read off. Serialisable; grows to a bound of some 20 kB."""

    percent: int = 0
    """The new version's share as the rollout set it."""
    live_stage: int | None = None
    """First stage of the current step; None until its weights are acknowledged."""
    step_new: Tally = Tally()
    """In this step."""
    step_old: Tally = Tally()
    new: Tally = Tally()
    """In the rollout."""
    old: Tally = Tally()
    comparison: Mixture = Mixture()
    threshold: Mixture = Mixture()
    lean: Lean = Lean()
    tail: Mixture = Mixture()
    """In the tail: the comparison with what little old traffic there still is."""
    recent: tuple[Recent, ...] = ()
    before: tuple[Chunk, ...] = ()
    """The old version's last minutes, oldest first."""
    baseline: Tally | None = None
    """The old version's last answers before the tail; None: not in the tail, or too few answers."""
    baseline_rate: float = 0.0
    """99 % upper bound of the baseline's rate, as a fraction."""
    outage: Outage | None = None
    old_well_s: float = 1e9
    """Observed seconds since the old version was last unusable or failing; for ever, to begin with."""
    slow: Slow | None = None
    users: Users = Users()

    @property
    def in_tail(self) -> bool:
        """Whether too little old traffic is left to compare with."""
        return self.percent >= TAIL_PERCENT


def begin_step(evidence: Evidence, percent: int) -> Evidence:
    """Return the evidence as a new share is set: the step counts start over, the statistics do not."""
    evidence = replace(
        evidence, percent=percent, live_stage=None, step_new=Tally(), step_old=Tally(), recent=()
    )
    if percent < TAIL_PERCENT:
        return replace(evidence, baseline=None, tail=Mixture())
    before = Tally(
        sum(chunk.tally.answers for chunk in evidence.before),
        sum(chunk.tally.errors for chunk in evidence.before),
    )
    if before.answers < BASELINE_ANSWERS:
        return evidence
    rate = upper_bound(before.errors, before.answers, 0.99)
    return replace(evidence, baseline=before, baseline_rate=min(rate, 0.99))


def step_live(evidence: Evidence, stage: int) -> Evidence:
    """Return the evidence once the weights are live: first attempts of `stage` and later are the step's."""
    return replace(evidence, live_stage=stage)


def forgive(evidence: Evidence) -> Evidence:
    """Return the evidence with all counts begun anew: a person saw them and decided to go on."""
    return replace(
        evidence,
        step_new=Tally(),
        step_old=Tally(),
        new=Tally(),
        old=Tally(),
        comparison=Mixture(),
        threshold=Mixture(),
        lean=Lean(),
        tail=Mixture(),
        recent=(),
        outage=None,
        slow=Slow(old_buckets=evidence.slow.old_buckets) if evidence.slow else None,
    )


def seeded(cells: Iterable[Cell], rules: Rules) -> Evidence:
    """Return the evidence a rollout begins with: what the old version did so far.

    cells: its totals by weights, as far as control has them; the newest with enough answers are taken.
    """
    newest = sorted(cells, key=lambda cell: cell.stage, reverse=True)
    tally = Tally()
    taken: list[Cell] = []
    while newest and tally.answers < BASELINE_ANSWERS:
        taken.append(newest.pop(0))
        tally = _total(taken, rules)
    if tally.answers > SEED_ANSWERS:
        tally = Tally(SEED_ANSWERS, math.ceil(tally.errors * SEED_ANSWERS / tally.answers))
    return Evidence(
        before=(Chunk(BASELINE_CHUNK_S, tally),),
        slow=Slow(old_buckets=_faded(None, Window(seconds=0, old=tuple(taken)))),
    )


def _remember(evidence: Evidence, window: Window, rules: Rules) -> Evidence:
    """Before any traffic has moved: take in what the old version does, and judge nothing by it."""
    old = _total(window.old, rules)
    return replace(
        evidence,
        before=_before(evidence.before, window.seconds, old.answers, old.errors),
        old_well_s=_old_well_s(evidence, window),
        slow=Slow(old_buckets=_faded(evidence.slow, window)) if rules.max_latency_ratio else None,
    )


def observe(evidence: Evidence, window: Window, rules: Rules) -> Evidence:
    """Return the evidence with one more window folded in."""
    if evidence.percent == 0:
        return _remember(evidence, window, rules)
    new = _side(window.new, evidence, rules, is_new=True)
    old = _side(window.old, evidence, rules, is_new=False)
    users, new_falls, old_falls = evidence.users, new.falls, old.falls
    if rules.sticky:
        users, new_falls, old_falls = _first_falls(users, window)
    return replace(
        evidence,
        step_new=evidence.step_new.plus(new.step_answers, new.step_errors),
        step_old=evidence.step_old.plus(old.step_answers, old.step_errors),
        new=evidence.new.plus(new.answers, new.errors),
        old=evidence.old.plus(old.answers, old.errors),
        comparison=evidence.comparison.times(
            _comparison(evidence, new, new_falls, old_falls), window.seconds
        ),
        threshold=evidence.threshold.times(
            rate_factors(rules.error_threshold, new.errors, new.answers) if new.answers else None,
            window.seconds,
        ),
        lean=_leaned(evidence.lean, new_falls, old_falls),
        tail=evidence.tail.times(_fallen(new_falls, old_falls), window.seconds)
        if evidence.in_tail
        else evidence.tail,
        recent=_recent(
            evidence.recent,
            Recent(new.beside_answers, new.beside_errors, old.beside_answers, old.beside_errors),
        ),
        before=_before(evidence.before, window.seconds, old.answers, old.errors),
        outage=_outage(evidence.outage, window, old.answers, old.errors),
        old_well_s=_old_well_s(evidence, window),
        slow=_slow(evidence.slow or Slow(), window, rules.max_latency_ratio)
        if rules.max_latency_ratio
        else None,
        users=users,
    )


_Falls = list[tuple[int, float, int]]
"""(stage, share, errors): errors that fell on one version while the new one had that share."""


class _Side(msgspec.Struct):
    """One version's window as the rules read it."""

    answers: int
    errors: int
    step_answers: int
    """In this step."""
    step_errors: int
    beside_answers: int
    """While the other version had a share too; at 100 %, all."""
    beside_errors: int
    falls: _Falls


def _side(cells: tuple[Cell, ...], evidence: Evidence, rules: Rules, *, is_new: bool) -> _Side:
    answers = errors = step_answers = step_errors = beside_answers = beside_errors = 0
    falls: _Falls = []
    live, is_alone = evidence.live_stage, evidence.percent == 100
    for cell in cells:
        failed = _errors(cell, rules) if cell.errors else 0
        answers += cell.answers
        errors += failed
        if live is not None and cell.stage >= live:
            step_answers += cell.answers
            step_errors += failed
        if is_alone or cell.share < WHOLE:
            beside_answers += cell.answers
            beside_errors += failed
        if failed:
            falls.append((cell.stage, (cell.share if is_new else WHOLE - cell.share) / WHOLE, failed))
    return _Side(answers, errors, step_answers, step_errors, beside_answers, beside_errors, falls)


def _errors(cell: Cell, rules: Rules) -> int:
    return sum([count for kind, count in cell.errors.items() if rules.is_error(kind)])


def _total(cells: Iterable[Cell], rules: Rules) -> Tally:
    cells = tuple(cells)
    return Tally(sum([cell.answers for cell in cells]), sum([_errors(cell, rules) for cell in cells]))


def _first_falls(users: Users, window: Window) -> tuple[Users, _Falls, _Falls]:
    """Return each sticky user's first error."""
    if not window.new_keys and not window.old_keys:
        return users, [], []
    known = set(struct.unpack(f"<{len(users.hashes) // 8}Q", users.hashes))
    new_falls = [
        (met.stage, met.share / WHOLE, 1) for met in window.new_keys if _is_first(met, known, users.mask)
    ]
    old_falls = [
        (met.stage, 1 - met.share / WHOLE, 1) for met in window.old_keys if _is_first(met, known, users.mask)
    ]
    if not new_falls and not old_falls:
        return users, [], []
    mask = users.mask
    while len(known) > MAX_USERS:
        mask = mask * 2 + 1
        known = {key for key in known if not _mixed(key) & mask}
    hashes = struct.pack(f"<{len(known)}Q", *sorted(known))
    return Users(hashes, mask, users.on_new + len(new_falls)), new_falls, old_falls


def _is_first(met: KeyError64, known: set[int], mask: int) -> bool:
    """Whether this user's error counts; remembers the user if so."""
    key = met.key & 0xFFFF_FFFF_FFFF_FFFF
    if key in known or _mixed(key) & mask:
        return False
    known.add(key)
    return True


def _mixed(key: int) -> int:
    """Return 32 bits of `key` that say nothing about its cohort (Knuth's multiplicative hashing)."""
    return (key * 0x9E37_79B9_7F4A_7C15 >> 32) & 0xFFFF_FFFF


def _leaned(lean: Lean, new: _Falls, old: _Falls) -> Lean:
    if not new and not old:
        return lean
    return Lean(
        lean.new + sum([(1 - share) * errors for _, share, errors in new]),
        lean.old + sum([share * errors for _, share, errors in old]),
    )


def _comparison(
    evidence: Evidence, new: _Side, new_falls: _Falls, old_falls: _Falls
) -> tuple[float, ...] | None:
    """Return the window's factors: with the old version's errors, in the tail with its baseline."""
    live = evidence.live_stage
    if not evidence.in_tail or evidence.baseline is None or live is None:
        return _fallen(new_falls, old_falls)
    factors = _fallen(
        [fall for fall in new_falls if fall[0] < live], [fall for fall in old_falls if fall[0] < live]
    )
    if not new.step_answers:
        return factors
    return added(factors, rate_factors(evidence.baseline_rate, new.step_errors, new.step_answers))


def _fallen(new: _Falls, old: _Falls) -> tuple[float, ...] | None:
    factors: tuple[float, ...] | None = None
    for _, share, errors in new:
        factors = added(factors, comparison_factors(share, errors, 0))
    for _, share, errors in old:
        factors = added(factors, comparison_factors(share, 0, errors))
    return factors


def _recent(recent: tuple[Recent, ...], now: Recent) -> tuple[Recent, ...]:
    """Return the last windows, newest last; one without a new answer is joined to the next."""
    if recent and recent[-1].new_answers == 0:
        last = recent[-1]
        joined = Recent(
            now.new_answers,
            now.new_errors,
            last.old_answers + now.old_answers,
            last.old_errors + now.old_errors,
        )
        return (*recent[:-1], joined)
    return (*recent[-(RECENT_CHUNKS - 1) :], now)


def _before(chunks: tuple[Chunk, ...], seconds: float, answers: int, errors: int) -> tuple[Chunk, ...]:
    """Return the old version's last minutes with one window more."""
    if chunks and chunks[-1].seconds < BASELINE_CHUNK_S:
        last = chunks[-1]
        return (*chunks[:-1], Chunk(last.seconds + seconds, last.tally.plus(answers, errors)))
    chunks = (*chunks, Chunk(seconds, Tally(answers, errors)))
    if len(chunks) <= BASELINE_CHUNKS:
        return chunks
    if sum([chunk.tally.answers for chunk in chunks[1:]]) >= BASELINE_ANSWERS:
        return chunks[1:]
    first, second = chunks[0], chunks[1]
    joined = Chunk(first.seconds + second.seconds, second.tally.plus(first.tally.answers, first.tally.errors))
    return (joined, *chunks[2:])


def _outage(outage: Outage | None, window: Window, old_answers: int, old_errors: int) -> Outage | None:
    if window.new_usable:
        return None
    if outage is None or not window.old_usable:
        return Outage()
    return Outage(outage.seconds + window.seconds, outage.old.plus(old_answers, old_errors))


def _old_well_s(evidence: Evidence, window: Window) -> float:
    if not window.old_usable or (evidence.before and evidence.before[-1].tally.is_failing):
        return 0.0
    return evidence.old_well_s + window.seconds


def _slow(slow: Slow, window: Window, ratio: float) -> Slow:
    """Fold the window's latencies in: first judged by earlier windows, then remembered."""
    known = sum(slow.old_buckets.values())
    if known >= LATENCY_ANSWERS:
        bound_us = round((quantile_us(slow.old_buckets, 0.95) or 0) * ratio)
        bound = bucket_of(bound_us)
        new, new_falls = _timed(window.new, bound, is_new=True)
        old, old_falls = _timed(window.old, bound, is_new=False)
        factors = rate_factors(_slow_rate(known), new.errors, new.answers) if new.answers else None
        slow = Slow(
            new=slow.new.plus(new.answers, new.errors),
            old=slow.old.plus(old.answers, old.errors),
            rate=slow.rate.times(factors, window.seconds),
            comparison=slow.comparison.times(_fallen(new_falls, old_falls), window.seconds),
            bound_us=bound_us,
            old_buckets=slow.old_buckets,
        )
    return replace(slow, old_buckets=_faded(slow, window))


def _faded(slow: Slow | None, window: Window) -> dict[int, float]:
    """Return the old version's latencies with the window's; when there are many, the older half fades."""
    buckets = dict(slow.old_buckets) if slow else {}
    for cell in window.old:
        for index, count in cell.latency.items():
            buckets[index] = buckets.get(index, 0) + count
    total = sum(buckets.values())
    if total > LATENCY_MEMORY:
        buckets = {index: count * LATENCY_MEMORY / 2 / total for index, count in buckets.items()}
    return buckets


def _timed(cells: tuple[Cell, ...], bound: int, *, is_new: bool) -> tuple[Tally, _Falls]:
    """Return the answers of one version, and how slow ones, those in a bucket above `bound`, fell."""
    answers = slow = 0
    falls: _Falls = []
    for cell in cells:
        late = sum([count for index, count in cell.latency.items() if index > bound])
        answers += sum(cell.latency.values())
        slow += late
        if late:
            falls.append((cell.stage, (cell.share if is_new else WHOLE - cell.share) / WHOLE, late))
    return Tally(answers, slow), falls


def _slow_rate(samples: float) -> float:
    """Return how often an equally fast version may be slow, as a fraction.

    One in twenty, and what a p95 of `samples` may be off by (99 %, normal approximation).
    """
    return round(0.05 + 2.33 * math.sqrt(0.05 * 0.95 / samples), 3)
