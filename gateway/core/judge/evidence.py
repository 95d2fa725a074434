"""What a rollout knows about its two versions. Kept for all of it and stored with it; no step resets it."""

import math
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.ask import Ask, counted, drawn, in_force, mixed
from gateway.core.judge.comparison import Comparison
from gateway.core.judge.latency import Slow, faded, slower
from gateway.core.judge.record import FAILING, Chunk, Record
from gateway.core.judge.rules import Rules
from gateway.core.judge.suspicion import Suspicion
from gateway.core.judge.tallies import Side, Tally, by_kind, side_of, tallies_of
from gateway.core.judge.users import Lately, Users, first_falls
from gateway.core.judge.window import Cell, KeyError64, Window, error_of

SEED_ANSWERS: Final = 200
AMPLE_ANSWERS: Final = 1000
"""What is known from before the rollout weighs no more than so many answers: weeks' average is no measure
for one evening."""
FIRST_S: Final = 2.0
"""A first answer came within so many seconds of its window's beginning: a tick of the loop, or a late one."""
RENEWED_S: Final = 1_800.0
"""Sticky services: so often the set of users who had their first error is renewed."""
LATELY_ANSWERS: Final = 20
"""Of how many answers is known which of them failed, to see a version that is dead."""
OLD_LATELY_S: Final = 20.0
FEW: Final = 5
"""So many good answers are added to what the old version did lately: one error among few says little."""
FAR_MORE: Final = 0.01
"""So much and twice its usual rate is far more than an old version usually fails."""


class Outage(msgspec.Struct, frozen=True, array_like=True):
    """The new version has been unusable, and has given no good answer since."""

    seconds: float = 0.0
    """Observed while the old one was usable."""
    old: Tally = Tally()
    """How the old one did meanwhile."""


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything the verdict is read off. Serialisable; grows to a bound of some 30 kB."""

    percent: int = 0
    """The new version's share as the rollout set it."""
    old_usable: bool = True
    """At the end of the last window; so the next."""
    new_usable: bool = True
    seconds: float = 0.0
    """Observed since the new version first had a share."""
    first_generation: int | None = None
    """First generation of the share; None until its weights are acknowledged."""
    step_new: Tally = Tally()
    """In this step, asks included."""
    step_old: Tally = Tally()
    step_again: int = 0
    """Of the new version's errors in this step: those of sticky users who had failed within a minute."""
    step_tolerated: float = 0.0
    """How many of the new version's errors in this step the old one's record would excuse."""
    new: Tally = Tally()
    """In the rollout."""
    old: Tally = Tally()
    kinds: dict[str, int] = {}
    """The new version's errors in the rollout by kind; of kinds met late there may be too many to keep."""
    excess: float = 0.0
    """The new version's failures beyond the old one's rate: what was spent of the harm budget."""
    comparison: Comparison = Comparison()
    warmed: Comparison = Comparison()
    """The comparison from the end of the warm-up on, whose prior is what it was then."""
    warm_s: float | None = None
    """Observed seconds since the window of the new version's first answer; None: it has had none."""
    shift: Comparison = Comparison()
    """The comparison of 4xx answers."""
    slow: Slow | None = None
    record: Record = Record()
    old_lately: tuple[float, float] = (0.0, 0.0)
    """(answers, errors) of the old version in the last seconds, fading."""
    suspicion: Suspicion = Suspicion()
    last: tuple[Tally, ...] = ()
    """The new version's last windows that hold `LATELY_ANSWERS` answers, oldest first."""
    outage: Outage | None = None
    users: Users = Users()
    shifted: Users = Users()
    """Users who had their first 4xx answer."""
    users_s: float = 0.0
    """Observed seconds since the sets were begun."""
    lately: Lately = Lately()
    ask: Ask | None = None
    """The ask under way."""
    asks: int = 0
    """How many there were, this one included."""
    kept: float = 0.0
    """What the finished asks by blocks came to, weighted."""

    @property
    def step_failed(self) -> Tally:
        """The new version's answers and errors in this step, of a sticky user one error a minute."""
        return Tally(self.step_new.answers, self.step_new.errors - self.step_again)


def begin_step(evidence: Evidence, percent: int) -> Evidence:
    """Return the evidence as a new step is begun: the step's counts start over, the statistics do not."""
    evidence = replace(evidence, step_new=Tally(), step_old=Tally(), step_again=0, step_tolerated=0.0)
    return set_share(evidence, percent)


