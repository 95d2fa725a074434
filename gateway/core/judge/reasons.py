"""Why the judge decided as it did, in a sentence."""

from collections.abc import Callable
from typing import Final, Literal

from gateway.core.judge.ask import MAX_ASKS
from gateway.core.judge.decision import Decision, Gate, Verdict
from gateway.core.judge.evidence import Evidence
from gateway.core.judge.limits import (
    ADVANCE_SHARE,
    Test,
    affordable,
    ask,
    comparison,
    latency,
    nearest,
    shift,
    suspicion,
)
from gateway.core.judge.rules import Rules
from gateway.core.judge.statistics import wilson_interval
from gateway.core.judge.tallies import Tally


def decision_of(evidence: Evidence, rules: Rules, verdict: Verdict, gate: Gate) -> Decision:
    """Return the decision with its numbers and its reason."""
    new, old = evidence.step_new, evidence.step_old
    low, high = wilson_interval(new.errors, new.answers)
    statistic, limit, _ = _test(evidence, rules, gate)
    spent = None if rules.max_failed is None else max(0, round(evidence.excess))
    reason = _REASONS[gate](evidence, rules)
    if spent is not None:
        what = "users" if rules.sticky else "requests"
        reason = f"{reason} Spent of maxFailedUsers: {spent} of {rules.max_failed} failed {what}."
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
        culprit=_culprit(evidence, gate),
        spent=spent,
        affordable=affordable(evidence, rules),
    )


def _test(evidence: Evidence, rules: Rules, gate: Gate) -> Test:
    """Return the test that a gate's verdict comes from."""
    if gate in ("suspicion", "dead", "asks") and evidence.ask is None:
        return suspicion(evidence)
    if gate in ("ask", "dead", "asking", "cleared", "block", "undecided"):
        return ask(evidence, rules)
    if gate in ("comparison", "warming"):
        return comparison(evidence, rules)
    if gate == "shift":
        return shift(evidence)
    return latency(evidence) if gate == "latency" else nearest(evidence, rules)


def _compared_with(evidence: Evidence) -> Literal["concurrent", "record", "none"]:
    if evidence.percent < 100:
        return "concurrent"
    return "record" if evidence.record.answers else "none"


def _culprit(evidence: Evidence, gate: Gate) -> str:
    if gate == "shift":
        return evidence.shift.culprit
    if evidence.ask is not None and evidence.ask.mixes:
        return evidence.ask.comparison.culprit or evidence.comparison.culprit
    return evidence.comparison.culprit


def _comparison(evidence: Evidence, rules: Rules) -> str:
    odds = _odds(comparison(evidence, rules))
    return f"{_side_by_side(evidence)}; {odds}{_commonest(evidence)}{_only(evidence.comparison.culprit)}."


def _ask(evidence: Evidence, rules: Rules) -> str:
    asked = evidence.ask
    assert asked is not None
    return (
        f"The old version was asked: the new one failed {_rate(asked.new)} meanwhile, the old one "
        f"{_rate(asked.old)}; {_odds(ask(evidence, rules))}{_commonest(evidence)}"
        f"{_only(_culprit(evidence, 'ask'))}."
    )


def _dead(evidence: Evidence, rules: Rules) -> str:
    lately = Tally(
        sum([tally.answers for tally in evidence.last]), sum([tally.errors for tally in evidence.last])
    )
    asked = evidence.ask
    if asked is None:
        return (
            f"{lately.errors} of the new version's last {lately.answers} requests failed: asking the old one."
        )
    return (
        "The new version failed nearly every request, and again when it was tried once more: "
        f"{_rate(asked.block.tally)}. The old one works: it fails {_rate(asked.blocks[0].tally)}."
    )


def _unavailable(evidence: Evidence, rules: Rules) -> str:
    seconds = evidence.outage.seconds if evidence.outage is not None else 0.0
    return (
        f"The new version has been unusable for {seconds:.0f} s (unhealthy, or every breaker open), longer "
        f"than its breakers' reset of {rules.reset_s:.0f} s, while the old one works."
    )


def _budget(evidence: Evidence, rules: Rules) -> str:
    return f"maxFailedUsers is spent. {_side_by_side(evidence)}."


def _shift(evidence: Evidence, rules: Rules) -> str:
    return (
        f"4xx answers fall on the new version more often than its share of traffic explains; "
        f"{_odds(shift(evidence))}{_only(evidence.shift.culprit)}. A person decides: resume or promote "
        "accepts it."
    )


def _latency(evidence: Evidence, rules: Rules) -> str:
    slow = evidence.slow
    assert slow is not None
    return (
        f"The new version is slow: {slow.new.errors} of {slow.new.answers} answers took over "
        f"{slow.bound_us / 1000:.0f} ms, {rules.max_latency_ratio or 0:g} times what 95 % of the old one's "
        f"stay under; the evidence has reached {latency(evidence).limit:.0f} to 1. It holds until a whole "
        "step interval no longer shows it, or a person accepts it."
    )


