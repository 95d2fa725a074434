"""What a tunnel still counts as, once its exchange is over."""

from collections.abc import Callable

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.version import Version
from gateway.worker.admission import Admission


class TunnelHold:
    """A place at its endpoint, its version and its service's admission, from the 101 to the end."""

    def __init__(
        self,
        endpoint: Endpoint,
        version: Version | None,
        admission: Admission | None,
        on_lost: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._version = version
        self._admission = admission
        self._on_lost = on_lost
        self._count(1)

    def end(self, was_cut: bool) -> None:
        """Give it all back."""
        self._endpoint.forced += was_cut
        self._count(-1)
        if self._admission is not None:
            self._admission.leave()
        self._on_lost()

    def _count(self, change: int) -> None:
        self._endpoint.in_flight += change
        self._endpoint.streams += change
        if self._version is not None:
            self._version.counts.in_flight += change
            self._version.counts.streams += change
