"""A client's connection from the moment its listener has accepted it: whose it is, and who answers it."""

from collections.abc import Callable

from gateway.http1.server import ServerProtocol
from gateway.worker.exchange.context import Context
from gateway.worker.exchange.exchange import Exchange


def connection_factory(context: Context, *, tls: bool, listen: int) -> Callable[[], ServerProtocol]:
    """Return what makes each connection of a listener. listen: its index in the listen table."""
    scheme = b"https" if tls else b"http"

    def make_exchange(client: ServerProtocol) -> Exchange:
        exchange = Exchange(context, client)
        exchange.forwarder = context.forwarder_of(client.peer, scheme, listen)
        return exchange

    def make() -> ServerProtocol:
        return ServerProtocol(context.clients, make_exchange, scheme=scheme)

    return make
