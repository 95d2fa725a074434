"""Every exception of the gateway, one tree.

An error says whose fault it is (its branch), the status the client sees, and whether anything was sent
upstream. Library and OS errors are translated to these once, at the edge of the room that met them.
"""

from typing import ClassVar


class GatewayError(Exception):
    """The root: anything this package raises on purpose."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal Error"


class ConfigError(GatewayError):
    """A setting is wrong. `path` names it (`service[0].helth`), `reason` says what is wrong with it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class IllegalTransition(GatewayError):
    """A state machine was given an event its table has no move for. Nothing changed."""

    status = 409
    title = "Conflict"

    def __init__(self, detail: str, *, next_step: str = "") -> None:
        """next_step: what whoever gave the order may type now, where that is known."""
        super().__init__(detail)
        self.next_step = next_step


class StoreError(GatewayError):
    """The store cannot be opened, read or written now. Its words name files: they are for the log."""

    status = 503
    title = "Service Unavailable"


class StoreDamaged(StoreError):
    """The file is not what a store wrote."""


class StoreBusy(StoreError):
    """Too many changes wait for the store, or one has waited too long."""


class StoreUnreachable(StoreError):
    """The database is away, or cannot be written now. It may be back in a moment."""


class StoreTaken(StoreError):
    """Another gateway is in charge of the store."""


class NotInCharge(StoreError):
    """This gateway follows another one, which alone writes the store."""


class NotFollowed(StoreError):
    """What another gateway has stored cannot be taken into memory here, so nothing can be decided by it."""


class StaleEpoch(StoreError):
    """A control process that has been replaced tried to write."""


class StoreSetBack(StaleEpoch):
    """The database does not have what it had committed: what this process knows is ahead of it."""


class LinkError(GatewayError):
    """The other end of the control link sent something that is not the protocol."""


class DownstreamError(GatewayError):
    """The client's fault."""

    status = 400
    title = "Bad Request"


class BadRequest(DownstreamError):
    """Not a request RFC 9112 allows."""


class HeadTooLarge(DownstreamError):
    """More head than `limits.header_bytes` or `limits.header_fields` (RFC 6585 §5)."""

    status = 431
    title = "Request Header Fields Too Large"


class UriTooLong(DownstreamError):
    """A target longer than `limits.uri_bytes` (RFC 9110 §15.5.15)."""

    status = 414
    title = "URI Too Long"


class BodyTooLarge(DownstreamError):
    """More body than `limits.body_bytes` (RFC 9110 §15.5.14)."""

    status = 413
    title = "Content Too Large"


class TooSlow(DownstreamError):
    """The client did not send what it owes in time (RFC 9110 §15.5.9)."""

    status = 408
    title = "Request Timeout"


class NotImplementedByUs(DownstreamError):
    """A method or transfer coding the gateway does not speak (RFC 9110 §15.6.2)."""

    status = 501
    title = "Not Implemented"


class UnsupportedVersion(DownstreamError):
    """A major version of HTTP that is not spoken here (RFC 9110 §15.6.6)."""

    status = 505
    title = "HTTP Version Not Supported"


class ConnectionsPerClient(DownstreamError):
    """A proxy brings more of one client at once than `limits.connections_per_client` (RFC 6585 §4)."""

    status = 429
    title = "Too Many Requests"


class ClientGone(DownstreamError):
    """The client left before its answer was complete. Logged, never sent."""

    status = 499
    title = "Client Closed Request"


class UpstreamError(GatewayError):
    """The upstream's fault.

    sent: whether any byte of the request reached the upstream's socket, which decides what may be retried.
    """

    status = 502
    title = "Bad Gateway"

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent


class ConnectFailed(UpstreamError):
    """No connection came about. Nothing was sent."""


class ResetMidway(UpstreamError):
    """The connection ended before the response did."""


class BadResponse(UpstreamError):
    """What came back is not a response RFC 9112 allows."""


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer in time."""

    status = 504
    title = "Gateway Timeout"


class Refused(GatewayError):
    """The gateway itself declines: nobody is at fault, nothing was sent."""

    status = 503
    title = "Service Unavailable"


class NoRoute(Refused):
    """No route names this host and path."""

    status = 404
    title = "Not Found"


class MethodNotAllowed(Refused):
    """Routes name this host and path, but not the method (RFC 9110 §15.5.6)."""

    status = 405
    title = "Method Not Allowed"

    def __init__(self, reason: str, allow: str) -> None:
        """allow: the methods that would do, as the Allow field has them."""
        super().__init__(reason)
        self.allow = allow


class LoopDetected(Refused):
    """The request has been here before (RFC 8586 §3, RFC 5842 §7.2)."""

    status = 508
    title = "Loop Detected"


class NoEndpoint(Refused):
    """No version of the service is usable."""


class TesterRefused(Refused):
    """The version a tester asks for cannot be reached: it says why, and never gives another instead."""


class PoolFull(Refused):
    """The service's concurrency limit and its queue are both full."""


class Exhausted(Refused):
    """The gateway has no descriptor, port or memory left for another connection."""


class Paused(Refused):
    """The service is paused for maintenance, and was not resumed in time."""


class Draining(Refused):
    """The gateway or the endpoint takes no new exchange."""
