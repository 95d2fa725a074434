"""The connections to one endpoint: leased one at a time, kept while idle, made when there is none."""

import asyncio
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings, UpstreamTlsSettings
from gateway.core.settings.limits import Timeouts, UpstreamTimeouts
from gateway.core.settings.targets import Listener, TargetRules
from gateway.errors import ConfigError, ConnectFailed, Exhausted, GatewayError
from gateway.http1.client import OUR_FAULT, Keeper, UpstreamConnection
from gateway.link.snapshot import ProxySettings, TargetLimits
from gateway.log import get_logger
from gateway.net.machine import Sockets, is_local_address
from gateway.net.tls import default_upstream_context, upstream_context

log = get_logger(component="pool")

MAX_IDLE: Final = 256
"""Idle connections kept per endpoint and worker."""
AT_ONCE_S: Final = 0.05
"""An upstream that closes behind its answers without a word has done so by then, on a busy machine too."""
DOUBT_S: Final = 5.0
"""How long after it did that only connections are used again which have been idle for longer than that."""


class Lessee(Protocol):
    """Who waits for a connection."""

    __slots__ = ()

    def on_connected(self, connection: UpstreamConnection) -> None:
        """It is yours: send."""

    def on_connect_failed(self, error: ConnectFailed) -> None:
        """None came about."""

    def on_exhausted(self, error: Exhausted) -> None:
        """None could even be tried."""


