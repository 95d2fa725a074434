"""Which endpoint of a version takes the attempt."""

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing import balance

NOW = 1_000.0


@dataclass(eq=False)
class Upstream:
    """What balancing reads of an endpoint."""

    name: str = ""
    healthy: bool = True
    draining: bool = False
    admits: bool = True
    in_flight: int = 0
    available_since: float = 0.0


def picked(
    endpoints: list[Upstream],
    *,
    tried: tuple[Upstream, ...] = (),
    times: int = 1,
    slow_start_s: float = 10.0,
    now: float = NOW,
) -> Counter[str | None]:
    chance = Random(1).random
    names = Counter[str | None]()
    for _ in range(times):
        each = balance.pick(endpoints, now=now, tried=tried, slow_start_s=slow_start_s, chance=chance)
        names[each.name if each else None] += 1
    return names


upstreams = st.lists(
    st.builds(
        Upstream,
        healthy=st.booleans(),
        draining=st.booleans(),
        admits=st.booleans(),
        in_flight=st.integers(0, 3),
        available_since=st.floats(980, 1000),
    ),
    max_size=6,
)


@given(upstreams)
def test_only_healthy_endpoints_that_do_not_drain_and_admit_are_available(endpoints: list[Upstream]) -> None:
    expected = [each for each in endpoints if each.healthy and not each.draining and each.admits]
    assert list(balance.available(endpoints, "fail")) == expected


def test_panic_uses_unhealthy_endpoints_when_none_is_healthy() -> None:
    endpoints = [Upstream("a", healthy=False), Upstream("b", healthy=False)]
    assert balance.available(endpoints, "fail") == ()
    assert list(balance.available(endpoints, "use_all")) == endpoints


@pytest.mark.parametrize("hindrance", [{"draining": True}, {"admits": False}], ids=str)
def test_panic_overrules_neither_a_drain_nor_a_breaker(hindrance: dict[str, bool]) -> None:
    endpoints = [Upstream("a", healthy=False, **hindrance), Upstream("b", healthy=False)]
    assert list(balance.available(endpoints, "use_all")) == endpoints[1:]


def test_panic_does_not_begin_while_a_healthy_endpoint_is_only_guarded_by_its_breaker() -> None:
    endpoints = [Upstream("a", admits=False), Upstream("b", healthy=False)]
    assert balance.available(endpoints, "use_all") == ()


@given(upstreams, st.data())
def test_a_pick_is_one_of_those_not_tried_or_none(endpoints: list[Upstream], data: st.DataObject) -> None:
    tried = tuple(data.draw(st.lists(st.sampled_from(endpoints)))) if endpoints else ()
    draws = data.draw(st.randoms(use_true_random=False))
    pick = balance.pick(endpoints, now=NOW, tried=tried, slow_start_s=10.0, chance=draws.random)
    left = [each for each in endpoints if each not in tried]
    assert (pick in left) if left else pick is None


def test_the_less_busy_of_two_takes_it() -> None:
    busy, idle = Upstream("busy", in_flight=3), Upstream("idle", in_flight=1)
    assert picked([busy, idle], times=50) == {"idle": 50}


def test_equal_endpoints_share_alike() -> None:
    names = picked([Upstream(name) for name in "abcd"], times=4_000)
    assert all(900 < names[name] < 1_100 for name in "abcd")


def test_the_busiest_of_three_gets_nothing_while_the_others_are_free() -> None:
    names = picked([Upstream("a"), Upstream("b"), Upstream("c", in_flight=5)], times=1_000)
    assert names["c"] == 0


@pytest.mark.parametrize(("age_s", "least", "most"), [(0.0, 0.02, 0.1), (2.5, 0.2, 0.32), (5.0, 0.42, 0.6)])
def test_a_recovered_endpoint_ramps_up_whatever_it_has_in_flight(
    age_s: float, least: float, most: float
) -> None:
    """Guards against the herd: least in flight alone sends everything to the endpoint that just came back."""
    old = Upstream("old", in_flight=8)
    back = Upstream("back", available_since=NOW - age_s)
    names = picked([old, back], times=4_000)
    assert least < names["back"] / 4_000 < most


def test_a_ramp_ends() -> None:
    old, back = Upstream("old", in_flight=1), Upstream("back", available_since=NOW - 10)
    assert picked([old, back], times=50) == {"back": 50}


def test_slow_start_off_is_no_ramp() -> None:
    old, new = Upstream("old", in_flight=1), Upstream("new", available_since=NOW)
    assert picked([old, new], times=50, slow_start_s=0.0) == {"new": 50}


def test_an_only_endpoint_is_not_held_back_by_its_ramp() -> None:
    assert picked([Upstream("only", available_since=NOW)], times=50) == {"only": 50}
