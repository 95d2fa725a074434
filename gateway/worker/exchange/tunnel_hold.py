"""What a tunnel still counts as, once its exchange is over."""

from collections.abc import Callable, Sequence

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.version import Version
from gateway.worker.exchange.record import Record


class TunnelHold:
    """A place at its endpoint and its version, and whatever else is to be left, from the 101 to the end."""

    def __init__(
        self,
        endpoint: Endpoint,
        version: Version | None,
        leaving: Sequence[Callable[[], None]],
    ) -> None:
        self._endpoint = endpoint
        self._version = version
        self._leaving = leaving
        self._count(1)

    @classmethod
    def of(cls, record: Record, leaving: Sequence[Callable[[], None]]) -> "TunnelHold":
        """Hold what the last attempt of a request is made at."""
        assert record.endpoint is not None
        return cls(record.endpoint, record.version, leaving)

    def end(self, was_cut: bool) -> None:
        """Give it all back."""
        self._endpoint.forced += was_cut
        self._count(-1)
        for leave in self._leaving:
            leave()

    def _count(self, change: int) -> None:
        self._endpoint.in_flight += change
        self._endpoint.streams += change
        if self._version is not None:
            self._version.counts.in_flight += change
            self._version.counts.streams += change
