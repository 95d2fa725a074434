"""All connections of one owner: their settings, their counts, and the one timer for all their deadlines."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Protocol

from gateway.errors import DownstreamError, GatewayError
from gateway.http1.handler import RequestHandler
from gateway.http1.request import RequestReader
from gateway.structs import Value

SLICE: Final = 500
"""Connections looked at in one go: about 0.2 ms."""


_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time."""


class ServerSettings(Value, frozen=True):
    """Bounds of one listener's connections: seconds, bytes, counts."""

    client_header_s: float = 10.0
    client_idle_s: float = 75.0
    body_idle_s: float = 30.0
    header_bytes: int = 32_768
    header_fields: int = 100
    uri_bytes: int = 8_192
    body_bytes: int = 0
    """0: no limit."""


class ClientConnection(Protocol):
    """What the owner of connections knows of each."""

    peer: str
    """The address connected to us."""
    deadline: float
    """Monotonic seconds; 0.0: to be set by the next sweep."""
    reader: RequestReader
    handler: RequestHandler

    def timeout_s(self) -> float:
        """Return how long the present wait may last."""

    def on_deadline(self) -> None:
        """The wait was too long."""

    def close_if_idle(self) -> None:
        """Close it if it carries no request now."""

    def abort(self) -> None:
        """Cut it."""


class Connections:
    """What the connections of a listener's owner share."""

    def __init__(self, settings: ServerSettings, *, sweep_s: float = 0.1) -> None:
        self.settings = settings
        self.open: set[ClientConnection] = set()
        self.draining = False
        """Every answer from now on says `Connection: close`."""
        self.accepted = 0
        self.refused: dict[str, int] = {}
        """Answers the gateway gave itself, by reason."""
        self.on_refused: Callable[[ClientConnection, DownstreamError], None] = _nothing
        """Called for each request that is refused before its handler hears of it. Settable."""
        self._sweep_s = sweep_s
        self._unswept: Iterator[ClientConnection] | None = None
        """What the sweep under way has not looked at yet."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to enforce deadlines. Needs the running loop."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unswept = None

    def count_refusal(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def sweep(self, now: float) -> None:
        """Set deadlines that were cleared, and act on those that have passed. now: monotonic seconds.

        Of many connections a slice is looked at now and the others soon, slice by slice: no request has to
        wait for all of them.
        """
        if self._unswept is None:
            self._unswept = iter(list(self.open))
            self._sweep_slice(now)

    def _sweep_slice(self, now: float) -> None:
        if self._unswept is None:
            return
        seen, overdue = 0, []
        for connection in islice(self._unswept, SLICE):
            seen += 1
            deadline = connection.deadline
            if not deadline:
                connection.deadline = now + connection.timeout_s()
            elif deadline <= now:
                overdue.append(connection)
        if seen < SLICE:
            self._unswept = None
        else:
            asyncio.get_running_loop().call_soon(self._sweep_slice, now)
        for connection in overdue:
            if connection in self.open:  # it may have closed since the sweep began
                connection.on_deadline()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._tick)
        self.sweep(time.monotonic())


def _nothing(connection: ClientConnection, error: DownstreamError) -> None:
    """Nobody keeps a log."""


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Let the close of a connection be a reset, which nobody takes for a proper end."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def reason_label(error: GatewayError) -> str:
    """Return the label a refusal is counted under: `bad_request`, `too_slow`, …"""
    name = type(error).__name__
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
