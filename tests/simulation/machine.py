"""The simulated machine: clock, chance, processes and their descriptors, under the standard library.

`interpose` puts it in the place of what Python's library asks the system for: the time of day, random
numbers, process ids, sockets, descriptors. Whatever reads a clock or rolls dice in this process gets the
simulated one, code that was written yesterday and code that will be written tomorrow; so nothing of the
gateway may be imported before. That is why a simulation runs in a process of its own
(`python -m tests.simulation`).

One seed, one machine. A simulated process is a context variable: every callback and task that is begun in its
name carries it, which is how the loop knows whose turn it is, and whose turn never comes again.
"""

import contextvars
import datetime
import errno
import os
import random
import secrets
import select
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

EPOCH: Final = 1_800_000_000.0
"""The wall clock when a simulation begins."""
HEAP_TYPE: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: a class that a class statement made, and not C."""
FIRST_FD: Final = 1_000_000
"""From here on descriptors are the machine's; below, the real system's."""

_real_random: Final = random.Random
_real_open, _real_close, _real_dup, _real_fstat = os.open, os.close, os.dup, os.fstat
_real_fdopen, _real_pid, _real_ppid = os.fdopen, os.getpid, os.getppid
_real_datetime: Final = datetime.datetime


class Killed(Exception):
    """The process that was just running is dead: nothing of it goes on."""


class Process:
    """One simulated process."""

    def __init__(self, machine: "Machine", name: str, parent: int = 1) -> None:
        self.machine = machine
        self.name = name
        self.pid = machine.next_pid()
        self.parent = parent
        self.is_dead = False
        self.died_at = 0.0
        self.exit_code: int | None = None
        self.stopped_until = 0.0
        """Stopped by a signal, or starved: none of its callbacks run before."""
        self.fds: dict[int, Any] = {}
        """Simulated descriptors -> what they are of."""
        self.real_fds: set[int] = set()
        self.signals: dict[int, Callable[[], None]] = {}
        self.on_death: list[Callable[[], None]] = []
        """What outlives it and is to know: its database connections, its parent."""
        self.progress = 0
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return f"{self.name}({self.pid})"

    def die(self) -> None:
        """End at once: descriptors are closed by the kernel, and nothing else happens."""
        if self.is_dead:
            return
        self.is_dead = True
        self.died_at = self.machine.now
        self.machine.note("dies", self)
        for fd in list(self.fds):
            self.machine.close(fd, self)
        for fd in sorted(self.real_fds):
            _real_close(fd)
        self.real_fds.clear()
        self.machine.loop.forget(self)
        for callback in self.on_death:
            callback()


PROCESS: Final[contextvars.ContextVar[Process | None]] = contextvars.ContextVar("process", default=None)


class Machine:
    """Everything of one seed. `current` is the one that runs."""

    def __init__(self, seed: int) -> None:
        self.now = 1_000.0
        self.wall_offset = EPOCH - self.now
        self.chance = _real_random(seed)
        """Of the world: latencies, faults, what clients do."""
        self.inner = _real_random(seed ^ 0x5EED)
        """Of the system: what it rolls itself."""
        self.processes: dict[int, Process] = {}
        self.trace: list[str] = []
        self.loop: Any = None
        self._pids = 100
        self._fds = FIRST_FD

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def process(self, name: str, parent: int = 1) -> Process:
        """Make a process."""
        made = Process(self, name, parent)
        self.processes[made.pid] = made
        return made

    def note(self, what: str, *details: object) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now:.6f} {what} " + " ".join(map(str, details)))

    # -- descriptors

    def open(self, thing: Any, process: Process | None = None) -> int:
        """Give a process a descriptor of `thing`."""
        owner = process or running()
        self._fds += 1
        fd = self._fds
        thing.references += 1
        owner.fds[fd] = thing
        return fd

    def thing(self, fd: int) -> Any:
        """Return what a descriptor of the running process is of. Raises OSError."""
        process = PROCESS.get()
        if process is None or fd not in process.fds:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return process.fds[fd]

    def close(self, fd: int, process: Process | None = None) -> None:
        """Close a descriptor; the last of a thing ends it."""
        owner = process or PROCESS.get()
        thing = owner.fds.pop(fd, None) if owner is not None else None
        if thing is None:
            if owner is None or owner.is_dead:
                return
            raise OSError(errno.EBADF, "Bad file descriptor")
        self.loop.unwatch(owner, fd)
        thing.references -= 1
        if not thing.references:
            thing.end()


current = Machine(0)
"""The machine of the seed that runs."""


def running() -> Process:
    """Return the process whose code runs."""
    process = PROCESS.get()
    assert process is not None, "only a simulated process does this"
    return process


# -- what the standard library asks for


def _monotonic() -> float:
    return current.now


def _monotonic_ns() -> int:
    return round(current.now * 1e9)


def _wall() -> float:
    return current.now + current.wall_offset


class Chance(_real_random):
    """A source of chance that the machine seeds where the system would."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(current.inner.getrandbits(64) if seed is None else seed)


class Clock(type):
    """So that a real time is an instance of the simulated type."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real_datetime)


class Datetime(_real_datetime, metaclass=Clock):
    """`datetime`, with the machine's time of day."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _real_datetime.fromtimestamp(_wall(), tz)

    @classmethod
    def fromtimestamp(cls, timestamp: float, tz: Any = None) -> Any:
        return _real_datetime.fromtimestamp(timestamp, tz)


