"""What a client's connection asks of the handler that answers its requests."""

from typing import Final, Protocol

from gateway.errors import DownstreamError

NEVER: Final = float("inf")
"""Seconds: a wait without a bound."""


class RequestHandler(Protocol):
    """What answers a connection's requests. One request at a time; nothing is called after `on_gone`.

    Compiled, its calls are bound where the handler's class names it as a base.
    """

    __slots__ = ()

    def on_head(self, body: bytes, *, complete: bool) -> None:
        """A request has begun; `connection.reader` describes it.

        body: the content that came with its head. complete: that is all of it; `on_end` is not called then.
        """

    def on_body(self, data: bytes) -> None:
        """Another piece of the request's content."""

    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request's body is complete."""

    def on_gone(self, error: DownstreamError) -> None:
        """The request can no longer be answered by the handler: the client left, or broke its request."""

    def on_closed(self) -> None:
        """No other request comes to it: drop whatever refers back to the connection."""

    def on_writable(self, *, writable: bool) -> None:
        """The client reads too slowly (False), or has caught up (True)."""

    def timeout_s(self) -> float:
        """How long the present wait may last, from the last time `connection.deadline` was cleared."""

    def on_timeout(self) -> None:
        """That time is over."""


class NoHandler(RequestHandler):
    """Stands in where nobody answers any more."""

    __slots__ = ()

    def on_head(self, body: bytes, *, complete: bool) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def on_gone(self, error: DownstreamError) -> None: ...
    def on_closed(self) -> None: ...
    def on_writable(self, *, writable: bool) -> None: ...
    def timeout_s(self) -> float:
        return NEVER

    def on_timeout(self) -> None: ...


NO_HANDLER: Final = NoHandler()
