"""Control's hold on the template process and its spare twin, which fork every worker.

The template is forked before any loop runs; the twin is forked from it as soon as one does, and takes over if
it dies: nothing is imported again, so releases never mix. A worker whose template died is watched by its
pidfd, and killed by it.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from gateway.control.processes.forker import Forker
from gateway.control.processes.pidfd import send_signal
from gateway.control.processes.template_process import (
    Answer,
    Entry,
    Exited,
    Forked,
    Kill,
    Serving,
    Spare,
    run_to_exit,
    serve,
)
from gateway.link.fds import close_all
from gateway.link.spawn import Spawn
from gateway.log import get_logger
from gateway.net.progress import SharedCounters

log = get_logger(component="template")

SPARE_AGAIN_S: Final = 1.0
"""After a twin died, before the next one is forked."""


class TemplateOwner(Protocol):
    """Who hears what becomes of the workers."""

    def on_forked(self, incarnation: str, pid: int) -> None:
        """The worker runs."""

    def on_exited(self, incarnation: str, pid: int, status: int | None) -> None:
        """The worker ended, or never came to be. status: None if nobody can know it any more."""

    def on_template_lost(self) -> None:
        """Template and twin died: no worker can be forked, or watched, any more."""


class _Forked:
    """A worker that runs, and the descriptor it is known by; None where the system has none."""

    def __init__(self, pid: int, pidfd: int | None, forker: Forker) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.forker = forker


class Template:
    """The template in use, its twin, and the workers they forked."""

    def __init__(self, sock: socket.socket, pid: int, counters: SharedCounters) -> None:
        self.pid = pid
        """Of the template in use."""
        self.counters = counters
        """What every worker counts its progress in."""
        self._first = sock, pid
        self._current: Forker | None = None
        self._spare: Forker | None = None
        self.spare_pid = 0
        """Of its twin; 0 until there is one."""
        self._owner: TemplateOwner | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._ordered: set[str] = set()
        """Incarnations that the template in use has not answered for."""
        self._workers: dict[str, _Forked] = {}
        """By incarnation."""
        self._is_closed = False

    @classmethod
    def start(cls, entry: Entry) -> "Template":
        """Fork the template, which runs `entry` in each worker. Call it before any loop or thread exists."""
        counters = SharedCounters()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gc.collect()
        gc.freeze()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            run_to_exit(lambda: serve(theirs, entry, counters))
        theirs.close()
        return cls(ours, pid, counters)

    def attach(self, owner: TemplateOwner) -> None:
        """Report to `owner` from the running loop on, and have the twin forked."""
        self._owner = owner
        self._current = Forker(self._first[0], self)
        self._order_spare()

    def spawn(self, order: Spawn, link: socket.socket, listeners: Sequence[socket.socket]) -> None:
        """Fork a worker with copies of its sockets. `on_forked` follows, or `on_exited`.

        Raises OSError when descriptors ran out.
        """
        assert self._current is not None, "attach first"
        self._current.send(order, [link.fileno(), *(sock.fileno() for sock in listeners)])
        self._ordered.add(order.incarnation)

    def kill(self, incarnation: str) -> None:
        """Kill a worker; nothing happens if it is gone."""
        worker = self._workers.get(incarnation)
        if worker is None:
            return
        if worker.pidfd is not None:
            send_signal(worker.pidfd, signal.SIGKILL)
        else:
            worker.forker.send(Kill(incarnation, signal.SIGKILL))

    def close(self) -> None:
        """Let template and twin end; workers, if any are left, go on."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        for forker in (self._current, self._spare):
            if forker is not None:
                forker.close()
        for incarnation in list(self._workers):
            self._forget(incarnation)
        sock, pid = self._first
        sock.close()
        _reap(pid)

    # -- ForkerOwner

    def on_answer(self, forker: Forker, answer: Answer, fds: list[int]) -> None:
        """Pass on what became of an order."""
        match answer:
            case Serving(pid) if forker is self._spare:
                self.spare_pid = pid
            case Forked(incarnation, pid):
                self._ordered.discard(incarnation)
                self._workers[incarnation] = _Forked(pid, fds.pop(0) if fds else None, forker)
                self._reports_to().on_forked(incarnation, pid)
            case Exited(incarnation, pid, status):
                self._end(incarnation, pid, status)
        close_all(fds)

    def on_forker_lost(self, forker: Forker) -> None:
        """The twin takes over; without one, this control can only make room for the next."""
        if forker is self._spare:
            self._spare = None
            self._retry = asyncio.get_running_loop().call_later(SPARE_AGAIN_S, self._order_spare)
            return
        _reap(self._first[1])
        widows = [name for name, worker in self._workers.items() if worker.forker is forker]
        has_twin = self._spare is not None and self.spare_pid  # it has said that it serves
        if not has_twin or any(self._workers[name].pidfd is None for name in widows):
            self._reports_to().on_template_lost()
            return
        log.error("template_lost", pid=self.pid, successor=self.spare_pid, workers=len(widows))
        self._current, self.pid, self._spare = self._spare, self.spare_pid, None
        for name in widows:
            self._watch(name)
        unanswered, self._ordered = self._ordered, set()
        for name in unanswered:
            self._reports_to().on_exited(name, 0, None)
        self._order_spare()

    # -- the twin

    def _order_spare(self) -> None:
        """Have a twin forked from the template in use. Without descriptors it is tried again."""
        self._retry = None
        if self._is_closed or self._spare is not None or self._current is None:
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._current.send(Spare(), [theirs.fileno()])
        except OSError as exc:
            log.error("spare_not_forked", reason=str(exc), next_in_s=SPARE_AGAIN_S)
            self._retry = asyncio.get_running_loop().call_later(SPARE_AGAIN_S, self._order_spare)
            return
        self._spare, self.spare_pid = Forker(ours, self), 0

    # -- workers

    def _watch(self, incarnation: str) -> None:
        """The template that would have reaped the worker is gone: its pidfd says when it ends."""
        worker = self._workers[incarnation]
        assert worker.pidfd is not None
        loop = asyncio.get_running_loop()
        loop.add_reader(worker.pidfd, lambda: self._end(incarnation, worker.pid, None))

    def _end(self, incarnation: str, pid: int, status: int | None) -> None:
        self._ordered.discard(incarnation)
        self._forget(incarnation)
        self._reports_to().on_exited(incarnation, pid, status)

    def _forget(self, incarnation: str) -> None:
        worker = self._workers.pop(incarnation, None)
        if worker is not None and worker.pidfd is not None:
            asyncio.get_running_loop().remove_reader(worker.pidfd)
            os.close(worker.pidfd)

    def _reports_to(self) -> TemplateOwner:
        assert self._owner is not None, "attach first"
        return self._owner


def _reap(pid: int) -> None:
    """Take the exit of a child that has ended, or is about to; a twin's parent is not this process."""
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
