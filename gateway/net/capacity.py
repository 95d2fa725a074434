"""How many connections a worker may hold, in all and for each client."""

import ipaddress
from collections.abc import Callable


class Capacity:
    """How many connections a worker may hold over all its listeners, in all and for each client."""

    def __init__(self, connections: int, per_client: int = 0) -> None:
        """connections: at least 1. per_client: 0 for no limit."""
        self.connections = connections
        self.per_client = per_client
        self.open = 0
        """Connections held now: PROXY headers being read and TLS handshakes included."""
        self.accepted = 0
        """Of those taken since the start, the ones that were not refused."""
        self._by_client: dict[str, int] = {}
        self._waiting: dict[Callable[[], None], None] = {}

    def set_limits(self, connections: int, per_client: int) -> None:
        """Apply new limits. Connections above them stay; listeners that waited for room look again."""
        self.connections = connections
        self.per_client = per_client
        if not self.is_full:
            self._wake()

    @property
    def is_full(self) -> bool:
        """Whether another connection must wait."""
        return self.open >= self.connections

    def take(self) -> "Place":
        """Count one more connection, of a client not known yet."""
        self.open += 1
        return Place(self)

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when there is room again."""
        self._waiting[wake] = None

    def forget(self, wake: Callable[[], None]) -> None:
        """Take `when_room` back."""
        self._waiting.pop(wake, None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()

    def share(self, host: str) -> "Share | None":
        """Count one more connection of a client, or a request that a proxy brings from it.

        host: the client's address; empty: it has none. Returns None if it has as many as it may.
        """
        client = client_of(host)
        return Share(self, client) if self._has_room(client) else None

    def _has_room(self, client: str) -> bool:
        """Count one more of a client's, if it may have one."""
        n = self._by_client.get(client, 0)
        if 0 < self.per_client <= n and client:
            return False
        self._by_client[client] = n + 1
        return True

    def _leave_client(self, client: str) -> None:
        n = self._by_client[client] - 1
        if n:
            self._by_client[client] = n
        else:
            del self._by_client[client]

    def _leave(self) -> None:
        self.open -= 1
        if self._waiting and not self.is_full:
            self._wake()


class Share:
    """One thing of a client that counts against its limit. `leave` ends that, once."""

    __slots__ = ("_capacity", "_client")

    def __init__(self, capacity: Capacity, client: str) -> None:
        self._capacity = capacity
        self._client = client

    def leave(self) -> None:
        """Count it no more."""
        self._capacity._leave_client(self._client)


class Place:
    """One connection's place in a Capacity. `leave` gives it back, once."""

    __slots__ = ("_capacity", "_client")

    def __init__(self, capacity: Capacity) -> None:
        self._capacity: Capacity | None = capacity
        self._client: str | None = None
        """Whose it is, once that is known and counts."""

    def claim(self, host: str, *, is_proxy: bool = False) -> bool:
        """Enter the client's address; False if it has its share of connections already.

        is_proxy: it brings the requests of many, each of which counts for its own client instead.
        """
        assert self._capacity is not None
        if not is_proxy:
            client = client_of(host)
            if not self._capacity._has_room(client):
                return False
            self._client = client
        self._capacity.accepted += 1
        return True

    def leave(self) -> None:
        """Give the place back; nothing the second time."""
        capacity, self._capacity = self._capacity, None
        if capacity is not None:
            if self._client is not None:
                capacity._leave_client(self._client)
            capacity._leave()


def client_of(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 an IPv6 host has for itself."""
    if ":" not in host:
        return host
    packed = int(ipaddress.IPv6Address(host.partition("%")[0]))
    return f"{packed >> 64:x}/64"
