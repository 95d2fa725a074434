"""The routing table a worker serves by: host + path -> route -> service -> version -> endpoint.

A table is swapped whole; what must outlive a swap (breaker, pool, counts, the place in a round) hangs on
objects that the next table takes over. Which versions are usable, and their shares, is worked out by
`Service.refresh` when something changes, never by a request.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

from gateway.core.resilience.breaker import Breaker, BreakerState, compile_breaker
from gateway.core.resilience.retry import RetryBudget, RetryPolicy, RetrySettings, compile_retry
from gateway.core.routing import balance
from gateway.core.routing.cohort import Cohorts, StickySettings
from gateway.core.routing.service import ServiceSettings
from gateway.core.routing.split import split

ALL: Final = 10_000
"""A share of everything, in hundredths of a percent."""
KEPT_ROUNDS: Final = 8
"""Sets of usable versions whose place in their round is remembered, for endpoints that flap."""
LONGEST_ROUND: Final = ALL
"""Requests. Weights that would need a longer one (33.33, 12.51, …) are split by their shares instead."""


class EndpointPool(Protocol):
    """What keeps an endpoint's connections: whoever makes tables makes them, core never touches one."""

    def close(self) -> None:
        """No new lease; idle connections are closed, running ones finish."""


class _NoPool:
    """Before there is one."""

    def close(self) -> None:
        """Nothing to close."""


NO_POOL: Final = _NoPool()


class AttemptCounts(Protocol):
    """Where a version's attempts are counted: link.counts.VersionCounts, which core does not know."""

    in_flight: int
    streams: int

    def answer(self, method: str, status: int, latency_us: int, generation: int, share: int) -> None: ...
    def request(self, method: str, status: int, latency_us: int) -> None: ...
    def attempt(self, outcome: str) -> None: ...
    def judge(self, generation: int, share: int, error: str | None, latency_us: int) -> None: ...
    def cohort_error(self, generation: int, share: int, key_number: int, kind: str) -> None: ...


class Endpoint:
    """One address of a version, as this worker sees it. Kept over table swaps, by `key`."""

    __slots__ = (
        "address",
        "authority",
        "available_since",
        "breaker",
        "draining",
        "forced",
        "healthy",
        "in_flight",
        "key",
        "pool",
        "port",
        "streams",
        "url",
    )

    def __init__(self, key: str, *, url: str, address: str = "", port: int = 0) -> None:
        self.key = key
        self.url = url
        self.address = address
        """Numeric; empty for `unix:`."""
        self.port = port
        self.authority = urlsplit(url).netloc.encode() or b"localhost"
        """The Host of a request that named none."""
        self.healthy = False
        self.draining = False
        """Once true it stays so."""
        self.available_since = 0.0
        """Monotonic seconds: when it last became healthy or its breaker closed; slow start begins here."""
        self.in_flight = 0
        """Attempts now running here."""
        self.streams = 0
        """Of those, tunnels and event streams."""
        self.forced = 0
        """Attempts cut at a drain deadline: total."""
        self.breaker: Breaker | None = None
        """None: switched off."""
        self.pool: EndpointPool = NO_POOL
        """Made by the factory that the worker's table was given."""

    @property
    def is_closed(self) -> bool:
        """Whether the breaker lets everything through."""
        return self.breaker is None or self.breaker.state is BreakerState.CLOSED

    @property
    def admits(self) -> bool:
        """Whether the breaker lets an attempt through now."""
        return self.breaker is None or self.breaker.is_available


