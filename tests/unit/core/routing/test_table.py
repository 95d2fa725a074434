"""Routes, usability and shares: what a request is answered by."""

from collections import Counter
from itertools import chain, combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.resilience.breaker import Breaker
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.core.routing.shares import ALL, shares_of, weight_units
from gateway.core.routing.table import Route, RoutingTable, Service
from gateway.core.routing.version import Version
from gateway.core.settings.resilience import BreakerSettings
from gateway.core.settings.sticky import StickySettings
from gateway.link.counts import VersionCounts

NOW = 50.0


def endpoint(key: str, *, healthy: bool = True, draining: bool = False) -> Endpoint:
    made = Endpoint(key, url="http://10.0.0.1:80", address="10.0.0.1", port=80)
    made.healthy = healthy
    made.draining = draining
    made.available_since = -1e9
    return made


def version(name: str, weight: float, **given: Any) -> Version:
    given.setdefault("endpoints", (endpoint(f"{name}|1"),))
    given.setdefault("settings", ServiceSettings())
    given.setdefault("counts", VersionCounts("auth", name, name))
    return Version(name, name, weight=weight, chance=lambda: 0.0, **given)


def service(*versions: Version, **given: Any) -> Service:
    settings = given.pop("settings", ServiceSettings())
    made = Service("service-id", "auth", settings=settings, versions=versions, **given)
    made.refresh(NOW)
    return made


def chosen(of: Service, times: int = 100, key: bytes | None = None) -> dict[str | None, int]:
    picks = (of.choose(NOW, key) for _ in range(times))
    return dict(Counter(each.name if each else None for each in picks))


# -- usable


@pytest.mark.parametrize(
    "hindrance",
    [
        {"active": False},
        {"draining": True},
        {"endpoints": (endpoint("a", healthy=False),)},
        {"endpoints": (endpoint("a", draining=True),)},
        {"endpoints": (endpoint("a", healthy=False), endpoint("b", draining=True))},
    ],
    ids=["not active", "draining", "unhealthy", "endpoint drains", "each for its own reason"],
)
def test_an_unusable_version_is_never_chosen_and_its_share_goes_to_the_others(
    hindrance: dict[str, Any],
) -> None:
    of = service(version("old", 60), version("bad", 30, **hindrance), version("new", 20))
    assert chosen(of, 80) == {"old": 60, "new": 20}
    assert [each.share for each in of.versions] == [7_500, 0, 2_500]
    assert of.by_name("bad") is None


def test_one_available_endpoint_keeps_a_version_usable() -> None:
    endpoints = (endpoint("a", healthy=False), endpoint("b"), endpoint("c", draining=True))
    of = service(version("v", 1, endpoints=endpoints))
    picked = of.choose(NOW)
    assert picked is not None
    assert {picked.pick(NOW) for _ in range(10)} == {endpoints[1]}


def test_weight_zero_is_never_chosen_but_may_be_asked_for_by_name() -> None:
    of = service(version("old", 100), version("new", 0))
    assert chosen(of) == {"old": 100}
    asked = of.by_name("new")
    assert asked is not None
    assert asked.name == "new"
    assert of.by_name("unknown") is None


def test_the_stand_by_serves_only_when_nothing_with_weight_is_usable() -> None:
    new = endpoint("new|1")
    of = service(version("old", 0, standby=True), version("new", 100, endpoints=(new,)), version("other", 0))
    assert chosen(of) == {"new": 100}
    new.healthy = False
    of.refresh(NOW)
    assert chosen(of) == {"old": 100}
    assert [each.share for each in of.versions] == [ALL, 0, 0]


def test_with_no_usable_version_there_is_none() -> None:
    of = service(version("old", 100, active=False), version("new", 0))
    assert of.choose(NOW) is None
    assert of.choose(NOW, b"user") is None
    assert [each.share for each in of.versions] == [0, 0]


def test_a_service_without_versions_has_none() -> None:
    assert service().choose(NOW) is None


