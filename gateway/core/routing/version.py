"""One version of a service as a worker sees it: which of its endpoints may be asked, and whether any may."""

from collections.abc import Callable, Collection

from gateway.core.routing import balance
from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings


class AttemptCounts:
    """Where a version's attempts are counted: link.counts.VersionCounts, which core does not know.

    A base and no Protocol: compiled, a request then counts at a tenth of the price.
    """

    __slots__ = ("abandoned", "in_flight", "streams")

    def __init__(self) -> None:
        self.in_flight = 0
        """Exchanges now running at this version."""
        self.streams = 0
        """Of those, tunnels and event streams."""
        self.abandoned = 0
        """Clients that left while they waited for the head."""

    def answer(
        self, method: str, status: int, latency_us: int, upstream_us: int, generation: int, share: int
    ) -> None:
        """Count what nearly every exchange is: a first attempt, chosen by the split, and well answered."""
        raise NotImplementedError

    def request(self, method: str, status: int, latency_us: int, upstream_us: int) -> None:
        """Count an exchange this version answered, and how long its client waited for the head."""
        raise NotImplementedError

    def retry(self, outcome: str) -> None:
        """Count an attempt that was not a request's first."""
        raise NotImplementedError

    def attempt(self, outcome: str) -> None:
        """Count one try at this version by what became of it."""
        raise NotImplementedError

    def judge(self, generation: int, share: int, error: str | None, latency_us: int) -> None:
        """Count a first attempt that the split sent here."""
        raise NotImplementedError

    def bounded(self, route: str) -> str:
        """Return the route class, or that of all others once there are many."""
        raise NotImplementedError

    def cohort_error(self, generation: int, share: int, key_number: int, kind: str) -> None:
        """Count an error of a sticky service's user, as far as there is room."""
        raise NotImplementedError


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
        """Its test gate has passed."""
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
        return self.active and not self.draining and bool(self.kept_by_breakers())

    def kept_by_breakers(self) -> list[Endpoint]:
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
