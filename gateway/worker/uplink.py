"""The worker's end of the link: says HELLO, tries every 100 ms once control is gone, and never waits."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from gateway.link.channel import Channel, connect, decode_down
from gateway.link.messages import Ack, Down, Hello, SnapshotNumber, Up

RETRY_S: Final = 0.1


class UplinkOwner(Protocol):
    """The worker, as its link sees it."""

    def hello(self) -> tuple[Hello, list[int]]:
        """Return who the worker is now and its listening descriptors, for a new link."""

    def on_message(self, message: Down, fds: list[int]) -> None:
        """Control says something; its descriptors are the owner's."""

    def on_link_lost(self) -> None:
        """Control is gone."""

    def on_link_found(self) -> None:
        """A control is there again, and has been greeted."""


class Uplink:
    """A link that is there, or is tried for."""

    def __init__(self, path: Path, owner: UplinkOwner) -> None:
        self._path = path
        self._owner = owner
        self._channel: Channel[Down] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether control is there."""
        return self._channel is not None

    @property
    def backlog(self) -> int:
        """Messages control has not taken yet."""
        return self._channel.backlog if self._channel is not None else 0

    def start(self, sock: socket.socket) -> None:
        """Begin with a link that is already connected."""
        self._greet(sock)

    def send(self, message: Up, fds: Sequence[int] = ()) -> None:
        """Send `message`; dropped without control, who learns all it needs from the next HELLO and totals."""
        if self._channel is not None:
            self._channel.send(message, fds)

    def when_flushed(self, callback: Callable[[], None]) -> None:
        """Call back once all that was sent is with control; never, if control is gone before that."""
        if self._channel is not None:
            self._channel.on_flushed = callback
            if not self._channel.backlog:
                callback()

    def close(self) -> None:
        """End the link and stop trying."""
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def remove(self, leftovers: Iterable[str]) -> None:
        """Remove the files of a control that is gone; one that answers has taken them over."""
        sock = connect(self._path)
        if sock is not None:
            sock.close()
            return
        for name in leftovers:
            Path(name).unlink(missing_ok=True)

    def _greet(self, sock: socket.socket) -> None:
        self._channel = Channel(sock, decode_down, self)
        message, fds = self._owner.hello()
        self._channel.send(message, fds)

    def _try(self) -> None:
        self._retry = None
        sock = connect(self._path)
        if sock is None:
            self._retry_later()
            return
        self._greet(sock)
        if self.is_connected:
            self._owner.on_link_found()

    def _retry_later(self) -> None:
        if not self._is_closed:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try)

    # -- ChannelOwner

    def on_message(self, message: Down, fds: list[int]) -> None:
        """Pass it on."""
        self._owner.on_message(message, fds)

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        """Another release's control speaks. A table we cannot read is refused by its number; we keep ours."""
        try:
            number = msgspec.msgpack.decode(payload, type=SnapshotNumber).number
        except msgspec.MsgspecError:
            return
        self.send(Ack(number, error=reason))

    def on_lost(self, reason: str) -> None:
        """Control is gone, or gave this link up."""
        self._channel = None
        self._owner.on_link_lost()
        self._retry_later()