def test_an_open_breaker_moves_the_share_to_the_other_version_at_once() -> None:
    of = service(version("old", 90), version("new", 10))
    for each in of.versions:
        for point in each.endpoints:
            point.breaker = Breaker(
                BreakerSettings(failure_threshold=2), slot=0, on_report=lambda *_: None, on_change=of.refresh
            )
    guard = of.versions[1].endpoints[0].breaker
    assert guard is not None
    for _ in range(2):
        epoch = guard.admit(NOW)
        assert epoch is not None
        guard.settle(NOW, epoch, False)
    assert chosen(of) == {"old": 100}
    assert [each.share for each in of.versions] == [ALL, 0]


def test_panic_is_a_policy() -> None:
    settings = ServiceSettings(panic="use_all")
    endpoints = (endpoint("a", healthy=False), endpoint("b", healthy=False))
    assert service(version("v", 1, endpoints=endpoints)).choose(NOW) is None
    of = service(version("v", 1, endpoints=endpoints, settings=settings), settings=settings)
    assert of.choose(NOW) is of.versions[0]


def test_a_retry_goes_to_another_endpoint_or_to_none() -> None:
    endpoints = (endpoint("a"), endpoint("b"))
    of = version("v", 1, endpoints=endpoints)
    of.refresh()
    assert of.pick(NOW, (endpoints[0],)) is endpoints[1]
    assert of.pick(NOW, endpoints) is None
    single = version("w", 1)
    single.refresh()
    assert single.pick(NOW, single.endpoints) is None


def test_the_stable_version_is_where_a_retry_may_go_last() -> None:
    of = service(version("old", 50), version("new", 50), stable="old")
    assert of.stable is of.versions[0]
    assert service(version("old", 1), stable="gone").stable is None


# -- shares


weights = st.lists(st.one_of(st.integers(0, 100), st.floats(0, 100)), max_size=8)


@given(weights, st.data())
def test_shares_of_usable_versions_sum_to_everything_or_none_is_usable(
    weights: list[float], data: st.DataObject
) -> None:
    versions = [
        version(f"v{index}", weight, active=data.draw(st.booleans()), standby=data.draw(st.booleans()))
        for index, weight in enumerate(weights)
    ]
    of = service(*versions)
    total = sum(each.share for each in versions)
    assert all(each.usable for each in versions if each.share)
    if of.choose(NOW) is None:
        assert total == 0
        assert not any(each.usable and (each.weight > 0 or each.standby) for each in versions)
    else:
        assert total == ALL
        assert all(each.share > 0 for each in versions if each.usable and each.weight > 0)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=100))
def test_a_share_is_its_weight_to_the_last_hundredth(units: list[int]) -> None:
    shares = shares_of(units)
    assert sum(shares) == ALL
    assert min(shares) >= 1
    exact = [unit * ALL / sum(units) for unit in units]
    if min(exact) >= 1:
        assert all(abs(share - each) < 1 for share, each in zip(shares, exact, strict=True))


def test_no_shares_of_nothing() -> None:
    assert shares_of([]) == []


@pytest.mark.parametrize(("weight", "units"), [(100, 10_000), (0.5, 50), (33.333, 3_333), (0.0001, 1)])
def test_weights_are_split_in_hundredths(weight: float, units: int) -> None:
    assert weight_units(weight) == units


def test_rounds_go_on_over_a_table_swap() -> None:
    """Guards the exactness of windows that span snapshots."""
    rounds = [service(version("a", 70), version("b", 20), version("c", 10))]
    for _ in range(9):
        following = service(version("a", 70), version("b", 20), version("c", 10))
        following.take_over(rounds[-1])
        following.refresh(NOW)
        rounds.append(following)
    picks = [of.choose(NOW) for of in rounds for _ in range(3)]
    counts = Counter(each.name for each in picks if each)
    assert abs(counts["a"] - 21) < 1
    assert abs(counts["b"] - 6) < 1


