"""Unix stream sockets that carry descriptors, and who is at their other end."""

import array
import hashlib
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from gateway.errors import LinkError

MAX_FDS: Final = 250
"""The kernel passes at most 253 descriptors with one message (`SCM_MAX_FD`)."""
MAX_PATH_BYTES: Final = 107
"""`sun_path` has 108 bytes, the last of them a zero."""

_CREDENTIALS: Final = struct.Struct("3i")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


def link_address(path: Path) -> str | bytes:
    """Return what to bind for a socket at `path`: the path, or where it is too long an abstract name."""
    text = str(path.absolute())
    absolute = os.fsencode(text)
    if len(absolute) <= MAX_PATH_BYTES:
        return text
    return b"\0gateway-" + hashlib.sha256(absolute).hexdigest().encode()


def send_with_fds(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int]) -> int:
    """Send some of `data`, `fds` with its first byte. Returns the bytes taken; raises OSError."""
    if not fds:
        return sock.send(data)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def recv_with_fds(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and the descriptors among them (close-on-exec, the caller's to close).

    Raises OSError, and LinkError if the kernel had to drop descriptors (this process has none left).
    """
    data, ancillary, flags, _ = sock.recvmsg(size, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if flags & socket.MSG_CTRUNC:
        close_all(fds)
        raise LinkError("descriptors were dropped on the way: too many open files?")
    return data, fds.tolist()


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return (pid, uid) of the process at the other end, as the kernel saw it connect."""
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, uid


def check_peer(sock: socket.socket) -> int:
    """Return the pid at the other end. Raises LinkError unless it runs as this user, or as root."""
    pid, uid = peer_of(sock)
    if uid not in (0, os.geteuid()):
        raise LinkError(f"process {pid} of uid {uid} has no business on the control link")
    return pid


def close_all(fds: Iterable[int]) -> None:
    """Close every descriptor of `fds`."""
    for fd in fds:
        os.close(fd)
