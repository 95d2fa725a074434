"""Arbitrary snapshots and outages on one worker, beside what a plain reading of them says."""

from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.resilience.breaker import BreakerState
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.routing.shares import ALL
from gateway.core.settings.resilience import BreakerSettings
from gateway.errors import LinkError
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import EndpointSnap, ServiceSnap, Snapshot, VersionSnap
from gateway.worker.live_table import LiveTable

pytestmark = pytest.mark.timeout(1_800)
"""Enough for the `deep` profile on a busy machine."""

SERVICES = ("auth", "shop")
THRESHOLD = 2


class Pool:
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


endpoints = st.builds(
    lambda healthy, draining: {"healthy": healthy, "draining": draining},
    healthy=st.sampled_from([True, True, True, False]),
    draining=st.sampled_from([False, False, False, True]),
)
versions = st.builds(
    lambda weight, active, draining, standby, points: (weight, active, draining, standby, points),
    weight=st.sampled_from([0, 1, 10, 50, 90, 100]),
    active=st.sampled_from([True, True, False]),
    draining=st.sampled_from([False, False, True]),
    standby=st.booleans(),
    points=st.dictionaries(st.sampled_from("xyz"), endpoints, max_size=3),
)
services = st.builds(
    lambda panic, guarded, given: (panic, guarded, given),
    panic=st.sampled_from(["fail", "use_all"]),
    guarded=st.sampled_from([True, True, False]),
    given=st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), versions, max_size=3),
)


def snap_of(name: str, generation: int, drawn: tuple[Any, ...]) -> ServiceSnap:
    panic, guarded, given = drawn
    settings = ServiceSettings(
        routes=(RouteSettings(path=f"/{name}"),),
        breaker=BreakerSettings(failure_threshold=THRESHOLD) if guarded else False,
        panic=panic,
    )
    made = []
    for version, (weight, active, draining, standby, points) in given.items():
        key = f"{name}-{version}"
        made.append(
            VersionSnap(
                key,
                version,
                weight,
                active,
                draining,
                standby,
                tuple(
                    EndpointSnap(f"{key}|{p}", f"http://{p}", "10.0.0.1", 80, **f) for p, f in points.items()
                ),
            )
        )
    return ServiceSnap(f"id-{name}", name, generation, settings, tuple(made))