def set_share(evidence: Evidence, percent: int) -> Evidence:
    """Return the evidence as a share is set, whose weights are not in force yet."""
    return replace(
        evidence,
        percent=percent,
        first_generation=None,
        suspicion=Suspicion(),
        last=(),
        record=evidence.record.read(),
    )


def step_live(evidence: Evidence, generation: int) -> Evidence:
    """Return the evidence once the weights are in force: those of `generation` and later are the step's."""
    ask = in_force(evidence.ask, generation) if evidence.ask is not None else None
    return replace(evidence, first_generation=generation, ask=ask)


def begin_ask(evidence: Evidence, percent: int, *, mixes: bool, is_dead: bool, is_new: bool) -> Evidence:
    """Return the evidence as the old version begins to be asked.

    percent: the new version's share meanwhile. is_new: what the coin said of the first block.
    """
    rate = evidence.record.usual
    ask = Ask(
        number=evidence.asks + 1,
        mixes=mixes,
        rate=rate,
        suspected=evidence.suspicion.suspected(rate),
        is_dead=is_dead and not mixes,
    )
    if not mixes:
        ask = drawn(ask, is_new=is_new)
    return set_share(replace(evidence, ask=ask, asks=ask.number), percent)


def draw_block(evidence: Evidence, percent: int, *, is_new: bool) -> Evidence:
    """Return the evidence as the next block of an ask begins."""
    assert evidence.ask is not None
    return set_share(replace(evidence, ask=drawn(evidence.ask, is_new=is_new)), percent)


def end_ask(evidence: Evidence) -> Evidence:
    """Return the evidence as an ask ends: what it saw raises the measure for a while of serving."""
    ask = evidence.ask
    if ask is None:
        return evidence
    record = evidence.record.lifted(ask.rate_seen)
    kept = evidence.kept + (0.0 if ask.mixes else prior_mass(ask.number) * ask.statistic)
    # What the old version does alike is not held against the step either.
    excused = max(evidence.step_tolerated, float(evidence.step_new.errors))
    return replace(evidence, ask=None, record=record, kept=kept, step_tolerated=excused)


def prior_mass(number: int) -> float:
    """Return the weight of a rollout's `number`-th ask by blocks; all together come to one."""
    return 0.8 if number == 1 else 0.2 / (number * (number - 1))


def forgive(evidence: Evidence) -> Evidence:
    """Return the evidence with all counts begun anew: a person saw them and decided to go on."""
    return replace(
        accept_shift(evidence),
        step_new=Tally(),
        step_old=Tally(),
        step_again=0,
        step_tolerated=0.0,
        new=Tally(),
        old=Tally(),
        kinds={},
        excess=0.0,
        record=replace(evidence.record, cleared=0),
        comparison=Comparison(),
        warmed=Comparison(),
        suspicion=Suspicion(),
        last=(),
        outage=None,
        ask=None,
        asks=0,
        kept=0.0,
    )


def accept_shift(evidence: Evidence) -> Evidence:
    """Return the evidence with the tests of 4xx answers and of slowness begun anew."""
    slow = Slow(old_buckets=evidence.slow.old_buckets) if evidence.slow else None
    return replace(evidence, shift=Comparison(), shifted=Users(), slow=slow)


def seeded(cells: Iterable[Cell], rules: Rules) -> Evidence:
    """Return the evidence a rollout begins with: what the old version did so far.

    cells: its totals by weights, as far as control has them; the newest with enough answers are taken.
    """
    newest = sorted(cells, key=lambda cell: cell.generation, reverse=True)
    taken: list[Cell] = []
    while newest and sum(cell.answers for cell in taken) < SEED_ANSWERS:
        taken.append(newest.pop(0))
    side = side_of(tuple(taken), rules, None, is_new=False)
    answers, errors = side.answers, side.errors + side.abandoned
    if answers > AMPLE_ANSWERS:
        answers, errors = AMPLE_ANSWERS, math.ceil(errors * AMPLE_ANSWERS / answers)
    record = Record((Chunk(0.0, Tally(answers, min(errors, answers)), 1.0),)) if answers else Record()
    return Evidence(
        record=record.read(), slow=Slow(old_buckets=faded(None, Window(seconds=0, old=tuple(taken))))
    )


