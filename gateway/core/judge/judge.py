"""Two versions' windows -> advance, hold, ask, pause or abort, with the reason in a sentence.

The judge sees only what the gateway itself carried: first attempts that the split chose, by the version that
got them, each with the share of traffic in force when its version was chosen. `observe` folds one window into
the evidence, which is kept for the whole rollout and stored with it; `decide` reads a verdict off the
evidence. Both may be called as often as one likes: the tests stay valid under peeking (`statistics.py`).

What may abort, and what part of `falseAlarmRate` it may spend:

1. comparison (0.85): errors fall on the new version more often than its share of traffic explains;
2. an ask (0.15; by blocks, where nothing else compares, 0.8): the same, on fresh evidence of the ask alone;
3. death: it failed nearly everything, after the switch the old version works, and tried once more the new
   one fails again; or it was unusable for longer than a breaker's reset while the old one works;
4. the harm budget is spent; 4xx shifts and slowness, where the settings want it so.

Suspicion against the old version's record never aborts: from 50 % of traffic on it begins an ask. A cause
that both versions share is not the new one's doing; the comparison and the asks have that built in.
"""

from gateway.core.judge.ask import (
    DEATH_ANSWERS,
    DEATH_RATE,
    FROM_PERCENT,
    MAX_ASKS,
    Ask,
    is_dead_still,
    is_over,
    old_works,
)
from gateway.core.judge.decision import Decision, Gate, Verdict
from gateway.core.judge.evidence import Evidence, begin_step, forgive, observe, seeded, step_live
from gateway.core.judge.limits import (
    ADVANCE_SHARE,
    affordable,
    ask,
    comparison,
    is_warm,
    is_warming,
    nearest,
    shift,
    suspicion,
)
from gateway.core.judge.reasons import decision_of
from gateway.core.judge.rules import Rules
from gateway.core.judge.statistics import wilson_interval
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


def judge(evidence: Evidence, window: Window, rules: Rules) -> tuple[Evidence, Decision]:
    """Fold one window in and decide."""
    evidence = observe(evidence, window, rules)
    return evidence, decide(evidence, rules)


def decide(evidence: Evidence, rules: Rules) -> Decision:
    """Read the verdict off the evidence, with its numbers and its reason."""
    verdict, gate = weigh(evidence, rules)
    return decision_of(evidence, rules, verdict, gate)


def weigh(evidence: Evidence, rules: Rules) -> tuple[Verdict, Gate]:
    """Read the bare verdict off the evidence."""
    if (gate := _abort(evidence, rules)) is not None:
        return "abort", gate
    if evidence.ask is not None:
        return _weigh_ask(evidence, evidence.ask)
    if evidence.percent >= FROM_PERCENT and _is_suspicious(evidence):
        if not evidence.old_usable:
            return "pause", "nobody"
        if evidence.asks >= MAX_ASKS:
            return "pause", "asks"
        return "ask", "dead" if is_dead(evidence) else "suspicion"
    if (gate := _person_wanted(evidence)) is not None:
        return "pause", gate
    if _is_worse(evidence, rules) and is_warming(evidence, rules):
        return "hold", "warming"
    lacking = _lacking(evidence, rules)
    return ("hold", lacking) if lacking else ("advance", "clear")


def is_dead(evidence: Evidence) -> bool:
    """Whether the new version lately failed nearly everything, and the old one did not."""
    answers = sum([tally.answers for tally in evidence.last])
    errors = sum([tally.errors for tally in evidence.last])
    return answers >= DEATH_ANSWERS and errors >= DEATH_RATE * answers and evidence.record.was_well


def _abort(evidence: Evidence, rules: Rules) -> Gate | None:
    if _is_worse(evidence, rules) and (is_warm(evidence, rules) or is_dead(evidence)):
        return "comparison"
    if evidence.ask is not None:
        statistic, limit, _ = ask(evidence, rules)
        if statistic >= limit:
            return "ask"
        if is_dead_still(evidence.ask):
            return "dead"
    if _is_unavailable(evidence, rules):
        return "unavailable"
    if rules.max_failed is not None and evidence.excess >= rules.max_failed:
        return "budget"
    held = _person_wanted(evidence)
    if (held == "shift" and rules.on_shift == "abort") or (held == "latency" and rules.on_latency == "abort"):
        return held
    return None


def _is_worse(evidence: Evidence, rules: Rules) -> bool:
    statistic, limit, _ = comparison(evidence, rules)
    return statistic >= limit


def _is_unavailable(evidence: Evidence, rules: Rules) -> bool:
    """Whether the new version was out for longer than a breaker's reset while the old one works."""
    outage = evidence.outage
    return outage is not None and outage.seconds > rules.reset_s + 1 and outage.old.rate < 0.5


def _is_suspicious(evidence: Evidence) -> bool:
    is_anybody_there = evidence.old_usable or evidence.new_usable
    return is_anybody_there and evidence.suspicion.value >= suspicion(evidence).limit


def _weigh_ask(evidence: Evidence, asked: Ask) -> tuple[Verdict, Gate]:
    """Go on with an ask, or end it."""
    if not evidence.old_usable and evidence.new_usable:
        return "cleared", "nobody"
    if evidence.first_generation is None:
        return "hold", "asking"
    if asked.is_cleared:
        return "cleared", "cleared"
    if asked.seconds >= asked.most_s:
        return "pause", "undecided"
    if asked.mixes:
        return "hold", "asking"
    is_first_of_dead = asked.is_dead and len(asked.blocks) == 1
    over = old_works(asked) is not None if is_first_of_dead else is_over(asked.block)
    return ("draw", "block") if over else ("hold", "asking")


def _person_wanted(evidence: Evidence) -> Gate | None:
    """Return the shift that a person must look at."""
    statistic, limit, _ = shift(evidence)
    if statistic >= limit:
        return "shift"
    slow = evidence.slow
    return "latency" if slow is not None and slow.held_s > 0 else None


def _lacking(evidence: Evidence, rules: Rules) -> Gate | None:
    """Return what an advance still lacks."""
    step = evidence.step_new
    if evidence.first_generation is None:
        return "weights"
    if step.answers < rules.min_requests:
        return "requests"
    if _is_over_threshold(evidence, rules):
        return "rate"
    statistic, limit, _ = nearest(evidence, rules)
    if statistic >= ADVANCE_SHARE * limit:
        return "statistic"
    share = affordable(evidence, rules)
    return "forecast" if share is not None and share <= evidence.percent < 100 else None


def _is_over_threshold(evidence: Evidence, rules: Rules) -> bool:
    """Whether the step's rate, as far as it is certain, is above what is allowed or the old version's own."""
    step = evidence.step_failed
    low, _ = wilson_interval(step.errors, step.answers)
    return low > max(rules.error_threshold, tolerated(evidence))


def tolerated(evidence: Evidence) -> float:
    """Return the highest rate, a fraction, that the old version may have now, or by its record."""
    old = evidence.step_old
    if evidence.percent < 100 and old.answers:
        return wilson_interval(old.errors, old.answers)[1]
    return min(evidence.step_tolerated / evidence.step_new.answers, 1.0) if evidence.step_new.answers else 1.0