class TableMachine(RuleBasedStateMachine):
    """The model: the newest word on each service, what drains, and which breakers are open."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.pools: dict[int, Pool] = {}
        self.reports: list[BreakerReport] = []
        self.live = LiveTable(slot=0, pool_factory=self.make_pool, clock=lambda: self.now, seed=1)
        self.live.on_breaker = self.reports.append
        self.number = 0
        self.snaps: dict[str, ServiceSnap] = {}
        self.objects: dict[str, Endpoint] = {}
        self.drained: set[str] = set()
        self.open: set[str] = set()

    def make_pool(self, endpoint: Endpoint, *_: Any) -> Pool:
        pool = Pool()
        self.pools[id(pool)] = pool
        return pool

    # -- what control does

    @rule(given=st.dictionaries(st.sampled_from(SERVICES), services), whole=st.booleans(), data=st.data())
    def apply(self, given: dict[str, Any], whole: bool, data: st.DataObject) -> None:
        removed = data.draw(st.sets(st.sampled_from(SERVICES)))
        self.number += 1
        changed = {name: snap_of(name, self.number, drawn) for name, drawn in given.items()}
        kept = {} if whole else {n: s for n, s in self.snaps.items() if n not in removed}
        snapshot = Snapshot(self.number, whole, changed, () if whole else tuple(removed))
        self.live.apply(msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot))
        self.snaps = kept | changed
        self.model_swap(set(changed))

    @precondition(lambda self: self.snaps)
    @rule()
    def apply_a_bad_one(self) -> None:
        """A route claimed twice: the table stays, and no pool is left open."""
        table, pools = self.live.current, dict(self.pools)
        name = next(iter(self.snaps))
        thief = ServiceSnap("thief", "thief", 1, self.snaps[name].settings)
        try:
            self.live.apply(Snapshot(self.number + 1, False, {"thief": thief}))
        except LinkError:
            assert self.live.current is table
            assert self.pools == pools
            return
        raise AssertionError("a route claimed twice was accepted")

    # -- what requests do

    @precondition(lambda self: self.guarded())
    @rule(data=st.data(), times=st.integers(1, 3))
    def fail(self, data: st.DataObject, times: int) -> None:
        endpoint = self.objects[data.draw(st.sampled_from(self.guarded()))]
        for _ in range(times):
            assert endpoint.breaker is not None
            epoch = endpoint.breaker.admit(self.now)
            if epoch is None:
                assert endpoint.key in self.open
                return
            endpoint.breaker.settle(self.now, epoch, False)
            if endpoint.breaker.state is BreakerState.OPEN:
                self.open.add(endpoint.key)

    @rule(service=st.sampled_from(SERVICES), key=st.none() | st.binary(max_size=3), times=st.integers(1, 20))
    def request(self, service: str, key: bytes | None, times: int) -> None:
        route = self.live.current.match("h", f"/{service}/x", "GET")
        assert (route is not None) == (service in self.snaps)
        if route is None:
            return
        allowed = self.choosable(service)
        for _ in range(times):
            version = route.service.choose(self.now, key)
            assert (version.id if version else None) in (allowed or {None})
            if version is not None:
                endpoint = version.pick(self.now)
                assert endpoint is not None
                assert endpoint.key in self.available(service)[version.id]
                assert not endpoint.pool.closed

    # -- what always holds

    @invariant()
    def shares_sum_to_everything_or_no_version_may_be_chosen(self) -> None:
        assert set(self.live.current.services) == set(self.snaps)
        for name, service in self.live.current.services.items():
            shares = {each.id: each.share for each in service.versions if each.share}
            assert set(shares) == self.choosable(name)
            assert sum(shares.values()) == (ALL if shares else 0)

    @invariant()
    def every_endpoint_served_has_one_open_pool_and_no_other_is_open(self) -> None:
        served = [each for service in self.live.current.services.values() for each in service.endpoints()]
        assert {id(each.pool) for each in served} == {
            number for number, pool in self.pools.items() if not pool.closed
        }
        assert all(pool.closed <= 1 for pool in self.pools.values())

    @invariant()
    def counts_are_known_for_every_version(self) -> None:
        for service in self.live.current.services.values():
            for version in service.versions:
                assert self.live.counts[version.id] is version.counts

    # -- the model

    def model_swap(self, changed: set[str]) -> None:
        present = {}
        for name, snap in self.snaps.items():
            for version, made in zip(snap.versions, self.live.current.services[name].versions, strict=True):
                for point, endpoint in zip(version.endpoints, made.endpoints, strict=True):
                    is_called_back = name in changed and point.key in self.drained and not point.draining
                    if is_called_back:
                        assert endpoint is not self.objects[point.key]
                        self.drained.discard(point.key)
                        self.open.discard(point.key)
                    else:
                        assert endpoint is self.objects.get(point.key, endpoint)
                    present[point.key] = endpoint
                    if name in changed and point.draining:
                        self.drained.add(point.key)
                    if snap.settings.breaker is False:
                        self.open.discard(point.key)
        self.objects = present
        self.drained &= set(present)
        self.open &= set(present)

    def guarded(self) -> list[str]:
        return sorted(key for key, each in self.objects.items() if each.breaker is not None)

    def available(self, service: str) -> dict[str, set[str]]:
        """Return, per version, the endpoints that may take an attempt."""
        snap = self.snaps[service]
        found = {}
        for version in snap.versions:
            alive = [each for each in version.endpoints if each.key not in self.drained]
            healthy = [each for each in alive if each.healthy]
            if not healthy and snap.settings.panic == "use_all":
                healthy = alive
            found[version.id] = {each.key for each in healthy if each.key not in self.open}
        return found

    def choosable(self, service: str) -> set[str]:
        """Return the versions that may be chosen: those with weight, or else the first stand-by."""
        available = self.available(service)
        usable = [
            each
            for each in self.snaps[service].versions
            if each.active and not each.draining and available[each.id]
        ]
        weighted = {each.id for each in usable if each.weight > 0}
        return weighted or {each.id for each in [each for each in usable if each.standby][:1]}


TestTable = TableMachine.TestCase
