"""Two versions' windows -> advance, hold or abort, with the reason in a sentence.

The judge sees only what the gateway itself carried: first attempts that the split chose, by the version that
got them, each with the share of traffic in force when its version was chosen. `observe` folds one window into
the evidence, which is kept for the whole rollout and stored with it; `decide` reads a verdict off the
evidence. Both may be called as often as one likes: every test here stays valid under peeking
(`core/statistics.py`).

The gates, in order, each with what it may spend of `falseAlarmRate`:

0. unavailable: the new version unusable for 10 s while the old one works;
1. ceiling: half of its last ten or more failed, and the chance of that at the old version's rate is under
   10^-6;
2. threshold (0.1): its error rate is above `errorThreshold`;
3. comparison (0.8): errors fall on it more often than its share of traffic explains. From 95 % on too little
   is left to compare with: it is tested against what the old version did before the switch;
4. latency (0.1): it is slow more often than the old version, `maxLatencyRatio` allowed for.

A cause both share is not the canary's doing. The comparison has that built in; gate 0 waits while the old
version is in trouble too; gates 1 and 2 act only if the old version fails less than half as often *and* the
comparison says so itself, at nearly the odds it needs to abort (`GUARD_SHARE`: 111 to 1); gate 4 has a
comparison of slowness for that. So up to 95 % the gates together stop no more than `falseAlarmRate` of the
versions that are no worse, whatever the two go through. From 95 % on the comparison is with "before the
switch", and a cause that came later is told from the new version only by what little old traffic there still
is. At 100 %, where the old version answered too little for a baseline, gates 1 and 2 act by themselves.
"""

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from gateway.core.judge.evidence import Evidence, Rules, begin_step, forgive, observe, seeded, step_live
from gateway.core.judge.latency import LATENCY_ANSWERS
from gateway.core.judge.statistics import predictive_tail, wilson_interval
from gateway.core.judge.tallies import Tally
from gateway.core.judge.window import Window

__all__ = [
    "Decision",
    "Evidence",
    "Gate",
    "Rules",
    "Tally",
    "Verdict",
    "begin_step",
    "decide",
    "forgive",
    "judge",
    "observe",
    "seeded",
    "step_live",
    "weigh",
]

Verdict = Literal["advance", "hold", "abort"]
Gate = Literal[
    "unavailable",
    "ceiling",
    "threshold",
    "comparison",
    "latency",
    "weights",
    "requests",
    "rate",
    "statistic",
    "clear",
]
"""Which gate aborted; or what an advance lacks: weights, requests, rate, statistic; or clear: nothing."""

UNAVAILABLE_S: Final = 10.0
RECOVERY_S: Final = 60.0
"""After trouble both had, one comes back before the other by luck: by up to a breaker's reset."""
CEILING_ANSWERS: Final = 10
CEILING_TAIL: Final = 1e-6
COMPARISON_SHARE: Final = 0.8
THRESHOLD_SHARE: Final = 0.1
LATENCY_SHARE: Final = 0.1
GUARD_SHARE: Final = COMPARISON_SHARE + THRESHOLD_SHARE
"""What the comparison must say, too, before gates 1 and 2 may blame the new version. "Fails twice as often"
is no test by itself: it let them stop 9 to 19 of 100 rollouts of versions that both fail 30 % of requests."""
ADVANCE_SHARE: Final = 0.1
"""An advance wants every statistic below this part of what would abort."""
MIN_USERS: Final = 3
"""Sticky services: fewer failing users than this prove nothing about the version."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A verdict with everything it rests on. Rates and interval in percent."""

    verdict: Verdict
    gate: Gate
    reason: str
    percent: int
    new_answers: int
    """First attempts in this step."""
    new_errors: int
    old_answers: int
    old_errors: int
    new_rate: float
    old_rate: float
    interval: tuple[float, float]
    """95 % interval of the new version's rate in this step."""
    statistic: float
    """Likelihood ratio "the new version is worse" : "it is not", of the gate that is nearest to an abort."""
    limit: float
    """What that statistic must reach to abort."""
    comparison: Literal["concurrent", "baseline", "none"]
    """What the new version's errors are compared with."""


def judge(evidence: Evidence, window: Window, rules: Rules) -> tuple[Evidence, Decision]:
    """Fold one window in and decide."""
    evidence = observe(evidence, window, rules)
    return evidence, decide(evidence, rules)


def decide(evidence: Evidence, rules: Rules) -> Decision:
    """Read the verdict off the evidence, with its numbers and its reason."""
    verdict, gate = weigh(evidence, rules)
    return _decision(evidence, rules, verdict, gate, _REASONS[gate](evidence, rules))