def observe(evidence: Evidence, window: Window, rules: Rules) -> Evidence:
    """Return the evidence with one more window folded in."""
    live = evidence.first_generation
    new = side_of(window.new, rules, live, is_new=True)
    old = side_of(window.old, rules, live, is_new=False)
    evidence = _remembered(evidence, window, old, rules)
    evidence = replace(evidence, old_usable=window.old_usable, new_usable=window.new_usable)
    if evidence.percent == 0 and evidence.ask is None:
        return evidence
    if rules.sticky:
        evidence = _met(evidence, window, new, old, rules)
    evidence = _tested(evidence, window, new, old, rules)
    evidence = _suspected(evidence, window, new, old, rules)
    return _asked(evidence, window, new, old, rules)


def _remembered(evidence: Evidence, window: Window, old: Side, rules: Rules) -> Evidence:
    """Take in what the old version does by itself, and how the new one is."""
    record = evidence.record
    if window.old_usable:
        # Twice as many abandoned requests of the new version are still "alike".
        share = max(1 - evidence.percent / 100, 0.01)
        record = record.plus(window.seconds, old.answers, old.errors + old.abandoned, share)
    slow = evidence.slow
    if rules.max_latency_ratio is None:
        slow = None
    elif evidence.percent == 0 or evidence.warm_s is None or evidence.warm_s < rules.warm_up_s:
        slow = replace(slow or Slow(), old_buckets=faded(slow, window))
    else:
        slow = slower(slow or Slow(), window, rules.max_latency_ratio, rules.interval_s)
    return replace(evidence, record=record, slow=slow, outage=_outage(evidence.outage, window, old))


def _met(evidence: Evidence, window: Window, new: Side, old: Side, rules: Rules) -> Evidence:
    """Add users known by a key to the errors of either side: each user's first counts."""
    evidence = _renewed(evidence, window.seconds)
    failed = _of(window.new_keys, rules.is_error), _of(window.old_keys, rules.is_error)
    users, *more = first_falls(evidence.users, *failed)
    new.falls += more[0]
    old.falls += more[1]
    shifted, *more = first_falls(
        evidence.shifted, _of(window.new_keys, rules.is_shift), _of(window.old_keys, rules.is_shift)
    )
    new.shifts += more[0]
    old.shifts += more[1]
    evidence = replace(evidence, users=users, shifted=shifted)
    live = evidence.first_generation
    if live is None:
        return evidence
    fresh = [[met for met in side if met.generation >= live] for side in failed]
    lately, errors = evidence.lately.times(fresh[0], window.seconds)
    new.step_keyed = min(errors, new.step_keyed)
    ask = evidence.ask
    if ask is not None:
        asked, *more = first_falls(ask.users, *fresh)
        new.fresh += more[0]
        old.fresh += more[1]
        ask = replace(ask, users=asked)
    return replace(evidence, lately=lately, ask=ask)


def _renewed(evidence: Evidence, seconds: float) -> Evidence:
    """Return the evidence with a new set of users when it is time."""
    if not evidence.comparison.is_renewed:
        return replace(evidence, comparison=Comparison(is_renewed=True))
    users_s = evidence.users_s + seconds
    if users_s < RENEWED_S:
        return replace(evidence, users_s=users_s)
    return replace(evidence, comparison=evidence.comparison.renewed(), users=Users(), users_s=0.0)


def _of(met: tuple[KeyError64, ...], counts: Callable[[str], bool]) -> list[KeyError64]:
    return [each for each in met if counts(error_of(each.kind).kind)]


def _tested(evidence: Evidence, window: Window, new: Side, old: Side, rules: Rules) -> Evidence:
    """Fold the window into counts and comparisons."""
    seconds = window.seconds
    warm_s, warmed = _warmed(evidence, window, new, old, rules)
    return replace(
        evidence,
        step_new=evidence.step_new.plus(new.step_answers, new.step_errors),
        step_old=evidence.step_old.plus(old.step_answers, old.step_errors),
        step_again=evidence.step_again + new.step_errors - _counting(new, rules),
        step_tolerated=evidence.step_tolerated + new.step_answers * evidence.record.tolerated,
        new=evidence.new.plus(new.answers, new.errors),
        old=evidence.old.plus(old.answers, old.errors),
        kinds=by_kind(evidence.kinds, new.kinds),
        excess=evidence.excess + _excess(evidence, new, old, rules),
        comparison=evidence.comparison.times(new.falls, old.falls, seconds),
        warmed=warmed,
        warm_s=warm_s,
        seconds=evidence.seconds + seconds,
        shift=evidence.shift.times(new.shifts, old.shifts, seconds),
    )


