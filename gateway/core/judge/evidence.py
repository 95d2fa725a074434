"""What a rollout knows about its two versions. Kept for all of it and stored with it; no step resets it."""

import math
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.latency import Slow, faded, slower
from gateway.core.judge.statistics import Mixture, added, rate_factors, upper_bound
from gateway.core.judge.tallies import Falls, Tally, fallen
from gateway.core.judge.users import Users, failed_lately, first_falls
from gateway.core.judge.window import WHOLE, Cell, Window

TAIL_PERCENT: Final = 95
"""From this share on too little old traffic is left to compare with."""
BASELINE_ANSWERS: Final = 200
"""Fewer old answers than this before the switch are no baseline."""
AMPLE_ANSWERS: Final = 1000
"""More make a baseline no better. What is known from before the rollout weighs no more than so many: weeks'
average is no measure for one evening."""
BASELINE_CHUNK_S: Final = 10.0
BASELINE_S: Final = 300.0
"""The baseline reaches back five minutes; further while that is not ample: 200 answers of a version that
fails one in 200 leave open that it fails one in 30."""
STALE_S: Final = 3_600.0
"""An hour back it does with enough."""
BASELINE_CHUNKS: Final = 31
"""Older ones are put together."""
RECENT_CHUNKS: Final = 30
"""How many windows with new answers the ceiling looks back over."""


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


class Evidence(msgspec.Struct, frozen=True):
    """Everything the verdict is read off. Serialisable; grows to a bound of some 20 kB."""

    percent: int = 0
    """The new version's share as the rollout set it."""
    first_generation: int | None = None
    """First generation of the current step; None until its weights are acknowledged."""
    step_new: Tally = Tally()
    """In this step."""
    step_old: Tally = Tally()
    new: Tally = Tally()
    """In the rollout."""
    old: Tally = Tally()
    comparison: Mixture = Mixture()
    concurrent: Mixture = Mixture()
    """The comparison as far as it is with what the old version did at the same time: up to the tail, all."""
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
    """Return the evidence as a new share is set: the step counts start over, the statistics do not.

    Except for what a step of the tail had against a baseline only: the next step has a newer one, or none,
    and what the old version's last traffic acquitted the new one of must not be held against it then.
    """
    evidence = replace(
        evidence,
        percent=percent,
        first_generation=None,
        step_new=Tally(),
        step_old=Tally(),
        recent=(),
        comparison=evidence.concurrent,
    )
    if percent < TAIL_PERCENT:
        return replace(evidence, baseline=None, tail=Mixture())
    before = _sum(evidence.before)
    if before.answers < BASELINE_ANSWERS:
        return evidence
    rate = upper_bound(before.errors, before.answers, 0.99)
    return replace(evidence, baseline=before, baseline_rate=min(rate, 0.99))


def step_live(evidence: Evidence, generation: int) -> Evidence:
    """Return the evidence once the weights are in force: those of `generation` and later are the step's."""
    return replace(evidence, first_generation=generation)