class Version:
    """One version of a service, as this worker sees it."""

    __slots__ = (
        "_chance",
        "_panic",
        "_slow_start_s",
        "active",
        "available",
        "counts",
        "draining",
        "endpoints",
        "id",
        "name",
        "share",
        "standby",
        "tested",
        "usable",
        "weight",
    )

    def __init__(
        self,
        version_id: str,
        name: str,
        *,
        endpoints: tuple[Endpoint, ...],
        settings: ServiceSettings,
        counts: AttemptCounts,
        chance: Callable[[], float],
        weight: float = 0.0,
        active: bool = True,
        draining: bool = False,
        standby: bool = False,
        tested: bool = False,
    ) -> None:
        self.id = version_id
        self.name = name
        self.endpoints = endpoints
        self.weight = weight
        self.active = active
        """Its gate has passed."""
        self.draining = draining
        self.standby = standby
        """The old version of an open rollout: serves at weight 0 when nothing with weight is usable."""
        self.tested = tested
        """Testers may reach it, active or not."""
        self.counts = counts
        self.usable = False
        self.share = 0
        """Hundredths of a percent of the service's traffic that this worker sends here now."""
        self.available: tuple[Endpoint, ...] = ()
        """Endpoints that may take an attempt now."""
        self._chance = chance
        self._panic = settings.panic
        self._slow_start_s = settings.slow_start / 1000

    def refresh(self) -> None:
        """Work out anew which endpoints are available and whether the version is usable."""
        self.available = balance.available(self.endpoints, self._panic)
        self.usable = self.active and not self.draining and bool(self.available)

    def pick(self, now: float, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        """Return the endpoint for the next attempt; None if none is available that was not tried."""
        endpoints = self.available
        if len(endpoints) == 1 and not tried:
            return endpoints[0]
        return balance.pick(
            endpoints, now=now, tried=tried, slow_start_s=self._slow_start_s, chance=self._chance
        )

    @property
    def could_serve(self) -> bool:
        """Whether it would be usable if breakers admitted everything."""
        return self.active and not self.draining and bool(self.barred())

    def barred(self) -> list[Endpoint]:
        """Return the endpoints that only their breakers keep from taking an attempt."""
        return [each for each in self.endpoints if each.healthy and not each.draining and not each.admits]

    def pick_for_tester(self, now: float, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        """Return the endpoint for a tester's attempt: healthy, and with a breaker that asks for no trials."""
        return balance.pick(
            [each for each in self.endpoints if each.healthy and not each.draining and each.is_closed],
            now=now,
            tried=tried,
            slow_start_s=0.0,
            chance=self._chance,
        )

    def why_not(self) -> str:
        """Return why testers cannot reach it, for their eyes; empty if they can."""
        healthy = [each for each in self.endpoints if each.healthy and not each.draining]
        if self.draining:
            return "is being drained, or has been"
        if not self.endpoints:
            return "has no endpoint yet"
        if not (self.active or self.tested):
            return "has not passed its health check yet"
        if not healthy:
            return "is not healthy"
        if not any(each.is_closed for each in healthy):
            return "fails: the breakers of its endpoints are open"
        return ""


class Service:
    """One service: its versions, its policies, and the choice between the former.

    seed: of the order inside a round; the same on every worker. phase: this worker's slot over the number of
    workers, so that workers which start together do not all begin with the same version.
    """

    __slots__ = (
        "_by_name",
        "_cohorts",
        "_draw",
        "_phase",
        "_rounds",
        "_seed",
        "_weighted",
        "breaker_on",
        "budget",
        "generation",
        "id",
        "last",
        "name",
        "new",
        "only",
        "paused",
        "retry",
        "rollout",
        "settings",
        "stable",
        "sticky",
        "versions",
    )

    def __init__(
        self,
        service_id: str,
        name: str,
        *,
        settings: ServiceSettings,
        versions: tuple[Version, ...] = (),
        generation: int = 0,
        stable: str | None = None,
        rollout: str | None = None,
        new: str | None = None,
        paused: bool = False,
        workers: int = 1,
        phase: float = 0.0,
        seed: int | str = 0,
    ) -> None:
        self.id = service_id
        self.name = name
        self.settings = settings
        self.versions = versions
        self.generation = generation
        self.stable = next((each for each in versions if each.id == stable), None)
        """Where a retry may go last."""
        self.rollout = rollout
        """Id of the open deployment."""
        self.new = new
        """Id of the version it brings in."""
        self.paused = paused
        """Maintenance: new requests are held."""
        self.sticky: StickySettings | None = settings.sticky
        self.retry: RetryPolicy | None = compile_retry(settings.retry)
        self.budget = _budget_of(settings, workers)
        breaker = compile_breaker(settings.breaker)
        self.breaker_on: frozenset[str] = frozenset(breaker.on) if breaker else frozenset()
        """Kinds of failure the breakers count: `connect`, `reset`, `timeout`, or a status."""
        self._seed = seed
        self._phase = phase
        self._by_name = {each.name: each for each in versions}
        self._cohorts = Cohorts(rollout or service_id)
        self._rounds: dict[tuple[tuple[str, int], ...], Callable[[], int]] = {}
        self.only: Version | None = None
        """The one version that takes all new requests, if there is one: `choose` returns no other."""
        self.last: tuple[Version, ...] = ()
        """While no version is usable: those that would be but for their breakers."""
        self._weighted: tuple[Version, ...] = ()
        self._draw: Callable[[], int] = int

    def choose(self, now: float, key: bytes | None = None) -> Version | None:
        """Return the version for a new request, or None if none is usable.

        key: what identifies the user of a sticky service; None chooses by weights alone.
        """
        if self.only is not None or not self._weighted:
            return self.only
        if key is None:
            return self._weighted[self._draw()]
        return self._weighted[self._cohort(key)]

    def named(self, name: str) -> Version | None:
        """Return a version by its name, usable or not."""
        return self._by_name.get(name)

    def newest(self) -> Version | None:
        """Return the open rollout's new version, or the newest without weight; None if there is neither."""
        if self.new is not None:
            return next((each for each in self.versions if each.id == self.new), None)
        idle = [each for each in self.versions if not each.weight and not each.draining]
        return idle[-1] if idle else None

    def by_name(self, name: str) -> Version | None:
        """Return a version by its name, weight or not; None unless it is usable."""
        version = self._by_name.get(name)
        return version if version is not None and version.usable else None

    def key_number(self, key: bytes) -> int:
        """Return the 64-bit number that stands for a sticky key in this rollout's counts."""
        return self._cohorts.number(key)

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield every endpoint of every version."""
        for version in self.versions:
            yield from version.endpoints

    def take_over(self, before: "Service") -> None:
        """Go on where the same service of the last table stood: its rounds and its retry budget."""
        self._rounds = before._rounds
        if _budget_settings(before.settings) == _budget_settings(self.settings):
            self.budget = before.budget

    def refresh(self, now: float) -> None:
        """Work out anew what is usable, and its share: after a table swap and whenever a breaker moves."""
        for version in self.versions:
            version.refresh()
            version.share = 0
        weighted = tuple(each for each in self.versions if each.usable and each.weight > 0)
        if not weighted:
            weighted = tuple(each for each in self.versions if each.usable and each.standby)[:1]
        self._weighted = weighted
        self.last = () if weighted else self._barred()
        self.only = weighted[0] if len(weighted) == 1 else None
        units = [weight_units(each.weight) for each in weighted]
        shares = shares_of(units)
        for version, share in zip(weighted, shares, strict=True):
            version.share = share
        if len(weighted) > 1:
            is_short = sum(units) <= LONGEST_ROUND * math.gcd(*units)
            self._draw = self._round(weighted, units if is_short else shares)

    def _barred(self) -> tuple[Version, ...]:
        """Return the versions that only breakers keep from serving: by weight, or else the stand-by."""
        found = [each for each in self.versions if each.could_serve]
        weighted = sorted((each for each in found if each.weight > 0), key=lambda each: -each.weight)
        return tuple(weighted or (each for each in found if each.standby))

    def _round(self, weighted: tuple[Version, ...], units: Sequence[int]) -> Callable[[], int]:
        """Return the draw among `weighted`, at the place in its round where it was left."""
        key = tuple(zip((each.id for each in weighted), units, strict=True))
        draw = self._rounds.pop(key, None)
        if draw is None:
            draw = split(units, seed=f"{self._seed}|{self.id}|{key}", phase=self._phase).__next__
        self._rounds[key] = draw
        if len(self._rounds) > KEPT_ROUNDS:
            del self._rounds[next(iter(self._rounds))]
        return draw

    def _cohort(self, key: bytes) -> int:
        """Return the index of the key's version: by the rollout's percentage, else by weighted rendezvous."""
        weighted = self._weighted
        if len(weighted) == 2 and self.new in (weighted[0].id, weighted[1].id):
            new = 0 if weighted[0].id == self.new else 1
            return new if self._cohorts.position(key) * 100 < weighted[new].share else 1 - new
        return self._cohorts.choose(key, [(each.id, each.weight) for each in weighted])


class Route:
    """A host and a path prefix (whole segments) that lead to a service."""

    __slots__ = ("host", "methods", "path", "service", "strip_prefix", "takes")

    def __init__(
        self,
        service: Service,
        *,
        host: str = "*",
        path: str = "/",
        strip_prefix: bool = False,
        methods: Iterable[str] = (),
    ) -> None:
        self.service = service
        self.host = host.lower()
        self.path = path.rstrip("/") or "/"
        self.strip_prefix = strip_prefix
        self.methods = frozenset(methods)
        """Empty: all."""
        self.takes = self.methods | ({"HEAD"} if "GET" in self.methods else set())
        """The same, with the HEAD that goes with GET (RFC 9110 §9.3.2)."""


class RoutingTable:
    """All routes, as they came with snapshot `number`.

    An exact host beats `*.suffix` (the longest first), which beats `*`; within a host the longest path wins,
    by whole segments; a route for the path but not the method gives way to a shorter one. Raises ValueError
    if two services claim the same host, path and method.
    """

    __slots__ = ("_any", "_hosts", "_suffixes", "number", "services")

    def __init__(
        self, number: int = 0, services: Iterable[Service] = (), routes: Iterable[Route] = ()
    ) -> None:
        self.number = number
        self.services = {each.name: each for each in services}
        self._hosts: dict[str, _Paths] = {}
        self._suffixes: dict[str, _Paths] = {}
        self._any = _Paths()
        for route in routes:
            self._paths_of(route.host).add(route)

    def match(self, host: str, path: str, method: str) -> Route | None:
        """Return the route of a request, or None.

        host: lower case, without port. path: normalised, without query.
        """
        for paths in self._paths_for(host):
            if (route := paths.match(path, method)) is not None:
                return route
        return None

    def methods(self, host: str, path: str) -> list[str]:
        """Return, sorted, the methods that a host and path may be asked with if `match` finds no route."""
        found: set[str] = set()
        for paths in self._paths_for(host):
            for route in paths.leading_to(path):
                found |= route.takes
        return sorted(found)

    def _paths_for(self, host: str) -> "Iterator[_Paths]":
        """Yield what routes of a host may be in, the most exact first."""
        if host in self._hosts:
            yield self._hosts[host]
        if self._suffixes:
            dot = host.find(".")
            while dot >= 0:
                if host[dot:] in self._suffixes:
                    yield self._suffixes[host[dot:]]
                dot = host.find(".", dot + 1)
        yield self._any

    def _paths_of(self, host: str) -> "_Paths":
        if host == "*":
            return self._any
        if host.startswith("*."):
            return self._suffixes.setdefault(host[1:], _Paths())
        return self._hosts.setdefault(host, _Paths())


class _Paths:
    """The routes of one host, by path. A lookup takes no more steps than the deepest route has segments."""

    __slots__ = ("_by_path", "_has_depth")

    def __init__(self) -> None:
        self._by_path: dict[str, list[Route]] = {}
        self._has_depth: list[bool] = []
        """By number of segments less one: whether any route is that deep."""

    def add(self, route: Route) -> None:
        """Add a route; those limited to methods go first. Raises ValueError if another claims the same."""
        routes = self._by_path.setdefault(route.path, [])
        for other in routes:
            if other.methods & route.methods or other.methods == route.methods:
                names = f"{other.service.name} and {route.service.name}"
                raise ValueError(f"{names} both claim {route.host}{route.path}")
        routes.append(route)
        if len(routes) > 1:
            routes.sort(key=lambda each: not each.methods)
        if route.path == "/":
            return
        depth = route.path.count("/")
        self._has_depth += [False] * (depth - len(self._has_depth))
        self._has_depth[depth - 1] = True

    def match(self, path: str, method: str) -> Route | None:
        """Return the route with the longest path that fits."""
        best = None
        for routes in self._by_depth(path):
            best = _first_for(method, routes) or best
        return best

    def leading_to(self, path: str) -> Iterator[Route]:
        """Yield the routes that fit but for the method."""
        for routes in self._by_depth(path):
            yield from routes

    def _by_depth(self, path: str) -> Iterator[list[Route]]:
        """Yield the routes of each prefix of `path`, the shortest first."""
        by_path = self._by_path
        if "/" in by_path:
            yield by_path["/"]
        end = 0
        for has_depth in self._has_depth:
            end = path.find("/", end + 1)
            if has_depth:
                routes = by_path.get(path if end < 0 else path[:end])
                if routes is not None:
                    yield routes
            if end < 0:
                break


def _first_for(method: str, routes: list[Route]) -> Route | None:
    """Return the route for a method: one that names it, one it goes with (HEAD with GET), one for all."""
    named = next((route for route in routes if method in route.methods), None)
    return named or next((route for route in routes if not route.methods or method in route.takes), None)


def weight_units(weight: float) -> int:
    """Return a weight above zero in hundredths, at least one: what `core.split` deals in."""
    return max(round(weight * 100), 1)


def shares_of(units: Sequence[int]) -> list[int]:
    """Return weights above zero as shares, each at least 1, that sum to exactly ALL; none of none.

    Rounded by largest remainder; what tiny weights get too much is taken from the largest.
    """
    if not units:
        return []
    total = sum(units)
    shares = [max(unit * ALL // total, 1) for unit in units]
    missing = ALL - sum(shares)
    by_remainder = sorted(range(len(units)), key=lambda index: units[index] * ALL % total, reverse=True)
    for index in by_remainder[: max(missing, 0)]:
        shares[index] += 1
    shares[shares.index(max(shares))] += min(missing, 0)
    return shares


def _budget_of(settings: ServiceSettings, workers: int) -> RetryBudget:
    percent, per_second = _budget_settings(settings)
    return RetryBudget(percent=percent, min_per_second=per_second, workers=workers)


def _budget_settings(settings: ServiceSettings) -> tuple[float, int]:
    retry = settings.retry if isinstance(settings.retry, RetrySettings) else RetrySettings()
    return retry.budget_percent, retry.budget_min_per_second
