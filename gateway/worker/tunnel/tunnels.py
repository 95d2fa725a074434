"""The tunnels of a worker: joined after a 101, swept, drained."""

from collections.abc import Callable
from random import Random
from typing import Final, Protocol

from gateway.core.routing.endpoint import Endpoint
from gateway.http1.client import UpstreamConnection
from gateway.http1.server import ServerProtocol
from gateway.worker.tunnel.frames import GOING_AWAY, SERVICE_RESTART
from gateway.worker.tunnel.tunnel import Tunnel

SPREAD: Final = 0.7
"""Goodbyes are spread over this part of a drain's window, so that clients do not all come back at once."""


class Upgraded(Protocol):
    """An exchange that becomes a tunnel."""

    @property
    def client(self) -> ServerProtocol: ...
    @property
    def upstream(self) -> UpstreamConnection | None: ...
    @property
    def endpoint(self) -> Endpoint | None: ...
    @property
    def began(self) -> float:
        """Monotonic seconds."""

    @property
    def stream_idle_s(self) -> float:
        """Seconds without a byte after which the tunnel ends; 0: never."""

    def detach(self) -> Callable[[bool], None]:
        """Leave the two connections. Returns what to call at the end, with whether it was cut."""


class Tunnels:
    """All of them, with the one duty an exchange leaves behind: to count the end."""

    def __init__(self, chance: Callable[[], float] | None = None) -> None:
        """chance: numbers in [0, 1) that spread the goodbyes."""
        self.open: dict[Tunnel, float] = {}
        """Tunnel -> monotonic seconds when its request came."""
        self.forced = 0
        """Cut at a deadline: total."""
        self._chance = chance or Random().random
        self._drains: dict[str | None, tuple[float, int]] = {}
        """Endpoint key (None: all) -> (monotonic seconds when it is over, Close code)."""

    def join(self, exchange: Upgraded, rest: bytes, *, is_websocket: bool) -> None:
        """Make a tunnel of an exchange's two connections. rest: what the upstream sent behind its 101."""
        upstream, client, idle_s = exchange.upstream, exchange.client, exchange.stream_idle_s
        assert upstream is not None
        pending = client.take_pending()
        endpoint, began = exchange.endpoint, exchange.began
        key = endpoint.key if endpoint else ""
        on_end = exchange.detach()
        tunnel = Tunnel(
            client.release(),
            upstream.release(),
            websocket=is_websocket,
            on_end=lambda ended: self._ended(ended, on_end),
            key=key,
            idle_s=idle_s,
        )
        self.open[tunnel] = began
        # An endpoint that was called back meanwhile has the same key, and no drain.
        drained = (None, key) if endpoint is not None and endpoint.draining else (None,)
        under_way = [self._drains[each] for each in drained if each in self._drains]
        for cut_at, code in under_way:
            tunnel.drain(0.0, cut_at, code)
        tunnel.start(
            from_client=pending,
            from_upstream=rest,
            client_eof=client.half_closed,
            client_writable=client.writable,
            upstream_writable=upstream.writable,
        )
        if under_way:
            tunnel.leave()  # too late to be spread; it may be cut before the next sweep

    def sweep(self, now: float) -> None:
        for tunnel in list(self.open):
            tunnel.sweep(now)

    def drain(self, now: float, deadline_s: float, keys: frozenset[str] | None) -> None:
        """End the tunnels of these endpoints (None: of all), and later ones, within `deadline_s` seconds.

        now: monotonic seconds.
        """
        code = GOING_AWAY if keys is None else SERVICE_RESTART
        cut_at = now + deadline_s
        self._drains = {key: drain for key, drain in self._drains.items() if drain[0] > now}
        for key in (None,) if keys is None else keys:
            self._drains[key] = (cut_at, code)
        for tunnel in self.open:
            if keys is None or tunnel.key in keys:
                leave_at = now + self._chance() * SPREAD * deadline_s
                tunnel.drain(leave_at, cut_at, code)
                if leave_at <= now:
                    tunnel.leave()  # it may be cut at the next sweep

    def abort(self) -> None:
        for tunnel in list(self.open):
            tunnel.abort()

    def _ended(self, tunnel: Tunnel, on_end: Callable[[bool], None]) -> None:
        del self.open[tunnel]
        self.forced += tunnel.forced
        on_end(tunnel.forced)
