"""The freezes that the configuration has scheduled: for all services, and for single ones."""

from collections.abc import Callable
from typing import Final, Protocol

from gateway.control.rollouts.rows import at
from gateway.core.settings.freeze_window import FreezeWindow, Occurrence, in_force
from gateway.store.records import ServiceRecord

LOOKED_AT_S: Final = 60.0
"""Windows begin at whole minutes: what was found holds until the next one, or until it ends."""


class Services(Protocol):
    """Who knows the services' settings."""

    def service_record(self, name: str) -> ServiceRecord: ...


class FreezeSchedule:
    """Which window is in force, looked for once a minute."""

    def __init__(self, services: Services, wall: Callable[[], float]) -> None:
        self.windows: tuple[FreezeWindow, ...] = ()
        """For all services."""
        self._services = services
        self._wall = wall
        self._known: dict[str, tuple[tuple[FreezeWindow, ...], float, Occurrence | None]] = {}
        """By service, empty for all: of which windows, until when (wall clock), and what was found."""

    def of(self, service: str = "") -> tuple[FreezeWindow, ...]:
        """Return the windows that hold for a service, or for all."""
        own = self._services.service_record(service).settings.freeze_windows if service else ()
        return self.windows + own

    def in_force(self, service: str = "") -> Occurrence | None:
        """Return the window in force for a service, or for all; of several the one that ends last."""
        windows, now = self.of(service), self._wall()
        known, until, found = self._known.get(service, ((), 0.0, None))
        if known == windows and until - LOOKED_AT_S <= now < until:
            return found
        found = in_force(windows, at(now))
        until = (now // LOOKED_AT_S + 1) * LOOKED_AT_S
        if found is not None:
            until = min(until, found.end.timestamp())
        self._known[service] = (windows, until, found)
        return found
