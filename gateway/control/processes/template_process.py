"""The template process itself: it forks workers on control's orders, reaps them, and forks its own twin.

It has imported all a worker needs and frozen its heap, so a worker costs a fork and shares its memory, and a
package changed on disk never mixes releases. It holds no listener, no store and no lock; it ends when control
does, and leaves the workers alive: they serve on, and the next control adopts their sockets.

Commands and answers are single packets (SOCK_SEQPACKET), some with descriptors.
"""

import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from gateway.control.processes.pidfd import open_pidfd
from gateway.errors import LinkError
from gateway.link.fds import close_all, recv_with_fds, send_with_fds
from gateway.link.spawn import Spawn
from gateway.net.progress import SharedCounters

PACKET_BYTES: Final = 1024 * 1024
MAX_FD: Final = 1 << 20
CONTROLS_OWN: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""What control acts on, for all its processes."""

Entry = Callable[[Spawn, socket.socket, list[socket.socket]], int]
"""Runs a worker to its end: (what it is, its link, its listening sockets) -> exit code."""


class Kill(msgspec.Struct, frozen=True, tag="kill", tag_field="t"):
    """Send `signal` to the worker of `incarnation`, if it still runs."""

    incarnation: str
    signal: int


class Spare(msgspec.Struct, frozen=True, tag="spare", tag_field="t"):
    """Fork a twin of yourself. Its end of a socket like this one travels with the message."""


class Serving(msgspec.Struct, frozen=True, tag="serving", tag_field="t"):
    """The first answer of template and twin: it runs as `pid`, and takes orders."""

    pid: int


class Forked(msgspec.Struct, frozen=True, tag="forked", tag_field="t"):
    """The worker of `incarnation` runs as `pid`. Its pidfd travels with it, where there is such a thing."""

    incarnation: str
    pid: int


class Exited(msgspec.Struct, frozen=True, tag="exited", tag_field="t"):
    """The worker of `incarnation` ended. status: its exit code, or minus the signal that killed it."""

    incarnation: str
    pid: int
    status: int


Answer = Serving | Forked | Exited
_decode_command: Final = msgspec.msgpack.Decoder(Spawn | Spare | Kill).decode
decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode
encode: Final = msgspec.msgpack.Encoder().encode


def name_process(name: str) -> None:
    """Show this process as `name` (15 characters) in `ps -o comm` and `top`."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def run_to_exit(run: Callable[[], int]) -> NoReturn:
    """Run `run` and leave this forked process without unwinding into its parent's frames."""
    code = 1
    try:
        code = run()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def serve(sock: socket.socket, entry: Entry, counters: SharedCounters, *, name: str = "gateway-fork") -> int:
    """Fork and reap workers until control is gone. Returns the exit code."""
    # Whatever control had open (activated sockets, an upgrade's pipe) would go on in every worker.
    os.closerange(3, sock.fileno())
    os.closerange(sock.fileno() + 1, MAX_FD)
    name_process(name)
    # An interrupt at the terminal goes to the whole process group; only control acts on it, and drains.
    for number in CONTROLS_OWN:
        signal.signal(number, signal.SIG_IGN)
    return _Forking(sock, entry, counters).run()


class _Forking:
    """What the template process does, and what it knows of its children."""

    def __init__(self, sock: socket.socket, entry: Entry, counters: SharedCounters) -> None:
        self._sock = sock
        self._entry = entry
        self._counters = counters
        self._incarnations: dict[int, str] = {}
        """By pid."""
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def run(self) -> int:
        """Obey until control is gone."""
        self._answer(Serving(os.getpid()))
        while True:
            readable, _, _ = select.select([self._sock.fileno(), self._woken], [], [])
            if self._woken in readable:
                os.read(self._woken, 4096)
                self._reap()
            if self._sock.fileno() in readable and not self._obey():
                return 0

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                incarnation = self._incarnations.pop(pid, "")
                if incarnation:  # else the twin: control sees its socket's end
                    self._answer(Exited(incarnation, pid, os.waitstatus_to_exitcode(status)))

    def _obey(self) -> bool:
        """Carry out one command. False: control is gone."""
        try:
            packet, fds = recv_with_fds(self._sock, PACKET_BYTES)
        except LinkError:
            return True  # no descriptors left: control gives up a worker it hears nothing of
        except OSError:
            return False
        if not packet:
            return False
        match _decode_command(packet):
            case Kill(incarnation, number):
                self._kill(incarnation, number)
            case Spare():
                self._fork_spare(fds)
            case Spawn() as order:
                self._fork_worker(order, fds)
        close_all(fds)
        return True

    def _kill(self, incarnation: str, number: int) -> None:
        for pid, each in self._incarnations.items():
            if each == incarnation:
                os.kill(pid, number)

    def _fork_worker(self, order: Spawn, fds: list[int]) -> None:
        """Fork a worker with `fds`; one that cannot be forked, for want of processes, has ended."""
        try:
            pid = os.fork()
        except OSError:
            self._answer(Exited(order.incarnation, 0, 1))
            return
        if pid == 0:
            self._become_worker(order, fds)
        self._incarnations[pid] = order.incarnation
        pidfd = open_pidfd(pid)  # it cannot have been reaped yet: the pid is its own
        self._answer(Forked(order.incarnation, pid), pidfd)

    def _become_worker(self, order: Spawn, fds: list[int]) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        close_all([self._sock.fileno(), self._woken, self._waker])
        name_process(f"gateway-{order.slot}")
        self._counters.use(order.progress_cell)
        link, *listeners = [socket.socket(fileno=fd) for fd in fds]
        run_to_exit(lambda: self._entry(order, link, listeners))

    def _fork_spare(self, fds: list[int]) -> None:
        """Fork a twin that serves at the other end of `fds`; if that fails, control sees the end of it."""
        with suppress(OSError):
            if os.fork() == 0:
                signal.set_wakeup_fd(-1)
                theirs = socket.socket(fileno=fds[0])
                run_to_exit(lambda: serve(theirs, self._entry, self._counters, name="gateway-spare"))

    def _answer(self, answer: Answer, pidfd: int | None = None) -> None:
        """Send control an answer; one that is gone needs none."""
        fds = [] if pidfd is None else [pidfd]
        with suppress(OSError):
            send_with_fds(self._sock, encode(answer), fds)
        close_all(fds)
