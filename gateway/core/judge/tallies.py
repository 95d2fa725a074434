"""What is counted of a version: answers, the errors among them, and under which shares they fell."""

from typing import Final

import msgspec

from gateway.core.judge.statistics import added, beta_cdf, comparison_factors, wilson_interval

FAILING: Final = 0.05
"""An old version whose rate is above this is in trouble itself."""
PROOF: Final = 1e-3
"""Chance of so many errors or more at that rate, below which it is proven."""
BROKEN: Final = 0.2
"""While its rate may be this high, too little is known of an old version over FAILING to call it well."""


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
        """Whether this is trouble, proven: a good version's odd errors in a few seconds are none.

        It is looked at each second: a version that fails one request in 200 has four errors among thirty
        somewhere in a minute about once in five thousand times.
        """
        errors = min(self.errors, self.answers)
        return errors > 0 and beta_cdf(FAILING, errors, self.answers - errors + 1) < PROOF

    @property
    def may_be_failing(self) -> bool:
        """Whether this is trouble, or looks like it and is too little to tell."""
        if self.rate <= FAILING:
            return False
        low, high = wilson_interval(self.errors, self.answers)
        return low > FAILING or high > BROKEN


Falls = list[tuple[int, float, int]]
"""(generation, share, errors): errors that fell on one version while the new one had that share."""


def fallen(new: Falls, old: Falls) -> tuple[float, ...] | None:
    """Return, per odds, how much likelier they fell so if the new version is worse (log); None: no errors."""
    factors: tuple[float, ...] | None = None
    for _, share, errors in new:
        factors = added(factors, comparison_factors(share, errors, 0))
    for _, share, errors in old:
        factors = added(factors, comparison_factors(share, 0, errors))
    return factors
