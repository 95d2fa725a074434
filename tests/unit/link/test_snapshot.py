"""Snapshots on the wire, and several waiting ones made one."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.settings.limits import Timeouts
from gateway.core.settings.sticky import StickySettings
from gateway.link.snapshot import (
    BreakerView,
    EndpointSnap,
    ProxySettings,
    RolloutSnap,
    ServiceSnap,
    Snapshot,
    VersionSnap,
)

NAMES = "abc"


def service(name: str, generation: int = 1) -> ServiceSnap:
    return ServiceSnap(id=f"id-{name}", name=name, generation=generation, settings=ServiceSettings())


def full_service() -> ServiceSnap:
    endpoint = EndpointSnap(
        key="v|http://a|10.0.0.1",
        url="http://a",
        address="10.0.0.1",
        port=80,
        healthy=False,
        draining=True,
        available_for_s=1.5,
        breaker=BreakerView(4, "HALF_OPEN", 2, 0.0),
    )
    return ServiceSnap(
        id="id",
        name="auth",
        generation=9,
        settings=ServiceSettings(
            routes=(RouteSettings(host="*.b", path="/x", methods=("GET",)),),
            retry=False,
            sticky=StickySettings(by="cookie:uid"),
        ),
        versions=(VersionSnap("v", "v1", 12.5, True, True, True, (endpoint,)), VersionSnap("w", "v2")),
        current="v",
        rollout=RolloutSnap("deployment", "v", "w", 12.5),
        paused=True,
    )


snapshots = st.builds(
    lambda whole, given, removed, number, has_proxy, idle: Snapshot(
        number=number,
        whole=whole,
        services={name: service(name, number) for name in given},
        removed=() if whole else tuple(sorted(removed - given)),
        proxy=ProxySettings(timeouts=Timeouts(client_idle=idle)) if has_proxy or whole else None,
        workers=1 + number % 3,
    ),
    whole=st.booleans(),
    given=st.sets(st.sampled_from(NAMES)),
    removed=st.sets(st.sampled_from(NAMES)),
    number=st.integers(1, 1_000),
    has_proxy=st.booleans(),
    idle=st.integers(1, 1_000),
)


class State:
    """What a worker knows after some snapshots: the plain meaning of `apply`."""

    def __init__(self, *applied: Snapshot) -> None:
        self.services: dict[str, ServiceSnap] = {"a": service("a", 0), "b": service("b", 0)}
        self.proxy = ProxySettings()
        self.number = self.workers = 0
        for snapshot in applied:
            self.apply(snapshot)

    def apply(self, snapshot: Snapshot) -> None:
        if snapshot.whole:
            self.services = {}
        for name in snapshot.removed:
            self.services.pop(name, None)
        self.services |= snapshot.services
        self.proxy = snapshot.proxy or self.proxy
        self.number, self.workers = snapshot.number, snapshot.workers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def test_a_snapshot_survives_the_wire_whole() -> None:
    snapshot = Snapshot(7, True, {"auth": full_service()}, proxy=ProxySettings(), workers=4)
    data = msgspec.msgpack.encode(snapshot)
    assert msgspec.msgpack.decode(data, type=Snapshot) == snapshot


@given(snapshots)
def test_any_snapshot_survives_the_wire(snapshot: Snapshot) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot


def test_defaults_take_no_room_on_the_wire() -> None:
    """Guards the cost of a change: a thousand healthy endpoints are sent as keys and addresses."""
    snap = EndpointSnap(key="k", url="http://a", address="10.0.0.1", port=80)
    assert set(msgspec.to_builtins(snap)) == {"key", "url", "address", "port"}


@given(st.lists(snapshots, min_size=2, max_size=5))
def test_merged_snapshots_lead_where_each_in_turn_leads(given: list[Snapshot]) -> None:
    merged = given[0]
    for newer in given[1:]:
        merged = merged.merged(newer)
    assert State(merged) == State(*given)


@given(snapshots, snapshots, snapshots)
def test_merging_does_not_depend_on_which_two_wait_first(
    one: Snapshot, two: Snapshot, three: Snapshot
) -> None:
    left = one.merged(two).merged(three)
    right = one.merged(two.merged(three))
    assert State(left) == State(right)


def test_a_whole_snapshot_stays_whole_when_merged() -> None:
    whole = Snapshot(1, True, {"a": service("a"), "b": service("b")}, proxy=ProxySettings())
    merged = whole.merged(Snapshot(2, False, {"c": service("c")}, removed=("a",)))
    assert (merged.whole, sorted(merged.services), merged.removed) == (True, ["b", "c"], ())
    assert merged.proxy == ProxySettings()
