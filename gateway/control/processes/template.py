"""The template process: forked before any loop runs, it forks every worker.

It has imported all a worker needs and frozen its heap, so a worker costs a fork and shares its memory, and a
package changed on disk never mixes releases. It holds no listener, no store and no lock; it ends when control
does, and leaves the workers alive: they serve on, and the next control adopts their sockets.

Commands and answers are single packets (SOCK_SEQPACKET): `Spawn` with the worker's link and listening
sockets, and `Kill`; back come `Forked` and `Exited`. Only the template, as their parent, may kill workers: it
alone knows that a pid has not been reaped and given to somebody else.
"""

import asyncio
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, Protocol

import msgspec

from gateway.errors import LinkError
from gateway.link.fds import close_all, recv_with_fds, send_with_fds
from gateway.link.spawn import Spawn

PACKET_BYTES: Final = 1024 * 1024
MAX_FD: Final = 1 << 20

Entry = Callable[[Spawn, socket.socket, list[socket.socket]], int]
"""Runs a worker to its end: (what it is, its link, its listening sockets) -> exit code."""


class Kill(msgspec.Struct, frozen=True, tag="kill", tag_field="t"):
    """Send `signal` to the worker of `incarnation`, if it still runs."""

    incarnation: str
    signal: int


class Forked(msgspec.Struct, frozen=True, tag="forked", tag_field="t"):
    """The worker of `incarnation` runs as `pid`."""

    incarnation: str
    pid: int


class Exited(msgspec.Struct, frozen=True, tag="exited", tag_field="t"):
    """The worker of `incarnation` ended. status: its exit code, or minus the signal that killed it."""

    incarnation: str
    pid: int
    status: int


_decode_command: Final = msgspec.msgpack.Decoder(Spawn | Kill).decode
_decode_answer: Final = msgspec.msgpack.Decoder(Forked | Exited).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class TemplateOwner(Protocol):
    """Who hears what becomes of the workers."""

    def on_forked(self, incarnation: str, pid: int) -> None:
        """The worker runs."""

    def on_exited(self, incarnation: str, pid: int, status: int) -> None:
        """The worker ended and was reaped."""

    def on_template_lost(self) -> None:
        """The template died: no worker can be forked any more."""


class Template:
    """Control's end of the template process."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.pid = pid
        self._sock = sock
        self._owner: TemplateOwner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent: list[tuple[bytes, list[int]]] = []

    @classmethod
    def start(cls, entry: Entry) -> "Template":
        """Fork the template, which runs `entry` in each worker. Call it before any loop or thread exists."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gc.collect()
        gc.freeze()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _run_to_exit(lambda: _serve(theirs, entry))
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    def attach(self, owner: TemplateOwner) -> None:
        """Report to `owner` from the running loop on."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def spawn(self, worker: Spawn, link: socket.socket, listeners: Sequence[socket.socket]) -> None:
        """Fork `worker` with copies of its sockets; `Forked` follows."""
        self._send(worker, [link.fileno(), *(sock.fileno() for sock in listeners)])

    def kill(self, incarnation: str, number: int = signal.SIGKILL) -> None:
        """Signal a worker that this template forked; nothing happens if it is gone."""
        self._send(Kill(incarnation, number), [])

    def close(self) -> None:
        """Let the template end; its workers, if any are left, live on."""
        if self._sock.fileno() < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._unsent:
            close_all(fds)
        self._unsent.clear()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _send(self, command: Spawn | Kill, fds: list[int]) -> None:
        if self._sock.fileno() < 0:
            return
        self._unsent.append((_encode(command), [os.dup(fd) for fd in fds]))
        self._flush()

    def _flush(self) -> None:
        loop = self._loop
        assert loop is not None, "attach first"
        while self._unsent:
            packet, fds = self._unsent[0]
            try:
                send_with_fds(self._sock, packet, fds)
            except BlockingIOError:
                loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self._lose()
                return
            close_all(fds)
            del self._unsent[0]
        loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        try:
            packet, fds = recv_with_fds(self._sock, PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        close_all(fds)
        if not packet:
            self._lose()
            return
        assert self._owner is not None
        answer = _decode_answer(packet)
        if isinstance(answer, Forked):
            self._owner.on_forked(answer.incarnation, answer.pid)
        else:
            self._owner.on_exited(answer.incarnation, answer.pid, answer.status)

    def _lose(self) -> None:
        self.close()
        if self._owner is not None:
            self._owner.on_template_lost()


def name_process(name: str) -> None:
    """Show this process as `name` (15 characters) in `ps -o comm` and `top`."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


# -- in the template process


def _run_to_exit(run: Callable[[], int]) -> NoReturn:
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


def _serve(sock: socket.socket, entry: Entry) -> int:
    """Fork and reap workers until control is gone."""
    # Whatever control had open (activated sockets, an upgrade's pipe) would live on in every worker.
    os.closerange(3, sock.fileno())
    os.closerange(sock.fileno() + 1, MAX_FD)
    name_process("gateway-fork")
    # An interrupt at the terminal goes to the whole process group; only control acts on it, and drains.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    incarnations: dict[int, str] = {}
    while True:
        readable, _, _ = select.select([sock.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(sock, incarnations)
        if sock.fileno() in readable and not _obey(sock, entry, incarnations, [woken, waker]):
            return 0


def _reap(sock: socket.socket, incarnations: dict[int, str]) -> None:
    while incarnations:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        answer = Exited(incarnations.pop(pid, ""), pid, os.waitstatus_to_exitcode(status))
        with suppress(OSError):
            sock.send(_encode(answer))


def _obey(sock: socket.socket, entry: Entry, incarnations: dict[int, str], private: list[int]) -> bool:
    """Carry out one command. False: control is gone."""
    try:
        packet, fds = recv_with_fds(sock, PACKET_BYTES)
    except LinkError:
        return True  # no descriptors left: control gives up a worker it hears nothing of
    except OSError:
        return False
    if not packet:
        return False
    command = _decode_command(packet)
    if isinstance(command, Kill):
        for pid, incarnation in incarnations.items():
            if incarnation == command.incarnation:
                os.kill(pid, command.signal)
        return True
    answer = _fork(command, fds, entry, [sock.fileno(), *private])
    close_all(fds)
    if isinstance(answer, Forked):
        incarnations[answer.pid] = command.incarnation
    with suppress(OSError):
        sock.send(_encode(answer))
    return True


def _fork(order: Spawn, fds: list[int], entry: Entry, private: list[int]) -> Forked | Exited:
    """Fork a worker with `fds`, without what is `private` to the template; too many processes: it has
    ended.
    """
    try:
        pid = os.fork()
    except OSError:
        return Exited(order.incarnation, 0, 1)
    if pid:
        return Forked(order.incarnation, pid)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    close_all(private)
    name_process(f"gateway-{order.slot}")
    link, *listeners = [socket.socket(fileno=fd) for fd in fds]
    _run_to_exit(lambda: entry(order, link, listeners))
