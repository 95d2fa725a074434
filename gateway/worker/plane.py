"""The data plane of one worker, put together: its table, its connections, its one timer."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway.errors import DownstreamError
from gateway.http1.connections import ClientConnection, Connections, ServerSettings, reason_label
from gateway.http1.message import problem
from gateway.http1.server import ServerProtocol
from gateway.link.snapshot import ProxySettings, Snapshot
from gateway.net.capacity import Capacity
from gateway.worker.client_connection import connection_factory
from gateway.worker.draining import Draining
from gateway.worker.exchange.context import Context
from gateway.worker.exchange.request_head import TRACE_DIGITS
from gateway.worker.live_table import LiveTable
from gateway.worker.log_line import Line
from gateway.worker.policies import Policies
from gateway.worker.pools import Pools

SWEEP_S: Final = 0.1
"""How often deadlines are looked at and, in a worker, counts go up, which is its heartbeat, too."""


class Plane:
    """What serves requests in this process: apply snapshots to it, give connections its protocol."""

    def __init__(self, *, slot: int = 0, seed: int | None = None, sweep_s: float = SWEEP_S) -> None:
        """slot: this worker's number."""
        self.pools = Pools()
        self.live_table = LiveTable(slot=slot, pool_factory=self.pools.make, seed=seed)
        self.policies = Policies(self.pools)
        self.clients = Connections(server_settings(self.live_table.proxy))
        self.clients.on_refused = self._log_refusal
        self.capacity = Capacity(1)
        """To be set by whoever listens."""
        self.context = Context(self.live_table, self.policies, self.clients, self.capacity)
        self.tunnels = self.context.tunnels
        self.draining = Draining(self.clients, self.tunnels, self.live_table)
        self._proxy: ProxySettings | None = None
        """The settings followed last."""
        self._sweep_s = sweep_s
        self._timer: asyncio.TimerHandle | None = None
        self._midway: asyncio.TimerHandle | None = None
        self._then: Callable[[int], None] | None = None

    def factory(self, *, tls: bool = False, listen: int = 0) -> Callable[[], ServerProtocol]:
        """Return what makes the protocol of each connection of a listener.

        listen: index of the listen table it comes from.
        """
        return connection_factory(self.context, tls=tls, listen=listen)

    def apply(self, snapshot: Snapshot) -> None:
        """Serve by `snapshot` from now on. Raises LinkError on a bad one; nothing changes then."""
        swap = self.live_table.apply(snapshot)
        proxy = self.live_table.proxy
        if proxy is not self._proxy:
            self._proxy = proxy
            self.clients.settings = server_settings(proxy)
            self.context.follow(proxy)
        self.policies.follow(swap, proxy)

    # --- what is counted --------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Client connections now open, tunnels included."""
        return len(self.clients.open) + len(self.tunnels.open)

    def upstream_connections(self) -> dict[str, int]:
        """Return how many connections to upstreams there are now, by what they do."""
        connecting = idle = running = 0
        for pool in self.pools.open:
            connecting += pool.connecting
            idle += pool.idle
        for endpoint in self.live_table.endpoints():
            running += endpoint.in_flight
        return {"active": max(running - connecting, 0), "idle": idle, "connecting": connecting}

    def leaks(self) -> list[str]:
        """Return what is still held, in words; nothing when no client is connected and none was forgotten."""
        found = [f"{self.connections} connections are open"] if self.connections else []
        found += [f"requests run or wait at {name}" for name in self.policies.busy()]
        for endpoint in self.live_table.endpoints():
            if endpoint.in_flight or endpoint.streams:
                found.append(
                    f"{endpoint.in_flight} attempts and {endpoint.streams} streams at {endpoint.key}"
                )
        for counts in self.live_table.counts.values():
            if counts.in_flight or counts.streams:
                found.append(f"{counts.in_flight} exchanges and {counts.streams} streams of {counts.version}")
        return found + [leak for pool in self.pools.open for leak in pool.leaks()]

    # --- time -------------------------------------------------------------------------------------

    def start(self, then: Callable[[int], None] | None = None) -> None:
        """Begin to enforce deadlines, on the running loop.

        then: called midway between two looks, with how late the first was, microseconds. Requests that meet
        both at once would wait for both.
        """
        self._then = then
        self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._tick)

    def sweep(self, now: float) -> None:
        """Do what has come due. now: monotonic seconds."""
        self.clients.sweep(now)
        self.tunnels.sweep(now)
        self.pools.sweep(now)
        self.draining.sweep(now)

    def close_now(self) -> None:
        """Cut everything."""
        self.draining.cut_now()
        self.pools.close()
        for timer in (self._timer, self._midway):
            if timer is not None:
                timer.cancel()
        self._timer = self._midway = None
        self.context.log_file.close()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        lag_us = 0 if self._timer is None else max(0, round((loop.time() - self._timer.when()) * 1e6))
        self._timer = loop.call_later(self._sweep_s, self._tick)
        self.sweep(time.monotonic())
        if self._then is not None:
            self._midway = loop.call_later(self._sweep_s / 2, self._then, lag_us)

    def _log_refusal(self, client: ClientConnection, error: DownstreamError) -> None:
        """Note a request whose head was refused: what is known of it."""
        log = self.context.log_file.current
        if log is None:
            return
        if log.only is not None and not log.only.wants(error.status, 0, 0):
            return
        method, target = client.reader.glimpse()
        line = log.line = Line()
        line.ended = time.monotonic()
        line.request_id = self.context.request_ids.next()[:TRACE_DIGITS]
        line.client = line.peer = client.peer
        line.method, line.path = method, log.shown(target)
        line.status = error.status
        line.bytes_out = len(problem(error))
        line.flags = [reason_label(error)]
        log.add()


def server_settings(proxy: ProxySettings) -> ServerSettings:
    """Return the client side of the data plane's settings, in seconds."""
    timeouts, limits = proxy.timeouts, proxy.limits
    return ServerSettings(
        client_header_s=timeouts.client_header / 1000,
        client_idle_s=timeouts.client_idle / 1000,
        body_idle_s=timeouts.body_idle / 1000,
        header_bytes=limits.header_bytes,
        header_fields=limits.header_fields,
        uri_bytes=limits.uri_bytes,
        body_bytes=limits.body_bytes,
    )