def _warmed(
    evidence: Evidence, window: Window, new: Side, old: Side, rules: Rules
) -> tuple[float | None, Comparison]:
    """Return the new version's age after the window, and the comparison since it was warm."""
    if evidence.warm_s is not None:
        warm_s = evidence.warm_s + window.seconds
    elif new.answers:  # a window is longer than a tick where nothing could be committed: all in it is joined
        warm_s = max(0.0, window.seconds - FIRST_S)
    else:
        return None, evidence.warmed
    if rules.warm_up_s and warm_s <= rules.warm_up_s:
        return warm_s, evidence.warmed
    # Also where a person let all counts begin anew, or the evidence was stored by a release without this one.
    warmed = evidence.warmed if evidence.warmed.elapsed_s else evidence.comparison.again()
    return warm_s, warmed.times(new.falls, old.falls, window.seconds)


def _excess(evidence: Evidence, new: Side, old: Side, rules: Rules) -> float:
    """Return the window's failures of the new version (users, if sticky) beyond the old one's rate."""
    share = evidence.percent / 100
    if rules.sticky and share < 1:
        return new.fallen - old.fallen * share / (1 - share)
    answers, errors = evidence.old_lately
    usual = errors / answers if answers >= 1 else evidence.record.usual
    return (new.fallen if rules.sticky else new.errors) - new.answers * usual


def _suspected(evidence: Evidence, window: Window, new: Side, old: Side, rules: Rules) -> Evidence:
    """Measure the new version by the old one's record, and by what that one has done lately."""
    fade = math.exp(-window.seconds / OLD_LATELY_S)
    answers, errors = evidence.old_lately
    lately = (answers * fade + old.answers, errors * fade + old.errors)
    evidence = replace(evidence, old_lately=lately)
    if evidence.first_generation is None or not new.step_answers or evidence.ask is not None:
        return evidence
    record = evidence.record
    usual = record.usual
    if evidence.percent < 100:
        # The window's own as well: where much is answered, the last seconds' hides that a burst begins.
        usual = max(usual, lately[1] / (lately[0] + FEW), old.errors / (old.answers + FEW))
    if usual >= FAILING:  # no new version can fail noticeably more than this
        return replace(evidence, suspicion=Suspicion(), record=record.passed(window.seconds))
    return replace(
        evidence,
        suspicion=evidence.suspicion.times(
            usual,
            record.dispersion(evidence.percent / 100),
            min(_counting(new, rules), new.step_answers),
            new.step_answers,
            window.seconds,
        ),
        last=_last(evidence.last, Tally(new.step_answers, new.step_errors)),
        record=record.passed(window.seconds),
    )


def _counting(new: Side, rules: Rules) -> int:
    """Return the new version's errors in the step, without those of sticky users who fail again and again."""
    if not rules.sticky:
        return new.step_errors
    return min(new.step_keyed + sum([fall.errors for fall in new.fresh]), new.step_errors)


def _last(last: tuple[Tally, ...], tally: Tally) -> tuple[Tally, ...]:
    last = (*last, tally)
    while sum([each.answers for each in last[1:]]) >= LATELY_ANSWERS:
        last = last[1:]
    return last


def _asked(evidence: Evidence, window: Window, new: Side, old: Side, rules: Rules) -> Evidence:
    """Fold the window into the ask under way, from the moment its weights are in force."""
    ask, lately = evidence.ask, evidence.old_lately
    if ask is None or evidence.first_generation is None:
        return evidence
    ask = replace(
        ask,
        seconds=ask.seconds + window.seconds,
        is_old_failing=lately[1] > (2 * ask.rate + FAR_MORE) * lately[0],
    )
    if ask.mixes and (evidence.warm_s is None or evidence.warm_s <= rules.warm_up_s):
        return replace(evidence, ask=ask)  # nor is it cleared by what is not held against it
    ask = replace(
        ask,
        new=ask.new.plus(new.step_answers, new.step_errors),
        old=ask.old.plus(old.step_answers, old.step_errors),
    )
    if not ask.mixes:
        tallies = tallies_of(window.new, rules), tallies_of(window.old, rules)
        ask = counted(ask, window.seconds, *tallies)
    else:
        ask = mixed(ask, new.fresh, old.fresh, window.seconds)
    return replace(evidence, ask=ask)


def _outage(outage: Outage | None, window: Window, old: Side) -> Outage | None:
    """Return it while the new version is unusable, or has given no good answer since."""
    is_answering = sum([cell.answers - sum(cell.errors.values()) for cell in window.new]) > 0
    if is_answering or (outage is None and window.new_usable):
        return None
    if outage is None or not window.old_usable:
        return Outage()
    return Outage(outage.seconds + window.seconds, outage.old.plus(old.answers, old.errors))