def _open(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
    fd = _real_open(path, flags, mode, **more)
    process = PROCESS.get()
    if process is not None:
        process.real_fds.add(fd)
    return fd


def _close(fd: int) -> None:
    if fd >= FIRST_FD:
        current.close(fd)
        return
    process = PROCESS.get()
    if process is not None:
        if process.is_dead:
            return
        process.real_fds.discard(fd)
    _real_close(fd)


def _fdopen(fd: int, *args: Any, **more: Any) -> Any:
    """Give a descriptor to a file, which closes it without asking us."""
    process = PROCESS.get()
    if process is not None:
        process.real_fds.discard(fd)
    return _real_fdopen(fd, *args, **more)


def _dup(fd: int) -> int:
    if fd >= FIRST_FD:
        return current.open(current.thing(fd))
    copy = _real_dup(fd)
    running().real_fds.add(copy)
    return copy


def _fstat(fd: int) -> Any:
    if fd < FIRST_FD:
        return _real_fstat(fd)
    return os.stat_result((0, id(current.thing(fd)), *(0,) * 8))


def _kill(pid: int, number: int) -> None:
    process = current.processes.get(pid)
    if process is None or process.is_dead:
        raise ProcessLookupError(errno.ESRCH, "No such process")
    if number == signal.SIGKILL:
        process.die()
    elif (handler := process.signals.get(number)) is not None:
        current.loop.enqueue(process, handler)


def _pid() -> int:
    process = PROCESS.get()
    return process.pid if process is not None else _real_pid()


def _ppid() -> int:
    process = PROCESS.get()
    if process is None:
        return _real_ppid()
    parent = current.processes.get(process.parent)
    return process.parent if parent is not None and not parent.is_dead else 1


def _bytes(count: int | None = None) -> bytes:
    return current.inner.randbytes(32 if count is None else count)


class Poll:
    """`select.poll`, for one look at a simulated socket."""

    def register(self, fd: int, events: int) -> None:
        self._fd = fd

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        return [(self._fd, select.POLLIN)] if current.thing(self._fd).is_readable else []


class Cell:
    """What `PROGRESS` shows its count in: each process moves its own."""

    def __setitem__(self, index: int, value: int) -> None:
        process = PROCESS.get()
        if process is not None:
            process.progress += 1


def interpose() -> None:
    """Take the system's place, before anything of the gateway is imported."""
    assert not any(name.startswith("gateway") for name in sys.modules), "too late"
    from tests.simulation import network

    time.monotonic, time.monotonic_ns, time.time = _monotonic, _monotonic_ns, _wall
    time.perf_counter, time.perf_counter_ns = _monotonic, _monotonic_ns
    random.Random = Chance  # type: ignore[misc]
    random.random = lambda: current.inner.random()
    uuid.uuid4 = lambda: uuid.UUID(int=current.inner.getrandbits(128), version=4)
    secrets.token_bytes = _bytes
    secrets.token_hex = lambda count=None: _bytes(count).hex()
    secrets.token_urlsafe = lambda count=None: _bytes(count).hex()
    os.urandom = _bytes
    os.open, os.close, os.dup, os.fstat, os.kill = _open, _close, _dup, _fstat, _kill
    os.getpid, os.getppid, os.fdopen = _pid, _ppid, _fdopen
    os.set_inheritable = lambda fd, inheritable: None
    signal.signal = lambda number, handler: None
    signal.pthread_sigmask = lambda how, mask: set()
    select.poll = Poll
    socket.socket = network.Socket  # type: ignore[misc]
    socket.socketpair = network.socketpair
    socket.getaddrinfo = network.getaddrinfo


_number_of: Final[dict[int, tuple[int, object]]] = {}
"""Address of an object -> its number, and the object: nobody else is to have that address while it counts."""


def _number(self: object) -> int:
    found = _number_of.get(id(self))
    if found is None:
        found = _number_of[id(self)] = len(_number_of), self
    return found[0]


def _number_instances(kind: Any) -> None:
    """Let objects in sets be in the order in which they came into one, and not in that of their addresses."""
    kind.__hash__ = _number


def _has_no_order(kind: Any, module: Any) -> bool:
    """Return whether sets of a class's instances are ordered by address."""
    is_ours = isinstance(kind, type) and kind.__module__ == module.__name__
    is_plain = is_ours and not issubclass(kind, msgspec.Struct)
    return is_plain and kind.__hash__ is object.__hash__ and bool(kind.__flags__ & HEAP_TYPE)


def settle_imports() -> None:
    """Give the imported gateway the machine's time of day, and each process its own cell of progress."""
    import gc

    from gateway.net import progress

    progress.PROGRESS.move_to(Cell())  # type: ignore[arg-type]
    ours = [module for name, module in sys.modules.items() if name.startswith("gateway")]
    for kind in [kind for module in ours for kind in vars(module).values() if _has_no_order(kind, module)]:
        _number_instances(kind)
    for name, module in list(sys.modules.items()):
        if name.startswith("gateway") and getattr(module, "datetime", None) is _real_datetime:
            module.datetime = Datetime
    gc.disable()  # what one seed leaves behind is less than the collector takes to look through it
    gc.freeze()
    gc.freeze = lambda: None
    gc.collect = lambda generation=2: 0
    gc.set_threshold = lambda *numbers: None
