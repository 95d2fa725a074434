"""The data plane of one worker: its table, its connections, its one timer, and how it comes to an end."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Final, Literal

from gateway.core.routing.service import ServiceSettings
from gateway.core.routing.table import Endpoint, RoutingTable, Service
from gateway.errors import ConfigError, DownstreamError
from gateway.http1.connections import Connections, ServerSettings, reason_label
from gateway.http1.message import problem
from gateway.http1.server import ServerProtocol
from gateway.link.messages import EndpointLoad
from gateway.link.snapshot import ProxySettings
from gateway.net.networks import Networks
from gateway.worker.access_log import AccessLog
from gateway.worker.admission import Gate
from gateway.worker.exchange.exchange import Exchange
from gateway.worker.exchange.ledger import IDLE, Ledger
from gateway.worker.exchange.request_head import Forwarder, ForwardSettings, RequestIds, trusts_nobody
from gateway.worker.live_table import Live
from gateway.worker.policy import Policy
from gateway.worker.pool import Pool
from gateway.worker.tunnel.tunnels import SPREAD, Tunnels

logger = logging.getLogger(__name__)

IDLE_CLOSE_S: Final = 5.0
"""How long before the deadline of a worker's drain its idle connections are closed."""
POOL_SWEEP_S: Final = 1.0
NEVER: Final = float("inf")


