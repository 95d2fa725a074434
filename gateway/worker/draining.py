"""How what runs comes to an end: of the whole worker, or of endpoints that are replaced."""

import asyncio
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from gateway.core.routing.endpoint import Endpoint
from gateway.http1.connections import Connections
from gateway.http1.handler import NEVER
from gateway.link.messages import EndpointLoad
from gateway.worker.exchange.exchange import Exchange
from gateway.worker.live_table import LiveTable
from gateway.worker.tunnel.tunnels import SPREAD, Tunnels

IDLE_CLOSE_S: Final = 5.0
"""How long before the deadline of a worker's drain its idle connections are closed."""


class Draining:
    """Lets finish what runs, and cuts the rest at a deadline; `sweep` does what has come due."""

    def __init__(self, clients: Connections, tunnels: Tunnels, live_table: LiveTable) -> None:
        self.drained = asyncio.Event()
        """Set when a drain of everything has ended: nothing runs any more."""
        self.arriving: Callable[[], bool] = lambda: False
        """Whether listeners hold connections we have not met: their handshake is still going on. Settable."""
        self._clients = clients
        self._tunnels = tunnels
        self._live_table = live_table
        self._over_at = NEVER
        """Monotonic seconds, as all times here."""
        self._idle_close_at = NEVER
        self._endpoints_over_at: dict[Endpoint, float] = {}
        """When what runs there is cut. By object: one called back has the same key."""
        self._stream_ends: dict[Exchange, float] = {}
        self._chance = Random()
        self._cut_exchanges = 0

    @property
    def forced(self) -> int:
        """Exchanges and tunnels cut at a deadline, since the start."""
        return self._cut_exchanges + self._tunnels.forced

    def begin(self, deadline_s: float) -> None:
        """End everything: finish what runs, cut the rest after `deadline_s` seconds. May be called again."""
        self._clients.draining = True
        now = time.monotonic()
        if now + deadline_s < self._over_at:
            self._over_at = now + deadline_s
            # A short drain leaves idle clients half of it to hear `Connection: close` with an answer.
            self._idle_close_at = self._over_at - min(IDLE_CLOSE_S, deadline_s / 2)
        self._tunnels.drain(now, deadline_s, None)
        self._spread_stream_ends(now)

    def begin_endpoints(self, keys: tuple[str, ...], deadline_s: float) -> None:
        """Cut what still runs at these endpoints after `deadline_s` seconds; streams leave before that."""
        now = time.monotonic()
        for endpoint in {*self._live_table.endpoints(), *self._busy_endpoints()}:
            if endpoint.draining and endpoint.key in keys:
                at = self._endpoints_over_at.get(endpoint, NEVER)
                self._endpoints_over_at[endpoint] = min(at, now + deadline_s)
        self._tunnels.drain(now, deadline_s, frozenset(keys))
        self._spread_stream_ends(now)

    def report(self) -> tuple[EndpointLoad, ...]:
        """Return what still runs at each endpoint that drains."""
        now = time.monotonic()
        draining = [each for each in self._live_table.endpoints() if each.draining]
        is_busy = any(each.in_flight or each.streams for each in draining)
        began = self._oldest() if is_busy else {}  # all connections are looked at: not each 0.1 s for nothing
        return tuple(
            EndpointLoad(
                each.key,
                each.in_flight,
                each.streams,
                int((now - began.get(each.key, now)) * 1000),
                each.forced,
            )
            for each in draining
        )

    def exchanges(self) -> Iterator[Exchange]:
        """Yield those under way: a client may also be idle, send a head, or linger after its last answer."""
        for client in list(self._clients.open):
            if isinstance(client.handler, Exchange) and not client.handler.is_idle:
                yield client.handler

    def sweep(self, now: float) -> None:
        """End what has come due."""
        if self._endpoints_over_at or self._stream_ends or self._clients.draining:
            self._spread_stream_ends(now)
            self._end_streams(now)
            self._cut_at_endpoints(now)
        if self._clients.draining:
            self._sweep_clients(now)

    def cut_now(self) -> None:
        """Cut everything; none of it counts as forced."""
        for exchange in self.exchanges():
            exchange.cut()
        for client in list(self._clients.open):
            client.abort()
        self._tunnels.abort()
        self.drained.set()

    def _oldest(self) -> dict[str, float]:
        """Return when the oldest of what runs at each endpoint began, by its key."""
        found: dict[str, float] = {}
        running = [(each.endpoint.key, each.began) for each in self.exchanges() if each.endpoint is not None]
        for key, began in (*running, *((each.key, began) for each, began in self._tunnels.open.items())):
            found[key] = min(found.get(key, began), began)
        return found

    def _busy_endpoints(self) -> Iterator[Endpoint]:
        """Yield where exchanges run: also at endpoints that no table holds any more."""
        for exchange in self.exchanges():
            if exchange.endpoint is not None:
                yield exchange.endpoint

    def _spread_stream_ends(self, now: float) -> None:
        """Choose when each event stream ends, so that their clients do not all come back at once.

        Called again while something drains: a request that was under way may have become a stream since.
        """
        for exchange in self.exchanges():
            if not exchange.is_stream:
                continue
            over = self._over_at
            if exchange.endpoint is not None:
                over = min(over, self._endpoints_over_at.get(exchange.endpoint, NEVER))
            if self._stream_ends.get(exchange, NEVER) > over:
                self._stream_ends[exchange] = now + self._chance.random() * SPREAD * max(0.0, over - now)

    def _end_streams(self, now: float) -> None:
        for exchange, at in list(self._stream_ends.items()):
            if not exchange.is_stream:
                del self._stream_ends[exchange]
            elif at <= now:
                del self._stream_ends[exchange]
                exchange.end_stream()

    def _cut_at_endpoints(self, now: float) -> None:
        over = {endpoint for endpoint, at in self._endpoints_over_at.items() if at <= now}
        if not over:
            return
        for exchange in self.exchanges():
            if exchange.endpoint in over:
                self._cut(exchange)
        for endpoint in over:
            del self._endpoints_over_at[endpoint]

    def _sweep_clients(self, now: float) -> None:
        if now >= self._idle_close_at:
            for client in list(self._clients.open):
                client.close_if_idle()
        if now >= self._over_at:
            for exchange in self.exchanges():
                self._cut(exchange)
            for client in list(self._clients.open):
                client.abort()
            self._tunnels.abort()
        if self._clients.open or self._tunnels.open:
            return
        if now >= self._over_at or not self.arriving():
            self.drained.set()

    def _cut(self, exchange: Exchange) -> None:
        self._cut_exchanges += 1
        exchange.cut()
