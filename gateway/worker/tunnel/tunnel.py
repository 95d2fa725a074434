"""What a connection becomes after 101: bytes both ways, until both ends have closed or a drain ends it.

A tunnel passes everything on as it comes, under the back-pressure of whoever is slower, and lets each end
close its direction by itself. It reads nothing, with one exception: of a WebSocket it follows the upstream's
frame headers, so that a drain can say goodbye between two frames.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import Final

from gateway.http1.connections import reset_on_close
from gateway.http1.handler import NEVER
from gateway.worker.tunnel.frames import GOING_AWAY, FrameFollower, close_frame

CLOSE_S: Final = 5.0
"""How long a client may take to answer our Close."""
FLUSH_S: Final = 30.0
"""How long an end may take to read what was written before it is closed."""


class Phase(enum.IntEnum):
    """Where a tunnel is. It only ever goes down this list."""

    OPEN = 0
    """Passing on."""
    LEAVING = 1
    """Passing on to the end of the upstream's present frame, where our Close goes in."""
    CLOSING = 2
    """Our Close is sent: the upstream's bytes are thrown away, the client's still pass."""
    ENDING = 3
    """An end is gone, or both are to go; what is written is being flushed."""
    OVER = 4


class Tunnel:
    """Two transports joined. `on_end` is called once, when both are gone."""

    __slots__ = (
        "_client",
        "_close_code",
        "_cut_at",
        "_deadline",
        "_ends",
        "_follower",
        "_has_moved",
        "_idle_s",
        "_leave_at",
        "_on_end",
        "_senders",
        "_upstream",
        "bytes_down",
        "bytes_up",
        "forced",
        "key",
        "phase",
    )

    def __init__(
        self,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        *,
        websocket: bool,
        on_end: Callable[["Tunnel"], None],
        key: str = "",
        idle_s: float = 0.0,
    ) -> None:
        """websocket: what the 101 says it upgrades to. key: the upstream's endpoint. idle_s: 0 for never."""
        self.key = key
        self.phase = Phase.OPEN
        self.bytes_up = 0
        """From the client to the upstream."""
        self.bytes_down = 0
        self.forced = False
        """Cut at a deadline, without a goodbye."""
        self._client = client
        self._upstream = upstream
        self._on_end = on_end
        self._follower = FrameFollower() if websocket else None
        self._senders = {client, upstream}
        """Whose direction is still open."""
        self._ends = 2
        """Connections that are not lost yet."""
        self._idle_s = idle_s or NEVER
        self._has_moved = True
        """Since the last sweep; the next one sets the deadline anew."""
        self._deadline = NEVER
        """Monotonic seconds: when this phase, or this silence, has lasted too long."""
        self._leave_at = NEVER
        self._cut_at = NEVER
        self._close_code = GOING_AWAY

    def start(
        self,
        from_client: bytes = b"",
        from_upstream: bytes = b"",
        *,
        client_eof: bool = False,
        client_writable: bool = True,
        upstream_writable: bool = True,
    ) -> None:
        """Take both transports over.

        from_client, from_upstream: what was read beyond the request and the 101. client_eof: the client has
        closed its sending side already. client_writable, upstream_writable: False if that transport has asked
        its protocol to pause writing, which it will not do again.
        """
        self._client.set_protocol(_ClientEnd(self, self._client, self._upstream))
        self._upstream.set_protocol(_UpstreamEnd(self, self._upstream, self._client))
        if upstream_writable:
            self._client.resume_reading()
        else:
            self._client.pause_reading()
        if client_writable:
            self._upstream.resume_reading()
        else:
            self._upstream.pause_reading()
        if from_upstream:
            self.on_upstream_data(from_upstream)
        if from_client:
            self.on_client_data(from_client)
        if client_eof:
            self.on_eof(self._client, self._upstream)

    def drain(self, leave_at: float, cut_at: float, code: int) -> None:
        """End by itself: say goodbye from `leave_at` on, cut what is left at `cut_at` (monotonic seconds)."""
        if leave_at < self._leave_at:
            self._leave_at, self._close_code = leave_at, code
        self._cut_at = min(self._cut_at, cut_at)

    def sweep(self, now: float) -> None:
        """Act on what has come due."""
        if self._cut_at <= now:
            self.forced = self.forced or self.phase < Phase.CLOSING
            self.abort()
        elif self._leave_at <= now:
            self.leave()
        if self._has_moved:
            self._has_moved = False
            self._deadline = now + self._patience_s()
        elif self._deadline <= now:
            self._on_deadline()

    def abort(self) -> None:
        """Drop both connections at once."""
        self._client.abort()
        self._upstream.abort()

    # The bytes' way

    def on_client_data(self, data: bytes) -> None:
        """Pass on what the client sent."""
        if self.phase >= Phase.ENDING:
            return
        if self.phase < Phase.CLOSING:
            self._has_moved = True
        self.bytes_up += len(data)
        self._upstream.write(data)

    def on_upstream_data(self, data: bytes) -> None:
        """Pass on what the upstream sent, or what of it still belongs before our goodbye."""
        if self.phase >= Phase.CLOSING:
            return
        self._has_moved = True
        if self._follower is not None:
            if self.phase is Phase.LEAVING:
                data = data[: self._follower.feed_to_boundary(data)]
            else:
                self._follower.feed(data)
        self.bytes_down += len(data)
        self._client.write(data)
        if self.phase is Phase.LEAVING:
            self.leave()

    # The goodbye

    def leave(self) -> None:
        """Say goodbye, at the end of a frame that is under way. What is no WebSocket runs until it is cut."""
        follower = self._follower
        if self.phase > Phase.LEAVING:
            return
        if follower is None or follower.lost:
            self._leave_at = NEVER
        elif follower.at_boundary:
            self._say_goodbye(follower)
        else:
            self.phase = Phase.LEAVING

    def _say_goodbye(self, follower: FrameFollower) -> None:
        if self._upstream not in self._senders:
            self._close()  # its direction is closed: no frame can follow
            return
        if not follower.close_seen:
            self._client.write(close_frame(self._close_code))
        self._enter(Phase.CLOSING)
        self._upstream.resume_reading()  # thrown away from now on, so there is no need to wait for the client

    def _close(self) -> None:
        """Close both ends, letting what is written arrive."""
        self._enter(Phase.ENDING)
        self._client.close()
        self._upstream.close()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._has_moved = True

    # Time

    def _patience_s(self) -> float:
        if self.phase < Phase.CLOSING:
            return self._idle_s
        return CLOSE_S if self.phase is Phase.CLOSING else FLUSH_S

    def _on_deadline(self) -> None:
        if self.phase >= Phase.ENDING:
            self.abort()
        elif self.phase is Phase.OPEN and self._follower is not None and self._follower.at_boundary:
            self._say_goodbye(self._follower)
        else:
            self._close()

    # The ends

    def on_eof(self, end: asyncio.Transport, other: asyncio.Transport) -> bool:
        """One end will send no more: so tell the other. Returns whether `end` is kept to be written to."""
        self._senders.discard(end)
        is_answered = self.phase is Phase.CLOSING and end is self._upstream
        is_possible = end.can_write_eof() and other.can_write_eof()  # not through TLS: all of it closes
        if is_answered or not is_possible or not self._senders or self.phase >= Phase.ENDING:
            self._close()
            return False
        if not other.is_closing():
            other.write_eof()
        return True

    def on_lost(self, other: asyncio.Transport, exc: Exception | None) -> None:
        """One end is gone: so goes the other. A reset travels as one, a close lets what is written arrive."""
        self._ends -= 1
        if not self._ends:
            self.phase = Phase.OVER
            self._on_end(self)
            return
        if self.phase < Phase.ENDING:
            self._enter(Phase.ENDING)
        if exc is None:
            other.close()
        else:
            reset_on_close(other)
            other.abort()


class _End(asyncio.Protocol):
    """Hears one end and slows the other down while this one is written to faster than it reads."""

    __slots__ = ("_mine", "_other", "_tunnel")

    def __init__(self, tunnel: Tunnel, mine: asyncio.Transport, other: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self._mine = mine
        self._other = other

    def eof_received(self) -> bool:
        return self._tunnel.on_eof(self._mine, self._other)

    def pause_writing(self) -> None:
        self._other.pause_reading()

    def resume_writing(self) -> None:
        self._other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.on_lost(self._other, exc)


class _ClientEnd(_End):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self._tunnel.on_client_data(data)


class _UpstreamEnd(_End):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self._tunnel.on_upstream_data(data)
