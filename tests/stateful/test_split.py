"""A service's choices over snapshots and outages, beside plain counting."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.core.routing.shares import ALL
from gateway.core.routing.table import Service
from gateway.core.routing.version import Version
from gateway.link.counts import VersionCounts

pytestmark = pytest.mark.timeout(1_800)
"""Enough for the `deep` profile on a busy machine."""

NAMES = ("a", "b", "c", "d")
NOW = 1.0
weights = st.sampled_from([0, 1, 5, 10, 20, 30, 50, 70, 95, 99, 100, 12.5])


class SplitMachine(RuleBasedStateMachine):
    """The model: for each set of usable weights, how many requests it has had, and who got them."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.healthy = dict.fromkeys(NAMES, True)
        self.standby: str | None = None
        self.endpoints = {name: Endpoint(name, url="http://a") for name in NAMES}
        self.service: Service | None = None
        self.counts: dict[tuple[tuple[str, float], ...], dict[str, int]] = {}
        self.recent: list[tuple[tuple[str, float], ...]] = []

    @initialize(given=st.lists(weights, min_size=4, max_size=4), standby=st.sampled_from([None, *NAMES]))
    def start(self, given: list[float], standby: str | None) -> None:
        self.weights = dict(zip(NAMES, given, strict=True))
        self.standby = standby
        self.swap()

    @rule(given=st.lists(weights, min_size=4, max_size=4))
    def set_weights(self, given: list[float]) -> None:
        self.weights = dict(zip(NAMES, given, strict=True))
        self.swap()

    @rule()
    def swap(self) -> None:
        """A new table, with whatever weights."""
        before = self.service
        for name, endpoint in self.endpoints.items():
            endpoint.healthy = self.healthy[name]
        versions = tuple(
            Version(
                name,
                name,
                endpoints=(self.endpoints[name],),
                settings=ServiceSettings(),
                weight=self.weights[name],
                standby=name == self.standby,
                counts=VersionCounts("s", name, name),
                chance=lambda: 0.5,
            )
            for name in NAMES
        )
        self.service = Service("id", "s", settings=ServiceSettings(), versions=versions, seed=3)
        if before is not None:
            self.service.take_over(before)
        self.service.refresh(NOW)
        self.remember()

    @rule(name=st.sampled_from(NAMES))
    def flip(self, name: str) -> None:
        """A version's only endpoint fails or recovers, between two tables."""
        self.healthy[name] = not self.healthy[name]
        self.endpoints[name].healthy = self.healthy[name]
        assert self.service is not None
        self.service.refresh(NOW)
        self.remember()

    @precondition(lambda self: self.usable())
    @rule(requests=st.integers(1, 60))
    def serve(self, requests: int) -> None:
        assert self.service is not None
        usable = self.usable()
        counts = self.counts.setdefault(usable, dict.fromkeys(NAMES, 0))
        total = sum(weight for _, weight in usable)
        for _ in range(requests):
            chosen = self.service.choose(NOW)
            assert chosen is not None
            counts[chosen.name] += 1
            served = sum(counts.values())
            for name, weight in usable:
                assert abs(counts[name] - served * weight / total) < 1
        assert sum(counts[name] for name, _ in usable) == sum(counts.values())

    @precondition(lambda self: not self.usable())
    @rule()
    def serve_none(self) -> None:
        assert self.service is not None
        chosen = self.service.choose(NOW)
        expected = self.standby if self.standby and self.healthy[self.standby] else None
        assert (chosen.name if chosen else None) == expected

    @invariant()
    def shares_sum_to_everything_or_nothing_is_usable(self) -> None:
        if self.service is None:
            return
        shares = {each.name: each.share for each in self.service.versions}
        usable = dict(self.usable())
        if usable:
            assert sum(shares.values()) == ALL
            assert {name for name, share in shares.items() if share} == set(usable)
        else:
            assert sum(shares.values()) in (0, ALL)

    def usable(self) -> tuple[tuple[str, float], ...]:
        return tuple((n, self.weights[n]) for n in NAMES if self.weights.get(n) and self.healthy[n])

    def remember(self) -> None:
        """Forget, as the service does, the rounds of sets of weights that were not in force for long."""
        usable = self.usable()
        if len(usable) < 2:
            return
        self.recent = [each for each in self.recent if each != usable] + [usable]
        while len(self.recent) > 8:
            self.counts.pop(self.recent.pop(0), None)


TestSplit = SplitMachine.TestCase