def test_a_version_that_flaps_comes_back_to_its_place_in_the_round() -> None:
    flapping = endpoint("new|1")
    of = service(version("old", 90), version("new", 10, endpoints=(flapping,)))
    counts = Counter[str]()
    for request in range(100):
        flapping.healthy = request % 7 != 0
        of.refresh(NOW)
        picked = of.choose(NOW)
        assert picked is not None
        if flapping.healthy:
            counts[picked.name] += 1
    assert abs(counts["new"] - sum(counts.values()) / 10) < 1


def test_a_retry_budget_goes_on_over_a_table_swap_unless_it_was_changed() -> None:
    one, same = service(version("a", 1)), service(version("a", 1))
    same.take_over(one)
    assert same.budget is one.budget
    other = service(version("a", 1), settings=ServiceSettings(retry=False, breaker=False))
    assert other.retry is None
    assert other.breaker_on == frozenset()


# -- cohorts


def rolling(percent: float, **given: Any) -> Service:
    settings = ServiceSettings(sticky=StickySettings(by="cookie:uid"))
    return service(
        version("old", 100 - percent, standby=True),
        version("new", percent),
        settings=settings,
        rollout="deployment-1",
        new="new",
        **given,
    )


def on_new(of: Service) -> set[bytes]:
    keys = (f"user-{index}".encode() for index in range(2_000))
    return {key for key in keys if (picked := of.choose(NOW, key)) and picked.name == "new"}


@pytest.mark.parametrize(("before", "after"), list(combinations([0, 1, 10, 50, 99, 100], 2)))
def test_users_seen_at_a_small_share_all_remain_at_a_larger(before: int, after: int) -> None:
    assert on_new(rolling(before)) <= on_new(rolling(after))


def test_a_cohort_is_as_large_as_the_share() -> None:
    assert abs(len(on_new(rolling(10))) - 200) < 45


def test_a_cohort_is_the_same_whatever_the_worker_or_the_order_of_versions() -> None:
    of = rolling(10, phase=0.5, workers=8, seed=77)
    turned = service(*reversed(of.versions), rollout="deployment-1", new="new")
    assert on_new(rolling(10)) == on_new(of) == on_new(turned)


def test_users_move_to_the_other_version_while_theirs_is_unusable_and_back() -> None:
    of = rolling(10)
    cohort = on_new(of)
    of.versions[1].endpoints[0].healthy = False
    of.refresh(NOW)
    assert on_new(of) == set()
    of.versions[1].endpoints[0].healthy = True
    of.refresh(NOW)
    assert on_new(of) == cohort


def test_without_a_key_a_sticky_service_splits_by_weights() -> None:
    assert chosen(rolling(10)) == {"old": 90, "new": 10}


def test_three_versions_share_users_by_weight_and_keep_them() -> None:
    of = service(version("a", 50), version("b", 30), version("c", 20))
    keys = [f"user-{index}".encode() for index in range(2_000)]
    names, again = ([picked.name for key in keys if (picked := of.choose(NOW, key))] for _ in range(2))
    assert names == again
    counts = Counter(names)
    assert abs(counts["a"] - 1_000) < 110
    assert abs(counts["c"] - 400) < 90


def test_a_user_is_counted_by_a_number_that_changes_with_the_rollout() -> None:
    assert rolling(10).key_number(b"user") != service(version("a", 1), rollout="other").key_number(b"user")


# -- routes


def table(*routes: tuple[str, str] | tuple[str, str, tuple[str, ...]]) -> RoutingTable:
    services = [
        Service(f"id-{index}", str(index), settings=ServiceSettings()) for index in range(len(routes))
    ]
    made = []
    for of, (host, path, *methods) in zip(services, routes, strict=True):
        made.append(Route(of, host=host, path=path, methods=methods[0] if methods else ()))
    return RoutingTable(1, services, made)


