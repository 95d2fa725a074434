"""The machine's sockets: streams between ends, listeners with their queues, descriptors that travel.

A stream is two ends. What one sends arrives at the other after a while, in order; a closed end that had
unread bytes, or is written to, answers with a reset. Nothing here is kinder than the kernel: a listening
socket that nobody holds resets whoever waits in it, and a process that dies closes all it had.
"""

import array
import errno
import os
import socket as real
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.simulation import machine as machines
from tests.simulation.machine import FIRST_FD, PROCESS, Process

WINDOW: Final = 256 * 1024
"""Bytes under way and unread before a sender has to wait."""
Address = tuple[str, int]

_real_socket: Final = real.socket


class Thing:
    """What a descriptor is of."""

    def __init__(self) -> None:
        self.references = 0
        self._watchers: dict[tuple[Process, int, str], Callable[[], None]] = {}

    @property
    def is_readable(self) -> bool:
        return False

    @property
    def is_writable(self) -> bool:
        return False

    def watch(self, process: Process, fd: int, kind: str, look: Callable[[], None]) -> None:
        self._watchers[process, fd, kind] = look

    def changed(self) -> None:
        """Wake whoever watches."""
        if self._watchers:
            for look in list(self._watchers.values()):
                look()

    def end(self) -> None:
        """Nobody has a descriptor of it any more."""