def forgive(evidence: Evidence) -> Evidence:
    """Return the evidence with all counts begun anew: a person saw them and decided to go on."""
    return replace(
        evidence,
        step_new=Tally(),
        step_old=Tally(),
        new=Tally(),
        old=Tally(),
        comparison=Mixture(),
        concurrent=Mixture(),
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
    newest = sorted(cells, key=lambda cell: cell.generation, reverse=True)
    tally = Tally()
    taken: list[Cell] = []
    while newest and tally.answers < BASELINE_ANSWERS:
        taken.append(newest.pop(0))
        tally = _total(taken, rules)
    if tally.answers > AMPLE_ANSWERS:
        tally = Tally(AMPLE_ANSWERS, math.ceil(tally.errors * AMPLE_ANSWERS / tally.answers))
    return Evidence(
        before=(Chunk(BASELINE_CHUNK_S, tally),),
        slow=Slow(old_buckets=faded(None, Window(seconds=0, old=tuple(taken)))),
    )


def _remember(evidence: Evidence, window: Window, rules: Rules) -> Evidence:
    """Before any traffic has moved: take in what the old version does, and judge nothing by it."""
    old = _total(window.old, rules)
    return replace(
        evidence,
        before=_before(evidence.before, window.seconds, old.answers, old.errors),
        old_well_s=_old_well_s(evidence, window),
        slow=Slow(old_buckets=faded(evidence.slow, window)) if rules.max_latency_ratio else None,
    )


def observe(evidence: Evidence, window: Window, rules: Rules) -> Evidence:
    """Return the evidence with one more window folded in."""
    if evidence.percent == 0:
        return _remember(evidence, window, rules)
    new = _side(window.new, evidence, rules, is_new=True)
    old = _side(window.old, evidence, rules, is_new=False)
    users, new_falls, old_falls = evidence.users, new.falls, old.falls
    tail_errors = new.step_errors
    if rules.sticky:
        new_keys = [met for met in window.new_keys if rules.is_error(met.kind)]
        old_keys = [met for met in window.old_keys if rules.is_error(met.kind)]
        users, new_falls, old_falls = first_falls(users, new_keys, old_keys)
        if evidence.in_tail and evidence.first_generation is not None:
            users, errors = failed_lately(users, new_keys, evidence.first_generation, window.seconds)
            tail_errors = min(errors, tail_errors)
    comparison = evidence.comparison.times(
        _comparison(evidence, new_falls, old_falls, Tally(new.step_answers, tail_errors)), window.seconds
    )
    concurrent, tail = comparison, evidence.tail
    if evidence.in_tail:
        factors = fallen(new_falls, old_falls)
        concurrent = evidence.concurrent.times(factors, window.seconds)
        tail = tail.times(factors, window.seconds)
    return replace(
        evidence,
        step_new=evidence.step_new.plus(new.step_answers, new.step_errors),
        step_old=evidence.step_old.plus(old.step_answers, old.step_errors),
        new=evidence.new.plus(new.answers, new.errors),
        old=evidence.old.plus(old.answers, old.errors),
        comparison=comparison,
        concurrent=concurrent,
        tail=tail,
        threshold=evidence.threshold.times(
            rate_factors(rules.error_threshold, new.errors, new.answers) if new.answers else None,
            window.seconds,
        ),
        lean=_leaned(evidence.lean, new_falls, old_falls),
        recent=_recent(
            evidence.recent,
            Recent(new.beside_answers, new.beside_errors, old.beside_answers, old.beside_errors),
        ),
        before=_before(evidence.before, window.seconds, old.answers, old.errors),
        outage=_outage(evidence.outage, window, old.answers, old.errors),
        old_well_s=_old_well_s(evidence, window),
        slow=slower(evidence.slow or Slow(), window, rules.max_latency_ratio)
        if rules.max_latency_ratio
        else None,
        users=users,
    )


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
    falls: Falls


def _side(cells: tuple[Cell, ...], evidence: Evidence, rules: Rules, *, is_new: bool) -> _Side:
    answers = errors = step_answers = step_errors = beside_answers = beside_errors = 0
    falls: Falls = []
    live, is_alone = evidence.first_generation, evidence.percent == 100
    for cell in cells:
        failed = _errors(cell, rules) if cell.errors else 0
        answers += cell.answers
        errors += failed
        if live is not None and cell.generation >= live:
            step_answers += cell.answers
            step_errors += failed
        if is_alone or cell.share < WHOLE:
            beside_answers += cell.answers
            beside_errors += failed
        if failed:
            falls.append((cell.generation, (cell.share if is_new else WHOLE - cell.share) / WHOLE, failed))
    return _Side(answers, errors, step_answers, step_errors, beside_answers, beside_errors, falls)


def _errors(cell: Cell, rules: Rules) -> int:
    return sum([count for kind, count in cell.errors.items() if rules.is_error(kind)])


def _total(cells: Iterable[Cell], rules: Rules) -> Tally:
    cells = tuple(cells)
    return Tally(sum([cell.answers for cell in cells]), sum([_errors(cell, rules) for cell in cells]))


def _leaned(lean: Lean, new: Falls, old: Falls) -> Lean:
    if not new and not old:
        return lean
    return Lean(
        lean.new + sum([(1 - share) * errors for _, share, errors in new]),
        lean.old + sum([share * errors for _, share, errors in old]),
    )


def _comparison(
    evidence: Evidence, new_falls: Falls, old_falls: Falls, in_tail: Tally
) -> tuple[float, ...] | None:
    """Return the window's factors: with the old version's errors, in the tail with its baseline.

    in_tail: what the new version did since the tail's weights are live.
    """
    live = evidence.first_generation
    if not evidence.in_tail or evidence.baseline is None or live is None:
        return fallen(new_falls, old_falls)
    factors = fallen(
        [fall for fall in new_falls if fall[0] < live], [fall for fall in old_falls if fall[0] < live]
    )
    if not in_tail.answers:
        return factors
    return added(factors, rate_factors(evidence.baseline_rate, in_tail.errors, in_tail.answers))


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
    while _is_ample(chunks[1:]):
        chunks = chunks[1:]
    if len(chunks) <= BASELINE_CHUNKS:
        return chunks
    first, second = chunks[0], chunks[1]
    joined = Chunk(first.seconds + second.seconds, second.tally.plus(first.tally.answers, first.tally.errors))
    return (joined, *chunks[2:])


def _sum(chunks: tuple[Chunk, ...]) -> Tally:
    return Tally(
        sum([chunk.tally.answers for chunk in chunks]), sum([chunk.tally.errors for chunk in chunks])
    )


def _is_ample(chunks: tuple[Chunk, ...]) -> bool:
    """Whether nothing from before `chunks` is needed."""
    seconds, answers = sum([chunk.seconds for chunk in chunks]), _sum(chunks).answers
    if seconds >= STALE_S:
        return answers >= BASELINE_ANSWERS
    return seconds >= BASELINE_S and answers >= AMPLE_ANSWERS


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