def matched(of: RoutingTable, host: str, path: str, method: str = "GET") -> str | None:
    route = of.match(host, path, method)
    return f"{route.host} {route.path}" if route else None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api", "* /api"),
        ("/api/", "* /api"),
        ("/api/x", "* /api"),
        ("/api/v1", "* /api/v1"),
        ("/api/v1/auth/x/y/z", "* /api/v1/auth"),
        ("/api/v1/authx", "* /api/v1"),
        ("/apix", None),
        ("/ap", None),
        ("/", None),
        ("/x/api", None),
        ("*", None),
    ],
)
def test_the_longest_path_wins_by_whole_segments(path: str, expected: str | None) -> None:
    of = table(("*", "/api"), ("*", "/api/v1"), ("*", "/api/v1/auth/"))
    assert matched(of, "h", path) == expected


def test_the_root_takes_the_rest() -> None:
    of = table(("*", "/"), ("*", "/api"))
    assert matched(of, "h", "/") == "* /"
    assert matched(of, "h", "/x/y") == "* /"
    assert matched(of, "h", "*") == "* /"
    assert matched(of, "", "/api") == "* /api"


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("a.example.com", "/x", "a.example.com /"),
        ("b.example.com", "/x", "*.example.com /"),
        ("c.b.example.com", "/x", "*.b.example.com /"),
        ("d.c.b.example.com", "/x", "*.b.example.com /"),
        ("example.com", "/x", "* /x"),
        ("notexample.com", "/x", "* /x"),
        ("example.com", "/y", None),
        ("a.example.com", "/x/y", "a.example.com /"),
    ],
)
def test_an_exact_host_beats_a_suffix_beats_any(host: str, path: str, expected: str | None) -> None:
    of = table(("*", "/x"), ("*.example.com", "/"), ("A.Example.com", "/"), ("*.b.example.com", "/"))
    assert matched(of, host, path) == expected


def test_a_host_without_a_route_for_the_path_gives_way() -> None:
    of = table(("a.example.com", "/only"), ("*.example.com", "/some"), ("*", "/"))
    assert matched(of, "a.example.com", "/only/x") == "a.example.com /only"
    assert matched(of, "a.example.com", "/some") == "*.example.com /some"
    assert matched(of, "a.example.com", "/else") == "* /"


def test_a_route_for_another_method_gives_way_to_a_shorter_path() -> None:
    of = table(("*", "/"), ("*", "/api", ("GET", "HEAD")), ("*", "/api", ("POST",)))
    assert matched(of, "h", "/api/x", "GET") == "* /api"
    assert matched(of, "h", "/api/x", "PUT") == "* /"
    route = of.match("h", "/api/x", "POST")
    assert route is not None
    assert route.service.name == "2"


def test_a_route_for_a_method_beats_one_for_all() -> None:
    of = table(("*", "/api"), ("*", "/api", ("POST",)))
    names = [route.service.name for method in ("GET", "POST") if (route := of.match("h", "/api", method))]
    assert names == ["0", "1"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("*", "/api"), ("*", "/api/")),
        (("a.b", "/api"), ("A.B", "/api")),
        (("*", "/api", ("GET", "PUT")), ("*", "/api", ("PUT",))),
    ],
    ids=str,
)
def test_two_claims_to_one_route_are_refused(one: tuple[str, str], other: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="0 and 1 both claim"):
        table(one, other)


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=8, unique_by=tuple),
    st.lists(st.sampled_from("abcd"), max_size=6),
)
def test_matching_is_the_longest_prefix_of_segments(routes: list[list[str]], path: list[str]) -> None:
    of = table(*[("*", "/" + "/".join(each)) for each in routes])
    fitting = [each for each in routes if path[: len(each)] == each]
    expected = "* /" + "/".join(max(fitting, key=len)) if fitting else None
    assert matched(of, "h", "/" + "/".join(path)) == expected


def test_a_path_of_a_hundred_thousand_segments_costs_no_more_than_the_deepest_route() -> None:
    """Guards against a request that makes matching expensive."""

    class Counting(str):
        finds = 0

        def find(self, *arguments: Any) -> int:
            Counting.finds += 1
            return super().find(*arguments)

    of = table(("*", "/a/b"), ("*", "/"))
    assert of.match("h", Counting("/x" * 100_000), "GET") is not None
    assert Counting.finds <= 2


