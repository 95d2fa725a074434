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

    def _enter(self, client: str) -> bool:
        n = self._by_client.get(client, 0)
        if 0 < self.per_client <= n and client:
            return False
        self._by_client[client] = n + 1
        self.accepted += 1
        return True

    def _leave(self, client: str | None) -> None:
        self.open -= 1
        if client is not None:
            n = self._by_client[client] - 1
            if n:
                self._by_client[client] = n
            else:
                del self._by_client[client]
        if self._waiting and not self.is_full:
            self._wake()


class Place:
    """One connection's place in a Capacity. `leave` gives it back, once."""

    __slots__ = ("_capacity", "_client")

    def __init__(self, capacity: Capacity) -> None:
        self._capacity: Capacity | None = capacity
        self._client: str | None = None

    def claim(self, host: str) -> bool:
        """Enter the client's address; False if it has its share of connections already."""
        assert self._capacity is not None
        client = client_of(host)
        if not self._capacity._enter(client):
            return False
        self._client = client
        return True

    def leave(self) -> None:
        """Give the place back; nothing the second time."""
        capacity, self._capacity = self._capacity, None
        if capacity is not None:
            capacity._leave(self._client)


def client_of(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 an IPv6 host has for itself."""
    if ":" not in host:
        return host
    packed = int(ipaddress.IPv6Address(host.partition("%")[0]))
    return f"{packed >> 64:x}/64"
