"""Accepting: a bound socket -> connections within limits, each given to a protocol that knows its client.

We accept ourselves instead of leaving it to `loop.create_server`, for three things that does not offer: to
leave connections in the kernel's queue while we are full or out of descriptors, to refuse a client before
anything is built for it, and to read a PROXY header in front of TLS.
"""

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, cast

from gateway.net.capacity import Capacity, Place
from gateway.net.preface import Preface
from gateway.net.tls import ServerTls

BATCH: Final = 64
"""Connections taken in one round of the loop, so that a storm of them does not starve those already open."""
LAST_BATCH: Final = 4096
"""Taken at most when stopping."""
BACK_OFF_S: Final = 0.1
"""How long accepting rests when descriptors or memory ran out."""
RESERVED: Final = 64
"""Descriptors for what is neither a client nor an upstream: listeners, the link, logs, the loop's own."""
UPSTREAMS: Final = 8_192
"""Descriptors that are enough for upstreams, however many clients there are: most of those are idle."""
HANDSHAKE_S: Final = 10.0
"""For a PROXY header and the first byte of TLS, and again for its handshake."""
TLS_GOODBYE_S: Final = 2.0
"""How long a client may take to answer our close_notify; uvloop's own default is 30 s."""
ABORTED: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR})
"""Errors of accept(2) that concern one connection, gone before we took it."""


class ClientProtocol(Protocol):
    """What a listener hands a connection to: an `asyncio.Protocol` that also takes its client's address."""

    def accepted(self, host: str, on_lost: Callable[[], None]) -> None:
        """Learn who the client is; called once, before `connection_made`.

        host: the client's numeric address, as a PROXY header has it where there was one; IPv4 that came over
        IPv6 is plain IPv4; empty for a Unix socket. on_lost: gives the connection's place back; to be called
        from `connection_lost`, by whatever protocol the transport has then.
        """


