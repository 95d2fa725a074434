"""Table swaps: what stays, what goes, and that a bad one changes nothing."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from gateway.core.resilience.breaker import BreakerState
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.routing.table import Service
from gateway.core.settings.limits import Timeouts, UpstreamTimeouts
from gateway.core.settings.resilience import BreakerSettings
from gateway.errors import LinkError
from gateway.link.messages import BreakerReport
from gateway.link.snapshot import (
    BreakerView,
    EndpointSnap,
    ProxySettings,
    RolloutSnap,
    ServiceSnap,
    Snapshot,
    VersionSnap,
)
from gateway.worker import live_table as live_module
from gateway.worker.exchange.failures import Failures
from gateway.worker.exchange.record import Record
from gateway.worker.live_table import LiveTable

SETTINGS = ServiceSettings(
    routes=(RouteSettings(path="/api"),), breaker=BreakerSettings(failure_threshold=2, reset_timeout=10_000)
)


class Pool:
    """A pool that remembers whether it was closed."""

    def __init__(self, endpoint: Endpoint, settings: ServiceSettings, proxy: ProxySettings) -> None:
        self.key = endpoint.key
        self.settings = settings
        self.proxy = proxy
        self.is_closed = False

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class Worker:
    """A LiveTable with a hand-moved clock and pools one can look at."""

    def __init__(self, slot: int = 0) -> None:
        self.now = 1_000.0
        self.pools: list[Pool] = []
        self.refused = ""
        self.reports: list[BreakerReport] = []
        self.live = LiveTable(slot=slot, pool_factory=self.make_pool, clock=lambda: self.now, seed=1)
        self.live.on_breaker = self.reports.append

    def make_pool(self, endpoint: Endpoint, settings: ServiceSettings, proxy: ProxySettings) -> Pool:
        if endpoint.key == self.refused:
            raise OSError("no such certificate")
        self.pools.append(Pool(endpoint, settings, proxy))
        return self.pools[-1]

    def apply(self, *services: ServiceSnap, whole: bool = False, **given: Any) -> None:
        given.setdefault("number", self.live.current.number + 1)
        self.live.apply(Snapshot(whole=whole, services={each.name: each for each in services}, **given))

    def service(self, name: str = "auth") -> Service:
        return self.live.current.services[name]

    def endpoint(self, version: int = 0, index: int = 0) -> Endpoint:
        return self.service().versions[version].endpoints[index]

    def open_pools(self) -> list[str]:
        return sorted(pool.key for pool in self.pools if not pool.is_closed)

    def fail(self, endpoint: Endpoint, times: int = 2) -> None:
        for _ in range(times):
            assert endpoint.breaker is not None
            epoch = endpoint.breaker.admit(self.now)
            assert epoch is not None
            endpoint.breaker.settle(self.now, epoch, False)


def endpoint(key: str, **given: Any) -> EndpointSnap:
    return EndpointSnap(key, f"http://{key}", "10.0.0.1", 80, **given)


def version(name: str, weight: float = 100, *endpoints: EndpointSnap, **given: Any) -> VersionSnap:
    given.setdefault("active", True)
    return VersionSnap(name, name, weight, endpoints=endpoints or (endpoint(f"{name}|1"),), **given)


def service(*versions: VersionSnap, name: str = "auth", **given: Any) -> ServiceSnap:
    given.setdefault("settings", SETTINGS)
    given.setdefault("generation", 1)
    return ServiceSnap(f"id-{name}", name, versions=versions, **given)


def elsewhere(name: str, path: str) -> ServiceSnap:
    settings = ServiceSettings(routes=(RouteSettings(path=path),))
    return service(version(f"{name}-v1"), name=name, settings=settings)


def test_before_the_first_snapshot_nothing_is_routed() -> None:
    worker = Worker()
    assert worker.live.current.match("h", "/", "GET") is None
    assert worker.live.current.number == 0


def test_a_snapshot_routes_its_services() -> None:
    worker = Worker()
    worker.apply(service(version("v1"), current="v1", paused=True), whole=True, proxy=ProxySettings())
    route = worker.live.current.match("h", "/api/x", "GET")
    assert route is not None
    assert route.service is worker.service()
    assert route.service.stable is route.service.versions[0]
    assert route.service.paused
    assert worker.live.counts["v1"] is route.service.versions[0].counts


def test_endpoints_pools_and_counts_outlive_a_swap() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), whole=True)
    kept, pool, counts = worker.endpoint(), worker.endpoint().pool, worker.live.counts["v1"]
    kept.in_flight = 3
    worker.apply(service(version("v1", 90), version("v2", 10), generation=2))
    assert worker.endpoint() is kept
    assert worker.endpoint().pool is pool
    assert worker.service().versions[0].counts is counts
    assert worker.service().generation == 2
    assert worker.open_pools() == ["v1|1", "v2|1"]


def test_a_service_that_did_not_change_is_the_same_object() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), elsewhere("other", "/other"), whole=True)
    other = worker.service("other")
    worker.apply(service(version("v1", 50)))
    assert worker.service("other") is other
    route = worker.live.current.match("h", "/other", "GET")
    assert route is not None
    assert route.service is other


def test_what_holds_for_all_rebuilds_all() -> None:
    worker = Worker()
    worker.apply(elsewhere("other", "/other"), whole=True, workers=1)
    other = worker.service("other")
    worker.apply(workers=2)
    assert worker.service("other") is not other


def test_an_endpoint_that_left_has_its_pool_closed_and_its_counts_kept() -> None:
    worker = Worker()
    worker.apply(service(version("v1"), version("v2", 0)), whole=True)
    worker.live.counts["v1"].attempt("answered")
    worker.apply(service(version("v2")))
    assert worker.open_pools() == ["v2|1"]
    assert worker.live.counts["v1"].attempts == {"answered": 1}


def test_a_removed_service_is_no_longer_routed() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), elsewhere("other", "/other"), whole=True)
    worker.apply(removed=("auth",))
    assert worker.live.current.match("h", "/api", "GET") is None
    assert worker.open_pools() == ["other-v1|1"]


def test_a_whole_snapshot_replaces_everything_even_with_a_lower_number() -> None:
    """Guards the adoption by a control that counts anew."""
    worker = Worker()
    worker.apply(service(version("v1")), whole=True, number=70)
    worker.apply(elsewhere("other", "/other"), whole=True, number=1)
    assert sorted(worker.live.current.services) == ["other"]
    assert worker.live.current.number == 1


def test_a_change_that_is_older_than_the_table_is_refused() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), whole=True, number=5)
    with pytest.raises(LinkError, match="snapshot 5 came after snapshot 5"):
        worker.apply(service(version("v2")), number=5)


@pytest.mark.parametrize(
    "bad",
    [
        service(version("v9", 100, endpoint("twice"), endpoint("twice"))),
        service(version("v9"), name="other"),
        service(version("v9", 100, endpoint("refused"))),
        service(
            version("v9", 100, endpoint("odd", breaker=BreakerView(0, "AJAR"))),  # type: ignore[arg-type]
        ),
    ],
    ids=["an endpoint twice", "a route claimed twice", "a pool that cannot be made", "an unknown state"],
)
def test_a_bad_snapshot_changes_nothing_and_leaves_no_pool_open(bad: ServiceSnap) -> None:
    worker = Worker()
    worker.refused = "refused"
    worker.apply(service(version("v1"), version("v2")), whole=True)
    table, before = worker.live.current, worker.open_pools()
    with pytest.raises(LinkError, match="snapshot 2: "):
        worker.apply(bad)
    assert worker.live.current is table
    assert worker.open_pools() == before
    assert "v9" not in worker.live.counts
    worker.apply(service(version("v1")), number=2)
    assert worker.open_pools() == ["v1|1"]


def test_only_settings_a_pool_is_made_from_make_a_new_pool() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), whole=True)
    first = worker.endpoint().pool
    worker.apply(service(version("v1"), settings=msgspec.structs.replace(SETTINGS, panic="use_all")))
    assert worker.endpoint().pool is first
    timeouts = UpstreamTimeouts(connect=50)
    worker.apply(service(version("v1"), settings=msgspec.structs.replace(SETTINGS, timeouts=timeouts)))
    assert worker.endpoint().pool is not first
    assert first.is_closed
    assert worker.endpoint().pool.settings.timeouts is timeouts


def test_new_gateway_timeouts_reach_every_pool() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), elsewhere("other", "/other"), whole=True)
    proxy = ProxySettings(timeouts=Timeouts(connect=50))
    worker.apply(proxy=proxy)
    assert worker.live.proxy is proxy
    assert [pool.proxy for pool in worker.pools if not pool.is_closed] == [proxy, proxy]
    assert worker.open_pools() == ["other-v1|1", "v1|1"]


def test_a_draining_endpoint_that_is_called_back_begins_anew() -> None:
    """Guards against a version that was drained, got all the weight by an undo, and was sent nothing."""
    worker = Worker()
    worker.apply(service(version("v1", 100, endpoint("a", draining=True), endpoint("b"))), whole=True)
    before, kept = worker.endpoint(), worker.endpoint(0, 1)
    assert {worker.service().versions[0].pick(worker.now) for _ in range(9)} == {kept}
    worker.apply(service(version("v1", 100, endpoint("a"), endpoint("b"))))
    after = worker.endpoint()
    assert before.draining
    assert after is not before
    assert not after.draining
    assert worker.endpoint(0, 1) is kept
    assert {worker.service().versions[0].pick(worker.now) for _ in range(40)} == {after, kept}
    assert worker.open_pools() == ["a", "b"]
    assert before.pool.is_closed


def test_slow_start_counts_from_when_control_first_saw_it_healthy() -> None:
    worker = Worker()
    worker.apply(service(version("v1", 100, endpoint("a", available_for_s=4.0))), whole=True)
    assert worker.endpoint().available_since == 996.0
    worker.now += 5
    worker.apply(service(version("v1", 100, endpoint("a", available_for_s=2.0))))
    assert worker.endpoint().available_since == 996.0
    worker.apply(service(version("v1", 100, endpoint("a", healthy=False))))
    worker.now += 5
    worker.apply(service(version("v1", 100, endpoint("a", available_for_s=0.0))))
    assert worker.endpoint().available_since == worker.now


def test_rounds_go_on_over_swaps() -> None:
    worker = Worker()
    counts = Counter[str]()
    for number in range(1, 41):
        worker.apply(
            service(version("v1", 70), version("v2", 20), version("v3", 10)), whole=True, number=number
        )
        for _ in range(5):
            picked = worker.service().choose(worker.now)
            assert picked is not None
            counts[picked.name] += 1
    assert counts == {"v1": 140, "v2": 40, "v3": 20}


def test_a_breaker_that_opens_moves_traffic_and_tells_control() -> None:
    worker = Worker()
    worker.apply(service(version("v1", 50), version("v2", 50)), whole=True)
    worker.fail(worker.endpoint(1))
    assert worker.reports == [BreakerReport("v2|1", 0, "opened", 2)]
    assert [each.share for each in worker.service().versions] == [10_000, 0]


def test_a_breaker_outlives_swaps_and_refreshes_the_service_of_the_current_table() -> None:
    worker = Worker()
    worker.apply(service(version("v1", 50), version("v2", 50)), whole=True)
    worker.apply(service(version("v1", 80), version("v2", 20)))
    worker.fail(worker.endpoint(1))
    worker.apply(service(version("v1", 10), version("v2", 90)))
    breaker = worker.endpoint(1).breaker
    assert breaker is not None
    assert breaker.state is BreakerState.OPEN
    assert [each.share for each in worker.service().versions] == [10_000, 0]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_request_of_an_older_table_is_tried_again_where_it_is_let_in(attempts: int) -> None:
    """It gave up: the version that failed seemed usable, whose breakers had opened in a newer table."""
    worker = Worker()
    endpoints = [endpoint(f"b{index}") for index in range(3)]
    worker.apply(service(version("v1"), version("v2", 100, *endpoints), current="v1"))
    record, older = Record(), worker.service()
    record.service, record.version = older, older.versions[1]
    record.endpoint, record.attempts = older.versions[1].endpoints[0], attempts
    worker.apply(service(version("v1"), version("v2", 50, *endpoints), generation=2, current="v1"))
    for index in range(3):
        worker.fail(worker.endpoint(1, index))
    assert older.versions[1].usable
    place = Failures().admit_again(record, worker.now)
    assert place is not None
    assert place[0] is older.stable


def test_control_opens_grants_and_closes_by_snapshot() -> None:
    worker = Worker()

    def told(view: BreakerView) -> ServiceSnap:
        return service(version("v1", 100, endpoint("a", breaker=view), endpoint("b")))

    worker.apply(told(BreakerView()), whole=True)
    worker.apply(told(BreakerView(1, "OPEN", 0, 10.0)))
    assert worker.service().versions[0].available == (worker.endpoint(0, 1),)
    worker.apply(told(BreakerView(2, "HALF_OPEN", 1)))
    assert len(worker.service().versions[0].available) == 2
    breaker = worker.endpoint().breaker
    assert breaker is not None
    assert breaker.admit(worker.now) is not None
    assert len(worker.service().versions[0].available) == 1
    worker.now += 3
    worker.apply(told(BreakerView(3, "CLOSED")))
    assert len(worker.service().versions[0].available) == 2
    assert worker.endpoint().available_since == worker.now


def test_time_passes_only_for_breakers_that_are_not_closed() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), whole=True)
    worker.live.tick(worker.now)
    worker.fail(worker.endpoint())
    assert worker.service().choose(worker.now) is None
    worker.now += 12
    worker.live.tick(worker.now)
    assert worker.service().choose(worker.now) is worker.service().versions[0]


def test_a_breaker_of_an_endpoint_that_left_touches_nothing() -> None:
    worker = Worker()
    worker.apply(service(version("v1"), version("v2")), whole=True)
    gone = worker.endpoint(1)
    worker.apply(service(version("v1")))
    worker.fail(gone)
    worker.live.tick(worker.now + 100)
    assert worker.service().choose(worker.now) is worker.service().versions[0]


def test_a_breaker_may_be_switched_off_and_on() -> None:
    worker = Worker()
    worker.apply(service(version("v1")), whole=True)
    worker.fail(worker.endpoint())
    off = msgspec.structs.replace(SETTINGS, breaker=False)
    worker.apply(service(version("v1"), settings=off))
    assert worker.endpoint().breaker is None
    assert worker.service().choose(worker.now) is not None
    worker.live.tick(worker.now + 100)
    worker.apply(service(version("v1")))
    breaker = worker.endpoint().breaker
    assert breaker is not None
    assert breaker.state is BreakerState.CLOSED


def test_counts_of_versions_long_gone_are_forgotten_once_sent_and_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_module, "KEPT_COUNTS", 2)
    worker = Worker()
    for name in ("a", "b", "c", "d", "e"):
        worker.apply(service(version(name)))
        worker.live.counts[name].dirty = name == "b"
        worker.live.counts[name].in_flight = 1 if name == "a" else 0
    worker.apply(service(version("f")))
    assert sorted(worker.live.counts) == ["a", "b", "d", "e", "f"]


def test_slots_begin_at_their_own_phase() -> None:
    first = []
    for slot in range(4):
        worker = Worker(slot)
        worker.apply(service(version("v1", 75), version("v2", 25)), whole=True, workers=4)
        picked = worker.service().choose(worker.now)
        assert picked is not None
        first.append(picked.name)
    assert sorted(first) == ["v1", "v1", "v1", "v2"]


def rolling(old: int, new: int, **given: Any) -> ServiceSnap:
    return service(
        version("v1", old, standby=True, **given),
        version("v2", new),
        rollout=RolloutSnap("d", old="v1", new="v2", percent=new),
    )


def shares(worker: Worker) -> list[int]:
    return [each.share for each in worker.service().versions]


def test_an_isolated_worker_serves_open_rollouts_by_their_old_versions_whatever_tables_come() -> None:
    worker = Worker()
    worker.apply(rolling(50, 50), elsewhere("other", "/other"), whole=True)
    worker.live.isolate(is_isolated=True)
    assert shares(worker) == [10_000, 0]
    assert worker.service("other").versions[0].share == 10_000
    worker.apply(rolling(0, 100))
    assert shares(worker) == [10_000, 0]
    worker.apply(elsewhere("third", "/third"))
    assert shares(worker) == [10_000, 0]
    worker.live.isolate(is_isolated=False)
    assert shares(worker) == [0, 10_000]
    worker.live.isolate(is_isolated=True)
    worker.apply(service(version("v1", 0), version("v2", 100)))
    assert shares(worker) == [0, 10_000], "nothing is open any more"


def test_an_isolated_worker_stays_on_the_new_version_while_the_old_one_is_not_usable() -> None:
    worker = Worker()
    worker.apply(rolling(50, 50), whole=True)
    worker.live.isolate(is_isolated=True)
    worker.fail(worker.endpoint())
    assert shares(worker) == [0, 10_000]
    worker.now += 12
    worker.live.tick(worker.now)
    assert shares(worker) == [10_000, 0]
    worker.apply(rolling(0, 100, draining=True))
    assert shares(worker) == [0, 10_000], "what drains has no way back"
