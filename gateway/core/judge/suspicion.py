"""Suspicion: the new version fails more than the old one's record explains. It leads to an ask, never to an
abort: the cause may be one that both share.
"""

import math
from typing import Final

import msgspec

from gateway.core.judge.statistics import ODDS, WEIGHTS, log_sum, rate_factors

EACH_SECOND: Final = 1 / 60
"""Prior mass of a beginning in each second: nothing is known of when a version turns bad."""
ALARM: Final = 125.0
LEAST_RATE: Final = 0.0005
"""A record without an error is no promise that there never is one."""
_NEVER: Final = -700.0
_LIMIT: Final = 600.0


class Suspicion(msgspec.Struct, frozen=True, array_like=True):
    """A Shiryaev-Roberts statistic: the sum over all seconds of the likelihood ratio since then."""

    logs: tuple[float, ...] = (_NEVER,) * len(ODDS)
    """Per odds: its logarithm."""

    def times(self, rate: float, dispersion: float, errors: int, answers: int, seconds: float) -> "Suspicion":
        """Return it after a window of the new version.

        rate: the record's. dispersion: how many errors usually come together: so much less each weighs.
        """
        rate = min(max(rate, LEAST_RATE), 0.95)
        begun = math.log(EACH_SECOND * max(seconds, 0.001))
        factors = rate_factors(rate, errors, answers)
        return Suspicion(
            tuple(
                [
                    min(log_sum(log, begun) + factor / dispersion, _LIMIT)
                    for log, factor in zip(self.logs, factors, strict=True)
                ]
            )
        )

    @property
    def value(self) -> float:
        """How suspicious the new version is; from `ALARM` on the old one is asked."""
        return sum([weight * math.exp(log) for weight, log in zip(WEIGHTS, self.logs, strict=True)])

    def suspected(self, rate: float) -> float:
        """Return the error rate, a fraction, that the new version is suspected of. rate: the record's."""
        odds = ODDS[self.logs.index(max(self.logs))]
        rate = min(max(rate, LEAST_RATE), 0.95)
        return odds * rate / (1 - rate + odds * rate)
