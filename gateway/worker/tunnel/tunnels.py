"""The tunnels of a worker: joined after a 101, swept, drained."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from gateway.core.routing.table import Endpoint, Version
from gateway.worker.admission import Gate
from gateway.worker.tunnel.frames import GOING_AWAY, SERVICE_RESTART
from gateway.worker.tunnel.tunnel import Tunnel

if TYPE_CHECKING:
    from gateway.worker.exchange.exchange import Exchange

SPREAD: Final = 0.7
"""Goodbyes are spread over this part of a drain's window, so that clients do not all come back at once."""


class TunnelHold:
    """What a tunnel takes at its endpoint, its version and its service's gate, from its 101 to its end."""

    def __init__(
        self, endpoint: Endpoint, version: Version | None, gate: Gate | None, on_lost: Callable[[], None]
    ) -> None:
        self._endpoint = endpoint
        self._version = version
        self._gate = gate
        self._on_lost = on_lost
        self._count(1)

    def end(self, was_cut: bool) -> None:
        """Give it all back."""
        self._endpoint.forced += was_cut
        self._count(-1)
        if self._gate is not None:
            self._gate.leave()
        self._on_lost()

    def _count(self, change: int) -> None:
        self._endpoint.in_flight += change
        self._endpoint.streams += change
        if self._version is not None:
            self._version.counts.in_flight += change
            self._version.counts.streams += change


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

    def join(self, exchange: "Exchange", rest: bytes, *, is_websocket: bool) -> None:
        """Make a tunnel of an exchange's two connections. rest: what the upstream sent behind its 101."""
        upstream, client, policy = exchange.upstream, exchange.client, exchange.policy
        assert upstream is not None
        assert policy is not None
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
            idle_s=policy.stream_idle_s,
        )
        self.open[tunnel] = began
        # An endpoint that was called back meanwhile has the same key, and no drain.
        for drained in (None, key) if endpoint is not None and endpoint.draining else (None,):
            if drained in self._drains:
                cut_at, code = self._drains[drained]
                tunnel.drain(0.0, cut_at, code)  # too late to be spread
        tunnel.start(
            from_client=pending,
            from_upstream=rest,
            client_eof=client.half_closed,
            client_writable=client.writable,
            upstream_writable=upstream.writable,
        )

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
                tunnel.drain(now + self._chance() * SPREAD * deadline_s, cut_at, code)

    def abort(self) -> None:
        for tunnel in list(self.open):
            tunnel.abort()

    def _ended(self, tunnel: Tunnel, on_end: Callable[[bool], None]) -> None:
        del self.open[tunnel]
        self.forced += tunnel.forced
        on_end(tunnel.forced)