def weigh(evidence: Evidence, rules: Rules) -> tuple[Verdict, Gate]:
    """Read the bare verdict off the evidence."""
    for gate in _ABORTING:
        if _REASONS[gate](evidence, rules):
            return "abort", gate
    lacking = _lacking(evidence, rules)
    return ("hold", lacking) if lacking else ("advance", "clear")


def _unavailable(evidence: Evidence, rules: Rules) -> str:
    outage = evidence.outage
    if outage is None:
        return ""
    is_shared = evidence.old_well_s < outage.seconds + RECOVERY_S
    if outage.seconds < UNAVAILABLE_S + is_shared * RECOVERY_S or outage.old.may_be_failing:
        return ""
    return (
        f"The new version has been unusable for {outage.seconds:.0f} s (unhealthy, or every breaker open), "
        "while the old one works."
    )


def _ceiling(evidence: Evidence, rules: Rules) -> str:
    if not _enough_users(evidence, rules) or not _is_the_new_ones_doing(evidence, rules):
        return ""
    baseline = evidence.baseline if evidence.percent == 100 else None
    new, old = Tally(), baseline or Tally()
    for chunk in reversed(evidence.recent):
        new = new.plus(chunk.new_answers, chunk.new_errors)
        if baseline is None:
            old = old.plus(chunk.old_answers, chunk.old_errors)
        if new.answers < CEILING_ANSWERS or new.rate < 0.5 or old.rate >= new.rate / 2:
            continue
        if predictive_tail(new.errors, new.answers, old.errors, old.answers) < CEILING_TAIL:
            last = f"{new.errors} of the new version's last {new.answers} requests failed"
            return f"{last}; the old one failed {_rate(old)}."
    return ""


def _threshold(evidence: Evidence, rules: Rules) -> str:
    statistic, limit = evidence.threshold.value, _limit(rules, THRESHOLD_SHARE)
    if statistic < limit or not _enough_users(evidence, rules) or not _is_the_new_ones_doing(evidence, rules):
        return ""
    threshold = f"errorThreshold is {_percent(rules.error_threshold)}"
    return f"{_side_by_side(evidence)}; {threshold}, {_odds(statistic, limit, 'it is above that')}."


def _comparison(evidence: Evidence, rules: Rules) -> str:
    statistic, limit = evidence.comparison.value, _limit(rules, COMPARISON_SHARE)
    if statistic < limit:
        return ""
    if evidence.in_tail and evidence.baseline is not None and _may_be_shared(evidence, rules):
        return ""
    return f"{_side_by_side(evidence)}; {_odds(statistic, limit, 'it is worse')}."


def _latency(evidence: Evidence, rules: Rules) -> str:
    slow = evidence.slow
    if slow is None or slow.new.answers < LATENCY_ANSWERS:
        return ""
    statistic, limit = slow.rate.value, _limit(rules, LATENCY_SHARE)
    if statistic < limit or (evidence.percent < 100 and slow.comparison.value < _limit(rules, GUARD_SHARE)):
        return ""
    return (
        f"The new version is slow: {slow.new.errors} of {slow.new.answers} answers took over "
        f"{slow.bound_us / 1000:.0f} ms, {rules.max_latency_ratio:g} times what 95 % of the old one's stay "
        f"under; {_odds(statistic, limit, 'it is slower than that')}."
    )


def _lacking(evidence: Evidence, rules: Rules) -> Gate | None:
    """Return what an advance still lacks."""
    step = evidence.step_new
    if evidence.first_generation is None:
        return "weights"
    if step.answers < rules.min_requests:
        return "requests"
    if step.rate > rules.error_threshold:
        return "rate"
    statistic, limit, _ = _nearest(evidence, rules)
    return "statistic" if statistic >= ADVANCE_SHARE * limit else None


def _weights(evidence: Evidence, rules: Rules) -> str:
    return "Waiting for every worker to serve by this step's weights."


def _requests(evidence: Evidence, rules: Rules) -> str:
    answers = evidence.step_new.answers
    return f"Too little traffic so far: {answers} of {rules.min_requests} requests in this step."


def _over_threshold(evidence: Evidence, rules: Rules) -> str:
    return (
        f"Over errorThreshold ({_percent(rules.error_threshold)}), but not proven to be the new version's "
        f"doing: it fails {_rate(evidence.step_new)} in this step, {_other(evidence, evidence.step_old)}."
    )


def _suspicion(evidence: Evidence, rules: Rules) -> str:
    statistic, limit, claim = _nearest(evidence, rules)
    enough = _number(ADVANCE_SHARE * limit)
    return f"Suspicious: {_odds(statistic, limit, claim)}, and less than {enough} to go on."


def _clear(evidence: Evidence, rules: Rules) -> str:
    new = f"The new version fails {_rate(evidence.step_new)} in this step"
    return f"{new}, {_other(evidence, evidence.step_old)}."


