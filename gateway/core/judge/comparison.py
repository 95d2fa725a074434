"""The test: do errors fall on the new version more often than its share of the traffic explains?"""

from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.statistics import Factors, Mixture, added, comparison_factors
from gateway.core.judge.tallies import Fall

WHOLE_WEIGHT: Final = 0.8
"""Of all errors together; the rest of the weight is shared out over route classes."""
MAX_ROUTES: Final = 64
"""Route classes tested each by itself; errors of further ones count in the whole alone."""
ROUTE_WEIGHTS: Final = tuple(1 / (k * (k + 1)) for k in range(1, MAX_ROUTES + 1))
"""Prior mass of the k-th route class to meet an error: which classes there are is not known before."""
NEARLY: Final = 0.9
"""A class that says less than this part of what all errors say is not all that is wrong."""
FIRST_SET: Final = 0.8
"""Sticky services: prior mass of the first set of users; the rest is shared out over the renewed ones."""


class RouteTest(msgspec.Struct, frozen=True, array_like=True):
    """The comparison of one route class, brought up to date when an error falls there."""

    mixture: Mixture
    seen_s: float
    """Observed seconds up to which it is."""


class Comparison(msgspec.Struct, frozen=True):
    """A test martingale: most of its weight on all errors, the rest on the average over route classes.

    Each error falls on the new version with its share as the chance if the two are alike, whatever both go
    through; so does each error of one route class. Every part starts at one and is expected to stay there,
    hence so is their weighted mean.
    """

    whole: Mixture = Mixture()
    routes: dict[str, RouteTest] = {}
    """In the order in which they met their first error."""
    elapsed_s: float = 0.0
    kept: float = 0.0
    """What earlier sets of users came to, weighted: it changes no more."""
    sets: int = 0
    """How often the set of users was renewed."""
    is_renewed: bool = False
    """Whether it is a sticky service's, whose set of users is renewed."""

    def times(self, new: list[Fall], old: list[Fall], seconds: float) -> "Comparison":
        """Return the comparison after a window. new, old: the errors that fell on either version."""
        elapsed_s = self.elapsed_s + seconds
        if not new and not old:
            return replace(self, whole=self.whole.times(None, seconds), elapsed_s=elapsed_s)
        factors, by_route = fallen(new, old)
        return replace(
            self,
            whole=self.whole.times(factors, seconds),
            routes=self._routed(by_route, elapsed_s) if by_route else self.routes,
            elapsed_s=elapsed_s,
        )

    def _routed(self, by_route: dict[str, Factors], elapsed_s: float) -> dict[str, RouteTest]:
        routes = dict(self.routes)
        for route, factors in by_route.items():
            known = routes.get(route)
            if known is None:
                if len(routes) >= MAX_ROUTES:
                    continue
                known = RouteTest(Mixture(), 0.0)
            routes[route] = RouteTest(known.mixture.times(factors, elapsed_s - known.seen_s), elapsed_s)
        return routes

    @property
    def value(self) -> float:
        """How many times likelier the errors are if the new version is worse."""
        value = self._own_value()
        if not self.is_renewed:
            return value
        return self.kept + _set_mass(self.sets) * value + _later_mass(self.sets)

    def _own_value(self) -> float:
        """Return what the present set of users comes to; of services that are not sticky, everything."""
        by_route = 1.0 + sum([part - weight for part, weight in self._parts()])
        return WHOLE_WEIGHT * self.whole.value + (1 - WHOLE_WEIGHT) * by_route

    def _parts(self) -> list[tuple[float, float]]:
        """Return (weighted value, weight) of each route class."""
        return [
            (test.mixture.value * weight, weight)
            for test, weight in zip(self.routes.values(), ROUTE_WEIGHTS, strict=False)
        ]

    @property
    def culprit(self) -> str:
        """The route class that says as much alone as all errors together; empty: there is none."""
        value, route = 0.0, ""
        for name, test in self.routes.items():
            if test.mixture.value > value:
                value, route = test.mixture.value, name
        # Where there are errors of one class alone, the two come to the same but for when they may begin.
        return route if value >= NEARLY * self.whole.value else ""

    def again(self) -> "Comparison":
        """Return a comparison that begins now, at one: it has learnt how much worse, not that it is worse."""
        routes = {name: RouteTest(test.mixture.again(), 0.0) for name, test in self.routes.items()}
        return Comparison(whole=self.whole.again(), routes=routes)

    def renewed(self) -> "Comparison":
        """Return it with a new set of users: a new beginning, while what came of the old set stays."""
        kept = self.kept + _set_mass(self.sets) * self._own_value()
        return Comparison(kept=kept, sets=self.sets + 1, is_renewed=True)


def fallen(new: list[Fall], old: list[Fall]) -> tuple[Factors | None, dict[str, Factors]]:
    """Return how much likelier errors fell so if the new version is worse: all (None: no error), by class."""
    factors: Factors | None = None
    by_route: dict[str, Factors] = {}
    for falls, is_new in ((new, True), (old, False)):
        for share, errors, route in falls:
            more = comparison_factors(share, errors * is_new, errors * (not is_new))
            factors = added(factors, more)
            if route:
                by_route[route] = added(by_route.get(route), more)
    return factors, by_route


def _set_mass(number: int) -> float:
    return FIRST_SET if number == 0 else (1 - FIRST_SET) / (number * (number + 1))


def _later_mass(number: int) -> float:
    return (1 - FIRST_SET) / (number + 1)
