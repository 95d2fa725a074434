"""The listening sockets: bound or adopted by control, kept while it lives, given to their slots' workers.

One SO_REUSEPORT socket for each slot of each `[[listen]]` table. Closing one resets every connection that
waits in it, so nobody closes or shuts one down while control lives: a dead worker's sockets are lent to a
healthy one, and sockets of slots that no longer have a worker stay lent.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.core.settings.targets import Listener
from gateway.errors import ConfigError
from gateway.link.messages import ListenerName
from gateway.link.spawn import ListenSpec
from gateway.log import get_logger

log = get_logger(component="listeners")

BACKLOG: Final = 4096
"""Connections that may wait in one socket; the kernel caps it at `net.core.somaxconn`."""
FIRST_ACTIVATED_FD: Final = 3

SO_ATTACH_FILTER: Final = 26
"""Linux's number, which `socket` does not have."""
NO_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of flags of the TCP header, where the packet begins (RFC 9293 §3.1)
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # anything else: keep all of it
)
"""A classic BPF program, as (code, jump if true, jump if false, operand)."""


class AddressTaken(ConfigError):
    """Somebody else listens there."""


class Held:
    """One listening socket, what it is called, and which slot it belongs to."""

    __slots__ = ("inode", "name", "sock")

    def __init__(self, name: ListenerName, sock: socket.socket) -> None:
        self.name = name
        self.sock = sock
        self.inode = os.fstat(sock.fileno()).st_ino
        """The kernel's own name of a socket: two descriptors of one socket share it."""


class Listeners:
    """Every listening socket of the proxy."""

    def __init__(self, listens: Sequence[ListenSpec], slots: int) -> None:
        self.listens = tuple(listens)
        self.slots = slots
        """How many slots have a worker of their own; sockets of higher slots are lent."""
        self.held: list[Held] = []

    def of_slot(self, slot: int) -> list[Held]:
        """Return the sockets of `slot`."""
        return [held for held in self.held if held.name.slot == slot]

    def addresses(self) -> list[str]:
        """Return where the proxy listens, one `host:port` as bound for each listen table."""
        return [
            next((held.name.address for held in self.held if held.name.listen == index), listen.address)
            for index, listen in enumerate(self.listens)
        ]

    def adopt(self, name: ListenerName, fd: int) -> Held | None:
        """Take over a descriptor that another process listened on; close it if it is known or not wanted.

        Returns what is now held, None if nothing was taken. `name` is the other process's, whose tables may
        have had another order: the socket's own address decides.
        """
        sock = listening_socket(fd)
        if sock is None:
            log.warning(
                "descriptor_refused", name=name.address, slot=name.slot, reason="no listening TCP socket"
            )
            return None
        listen = self._listen_of(bound_address(sock), name.listen)
        inode = os.fstat(fd).st_ino
        if listen is None or any(other.inode == inode for other in self.held):
            sock.close()
            return None
        sock.setblocking(False)
        held = Held(ListenerName(bound_address(sock), self._free_slot(name.slot, listen), listen), sock)
        self.held.append(held)
        return held

    def adopt_activated(self, environ: Mapping[str, str]) -> None:
        """Take over the sockets systemd opened for us (`LISTEN_FDS`), for every slot. Raises ConfigError."""
        if environ.get("LISTEN_PID") != str(os.getpid()):
            return
        count = environ.get("LISTEN_FDS", "0")
        if not count.isdigit():
            raise ConfigError("LISTEN_FDS", f"{count!r} is not a number of descriptors")
        for fd in range(FIRST_ACTIVATED_FD, FIRST_ACTIVATED_FD + int(count)):
            held = self.adopt(ListenerName("", 0), fd)
            if held is not None:
                os.set_inheritable(held.sock.fileno(), False)
                self._share(held)

    def taken(self) -> list[str]:
        """Return the configured addresses that are not held and that somebody else listens on.

        Bound without SO_REUSEPORT: with it, a second gateway would silently take half of the traffic.
        Raises ConfigError for an address that cannot be bound at all.
        """
        return [listen.address for index, listen in enumerate(self.listens) if self._is_taken(index, listen)]

    def bind(self) -> None:
        """Bind what no adoption brought. Raises AddressTaken, or ConfigError: it cannot be bound at all."""
        for address in self.taken():
            raise AddressTaken("listen.address", f"{address} is already in use")
        for index, listen in enumerate(self.listens):
            self._bind_slots(index, listen)

    def stop_handshakes(self) -> bool:
        """Have the kernel drop new clients' first packets at the sockets we bound; handshakes go on.

        After a moment nobody is under way to the queues any more, and a socket whose queue has been taken can
        be closed without resetting anybody. Sockets that systemd opened stay as they are: they outlive us.
        Returns whether there is a reason to wait that moment.
        """
        ours = [one.sock for one in self.held if one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)]
        stopped = list(map(drop_first_packets, ours))
        return any(stopped)

    def close(self) -> None:
        """Close every socket: only when control ends for good, or gives them to its successor."""
        for held in self.held:
            held.sock.close()
        self.held.clear()

    def _listen_of(self, address: str, hint: int) -> int | None:
        """Return which listen table `address` belongs to; a configured port 0 fits by position."""
        for index, listen in enumerate(self.listens):
            host, port = Listener.of(listen.address)
            if port and resolved(host, port) == address:
                return index
        if hint < len(self.listens) and Listener.of(self.listens[hint].address)[1] == 0:
            return hint
        return None

    def _free_slot(self, wanted: int, listen: int) -> int:
        """Return `wanted`, or if another socket has that place one beyond all slots."""
        occupied = {held.name.slot for held in self.held if held.name.listen == listen}
        return wanted if wanted not in occupied else max(self.slots - 1, *occupied) + 1

    def _share(self, held: Held) -> None:
        for slot in range(1, self.slots):
            name = ListenerName(held.name.address, slot, held.name.listen)
            self.held.append(Held(name, held.sock.dup()))

    def _is_taken(self, index: int, listen: ListenSpec) -> bool:
        if any(held.name.listen == index for held in self.held):
            return False
        try:
            bound(listen.address, reuse_port=False).close()
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return True
            raise ConfigError("listen.address", f"{listen.address} cannot be bound: {exc.strerror}") from exc
        return False

    def _bind_slots(self, index: int, listen: ListenSpec) -> None:
        """Give each slot that has none its socket for `listen`."""
        present = [held for held in self.held if held.name.listen == index]
        address = present[0].name.address if present else listen.address
        for slot in sorted(set(range(self.slots)) - {held.name.slot for held in present}):
            sock = self._bind_one(address, present)
            address = bound_address(sock)  # port 0: the first slot's decides for all
            held = Held(ListenerName(address, slot, index), sock)
            self.held.append(held)
            present.append(held)

    def _bind_one(self, address: str, present: list[Held]) -> socket.socket:
        """Return a new socket at `address`, or a copy of a present one that lets no other beside it."""
        if present and not present[0].sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            return present[0].sock.dup()
        try:
            sock = bound(address, reuse_port=True)
            sock.listen(BACKLOG)
        except OSError as exc:
            raise ConfigError("listen.address", f"{address} cannot be bound: {exc.strerror}") from exc
        sock.setblocking(False)
        return sock


