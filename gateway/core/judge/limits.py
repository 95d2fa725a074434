"""What each test's statistic must reach, and how far it is."""

from typing import Final, NamedTuple

from gateway.core.judge.evidence import Evidence, prior_mass
from gateway.core.judge.latency import SHIFT_ODDS
from gateway.core.judge.rules import Rules
from gateway.core.judge.statistics import upper_bound
from gateway.core.judge.suspicion import ALARM

COMPARISON_SHARE: Final = 0.85
"""The part of `falseAlarmRate` that the comparison may spend."""
ASK_SHARE: Final = 0.15
"""What asks that mix may spend: they begin from suspicion, with traffic off the new version already."""
BLOCKS_SHARE: Final = 0.8
"""What asks by blocks may spend, where nothing is left to the comparison."""
WARMED_S: Final = 10.0
"""After the warm-up, errors have so long to bear out what was seen in it."""
BORNE_OUT: Final = 0.05
"""Within that time they do from this part of the limit of all of `falseAlarmRate` on: one may be enough."""
LATE_BORNE_OUT: Final = 0.2
"""Afterwards from this part on: a version that goes on failing has long got there."""
ADVANCE_SHARE: Final = 0.1
"""An advance wants every statistic below this part of its limit."""


class Test(NamedTuple):
    """One test as it stands."""

    statistic: float
    limit: float
    claim: str


def comparison(evidence: Evidence, rules: Rules) -> Test:
    """Return the comparison."""
    limit = 1 / (COMPARISON_SHARE * rules.false_alarm_rate)
    return Test(evidence.comparison.value, limit, "the new version is worse")


def is_warm(evidence: Evidence, rules: Rules) -> bool:
    """Whether errors after the warm-up alone bear the comparison out."""
    part = BORNE_OUT if is_warming(evidence, rules) else LATE_BORNE_OUT
    return evidence.warmed.value >= part / rules.false_alarm_rate


def is_warming(evidence: Evidence, rules: Rules) -> bool:
    """Whether the new version's first seconds are so lately over that errors after them may still come."""
    return evidence.warm_s is not None and evidence.warm_s <= rules.warm_up_s + WARMED_S


def _still_counts(evidence: Evidence, rules: Rules) -> bool:
    """Whether what the comparison has come to holds up an advance: a cold start alone does not for good.

    At 100 % nothing is compared any more, and what the first seconds left there would never wear off.
    """
    return evidence.warmed.value > 1 + 1e-9 or evidence.warm_s is None or is_warming(evidence, rules)


def ask(evidence: Evidence, rules: Rules) -> Test:
    """Return the ask under way: the k-th that mixes has 1/(k (k + 1)) of its part."""
    asked = evidence.ask
    assert asked is not None
    claim = "the new version is worse than the old one now is"
    if asked.mixes:
        limit = asked.number * (asked.number + 1) / (ASK_SHARE * rules.false_alarm_rate)
        return Test(asked.statistic, limit, claim)
    mass = prior_mass(asked.number)
    later = 1 - sum(map(prior_mass, range(1, asked.number + 1)), 0.0)
    total = evidence.kept + mass * asked.statistic + max(later, 0.0)
    return Test(total, 1 / (BLOCKS_SHARE * rules.false_alarm_rate), claim)


def suspicion(evidence: Evidence) -> Test:
    """Return the suspicion against the old version's record."""
    return Test(evidence.suspicion.value, ALARM, "the new version fails more than the old one's record")


def shift(evidence: Evidence) -> Test:
    """Return the shift test of 4xx answers."""
    return Test(evidence.shift.value, SHIFT_ODDS, "more of the new version's answers are 4xx")


def latency(evidence: Evidence) -> Test:
    """Return the test of slowness."""
    value = evidence.slow.value if evidence.slow is not None else 0.0
    return Test(value, SHIFT_ODDS, "the new version is slower than maxLatencyRatio")


def nearest(evidence: Evidence, rules: Rules) -> Test:
    """Return the test that is nearest to its limit, of those that still count."""
    tests = [shift(evidence), latency(evidence)]
    if _still_counts(evidence, rules):
        tests.append(comparison(evidence, rules))
    if evidence.ask is not None:
        tests.append(ask(evidence, rules))
    return max(tests, key=lambda test: test.statistic / test.limit)


def affordable(evidence: Evidence, rules: Rules) -> int | None:
    """Return the highest share, percent, whose next interval the harm budget can pay for; None: any.

    By the upper 95 % bound of what the new version fails beyond the old one.
    """
    step, seconds = evidence.step_failed, evidence.seconds
    if rules.max_failed is None or not step.answers or seconds <= 0:
        return None
    usual = evidence.step_old.rate if evidence.step_old.answers else min(evidence.record.usual, 0.99)
    excess = upper_bound(min(step.errors, step.answers), step.answers, 0.95) - usual
    if excess <= 0:
        return None
    requests = (evidence.new.answers + evidence.old.answers) / seconds * rules.interval_s
    left = max(0.0, rules.max_failed - max(evidence.excess, 0.0))
    share = int(100 * left / (excess * requests)) if requests > 0 else 100
    return None if share >= 100 else share
