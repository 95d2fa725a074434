"""Control's end of one worker's link: what it acknowledged, and everything control may say to it."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from socket import socket
from typing import Final, Protocol

import msgspec

from gateway.control.processes.listeners import Held, names_of
from gateway.link.channel import Channel, decode_up
from gateway.link.messages import (
    Accept,
    Drain,
    DrainEndpoints,
    EndpointLoad,
    InTouch,
    Lend,
    Quit,
    Reclaim,
    ReopenLogs,
    Up,
)
from gateway.link.snapshot import Mark, Snapshot
from gateway.log import get_logger

log = get_logger(component="hub")

PAUSE_S: Final = 0.01
"""How far apart tables leave at least. What changes meanwhile goes in one: a worker that takes 500 tables a
second has less time for requests, and a weight has to be live within 50 ms.
"""


class PeerOwner(Protocol):
    """Who takes in what a worker says."""

    def received(self, peer: "Peer", message: Up, fds: list[int]) -> None:
        """A message came; its descriptors are the owner's to close."""

    def lost(self, peer: "Peer", reason: str) -> None:
        """The link ended; the worker may still run."""


class Peer:
    """One link to one worker. Nameless until its HELLO."""

    def __init__(self, sock: socket, pid: int, owner: PeerOwner) -> None:
        self.pid = pid
        """As the kernel saw it connect; until HELLO 0 where control made both ends."""
        self.is_proven = pid > 0
        """Whether the kernel, not HELLO, says who it is."""
        self.slot = -1
        self.incarnation = ""
        self.applied = 0
        """The last of our snapshots it acknowledged; what it applied under another control does not count."""
        self.sent = 0
        """Number of the newest snapshot sent."""
        self.refused = 0
        """Number of the snapshot it could not apply; 0: none."""
        self.is_greeted = False
        self.draining = False
        self.accepting = False
        self.heard_at = time.monotonic()
        self.apply_us = 0
        self.marks: tuple[Mark, ...] | None = None
        """Acts that no store may know of, as its table has them; None: it has not said yet."""
        self.loads: dict[str, EndpointLoad] = {}
        """By endpoint key: what its last report said still runs there."""
        self._owner = owner
        self._channel: Channel[Up] = Channel(sock, decode_up, self)
        self._held: Snapshot | None = None
        """What leaves after the pause."""
        self._pause: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether the link stands."""
        return self._channel.is_open

    def accept(self) -> None:
        """Let the worker accept on the sockets it holds."""
        self.accepting = True
        self._send(Accept())

    def lend(self, held: Sequence[Held]) -> None:
        """Let the worker accept on these too."""
        self._send(Lend(names_of(held)), [one.sock.fileno() for one in held])

    def reclaim(self, held: Iterable[Held]) -> None:
        """Take lent sockets back."""
        self._send(Reclaim(names_of(held)))

    def drain(self, deadline_s: float, delay_s: float = 0.0) -> None:
        """Let the worker finish what it has, and leave."""
        self.draining = True
        self._send(Drain(deadline_s, delay_s))

    def reopen_logs(self) -> None:
        """Let the worker open its log file anew."""
        self._send(ReopenLogs())

    def in_touch(self, at: float) -> None:
        """Let the worker know when control had the store. at: monotonic seconds."""
        self._send(InTouch(at))

    def quit(self) -> None:
        """Let the worker leave at once."""
        self.draining = True
        self._send(Quit())

    def drain_endpoints(self, keys: Sequence[str], deadline_s: float) -> None:
        """Set the deadline of endpoints that a snapshot marked draining."""
        self._send(DrainEndpoints(tuple(keys), deadline_s))

    @property
    def is_holding(self) -> bool:
        """Whether a table waits for the pause to end."""
        return self._held is not None

    def snapshot(self, snapshot: Snapshot) -> None:
        """Send a table, at once if none was sent just now; merged into one that still waits."""
        self.sent = snapshot.number
        self._held = self._held.merged(snapshot) if self._held is not None else snapshot
        if self._pause is None:
            self._end_pause()

    def _end_pause(self) -> None:
        self._pause = None
        if self._held is not None:
            self._send_held()
            self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._end_pause)

    def _send_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._channel.send(held)

    def _send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Send anything but a table, in its order: it may speak of what the table before it brought."""
        self._send_held()
        self._channel.send(message, fds)

    def close(self) -> None:
        """End the link; the worker, if it lives, comes back as an orphan does."""
        self._forget_held()
        self._channel.close()

    def _forget_held(self) -> None:
        self._held = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    # -- ChannelOwner

    def on_message(self, message: Up, fds: list[int]) -> None:
        """Hand what came to the hub."""
        self.heard_at = time.monotonic()
        self._owner.received(self, message, fds)

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        """Another release's worker said something we do not know: it is still alive."""
        self.heard_at = time.monotonic()
        log.warning("link_message_unknown", slot=self.slot, pid=self.pid, reason=reason)

    def on_lost(self, reason: str) -> None:
        """The link ended."""
        self._forget_held()
        self._owner.lost(self, reason)