def plain_host(host: str) -> str:
    """Return an accepted address as people write it: IPv4 that arrived on an IPv6 socket as IPv4."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


class Listener:
    """One listening socket and who its connections go to. Nothing is accepted before `start`."""

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[], ClientProtocol],
        capacity: Capacity,
        *,
        tls: ServerTls | None = None,
        proxy_protocol: bool = False,
        handshake_s: float = HANDSHAKE_S,
        plain_answer: Callable[[], bytes] = bytes,
        is_proxy: Callable[[str], bool] = lambda _: False,
        on_refused: Callable[[str], None] = lambda _: None,
        on_exhausted: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        """sock: bound and listening, ours from now on.

        handshake_s: for a PROXY header, and again for TLS. plain_answer: for clients that do not speak TLS
        where it is wanted. is_proxy: whether an address is that of a proxy, whose connections no client's
        limit is for. on_refused: called for each connection closed before a protocol saw it, with
        `connections_per_client` or `handshake`. on_exhausted: each time accepting rests for want of
        descriptors or memory.
        """
        self.address: str | tuple[Any, ...] = sock.getsockname()
        self._sock = sock
        self._factory = factory
        self._capacity = capacity
        self._tls = tls
        self._proxy_protocol = proxy_protocol
        self._handshake_s = handshake_s
        self._plain_answer = plain_answer
        self._is_proxy = is_proxy
        self._on_refused = on_refused
        self._on_exhausted = on_exhausted
        self._is_running = False
        self._is_watching = False
        self._rest: asyncio.TimerHandle | None = None
        self._prefaces: dict[Preface, Place] = {}
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin to accept, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        _prepare(self._sock)
        self._is_running = True
        self._watch()

    def stop(self, *, take_queue: bool = False) -> None:
        """Accept no more, and close this process's copy of the socket.

        take_queue: first accept what the kernel has queued, which would be reset if no other process holds
        the socket. Never `shutdown()`: that would end the listening of every process that does.
        """
        if self._is_running:
            self._unwatch()
            if take_queue:
                self._accept(LAST_BATCH)
                self._unwatch()
            self._is_running = False
        self._sock.close()

    def abort(self) -> None:
        """Stop, and cut connections that have not begun to speak their protocol."""
        self.stop()
        for preface in tuple(self._prefaces):
            preface.close()

    # Accepting

    def _watch(self) -> None:
        if self._is_running and not self._is_watching:
            self._loop.add_reader(self._sock.fileno(), self._accept, BATCH)
            self._is_watching = True

    def _unwatch(self) -> None:
        if self._is_watching:
            self._loop.remove_reader(self._sock.fileno())
            self._is_watching = False
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._capacity.forget(self._watch)

    def _accept(self, at_most: int) -> None:
        for _ in range(at_most):
            if self._capacity.is_full:
                self._unwatch()
                self._capacity.when_room(self._watch)
                return
            try:
                conn, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in ABORTED:
                    continue
                self._take_a_rest(exc)
                return
            self._admit(conn, address)

    def _take_a_rest(self, exc: OSError) -> None:
        """Leave connections in the kernel's queue until descriptors are free again."""
        self._on_exhausted(exc)
        self._unwatch()
        self._rest = self._loop.call_later(BACK_OFF_S, self._watch)

    def _admit(self, conn: socket.socket, address: str | tuple[Any, ...]) -> None:
        conn.setblocking(False)
        host = plain_host(address[0]) if isinstance(address, tuple) else ""
        place = self._capacity.take()
        if self._proxy_protocol or self._tls is not None:
            self._read_preface(conn, host, place)
        else:
            self._hand_over(conn, host, place)

    def _read_preface(self, conn: socket.socket, host: str, place: Place) -> None:
        preface = Preface(
            conn,
            host,
            has_header=self._proxy_protocol,
            wants_tls=self._tls is not None,
            timeout_s=self._handshake_s,
            plain_answer=self._plain_answer,
            on_ready=self._on_preface_read,
            on_failed=self._on_preface_failed,
        )
        self._prefaces[preface] = place

    def _on_preface_read(self, preface: Preface) -> None:
        self._hand_over(preface.conn, preface.host, self._prefaces.pop(preface))

    def _on_preface_failed(self, preface: Preface) -> None:
        self._on_refused("handshake")
        preface.conn.close()
        self._prefaces.pop(preface).leave()

    def _hand_over(self, conn: socket.socket, host: str, place: Place) -> None:
        if not place.claim(host, is_proxy=self._is_proxy(host)):
            self._on_refused("connections_per_client")
            conn.close()
            place.leave()
            return
        client = self._factory()
        client.accepted(host, place.leave)
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {
                "ssl": self._tls.context,
                "ssl_handshake_timeout": self._handshake_s,
                "ssl_shutdown_timeout": TLS_GOODBYE_S,
            }
        protocol = cast(asyncio.Protocol, client)
        self._drive(self._loop.connect_accepted_socket(lambda: protocol, conn, **tls), place)

    def _drive(self, opening: Coroutine[Any, Any, Any], place: Place) -> None:
        """Run the coroutine that builds a transport, without a Task.

        A Task would begin it one round of the loop later, and a connection of one request would cost 50 µs
        instead of 19 (`create_server`: 13).
        """
        try:
            future = opening.send(None)
        except StopIteration:
            return
        except (OSError, ssl.SSLError):
            # The client broke off, or its handshake failed or took too long: its protocol never saw it.
            self._on_refused("handshake")
            place.leave()
            return
        future.add_done_callback(lambda _: self._drive(opening, place))


def _prepare(sock: socket.socket) -> None:
    """Set what accepted connections inherit: no Nagle, and probes that find clients which vanished."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every platform
        # Tunnels have no timeout of their own by default: a dead peer is found within two minutes.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open descriptors to its hard one; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft  # some platforms refuse what they announce (macOS: unlimited)
    return hard


def connections_within(descriptors: int) -> int:
    """Return how many clients so many descriptors can serve, each with an upstream of its own if need be."""
    available = descriptors - RESERVED
    return max(1, available // 2, available - UPSTREAMS)
