"""Messages over a Unix stream socket: length-prefixed msgpack, some with descriptors (SCM_RIGHTS).

A frame is four bytes of length (network order, of the payload), one byte that counts its descriptors, and the
payload: one msgpack map whose `t` names its kind. That form, and HELLO, DRAIN and QUIT in it, hold between
all releases.

Nothing here ever blocks. What a slow reader has not taken yet waits as messages, not bytes, so that a newer
snapshot is merged into the waiting one; a reader that lets too many wait is given up, and starts afresh.
"""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from gateway.errors import LinkError
from gateway.link.fds import MAX_FDS, check_peer, close_all, link_address, recv_with_fds, send_with_fds
from gateway.link.messages import Down, Up
from gateway.link.snapshot import Snapshot

HEADER: Final = struct.Struct("!IB")
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""A whole snapshot of some ten thousand services fits; more than this is not the protocol."""
MAX_WAITING: Final = 4096
"""Messages a reader may leave untaken before the link is given up."""
READ_BYTES: Final = 64 * 1024
"""From 128 KB on malloc maps each buffer anew: three system calls and a page fault for every frame."""

Received = TypeVar("Received")
Received_contra = TypeVar("Received_contra", contravariant=True)

_encode: Final = msgspec.msgpack.Encoder().encode
decode_up: Final[Callable[[bytes], Up]] = msgspec.msgpack.Decoder(Up).decode
decode_down: Final[Callable[[bytes], Down]] = msgspec.msgpack.Decoder(Down).decode


def _nothing() -> None:
    """Nobody waits for that."""


class ChannelOwner(Protocol[Received_contra]):
    """Who takes what a channel receives. Called from the loop, never after `on_lost`."""

    def on_message(self, message: Received_contra, fds: list[int]) -> None:
        """A message came; its descriptors are the owner's to close."""

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        """A frame came that is none of our messages: another release speaks. The link goes on."""

    def on_lost(self, reason: str) -> None:
        """The link ended, for any reason but our own `close`."""