def drop_first_packets(sock: socket.socket) -> bool:
    """Let a listening TCP socket ignore every SYN from now on; False if this system cannot.

    Who connects asks again after a second, and is refused then, when the socket is closed.
    """
    if sys.platform != "linux":
        return False
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in NO_SYN)
    code = ctypes.create_string_buffer(program)
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(NO_SYN), ctypes.addressof(code))
        )
    except OSError:
        return False
    return True


def listening_socket(fd: int) -> socket.socket | None:
    """Return `fd` as a socket; None, and it is closed, unless it is a TCP socket that listens."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    try:
        is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        is_listening = 0
    if is_listening and sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type is socket.SOCK_STREAM:
        return sock
    sock.close()
    return None


def names_of(held: Iterable[Held]) -> tuple[ListenerName, ...]:
    """Return the names of `held`, in order."""
    return tuple(one.name for one in held)


def bound(address: str, *, reuse_port: bool) -> socket.socket:
    """Return a socket bound to `address`, not yet listening. Raises OSError."""
    host, port = Listener.of(address)
    family, kind, _, _, target = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind)
    try:
        # A predecessor's connections in TIME_WAIT, or still served by its orphans, must not stop the bind.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(target)
    except OSError:
        sock.close()
        raise
    return sock


def bound_address(sock: socket.socket) -> str:
    """Return the numeric `host:port` a socket is bound to."""
    return _joined(sock.getsockname())


def resolved(host: str, port: int) -> str:
    """Return the numeric `host:port` that binding `host` leads to; the name itself if it does not resolve."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return f"{host}:{port}"
    return _joined(found[0][4])


def _joined(name: tuple[object, ...]) -> str:
    host, port = str(name[0]), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