class Plane:
    """What serves requests in this process. `live` says by what table; apply snapshots to it."""

    def __init__(self, *, slot: int = 0, seed: int | None = None, sweep_s: float = 0.1) -> None:
        """slot: this worker's number. sweep_s: how often deadlines are looked at."""
        self.live = Live(slot=slot, pool_factory=self._make_pool, seed=seed)
        self.clients = Connections(server_settings(self.live.proxy))
        self.clients.on_refused = self._log_refusal
        self.tunnels = Tunnels()
        self.policies: dict[Service, Policy] = {}
        """Of the services of the table last seen; made when first asked for."""
        self.request_ids = RequestIds()
        self.nobody = Forwarder(peer="", scheme=b"http", ids=self.request_ids)
        self.forwarding = ForwardSettings()
        self.requests = 0
        self.drained = asyncio.Event()
        """Set when a drain has ended: nothing runs any more."""
        self.arriving: Callable[[], bool] = lambda: False
        """Whether listeners hold connections we have not met: their handshake is still going on. Settable."""
        self.log: AccessLog | None = None
        self._table: RoutingTable | None = None
        self._proxy: ProxySettings | None = None
        self._log_dropped = 0
        """By logs closed since."""
        self._log_settings = ("off", "-")
        self._trusted: tuple[Networks, ...] = ()
        """By index of the listen table."""
        self._gates: dict[str, Gate] = {}
        self._pools: set[Pool] = set()
        self._sweep_s = sweep_s
        self._timer: asyncio.TimerHandle | None = None
        self._pool_sweep_at = 0.0
        self._drain_at = NEVER
        self._idle_close_at = NEVER
        self._endpoint_drains: dict[Endpoint, float] = {}
        """Monotonic seconds when what runs there is cut. By object: one called back has the same key."""
        self._stream_ends: dict[Exchange, float] = {}
        self._chance = Random()
        self._forced = 0

    # --- connections ------------------------------------------------------------------------------

    def factory(self, *, tls: bool = False, listen: int = 0) -> Callable[[], ServerProtocol]:
        """Return what makes the protocol of each connection of a listener.

        listen: index of the listen table it comes from.
        """
        scheme = b"https" if tls else b"http"

        def make_sink(client: ServerProtocol) -> Exchange:
            return Exchange(self, client)

        def make() -> ServerProtocol:
            return _ClientConnection(self, make_sink, scheme, listen)

        return make

    def forwarder_of(self, peer: str, scheme: bytes, listen: int) -> Forwarder:
        """Return what writes heads for a client at `peer`, who came through that listener."""
        is_trusted = self._trusted[listen].holds if listen < len(self._trusted) else trusts_nobody
        return Forwarder(
            peer=peer, scheme=scheme, ids=self.request_ids, is_trusted=is_trusted, settings=self.forwarding
        )

    @property
    def accepted(self) -> int:
        """Client connections since the start."""
        return self.clients.accepted

    @property
    def connections(self) -> int:
        """Client connections now open, tunnels included."""
        return len(self.clients.open) + len(self.tunnels.open)

    @property
    def refused(self) -> dict[str, int]:
        """Answers the gateway gave itself, by reason."""
        return self.clients.refused

    @property
    def forced(self) -> int:
        """Exchanges and tunnels cut at a drain's deadline."""
        return self._forced + self.tunnels.forced

    @property
    def log_dropped(self) -> int:
        """Lines of the access log that were not written, since the start."""
        return self._log_dropped + (self.log.dropped if self.log is not None else 0)

    def reload_tls(self) -> None:
        """Read the files again that upstreams are met with; what cannot be used leaves what was."""
        for pool in self._pools:
            try:
                pool.reload_tls()
            except ConfigError as exc:
                logger.error("%s: %s", exc.path, exc.reason)

    # --- what holds for a service -----------------------------------------------------------------

    def policy_of(self, service: Service) -> Policy:
        """Return the compiled settings of a service that is not in `policies` yet."""
        self._look_at_table()
        policy = self.policies.get(service)
        return policy if policy is not None else self._compile(service)

    def _compile(self, service: Service) -> Policy:
        gate = self._gates.setdefault(service.name, Gate())
        settings, proxy = service.settings, self.live.proxy
        fallback = None
        if settings.fallback is not None and settings.fallback.url is not None:
            fallback = Endpoint(f"fallback|{service.name}", url=settings.fallback.url)
            fallback.pool = self._make_pool(fallback, settings, proxy)
        policy = self.policies[service] = Policy(service, proxy.timeouts, gate, fallback)
        return policy

    def _look_at_table(self) -> None:
        """Follow a table swap: settings, gates and pools of the services it holds."""
        live = self.live
        if live.proxy is not self._proxy:
            self._proxy = live.proxy
            self.clients.settings = server_settings(live.proxy)
            self._trusted = tuple(map(Networks, live.proxy.trusted_proxies))
            self.forwarding = ForwardSettings(live.proxy.gateway_id.encode(), live.proxy.via)
            self._open_log(live.proxy)
        if live.table is self._table:
            return
        self._table = live.table
        before, self.policies = self.policies, {}
        services = live.table.services
        for name in self._gates.keys() - services.keys():
            self._gates.pop(name).configure(None, paused=False)
        for service in services.values():
            policy = before.get(service)
            if policy is not None and policy.gate is None:  # the same service, and the same settings for all
                self.policies[service] = before.pop(service)
                continue
            self._compile(service)
            for endpoint in service.endpoints():
                endpoint.pool.configure(service.settings, live.proxy)
        for policy in before.values():
            if policy.fallback_endpoint is not None:
                policy.fallback_endpoint.pool.close()

    def _make_pool(self, endpoint: Endpoint, settings: ServiceSettings, proxy: ProxySettings) -> Pool:
        pool = Pool(endpoint, settings, proxy)
        self._pools.add(pool)
        return pool

    # --- time -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to enforce deadlines, on the running loop."""
        self._look_at_table()
        self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._tick)

    def sweep(self, now: float) -> None:
        """Do what has come due. now: monotonic seconds."""
        self._look_at_table()
        self.clients.sweep(now)
        self.tunnels.sweep(now)
        if now >= self._pool_sweep_at:
            self._pool_sweep_at = now + POOL_SWEEP_S
            for pool in list(self._pools):
                pool.sweep(now)
                if pool.is_over:
                    self._pools.discard(pool)
        if self._endpoint_drains or self._stream_ends or self.clients.draining:
            self._spread_stream_ends(now)
            self._sweep_endpoint_drains(now)
        if self.clients.draining:
            self._sweep_drain(now)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._tick)
        self.sweep(time.monotonic())

    # --- draining ---------------------------------------------------------------------------------

    def begin_drain(self, deadline_s: float) -> None:
        """End everything: finish what runs, cut the rest after `deadline_s` seconds. May be called again."""
        self.clients.draining = True
        now = time.monotonic()
        if now + deadline_s < self._drain_at:
            self._drain_at = now + deadline_s
            # A short drain leaves idle clients half of it to hear `Connection: close` with an answer.
            self._idle_close_at = self._drain_at - min(IDLE_CLOSE_S, deadline_s / 2)
        self.tunnels.drain(now, deadline_s, None)
        self._spread_stream_ends(now)

    def drain_endpoints(self, keys: tuple[str, ...], deadline_s: float) -> None:
        """Cut what still runs at these endpoints after `deadline_s` seconds; streams leave before that."""
        now = time.monotonic()
        for endpoint in {*self._endpoints(), *self._busy_endpoints()}:
            if endpoint.draining and endpoint.key in keys:
                at = self._endpoint_drains.get(endpoint, NEVER)
                self._endpoint_drains[endpoint] = min(at, now + deadline_s)
        self.tunnels.drain(now, deadline_s, frozenset(keys))
        self._spread_stream_ends(now)

    def drain_report(self) -> tuple[EndpointLoad, ...]:
        """Return what still runs at each endpoint that drains."""
        now = time.monotonic()
        oldest: dict[str, float] = {}
        for exchange in self._exchanges():
            if exchange.endpoint is not None:
                key = exchange.endpoint.key
                oldest[key] = min(oldest.get(key, now), exchange.began)
        for tunnel, began in self.tunnels.open.items():
            oldest[tunnel.key] = min(oldest.get(tunnel.key, now), began)
        return tuple(
            EndpointLoad(
                each.key,
                each.in_flight,
                each.streams,
                int((now - oldest.get(each.key, now)) * 1000),
                each.forced,
            )
            for each in self._endpoints()
            if each.draining
        )

    def close_now(self) -> None:
        """Cut everything."""
        for exchange in self._exchanges():
            exchange.cut()
        for client in list(self.clients.open):
            client.abort()
        self.tunnels.abort()
        for pool in self._pools:
            pool.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.log is not None:
            self.log.close()
            self.log = None
        self.drained.set()

    def _exchanges(self) -> Iterator[Exchange]:
        """Yield those under way: a client may also be idle, send a head, or linger after its last answer."""
        for client in list(self.clients.open):
            if isinstance(client.sink, Exchange) and client.sink.phase != IDLE:
                yield client.sink

    def _busy_endpoints(self) -> Iterator[Endpoint]:
        """Yield where exchanges run: also at endpoints that no table holds any more."""
        for exchange in self._exchanges():
            if exchange.endpoint is not None:
                yield exchange.endpoint

    def _endpoints(self) -> Iterator[Endpoint]:
        for service in self.live.table.services.values():
            for version in service.versions:
                yield from version.endpoints

    def _spread_stream_ends(self, now: float) -> None:
        """Choose when each event stream ends, so that their clients do not all come back at once.

        Called again while something drains: a request that was under way may have become a stream since.
        """
        for exchange in self._exchanges():
            if not exchange.is_stream:
                continue
            over = self._drain_at
            if exchange.endpoint is not None:
                over = min(over, self._endpoint_drains.get(exchange.endpoint, NEVER))
            if self._stream_ends.get(exchange, NEVER) > over:
                self._stream_ends[exchange] = now + self._chance.random() * SPREAD * max(0.0, over - now)

    def _sweep_endpoint_drains(self, now: float) -> None:
        for exchange, at in list(self._stream_ends.items()):
            if not exchange.is_stream:
                del self._stream_ends[exchange]
            elif at <= now:
                del self._stream_ends[exchange]
                exchange.end_stream()
        over = {endpoint for endpoint, at in self._endpoint_drains.items() if at <= now}
        if not over:
            return
        for exchange in self._exchanges():
            if exchange.endpoint in over:
                self._cut(exchange)
        for endpoint in over:
            del self._endpoint_drains[endpoint]

    def _sweep_drain(self, now: float) -> None:
        if now >= self._idle_close_at:
            for client in list(self.clients.open):
                client.close_if_idle()
        if now >= self._drain_at:
            for exchange in self._exchanges():
                self._cut(exchange)
            for client in list(self.clients.open):
                client.abort()
            self.tunnels.abort()
        if self.clients.open or self.tunnels.open:
            return
        if now >= self._drain_at or not self.arriving():
            self.drained.set()

    def _cut(self, exchange: Exchange) -> None:
        self._forced += 1
        exchange.cut()

    # --- the access log ---------------------------------------------------------------------------

    def _open_log(self, proxy: ProxySettings) -> None:
        """Write the log the settings ask for, where they say."""
        wanted = (proxy.access_log_format, proxy.access_log_path)
        if wanted == self._log_settings:
            return
        self._log_settings = wanted
        if self.log is not None:
            self.log.close(wait_s=0)
            self._log_dropped += self.log.dropped
            self.log = None
        if proxy.access_log_format != "off":
            style: Literal["json", "combined"] = "json" if proxy.access_log_format == "json" else "combined"
            try:
                self.log = AccessLog(style, proxy.access_log_path)
            except OSError as exc:
                logger.error("the access log cannot be opened: %s", exc)
                return
            self.log.start()

    def log_exchange(self, exchange: Ledger) -> None:
        """Note an exchange that has ended."""
        assert self.log is not None
        request, client = exchange.request, exchange.client
        service, version, endpoint = exchange.service, exchange.version, exchange.last_endpoint
        referer, agent = request.field(b"referer") or b"", request.field(b"user-agent") or b""
        self.log.add(
            time.time(),
            exchange.forwarder.client_of(request).address,
            client.peer,
            request.method,
            request.target,
            "HTTP/1.0" if request.http10 else "HTTP/1.1",
            exchange.status,
            exchange.content_bytes,
            int((time.monotonic() - exchange.began) * 1e6),
            request.host,
            referer,
            agent,
            service.name if service else "",
            version.name if version else "",
            endpoint.url if endpoint else "",
            exchange.attempts,
            exchange.outcome,
        )

    def _log_refusal(self, client: ServerProtocol, error: DownstreamError) -> None:
        """Note a request whose head was refused: what is known of it."""
        if self.log is None:
            return
        method, target = client.reader.glimpse()
        self.log.add(
            time.time(),
            client.peer,
            client.peer,
            method,
            target,
            "",
            error.status,
            len(problem(error)),
            0,
            "",
            b"",
            b"",
            "",
            "",
            "",
            0,
            reason_label(error),
        )


class _ClientConnection(ServerProtocol):
    """A client connection whose exchange learns who it is for when the connection is made."""

    __slots__ = ("_listen", "_plane")

    def __init__(
        self,
        plane: Plane,
        make_sink: Callable[[ServerProtocol], Exchange],
        scheme: bytes,
        listen: int,
    ) -> None:
        super().__init__(plane.clients, make_sink, scheme=scheme)
        self._plane = plane
        self._listen = listen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(self.sink, Exchange)
        self.sink.forwarder = self._plane.forwarder_of(self.peer, self.scheme, self._listen)


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