class Channel(Generic[Received]):
    """One end of a link, driven by the running loop from its making until it is closed or lost."""

    def __init__(
        self, sock: socket.socket, decode: Callable[[bytes], Received], owner: ChannelOwner[Received]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decode = decode
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._received_fds: deque[int] = deque()
        self._waiting: deque[tuple[Any, tuple[int, ...]]] = deque()
        self._sending = memoryview(b"")
        self._sending_fds: tuple[int, ...] = ()
        self._is_blocked = False
        self.on_flushed: Callable[[], None] = _nothing
        """Called when the kernel has taken all that was to be sent. Settable."""
        self.is_open = True
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def backlog(self) -> int:
        """Messages not yet handed to the kernel."""
        return len(self._waiting) + bool(self._sending)

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Send `message`, with copies of `fds`, once the other end takes it; dropped if the link is lost."""
        if not self.is_open:
            return
        if len(fds) > MAX_FDS:
            raise LinkError(f"{len(fds)} descriptors in one message, more than {MAX_FDS}")
        if not self._is_blocked:
            self._begin(message, tuple([os.dup(fd) for fd in fds]) if fds else ())
            self._on_writable()
            return
        if isinstance(message, Snapshot) and self._merge(message):
            return
        self._waiting.append((message, tuple([os.dup(fd) for fd in fds])))
        if len(self._waiting) > MAX_WAITING:
            self._lose(f"{MAX_WAITING} messages wait: the other end does not read")

    def close(self) -> None:
        """End the link now; what still waits is dropped."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        close_all(self._received_fds)
        self._received_fds.clear()
        self._drop_unsent()

    def _drop_unsent(self) -> None:
        close_all(self._sending_fds)
        for _, fds in self._waiting:
            close_all(fds)
        self._waiting.clear()
        self._sending, self._sending_fds = memoryview(b""), ()

    def _lose(self, reason: str) -> None:
        self.close()
        self._owner.on_lost(reason)

    # -- sending

    def _merge(self, newer: Snapshot) -> bool:
        """Merge `newer` into the snapshot that waits. False: none does."""
        for index, (message, fds) in enumerate(self._waiting):
            if isinstance(message, Snapshot):
                self._waiting[index] = (message.merged(newer), fds)
                return True
        return False

    def _on_writable(self) -> None:
        try:
            while self._sending or self._next():
                sent = send_with_fds(self._sock, self._sending, self._sending_fds)
                close_all(self._sending_fds)
                self._sending, self._sending_fds = self._sending[sent:], ()
        except BlockingIOError:
            if not self._is_blocked:
                self._is_blocked = True
                self._loop.add_writer(self._sock.fileno(), self._on_writable)
            return
        except OSError:
            self._stop_sending()
            return
        if self._is_blocked:
            self._is_blocked = False
            self._loop.remove_writer(self._sock.fileno())
        self.on_flushed()

    def _stop_sending(self) -> None:
        """The other end is gone. What it said last is still to be read; then comes the end, and `on_lost`."""
        self._drop_unsent()
        self._loop.remove_writer(self._sock.fileno())
        self._is_blocked = True

    def _next(self) -> bool:
        """Take the first waiting message up for sending. False: none waits."""
        if not self._waiting:
            return False
        self._begin(*self._waiting.popleft())
        return True

    def _begin(self, message: msgspec.Struct, fds: tuple[int, ...]) -> None:
        """Take a message up for sending, with descriptors that are ours to close."""
        payload = _encode(message)
        self._sending = memoryview(HEADER.pack(len(payload), len(fds)) + payload)
        self._sending_fds = fds

    # -- receiving

    def _on_readable(self) -> None:
        try:
            data, fds = recv_with_fds(self._sock, READ_BYTES)
        except BlockingIOError:
            return
        except (OSError, LinkError) as exc:
            self._lose(str(exc))
            return
        if not data:
            self._lose("closed by the other end")
            return
        self._received += data
        self._received_fds.extend(fds)
        self._deliver()

    def _deliver(self) -> None:
        """Hand over every whole frame received so far."""
        while self.is_open and len(self._received) >= HEADER.size:
            length, fd_count = HEADER.unpack_from(self._received)
            if length > MAX_FRAME_BYTES:
                self._lose(f"a frame of {length} bytes")
                return
            if len(self._received) < HEADER.size + length:
                return
            if len(self._received_fds) < fd_count:
                self._lose(f"a frame that lacks {fd_count - len(self._received_fds)} of its descriptors")
                return
            payload = bytes(memoryview(self._received)[HEADER.size : HEADER.size + length])
            del self._received[: HEADER.size + length]
            self._hand_over(payload, [self._received_fds.popleft() for _ in range(fd_count)])

    def _hand_over(self, payload: bytes, fds: list[int]) -> None:
        try:
            message = self._decode(payload)
        except msgspec.MsgspecError as exc:
            close_all(fds)
            self._owner.on_undecodable(payload, str(exc))
            return
        self._owner.on_message(message, fds)


def listen(path: Path) -> socket.socket:
    """Return control's listening end at `path` (0600; abstract if that is too long), in a stale one's place.

    The caller holds the store's lock: whoever else bound that path is dead.
    """
    address = link_address(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if isinstance(address, str):
            path.unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                sock.bind(address)
            finally:
                os.umask(mask)
        else:
            sock.bind(address)
        sock.listen(128)
    except OSError as exc:
        sock.close()
        raise LinkError(f"cannot listen at {path}: {exc}") from exc
    sock.setblocking(False)
    return sock


def accept(listener: socket.socket) -> tuple[socket.socket, int] | None:
    """Return the next waiting peer and its pid; None when none waits, or a stranger (who is closed)."""
    try:
        sock, _ = listener.accept()
    except OSError:
        return None
    try:
        return sock, check_peer(sock)
    except (LinkError, OSError):
        sock.close()
        return None


def connect(path: Path) -> socket.socket | None:
    """Return a connection to the control process at `path`; None if none listens there now."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(link_address(path))
        check_peer(sock)
    except (OSError, LinkError):
        sock.close()
        return None
    return sock