class Pool(Keeper):
    """`lease` an idle connection, or `connect`; `give_back` when the response is complete."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: ServiceSettings,
        proxy: ProxySettings,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        url = urlsplit(endpoint.url)
        self._endpoint = endpoint
        self._path = endpoint.url.removeprefix("unix:") if url.scheme == "unix" else ""
        self._host = endpoint.address or url.hostname or ""
        self._port = endpoint.port or url.port or (443 if url.scheme == "https" else 80)
        self._name = url.hostname or ""
        self._server_name = settings.tls.server_name or self._name
        self._tls = settings.tls if url.scheme == "https" else None
        self._context: ssl.SSLContext | None = None
        self._idle: dict[UpstreamConnection, float] = {}
        """With the monotonic seconds since when; the oldest first."""
        self._clock = clock
        self._doubted_until = 0.0
        """Monotonic seconds: the upstream has closed a connection right behind its answer."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._is_refused = False
        self._rules = target_rules(proxy.targets)
        self.idle_s = 4.0
        self.configure(settings, proxy)

    def configure(self, settings: ServiceSettings, proxy: ProxySettings) -> None:
        """Take the settings in force; they hold for connections made from now on."""
        if self._tls is not None and settings.tls != self._tls:
            self._tls, self._context = settings.tls, None
            self._server_name = settings.tls.server_name or self._name
        self._rules = target_rules(proxy.targets)
        self.idle_s = seconds(settings.timeouts, proxy.timeouts, "upstream_idle")

    def reload_tls(self) -> None:
        """Read the files of TLS settings in use again. Raises ConfigError, and then changes nothing."""
        if self._tls is not None and self._context is not None:
            self._context = context_of(self._tls)

    @property
    def is_over(self) -> bool:
        """Whether it is closed and has nothing left to close."""
        return self._is_closed and not self._idle

    @property
    def idle(self) -> int:
        """Connections kept for later."""
        return len(self._idle)

    @property
    def connecting(self) -> int:
        """Connections being made."""
        return len(self._connecting)

    def leaks(self) -> list[str]:
        """Return in words what is not as it ought to be while no exchange runs."""
        found = (
            [f"{len(self._connecting)} are connecting to {self._endpoint.key}"] if self._connecting else []
        )
        unfit = sum(not (each.is_open and each.is_reusable) for each in self._idle)
        return found + ([f"{unfit} kept for {self._endpoint.key} are of no use"] if unfit else [])

    def lease(self, now: float, *, is_repeatable: bool = True) -> UpstreamConnection | None:
        """Return the idle connection used last, or None. now: monotonic seconds.

        is_repeatable: whether the request may be sent again if the upstream has just closed the connection;
        else one whose end has arrived is not leased.
        """
        if now < self._doubted_until:
            return self._lease_settled(now)
        idle = self._idle
        while idle:
            connection, since = idle.popitem()
            if connection.idle_until > now and (is_repeatable or connection.is_quiet):
                connection.is_reused = True
                connection.is_young = now < since + AT_ONCE_S
                return connection
            connection.close()
        return None

    def _lease_settled(self, now: float) -> UpstreamConnection | None:
        """Return a connection that has stayed open for a while after its last response, or None."""
        idle = self._idle
        while idle:
            connection, since = next(iter(idle.items()))
            if now < since + AT_ONCE_S:
                return None
            del idle[connection]
            if connection.idle_until > now and connection.is_quiet:
                connection.is_reused = True
                connection.is_young = False
                return connection
            connection.close()
        return None

    def connect(self, lessee: Lessee) -> asyncio.Task[None]:
        """Begin a new connection for `lessee`; cancel the returned task to give up."""
        task = asyncio.get_running_loop().create_task(
            self._connect(lessee), name=f"connect {self._endpoint.key}"
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a connection whose response is complete, if it can be used again."""
        if not connection.is_reusable or self._is_closed or self._endpoint.draining:
            connection.close()
            return
        hint = connection.reader.special.get(b"keep-alive")
        connection.idle_until = now + (self.idle_s if hint is None else self._idle_s(hint))
        idle = self._idle
        idle[connection] = now
        if len(idle) > MAX_IDLE:
            oldest = next(iter(idle))
            del idle[oldest]
            oldest.close()

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has ended by itself, idle or just leased again."""
        now, since = self._clock(), self._idle.pop(connection, None)
        if connection.is_young if since is None else now < since + AT_ONCE_S:
            self._doubted_until = now + DOUBT_S

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long, or serves an endpoint that drains."""
        is_over = self._is_closed or self._endpoint.draining
        for connection in [each for each in self._idle if is_over or each.idle_until <= now]:
            del self._idle[connection]
            connection.close()

    def close(self) -> None:
        """No lease from now on; connections that are out finish their exchange."""
        self._is_closed = True
        self.sweep(0.0)

    def _idle_s(self, hint: bytes) -> float:
        """Return how long to keep a connection whose upstream says `Keep-Alive: timeout=N`: a second less."""
        for parameter in hint.lower().split(b","):
            name, _, value = parameter.strip().partition(b"=")
            if name == b"timeout" and value.isdigit():
                return min(self.idle_s, max(float(value) - 1.0, 0.0))
        return self.idle_s

    async def _connect(self, lessee: Lessee) -> None:
        try:
            connection = await self._open()
        except ConfigError as exc:
            if not self._is_refused:  # once: each request would say it again
                self._is_refused = True
                log.warning("upstream_refused", endpoint=self._endpoint.url, reason=str(exc))
            lessee.on_connect_failed(ConnectFailed("the upstream cannot be connected to as it is configured"))
        except GatewayError as exc:
            lessee.on_connect_failed(ConnectFailed(str(exc)))
        except (OSError, ssl.SSLError) as exc:
            if exc.errno in OUR_FAULT:
                lessee.on_exhausted(Exhausted("the gateway cannot make another connection"))
                return
            lessee.on_connect_failed(ConnectFailed(f"no connection to the upstream: {exc}"))
        else:
            lessee.on_connected(connection)

    async def _open(self) -> UpstreamConnection:
        connection = UpstreamConnection(self)
        try:
            await self._open_to(connection)
        except BaseException:
            connection.close()
            connection.forget_transport()  # if it has one by now, nobody will say that it was lost
            raise
        return connection

    async def _open_to(self, connection: UpstreamConnection) -> None:
        loop = asyncio.get_running_loop()
        protocol = cast(asyncio.Protocol, connection)  # it is one in all but name: see UpstreamConnection
        if self._path:
            transport, _ = await loop.create_unix_connection(lambda: protocol, self._path)
            self._check_socket(transport)
            return
        context = self._tls_context()
        transport, _ = await loop.create_connection(
            lambda: protocol,
            self._host,
            self._port,
            ssl=context,
            server_hostname=self._server_name if context else None,
        )
        if not self._endpoint.address:  # a fallback's name, which control has not looked up and judged
            self._check_peer(transport)

    def _check_peer(self, transport: asyncio.BaseTransport) -> None:
        """Raise ConfigError if a fallback's url led where none may; OSError if nobody is there any more."""
        peer = transport.get_extra_info("peername")
        if not peer:
            raise ConnectionResetError("connection ended")
        self._rules.check(self._endpoint.url, peer[0])

    def _check_socket(self, transport: asyncio.BaseTransport) -> None:
        """Raise ConfigError if the socket file is one that nobody may be sent to by now, before it hears
        anything.

        Both names are judged: the url's, by the file it leads to, and the one the other end was bound by,
        which stays the same whatever becomes of links.
        """
        self._rules.check(self._endpoint.url)
        bound = transport.get_extra_info("peername")
        if isinstance(bound, str) and bound.startswith("/"):
            self._rules.check(f"unix:{bound}")

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._tls is not None and self._context is None:
            self._context = context_of(self._tls)
        return self._context


@lru_cache(maxsize=4)  # every pool asks at every table, and the answer seldom changes
def target_rules(limits: TargetLimits) -> TargetRules:
    """Return what control judges targets by, for what is only known once a worker has connected."""
    own = [Listener(address, port) for address, port in limits.own]
    sockets = Sockets(own=map(Path, limits.own_sockets))
    return TargetRules(limits.allowed, lambda: own, is_local_address, sockets.forbidden)


def context_of(settings: UpstreamTlsSettings) -> ssl.SSLContext:
    """Return the context that `settings` describe. Raises ConfigError naming a file that cannot be used."""
    if settings.verify and not settings.ca and not settings.certificate:
        return default_upstream_context()  # reading the system's CAs takes 50 ms: not for each endpoint
    return upstream_context(
        verify=settings.verify, ca=settings.ca, certificate=settings.certificate, key=settings.key
    )


def seconds(own: UpstreamTimeouts, general: Timeouts, name: str) -> float:
    """Return a timeout in seconds: the service's own, or else the gateway's."""
    value: int | None = getattr(own, name)
    return (getattr(general, name) if value is None else value) / 1000
