"""What all exchanges of a worker share."""

from collections.abc import Callable

from gateway.http1.connections import Connections
from gateway.link.snapshot import ProxySettings
from gateway.net.capacity import Capacity
from gateway.net.networks import Networks
from gateway.worker.exchange.request_head import Forwarder, ForwardSettings, RequestIds, trusts_nobody
from gateway.worker.live_table import LiveTable
from gateway.worker.log_file import LogFile
from gateway.worker.policies import Policies
from gateway.worker.span_buffer import SpanBuffer
from gateway.worker.tunnel.tunnels import Tunnels


class Context:
    """Made once by the plane; an exchange reads it, and counts here."""

    __slots__ = (
        "_trusted",
        "capacity",
        "clients",
        "exposes",
        "forwarding",
        "live_table",
        "log_file",
        "nobody",
        "policies",
        "request_ids",
        "requests",
        "spans",
        "tunnels",
    )

    def __init__(
        self, live_table: LiveTable, policies: Policies, clients: Connections, capacity: Capacity
    ) -> None:
        self.capacity = capacity
        self.live_table = live_table
        self.policies = policies
        self.clients = clients
        self.tunnels = Tunnels()
        self.log_file = LogFile()
        self.spans = SpanBuffer()
        self.request_ids = RequestIds()
        self.nobody = Forwarder(peer="", scheme=b"http", ids=self.request_ids)
        """Of a client that is not known yet."""
        self.forwarding = ForwardSettings()
        self.exposes: tuple[str, ...] = ()
        """What answers tell clients of the request: see `Record.expose`."""
        self.requests = 0
        """Exchanges begun, since the start."""
        self._trusted: tuple[Networks, ...] = ()
        """By index of the listen table."""

    def follow(self, proxy: ProxySettings) -> None:
        """Take settings in force, for connections made from now on."""
        self._trusted = tuple(map(Networks, proxy.trusted_proxies))
        self.forwarding = ForwardSettings(proxy.gateway_id.encode(), proxy.via, proxy.trace_sample)
        self.exposes = proxy.trace_expose
        self.log_file.follow(proxy)
        self.spans.is_exported = proxy.trace_export

    def forwarder_of(self, peer: str, scheme: bytes, listen: int) -> Forwarder:
        """Return what writes heads for a client at `peer`, who came through that listener."""
        return Forwarder(
            peer=peer,
            scheme=scheme,
            ids=self.request_ids,
            is_trusted=self._trust(listen),
            settings=self.forwarding,
        )

    def is_proxy(self, listen: int, address: str) -> bool:
        """Tell whether who connects to that listener from `address` speaks for others."""
        return self._trust(listen)(address)

    def _trust(self, listen: int) -> Callable[[str], bool]:
        return self._trusted[listen].holds if listen < len(self._trusted) else trusts_nobody