class RealFile(Thing):
    """A real descriptor on its way to another process."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd


class End(Thing):
    """One end of a stream."""

    def __init__(self, machine: machines.Machine, latency: tuple[float, float]) -> None:
        super().__init__()
        self.machine = machine
        self.latency = latency
        self.peer: End
        self.name: Any = ""
        self.peer_name: Any = ""
        self.pid = 0
        """Who made this end."""
        self.inbox: deque[tuple[bytes, list[Thing]]] = deque()
        self.unread = 0
        """Bytes in the inbox, and on their way to it."""
        self.has_eof = False
        self.error: OSError | None = None
        self.is_shut = False
        """Nothing more is sent from here."""
        self.is_over = False
        self.linger_reset = False
        self.extra_s = 0.0
        """What everything sent from here is late by, while that is so."""
        self.is_held = False
        """The network takes nothing from here for now."""
        self.keeps_packets = False
        """SOCK_SEQPACKET: what was sent at once is received at once."""
        self._last = 0.0
        self.on_change: Callable[[], None] | None = None

    @property
    def is_readable(self) -> bool:
        return bool(self.inbox) or self.has_eof or self.error is not None

    @property
    def is_writable(self) -> bool:
        return self.error is not None or self.peer.unread < WINDOW

    def changed(self) -> None:
        if self._watchers:
            super().changed()
        if self.on_change is not None:
            self.on_change()

    def send(self, data: bytes, things: list[Thing] | None = None) -> None:
        """Put bytes on their way. The caller has looked whether there is room."""
        if self.error is not None:
            raise self.error
        if self.is_shut:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.peer.unread += len(data)
        for thing in things or ():
            thing.references += 1
        self._later(lambda: self._arrive(data, list(things or ())))

    def shut(self) -> None:
        """Send the end."""
        if not self.is_shut and self.error is None:
            self.is_shut = True
            self._later(self._arrive_eof)

    def reset(self) -> None:
        """Send a reset: the other end loses what it has not read."""
        self.is_shut = True
        self._later(lambda: self.peer.hit(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")))

    def hit(self, error: OSError) -> None:
        """A reset has arrived here."""
        if self.error is None and not self.is_over:
            self.error = error
            self._drop_inbox()
            self.changed()

    def end(self) -> None:
        """The last descriptor is closed."""
        if self.is_over:
            return
        self.is_over = True
        if self.inbox or self.linger_reset:
            self.reset()
        else:
            self.shut()
        self._drop_inbox()
        self.on_change = None

    def take(self, size: int) -> tuple[bytes, list[Thing]]:
        """Take bytes that have arrived, up to a message with descriptors."""
        data, things = self.inbox.popleft()
        if len(data) > size:
            self.inbox.appendleft((data[size:], []))
            data = data[:size]
        while (
            not self.keeps_packets
            and self.inbox
            and not things
            and not self.inbox[0][1]
            and len(data) + len(self.inbox[0][0]) <= size
        ):
            data += self.inbox.popleft()[0]
        self.unread -= len(data)
        self.peer.changed()
        return data, things

    def _drop_inbox(self) -> None:
        for _, things in self.inbox:
            for thing in things:
                release(thing)
        self.inbox.clear()

    def _later(self, what: Callable[[], None]) -> None:
        low, high = self.latency
        when = self.machine.now + low + (high - low) * self.machine.chance.random() + self.extra_s
        self._last = max(self._last, when)
        self.machine.loop.at(self._last, what)

    def _arrive(self, data: bytes, things: list[Thing]) -> None:
        peer = self.peer
        if peer.is_over or peer.error is not None:
            for thing in things:
                release(thing)
            if peer.is_over:  # nobody is there: a reset comes back
                peer.reset()
            return
        peer.inbox.append((data, things))
        peer.changed()

    def _arrive_eof(self) -> None:
        if not self.peer.is_over:
            self.peer.has_eof = True
            self.peer.changed()


def release(thing: Thing) -> None:
    """Drop one reference that was under way."""
    thing.references -= 1
    if isinstance(thing, RealFile):
        machines._real_close(thing.fd)
    elif thing.references <= 0:
        thing.end()


LINK: Final = (0.00002, 0.0003)
WIRE: Final = (0.0002, 0.002)


def pair(machine: machines.Machine, latency: tuple[float, float]) -> tuple[End, End]:
    """Return the two ends of a new stream."""
    one, other = End(machine, latency), End(machine, latency)
    one.peer, other.peer = other, one
    return one, other


class Accepting(Thing):
    """A listening socket and who waits in it."""

    def __init__(self, address: Any, *, shares: bool) -> None:
        super().__init__()
        self.address = address
        self.shares = shares
        self.waiting: deque[End] = deque()
        self.is_listening = False
        self.drops_new = False

    @property
    def is_readable(self) -> bool:
        return bool(self.waiting)

    def end(self) -> None:
        net = networks()
        net.unbind(self)
        for end in self.waiting:
            net.machine.note("reset_in_queue", str(self.address).rpartition("/")[2])
            end.reset()
            end.is_over = True
            end._drop_inbox()
        self.waiting.clear()


class Network:
    """Who listens where, and who stands behind a name."""

    def __init__(self, machine: machines.Machine) -> None:
        self.machine = machine
        self.bound: dict[Any, list[Accepting]] = {}
        self.servers: dict[Address, Callable[[End], None]] = {}
        """The world's own: what is called with each connection's end."""
        self.names: dict[str, list[str]] = {}
        self.silent: set[Address] = set()
        """Addresses from which nothing comes back."""
        self._ports = 40_000

    def bind(self, thing: Accepting) -> None:
        others = self.bound.setdefault(thing.address, [])
        if others and not (thing.shares and all(each.shares for each in others)):
            raise OSError(errno.EADDRINUSE, "Address already in use")
        others.append(thing)

    def unbind(self, thing: Accepting) -> None:
        others = self.bound.get(thing.address, [])
        if thing in others:
            others.remove(thing)

    def dial(self, address: Any, source: str, latency: tuple[float, float]) -> End:
        """Connect. Raises ConnectionRefusedError."""
        self._ports += 1
        ours, theirs = pair(self.machine, latency)
        ours.name = theirs.peer_name = (source, self._ports)
        ours.peer_name = theirs.name = address
        ours.pid = getattr(PROCESS.get(), "pid", 0)
        if address in self.servers:
            self.servers[address](theirs)
            return ours
        open_ones = [each for each in self.bound.get(address, []) if each.is_listening]
        if not open_ones:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        chosen = open_ones[int(self.machine.chance.random() * len(open_ones))]
        theirs.pid = ours.pid
        chosen.waiting.append(theirs)
        chosen.changed()
        return ours


def networks() -> Network:
    network: Network = machines.current.network  # type: ignore[attr-defined]
    return network


def lookup(machine: machines.Machine, host: Any, port: Any) -> list[Any]:
    """Return addresses as getaddrinfo does. Raises gaierror for a name nobody knows."""
    text = host.decode() if isinstance(host, bytes) else str(host)
    if text.replace(".", "").isdigit():
        found = [text]
    else:
        found = networks().names.get(text, [])
    if not found:
        raise real.gaierror(real.EAI_NONAME, "Name or service not known")
    return [(real.AF_INET, real.SOCK_STREAM, 6, "", (each, port)) for each in found]


def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
    return lookup(machines.current, host, port)


class Socket:
    """`socket.socket`, as far as a gateway uses one."""

    def __init__(
        self, family: int = real.AF_INET, kind: int = real.SOCK_STREAM, proto: int = 0, fileno: Any = None
    ):
        self.family, self.type = real.AddressFamily(family), real.SocketKind(kind)
        self._fd = -1
        self._shares = False
        if fileno is not None:
            self._fd = fileno
            thing = self._thing()
            if not isinstance(thing, End | Accepting):
                raise OSError(errno.ENOTSOCK, "Socket operation on non-socket")
            name = thing.address if isinstance(thing, Accepting) else thing.name
            self.family = real.AF_INET if isinstance(name, tuple) else real.AF_UNIX

    @classmethod
    def of(cls, thing: Thing, family: int = real.AF_INET) -> "Socket":
        made = cls(family)
        made._fd = machines.current.open(thing)
        return made

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _thing(self) -> Any:
        return machines.current.thing(self._fd)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def detach(self) -> int:
        fd, self._fd = self._fd, -1
        return fd

    def dup(self) -> "Socket":
        return Socket(self.family, self.type, fileno=os.dup(self._fd))

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if option == real.SO_REUSEPORT and level == real.SOL_SOCKET:
            self._shares = bool(value)
        elif option == real.SO_LINGER and level == real.SOL_SOCKET:
            self._thing().linger_reset = True
        elif option == 26:  # a filter that drops first packets
            self._thing().is_listening = False

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        thing = self._thing()
        if option == real.SO_PEERCRED and size:
            return struct.pack("3i", thing.peer.pid, os.geteuid(), 0)
        if option == real.SO_ERROR:
            return thing.error.errno if thing.error is not None else 0
        if option == real.SO_ACCEPTCONN:
            return int(isinstance(thing, Accepting) and thing.is_listening)
        if option == real.SO_REUSEPORT:
            return int(isinstance(thing, Accepting) and thing.shares)
        return 0

    def getsockname(self) -> Any:
        thing = self._thing()
        return thing.address if isinstance(thing, Accepting) else thing.name

    def getpeername(self) -> Any:
        return self._thing().peer_name

    def bind(self, address: Any) -> None:
        if self.type == real.SOCK_DGRAM:
            raise OSError(errno.EADDRNOTAVAIL, "no address of this machine")
        thing = Accepting(address, shares=self._shares)
        networks().bind(thing)
        self._fd = machines.current.open(thing)

    def listen(self, backlog: int = 0) -> None:
        self._thing().is_listening = True

    def accept(self) -> tuple["Socket", Any]:
        thing = self._thing()
        if not thing.waiting:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        end = thing.waiting.popleft()
        return Socket.of(end, self.family), end.peer_name

    def connect(self, address: Any) -> None:
        end = networks().dial(address, "", LINK)
        self._fd = machines.current.open(end)

    def send(self, data: Any, flags: int = 0) -> int:
        return self.sendmsg([data], [])

    def sendmsg(self, buffers: list[Any], ancillary: Any = ()) -> int:
        end: End = self._thing()
        data = b"".join(bytes(each) for each in buffers)
        if end.error is not None:
            raise end.error
        if not end.is_writable:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        things: list[Thing] = []
        for _, _, payload in ancillary:
            for fd in payload:
                things.append(
                    machines.current.thing(fd) if fd >= FIRST_FD else RealFile(machines._real_dup(fd))
                )
        taken = data[:WINDOW]
        end.send(taken, things)
        return len(taken)

    def recv(self, size: int, flags: int = 0) -> bytes:
        end: End = self._thing()
        if flags & real.MSG_PEEK:
            return b"".join(data for data, _ in end.inbox)[:size]
        return self.recvmsg(size)[0]

    def recvmsg(self, size: int, ancillary: int = 0, flags: int = 0) -> tuple[bytes, list[Any], int, Any]:
        end: End = self._thing()
        if end.inbox:
            data, things = end.take(size)
            fds = array.array("i", [_arrived(thing) for thing in things])
            return data, [(real.SOL_SOCKET, real.SCM_RIGHTS, fds.tobytes())] if fds else [], 0, None
        if end.error is not None:
            raise end.error
        if end.has_eof:
            return b"", [], 0, None
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def shutdown(self, how: int) -> None:
        self._thing().shut()


def _arrived(thing: Thing) -> int:
    """Give the running process a descriptor of what came with a message."""
    if isinstance(thing, RealFile):
        machines.running().real_fds.add(thing.fd)
        return thing.fd
    fd = machines.current.open(thing)
    thing.references -= 1
    return fd


def socketpair(
    family: int = real.AF_UNIX, kind: int = real.SOCK_STREAM, proto: int = 0
) -> tuple[Socket, Socket]:
    one, other = pair(machines.current, LINK)
    one.pid = other.pid = machines.running().pid
    one.keeps_packets = other.keeps_packets = kind == real.SOCK_SEQPACKET
    return Socket.of(one, real.AF_UNIX), Socket.of(other, real.AF_UNIX)