def _suspicion(evidence: Evidence, rules: Rules) -> str:
    return (
        f"{_side_by_side(evidence)}; {_odds(suspicion(evidence))}. The cause may be one that both share: "
        "asking the old version."
    )


def _asks(evidence: Evidence, rules: Rules) -> str:
    return f"{_side_by_side(evidence)}, and the old version was asked {MAX_ASKS} times already."


def _asking(evidence: Evidence, rules: Rules) -> str:
    asked = evidence.ask
    assert asked is not None
    return (
        f"Asking the old version: since then the new one fails {_rate(asked.new)}, the old one "
        f"{_rate(asked.old)}; {_odds(ask(evidence, rules))}."
    )


def _cleared(evidence: Evidence, rules: Rules) -> str:
    asked = evidence.ask
    assert asked is not None
    both = f"the new one failed {_rate(asked.new)} meanwhile, the old one {_rate(asked.old)}"
    if asked.old.errors and asked.old.rate > asked.rate:
        return f"Asked the old version: it fails alike; {both}."
    return f"Asked the old version: not reproduced, or it fails alike; {both}."


def _nobody(evidence: Evidence, rules: Rules) -> str:
    if evidence.ask is None:
        return f"Nowhere to go back to, the old version is not usable. {_side_by_side(evidence)}."
    return "The old version cannot be asked: it is not usable at the moment."


def _undecided(evidence: Evidence, rules: Rules) -> str:
    asked = evidence.ask
    assert asked is not None
    return f"Asked the old version for {asked.most_s:.0f} s, undecided. {_asking(evidence, rules)}"


def _warming(evidence: Evidence, rules: Rules) -> str:
    return (
        f"{_comparison(evidence, rules)} Its process is young: waiting whether errors go on after its first "
        f"{rules.warm_up_s:.0f} s."
    )


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


def _statistic(evidence: Evidence, rules: Rules) -> str:
    test = nearest(evidence, rules)
    return f"Suspicious: {_odds(test)}, and less than {_number(ADVANCE_SHARE * test.limit)} to go on."


def _forecast(evidence: Evidence, rules: Rules) -> str:
    return (
        "The next step might spend more of maxFailedUsers than is left: by the upper bound of what the new "
        f"version fails beyond the old one, it pays for {affordable(evidence, rules)} % of traffic at most."
    )


def _clear(evidence: Evidence, rules: Rules) -> str:
    new = f"The new version fails {_rate(evidence.step_new)} in this step"
    return f"{new}, {_other(evidence, evidence.step_old)}."


_REASONS: Final[dict[Gate, Callable[[Evidence, Rules], str]]] = {
    "comparison": _comparison,
    "ask": _ask,
    "dead": _dead,
    "unavailable": _unavailable,
    "budget": _budget,
    "shift": _shift,
    "latency": _latency,
    "suspicion": _suspicion,
    "asks": _asks,
    "asking": _asking,
    "cleared": _cleared,
    "nobody": _nobody,
    "block": _asking,
    "undecided": _undecided,
    "warming": _warming,
    "weights": _weights,
    "requests": _requests,
    "rate": _over_threshold,
    "statistic": _statistic,
    "forecast": _forecast,
    "clear": _clear,
}


def _side_by_side(evidence: Evidence) -> str:
    """Say how both do, over the time that shows the difference best."""
    lately = Tally(
        sum([tally.answers for tally in evidence.last]), sum([tally.errors for tally in evidence.last])
    )
    answers, errors = evidence.old_lately
    scopes = [
        ("so far", evidence.new, evidence.old),
        ("in this step", evidence.step_new, evidence.step_old),
        ("lately", lately, Tally(round(answers), round(errors))),
    ]
    when, new, old = max(scopes, key=lambda scope: scope[1].rate - scope[2].rate)
    return f"The new version fails {_rate(new)} {when}, {_other(evidence, old)}"


def _other(evidence: Evidence, old: Tally) -> str:
    """Say what the new version's rate is compared with."""
    if evidence.percent < 100:
        return f"the old one {_rate(old)}"
    if not evidence.record.answers:
        return "and there is nothing to compare it with"
    return f"the old one's record is {_percent(evidence.record.usual)}"


def _commonest(evidence: Evidence) -> str:
    """Say of which kind the most of the new version's errors are."""
    if not evidence.kinds:
        return ""
    return f"; its commonest error: {max(evidence.kinds, key=lambda kind: evidence.kinds[kind])}"


def _only(culprit: str) -> str:
    return f"; only {culprit}" if culprit else ""


def _rate(tally: Tally) -> str:
    return f"{_percent(tally.rate)} ({tally.errors} of {tally.answers})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if fraction < 0.1 else f"{100 * fraction:.0f} %"


def _odds(test: Test) -> str:
    statistic, limit = _number(test.statistic), _number(test.limit)
    return f"the evidence is {statistic} to 1 that {test.claim}, {limit} is the limit"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 and value != round(value) else f"{min(value, 1e9):.0f}"
