"""What a worker's data plane makes of a table that was swapped."""

import asyncio

from gateway.core.routing.service import FallbackSettings, RouteSettings, ServiceSettings
from gateway.link.snapshot import ProxySettings, ServiceSnap, Snapshot
from gateway.worker.plane import Plane


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
    swap(plane, 2, service("a"))
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
