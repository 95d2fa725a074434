"""A client's connection from the moment its listener has accepted it: whose it is, and who answers it."""

import asyncio
from collections.abc import Callable

from gateway.http1.server import ServerProtocol
from gateway.worker.exchange.context import Context
from gateway.worker.exchange.exchange import Exchange


class ClientConnection(ServerProtocol):
    """A connection whose exchange learns who it is for when the connection is made."""

    __slots__ = ("_context", "_listen")

    def __init__(self, context: Context, scheme: bytes, listen: int) -> None:
        """listen: index of the listen table it came through."""

        def make_exchange(client: ServerProtocol) -> Exchange:
            return Exchange(context, client)

        super().__init__(context.clients, make_exchange, scheme=scheme)
        self._context = context
        self._listen = listen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(self.handler, Exchange)
        self.handler.forwarder = self._context.forwarder_of(self.peer, self.scheme, self._listen)


def connection_factory(context: Context, *, tls: bool, listen: int) -> Callable[[], ClientConnection]:
    """Return what makes each connection of a listener."""
    scheme = b"https" if tls else b"http"

    def make() -> ClientConnection:
        return ClientConnection(context, scheme, listen)

    return make
