"""Which routes take requests that others would get: by the rules of the table itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.overlap import losers, takes_from
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.routing.table import Route, RoutingTable, Service

HOSTS = ("*", "*.test", "*.a.test", "a.test", "b.a.test", "c.example")
PATHS = ("/", "/api", "/api/v1", "/api/v1/x", "/other")
METHODS = ("GET", "POST", "LIST")

routes = st.builds(
    RouteSettings,
    host=st.sampled_from(HOSTS),
    path=st.sampled_from(PATHS),
    methods=st.sets(st.sampled_from(METHODS[:2])).map(tuple),
)


def table(**named: RouteSettings) -> RoutingTable:
    services = {name: Service(name, name, settings=ServiceSettings()) for name in named}
    made = [
        Route(services[name], host=route.host, path=route.path, methods=route.methods)
        for name, route in named.items()
    ]
    return RoutingTable(1, services.values(), made)


@given(routes, routes)
def test_a_route_takes_from_another_when_the_table_says_so(new: RouteSettings, old: RouteSettings) -> None:
    """Guards the check of privilege from knowing other rules than the workers do."""
    try:
        both, alone = table(new=new, old=old), table(old=old)
    except ValueError:
        return  # the same route twice is refused elsewhere
    asked = [
        (host, path, method)
        for host in ("a.test", "b.a.test", "x.b.a.test", "c.example", "other.test")
        for path in (*PATHS, "/api/v1/x/y", "/apiary", "/other/z")
        for method in METHODS
    ]
    taken = [
        each
        for each in asked
        if alone.match(*each) is not None and getattr(both.match(*each), "service", None).name == "new"  # type: ignore[union-attr]
    ]
    assert takes_from(new, old) == bool(taken), taken


@pytest.mark.parametrize(
    ("route", "names"),
    [
        ({"path": "/api/v1/auth/login"}, ["auth"]),
        ({"path": "/api", "host": "exact.example"}, ["auth"]),
        ({"path": "/api/v1/auth", "methods": ("POST",)}, ["auth"]),
        ({"path": "/api/v1"}, ["all"]),
        ({"path": "/x", "host": "shop.example"}, ["all", "shop"]),
    ],
)
def test_services_that_would_lose_requests_are_named(route: dict[str, object], names: list[str]) -> None:
    others = {
        "auth": ServiceSettings(routes=(RouteSettings(path="/api/v1/auth"),)),
        "shop": ServiceSettings(routes=(RouteSettings(path="/", host="shop.example"),)),
        "all": ServiceSettings(routes=(RouteSettings(path="/"),)),
    }
    found = losers([RouteSettings(**route)], others)  # type: ignore[arg-type]
    assert set(names) <= set(found)
    assert ("auth" in found) == ("auth" in names)
