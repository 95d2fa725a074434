"""The routing table a worker serves by: host + path -> route -> service -> version -> endpoint.

A table is swapped whole; what must outlive a swap (breaker, pool, counts, the place in a round) hangs on
objects that the next table takes over. Which versions are usable, and their shares, is worked out by
`Service.refresh` when something changes, never by a request.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from gateway.core.resilience.breaker import compile_breaker
from gateway.core.resilience.retry import RetryBudget, RetryPolicy, compile_retry
from gateway.core.routing.cohort import Cohorts
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.core.routing.shares import ALL, shares_of, weight_units
from gateway.core.routing.split import split
from gateway.core.routing.version import Version
from gateway.core.settings.resilience import RetrySettings
from gateway.core.settings.sticky import StickySettings

KEPT_ROUNDS: Final = 8
"""Sets of usable versions whose place in their round is remembered, for endpoints that flap."""
LONGEST_ROUND: Final = ALL
"""Requests. Weights that would need a longer one (33.33, 12.51, …) are split by their shares instead."""


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
        "is_isolated",
        "last",
        "name",
        "new",
        "old",
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
        old: str | None = None,
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
        self.new, self.old = new, old
        """Ids of the version it brings in, and of the one that it replaces."""
        self.is_isolated = False
        """Nobody judges what is served here: the old version alone serves, while it is usable."""
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
        if self.is_isolated:
            weighted = (
                tuple(each for each in self.versions if each.usable and each.id == self.old) or weighted
            )
        self._weighted = weighted
        self.last = () if weighted else self._kept_by_breakers()
        self.only = weighted[0] if len(weighted) == 1 else None
        units = [weight_units(each.weight) for each in weighted]
        shares = shares_of(units)
        for version, share in zip(weighted, shares, strict=True):
            version.share = share
        if len(weighted) > 1:
            is_short = sum(units) <= LONGEST_ROUND * math.gcd(*units)
            self._draw = self._round(weighted, units if is_short else shares)

    def _kept_by_breakers(self) -> tuple[Version, ...]:
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

    __slots__ = ("_any", "_hosts", "_routes", "_suffixes", "number", "services")

    def __init__(
        self, number: int = 0, services: Iterable[Service] = (), routes: Iterable[Route] = ()
    ) -> None:
        self.number = number
        self.services: dict[str, Service] = {}
        self._routes: dict[str, list[Route]] = {}
        """By service."""
        self._hosts: dict[str, _Paths] = {}
        self._suffixes: dict[str, _Paths] = {}
        self._any = _Paths()
        self._add(services, routes)

    def replaced(
        self, number: int, gone: Collection[str], services: Iterable[Service], routes: Collection[Route]
    ) -> "RoutingTable":
        """Return the next table. This one stays as it is, and shares with it what is the same in both: a
        change of one of a thousand services costs no more than that one.

        gone: names of services of this table that the next one lacks, or has anew. services, routes: those
        that come. Raises ValueError as a table made from nothing does.
        """
        table = RoutingTable(number)
        table.services, table._routes = self.services.copy(), self._routes.copy()
        table._hosts, table._suffixes, table._any = self._hosts.copy(), self._suffixes.copy(), self._any
        left = [route for name in gone for route in self._routes.get(name, ())]
        hosts = {route.host for route in left} | {route.host for route in routes}
        for host in hosts:
            table._put(host, table._paths_of(host).copy())
        for name in gone:
            table.services.pop(name, None)
            table._routes.pop(name, None)
        for route in left:
            table._paths_of(route.host).remove(route)
        table._add(services, routes)
        for host in hosts:
            table._drop_if_empty(host)
        return table

    def _add(self, services: Iterable[Service], routes: Iterable[Route]) -> None:
        for service in services:
            self.services[service.name] = service
        for route in routes:
            self._routes.setdefault(route.service.name, []).append(route)
            self._paths_of(route.host).add(route)

    def match(self, host: str, path: str, method: str) -> Route | None:
        """Return the route of a request, or None.

        host: lower case, without port. path: normalised, without query.
        """
        if self._suffixes or host in self._hosts:
            for paths in self._paths_for(host):
                if (route := paths.match(path, method)) is not None:
                    return route
            return None
        return self._any.match(path, method)

    def methods(self, host: str, path: str) -> list[str]:
        """Return, sorted, the methods that a host and path may be asked with if `match` finds no route."""
        found: set[str] = set()
        for paths in self._paths_for(host):
            for route in paths.leading_to(path):
                found |= route.takes
        return sorted(found)

    def _paths_for(self, host: str) -> "list[_Paths]":
        """Return what routes of a host may be in, the most exact first."""
        found = []
        if host in self._hosts:
            found.append(self._hosts[host])
        if self._suffixes:
            dot = host.find(".")
            while dot >= 0:
                if host[dot:] in self._suffixes:
                    found.append(self._suffixes[host[dot:]])
                dot = host.find(".", dot + 1)
        found.append(self._any)
        return found

    def _paths_of(self, host: str) -> "_Paths":
        if host == "*":
            return self._any
        if host.startswith("*."):
            return self._suffixes.setdefault(host[1:], _Paths())
        return self._hosts.setdefault(host, _Paths())

    def _put(self, host: str, paths: "_Paths") -> None:
        if host == "*":
            self._any = paths
        elif host.startswith("*."):
            self._suffixes[host[1:]] = paths
        else:
            self._hosts[host] = paths

    def _drop_if_empty(self, host: str) -> None:
        if host == "*" or not self._paths_of(host).is_empty:
            return
        if host.startswith("*."):
            del self._suffixes[host[1:]]
        else:
            del self._hosts[host]


class _Paths:
    """The routes of one host, by path. A lookup takes no more steps than the deepest route has segments."""

    __slots__ = ("_at_depth", "_by_path")

    def __init__(self) -> None:
        self._by_path: dict[str, list[Route]] = {}
        """The lists are never changed: copies share them."""
        self._at_depth: list[int] = []
        """By number of segments less one: how many paths are that deep; the last is not 0."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no route."""
        return not self._by_path

    def copy(self) -> "_Paths":
        """Return one that may be changed, and leaves this one as it is."""
        copy = _Paths()
        copy._by_path, copy._at_depth = self._by_path.copy(), self._at_depth.copy()
        return copy

    def add(self, route: Route) -> None:
        """Add a route; those limited to methods go first. Raises ValueError if another claims the same."""
        routes = self._by_path.get(route.path)
        if routes is None:
            self._by_path[route.path] = [route]
            self._count(route.path, 1)
            return
        for other in routes:
            if other.methods & route.methods or other.methods == route.methods:
                names = f"{other.service.name} and {route.service.name}"
                raise ValueError(f"{names} both claim {route.host}{route.path}")
        self._by_path[route.path] = sorted([*routes, route], key=lambda each: not each.methods)

    def remove(self, route: Route) -> None:
        """Take out a route that is here."""
        rest = [each for each in self._by_path[route.path] if each is not route]
        if rest:
            self._by_path[route.path] = rest
            return
        del self._by_path[route.path]
        self._count(route.path, -1)

    def _count(self, path: str, change: int) -> None:
        """Count a path that came (1) or went (-1)."""
        if path == "/":
            return
        depth, depths = path.count("/"), self._at_depth
        depths.extend([0] * (depth - len(depths)))
        depths[depth - 1] = depths[depth - 1] + change
        while depths and not depths[-1]:
            depths.pop()

    def match(self, path: str, method: str) -> Route | None:
        """Return the route with the longest path that fits."""
        best = None
        for routes in self._by_depth(path):
            best = _first_for(method, routes) or best
        return best

    def leading_to(self, path: str) -> list[Route]:
        """Return the routes that fit but for the method."""
        return [route for routes in self._by_depth(path) for route in routes]

    def _by_depth(self, path: str) -> list[list[Route]]:
        """Return the routes of each prefix of `path`, the shortest first."""
        by_path = self._by_path
        root = by_path.get("/")
        found = [] if root is None else [root]
        end = 0
        for paths_there in self._at_depth:
            end = path.find("/", end + 1)
            if paths_there:
                routes = by_path.get(path if end < 0 else path[:end])
                if routes is not None:
                    found.append(routes)
            if end < 0:
                break
        return found


def _first_for(method: str, routes: list[Route]) -> Route | None:
    """Return the route for a method: one that names it, one it goes with (HEAD with GET), one for all."""
    for route in routes:
        if method in route.methods:
            return route
    for route in routes:
        if not route.methods or method in route.takes:
            return route
    return None


def _budget_of(settings: ServiceSettings, workers: int) -> RetryBudget:
    percent, per_second = _budget_settings(settings)
    return RetryBudget(percent=percent, min_per_second=per_second, workers=workers)


def _budget_settings(settings: ServiceSettings) -> tuple[float, int]:
    retry = settings.retry if isinstance(settings.retry, RetrySettings) else RetrySettings()
    return retry.budget_percent, retry.budget_min_per_second