def test_odd_weights_of_many_versions_cost_no_endless_round() -> None:
    """Guards the swap of a table: a round of 33.33, 12.51, … would be worked out for seconds."""
    odd = [33.33 + index / 100 for index in range(60)]
    of = service(*[version(f"v{index}", weight) for index, weight in enumerate(odd)])
    names = chosen(of, 6_000)
    assert all(90 <= count <= 110 for count in names.values())


def test_methods_of_all_routes_that_fit_are_named() -> None:
    """RFC 9110 §15.5.6: Allow lists what the resource takes, whichever route takes it."""
    routes = table(
        ("h", "/a", ("GET",)), ("*", "/", ("LIST",)), ("*.x", "/", ("PUT",)), ("*", "/a/b", ("DELETE",))
    )
    assert routes.methods("h", "/a/b/c") == ["DELETE", "GET", "HEAD", "LIST"]
    assert routes.methods("g.x", "/q") == ["LIST", "PUT"]
    assert table(("*", "/a", ("GET",))).methods("h", "/b") == []


def test_head_goes_with_get_unless_another_route_names_it() -> None:
    """RFC 9110 §9.3.2."""
    both = table(("*", "/", ("GET",)), ("*", "/", ("HEAD",)), ("*", "/", ()))
    assert name_of(both.match("h", "/", "HEAD")) == "1"
    assert name_of(table(("*", "/", ()), ("*", "/", ("GET",))).match("h", "/", "HEAD")) == "1"
    assert table(("*", "/", ("PUT",))).match("h", "/", "HEAD") is None


def name_of(route: Route | None) -> str:
    assert route is not None
    return route.service.name


# -- the table that follows on another

HOSTS, PATHS = ("*", "*.example.com", "a.example.com", "b"), ("/", "/x", "/x/y", "/x/y/z")
claims = st.tuples(st.sampled_from(HOSTS), st.sampled_from(PATHS), st.sampled_from([(), ("GET",), ("POST",)]))
changes = st.dictionaries(st.sampled_from("abcd"), st.none() | st.lists(claims, max_size=3), max_size=3)
"""By service: the routes it has from now on; None: it goes."""


def routes_of(name: str, claimed: list[tuple[str, str, tuple[str, ...]]]) -> list[Route]:
    of = Service(f"id-{name}", name, settings=ServiceSettings())
    return [Route(of, host=host, path=path, methods=methods) for host, path, methods in claimed]


def answers(of: RoutingTable) -> list[object]:
    """Return whatever there is to ask of a table."""
    asked = [
        (host, path) for host in ("c.example.com", "a.example.com", "b", "") for path in (*PATHS, "/x/y/z/1")
    ]
    methods = ("GET", "POST", "HEAD", "PUT")
    matched = [of.match(host, path, method) for host, path in asked for method in methods]
    return [sorted(of.services), matched, [of.methods(host, path) for host, path in asked]]


@given(st.lists(changes, max_size=6))
def test_a_table_that_follows_is_the_one_made_from_nothing(steps: list[Any]) -> None:
    followed, known = RoutingTable(), dict[str, list[Route]]()
    for number, step in enumerate(steps, 1):
        come = {name: routes_of(name, claimed) for name, claimed in step.items() if claimed is not None}
        kept = {name: routes for name, routes in known.items() if name not in step}
        every = kept | come
        services = [routes[0].service for routes in every.values() if routes]
        new = [routes[0].service for routes in come.values() if routes]
        before, gone = answers(followed), step.keys() & known.keys()
        try:
            made = RoutingTable(number, services, chain.from_iterable(every.values()))
        except ValueError:
            with pytest.raises(ValueError, match="both claim"):
                followed.replaced(number, gone, new, [*chain.from_iterable(come.values())])
            assert answers(followed) == before
            continue
        after = followed.replaced(number, gone, new, [*chain.from_iterable(come.values())])
        assert answers(after) == answers(made)
        assert (after.number, after._hosts.keys(), after._suffixes.keys()) == (
            number,
            made._hosts.keys(),
            made._suffixes.keys(),
        )
        assert answers(followed) == before
        followed, known = after, every