_ABORTING: Final[tuple[Gate, ...]] = ("unavailable", "ceiling", "threshold", "comparison", "latency")
"""In order. The reason of each is "" while it does not abort."""
_REASONS: Final[dict[Gate, Callable[[Evidence, Rules], str]]] = {
    "unavailable": _unavailable,
    "ceiling": _ceiling,
    "threshold": _threshold,
    "comparison": _comparison,
    "latency": _latency,
    "weights": _weights,
    "requests": _requests,
    "rate": _over_threshold,
    "statistic": _suspicion,
    "clear": _clear,
}


def _side_by_side(evidence: Evidence) -> str:
    """Say how both do, over the time that shows the difference best."""
    lately = evidence.recent
    scopes = [
        ("so far", evidence.new, evidence.old),
        ("in this step", evidence.step_new, evidence.step_old),
        (
            "lately",
            Tally(sum(chunk.new_answers for chunk in lately), sum(chunk.new_errors for chunk in lately)),
            Tally(sum(chunk.old_answers for chunk in lately), sum(chunk.old_errors for chunk in lately)),
        ),
    ]
    when, new, old = max(scopes, key=lambda scope: scope[1].rate - scope[2].rate)
    return f"The new version fails {_rate(new)} {when}, {_other(evidence, old)}"


def _other(evidence: Evidence, old: Tally) -> str:
    """Say what the new version's rate is compared with."""
    if evidence.in_tail and evidence.baseline is not None:
        return f"the old one failed {_rate(evidence.baseline)} before the switch"
    if evidence.percent == 100:
        return "and there is nothing to compare it with"
    return f"the old one {_rate(old)}"


def _is_the_new_ones_doing(evidence: Evidence, rules: Rules) -> bool:
    """Whether the old version fails less than half as often, and not by luck, as far as that can be told."""
    baseline = evidence.baseline
    if evidence.percent == 100 and baseline is None:
        return True
    if evidence.comparison.value < _limit(rules, GUARD_SHARE):
        return False
    if not evidence.in_tail or baseline is None:
        return evidence.lean.new > 2 * evidence.lean.old
    return evidence.step_new.rate > 2 * baseline.rate and not _may_be_shared(evidence, rules)


def _may_be_shared(evidence: Evidence, rules: Rules) -> bool:
    """Whether, in the tail, the little traffic the old version still has leaves open that it fails alike."""
    return evidence.percent < 100 and evidence.tail.value < _limit(rules, COMPARISON_SHARE)


def _enough_users(evidence: Evidence, rules: Rules) -> bool:
    return not rules.sticky or evidence.users.on_new >= MIN_USERS


def _limit(rules: Rules, share: float) -> float:
    return 1 / (share * rules.false_alarm_rate)


def _nearest(evidence: Evidence, rules: Rules) -> tuple[float, float, str]:
    """Return (statistic, limit, claim) of the test that is nearest to an abort."""
    tests = [
        (evidence.comparison.value, _limit(rules, COMPARISON_SHARE), "the new version is worse"),
        (
            evidence.threshold.value,
            _limit(rules, THRESHOLD_SHARE),
            "the new version's error rate is above errorThreshold",
        ),
    ]
    if evidence.slow is not None:
        limit = _limit(rules, LATENCY_SHARE)
        tests.append((evidence.slow.rate.value, limit, "the new version is slower than maxLatencyRatio"))
    return max(tests, key=lambda test: test[0] / test[1])


def _decision(evidence: Evidence, rules: Rules, verdict: Verdict, gate: Gate, reason: str) -> Decision:
    new, old = evidence.step_new, evidence.step_old
    low, high = wilson_interval(new.errors, new.answers)
    statistic, limit, _ = _nearest(evidence, rules)
    return Decision(
        verdict=verdict,
        gate=gate,
        reason=reason,
        percent=evidence.percent,
        new_answers=new.answers,
        new_errors=new.errors,
        old_answers=old.answers,
        old_errors=old.errors,
        new_rate=round(100 * new.rate, 3),
        old_rate=round(100 * old.rate, 3),
        interval=(round(100 * low, 3), round(100 * high, 3)),
        statistic=float(f"{statistic:.4g}"),
        limit=round(limit, 1),
        comparison=_compared_with(evidence),
    )


def _compared_with(evidence: Evidence) -> Literal["concurrent", "baseline", "none"]:
    if not evidence.in_tail:
        return "concurrent"
    return "none" if evidence.baseline is None else "baseline"


def _rate(tally: Tally) -> str:
    return f"{_percent(tally.rate)} ({tally.errors} of {tally.answers})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if fraction < 0.1 else f"{100 * fraction:.0f} %"


def _odds(statistic: float, limit: float, that: str) -> str:
    return f"the evidence is {_number(statistic)} to 1 that {that}, {_number(limit)} is needed to abort"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 and value != round(value) else f"{min(value, 1e9):.0f}"
