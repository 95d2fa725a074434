"""What a worker's data plane makes of a table that was swapped."""

import asyncio
from typing import Any, Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.service import (
    ConcurrencySettings,
    FallbackSettings,
    RouteSettings,
    ServiceSettings,
)
from gateway.core.settings.limits import Timeouts
from gateway.core.settings.sticky import StickySettings
from gateway.link.snapshot import ProxySettings, ServiceSnap, Snapshot
from gateway.worker.plane import Plane
from gateway.worker.policy import Policy


def service(name: str, *, paused: bool = False, fallback: str | None = None) -> ServiceSnap:
    settings = ServiceSettings(
        routes=(RouteSettings(path=f"/{name}"),),
        fallback=FallbackSettings(url=fallback) if fallback else None,
    )
    return ServiceSnap(id=name, name=name, generation=1, settings=settings, paused=paused)


def swap(plane: Plane, number: int, *services: ServiceSnap, removed: tuple[str, ...] = ()) -> None:
    plane.apply(
        Snapshot(
            number=number,
            whole=number == 1,
            services={each.name: each for each in services},
            removed=removed,
            proxy=ProxySettings() if number == 1 else None,
        )
    )


def test_swap_compiles_only_the_services_that_changed() -> None:
    """A change of one of a thousand services must not hold requests up for all."""
    plane = Plane()
    swap(plane, 1, service("a"), service("b", fallback="http://127.0.0.1:9"))
    before = {each.name: policy for each, policy in plane.policies.by_service.items()}
    swap(plane, 2, service("a", fallback="http://127.0.0.1:9"))
    after = {each.name: policy for each, policy in plane.policies.by_service.items()}
    assert after["a"] is not before["a"]
    assert after["b"] is before["b"]
    assert set(plane.policies.by_service) == set(plane.live_table.current.services.values())
    kept = after["b"].fallback_endpoint
    assert kept is not None
    assert not kept.pool.is_over


def test_fallback_of_a_service_that_went_is_closed() -> None:
    plane = Plane()
    swap(plane, 1, service("a"), service("b", fallback="http://127.0.0.1:9"))
    gone = next(
        policy.fallback_endpoint for each, policy in plane.policies.by_service.items() if each.name == "b"
    )
    assert gone is not None
    swap(plane, 2, removed=("b",))
    assert gone.pool.is_over


def test_admission_of_a_service_that_goes_on_is_lifted() -> None:
    plane = Plane()
    swap(plane, 1, service("a", paused=True), service("b"))
    paused = {each.name: policy for each, policy in plane.policies.by_service.items()}
    assert paused["a"].admission is not None
    swap(plane, 2, service("a"))
    resumed = {each.name: policy for each, policy in plane.policies.by_service.items()}
    assert resumed["a"].admission is None
    assert resumed["b"] is paused["b"]


def test_weights_that_change_leave_policies_and_fallback_connections_as_they_are() -> None:
    plane = Plane()
    swap(plane, 1, service("a", fallback="http://127.0.0.1:9"))
    (before,) = plane.policies.by_service.values()
    swap(plane, 2, msgspec.structs.replace(service("a", fallback="http://127.0.0.1:9"), generation=2))
    ((now, after),) = plane.policies.by_service.items()
    assert now is plane.live_table.current.services["a"]
    assert after is before
    assert after.fallback_endpoint is not None
    assert not after.fallback_endpoint.pool.is_over


SETTINGS: Final = [
    ServiceSettings(),
    ServiceSettings(fallback=FallbackSettings(url="http://127.0.0.1:9")),
    ServiceSettings(concurrency=ConcurrencySettings(limit=3)),
    ServiceSettings(retry=False, version_header=False, sticky=StickySettings(by="cookie:u")),
]
TABLES: Final = st.dictionaries(
    st.sampled_from("abc"),
    st.none() | st.tuples(st.sampled_from(SETTINGS), st.booleans()),
    max_size=3,
)
"""By service, its settings and whether it is paused; None: it goes."""


def policies_of(plane: Plane) -> dict[str, dict[str, object]]:
    """Return every policy as it can be compared with another plane's."""
    shown = {}
    for of, policy in plane.policies.by_service.items():
        assert of is plane.live_table.current.services[of.name]
        fields = {name: getattr(policy, name) for name in Policy.__slots__}
        admission, endpoint = fields.pop("admission"), fields.pop("fallback_endpoint")
        asks = None if admission is None else (admission.paused, admission._settings)
        shown[of.name] = {
            **fields,
            "asks": asks,
            "fallback at": endpoint and (endpoint.url, endpoint.pool.is_over),
        }
    return shown


@given(st.lists(st.tuples(TABLES, st.booleans()), max_size=5))
def test_policies_that_follow_are_those_made_from_nothing(steps: list[tuple[dict[str, Any], bool]]) -> None:
    """In each step some services change, and perhaps what holds for all."""
    plane, known, proxy = Plane(), dict[str, ServiceSnap](), ProxySettings()
    plane.apply(Snapshot(1, True, {}, proxy=proxy))
    for number, (table, is_proxy_new) in enumerate(steps, 2):
        come = {
            name: ServiceSnap(f"id-{name}", name, number, given[0], paused=given[1])
            for name, given in table.items()
            if given is not None
        }
        removed = tuple(name for name, given in table.items() if given is None)
        known = {name: each for name, each in known.items() if name not in table} | come
        if is_proxy_new:
            proxy = ProxySettings(timeouts=Timeouts(connect=number))
        plane.apply(Snapshot(number, False, come, removed, proxy=proxy if is_proxy_new else None))
        made = Plane()
        made.apply(Snapshot(number, True, known, proxy=proxy))
        assert policies_of(plane) == policies_of(made)


async def test_what_else_goes_by_the_clock_comes_between_two_looks_and_ends_with_them() -> None:
    plane = Plane(sweep_s=0.001)
    lags: list[int] = []
    plane.start(lags.append)
    while len(lags) < 3:
        await asyncio.sleep(0.001)
    assert min(lags) >= 0
    plane.close_now()
    before = len(lags)
    await asyncio.sleep(0.02)
    assert len(lags) == before
