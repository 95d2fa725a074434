"""The gateway as the simulation runs it: real controls and workers, in simulated processes.

Only three things stand in for the real ones: what forks (the template's process and its twin), the new
program of an upgrade, and the service manager that starts a dead control again.
"""

import asyncio
import contextlib
import functools
import os
import shutil
import socket as real
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiosqlite
import structlog

from gateway import config
from gateway.admin import server as admin
from gateway.control.processes import template as templates
from gateway.control.processes import template_process as orders
from gateway.control.processes import upgrade as upgrades
from gateway.control.processes.conversation import ENVIRONMENT
from gateway.control.processes.succession import Succession
from gateway.core.judge import ask
from gateway.link.fds import close_all, recv_with_fds, send_with_fds
from gateway.link.spawn import Spawn
from gateway.serve import process as processes
from gateway.store import log_sync
from gateway.worker import main as workers
from tests.simulation import disk, machine, network
from tests.simulation.machine import Machine, Process

LISTEN: Final = ("10.0.0.1", 4200)
ADMIN: Final = ("127.0.0.1", 4201)
HOOK: Final = ("10.8.0.1", 80)
ROOT: Final = Path("/dev/shm")
BLOCKS_S: Final = 60.0
"""How long an ask by blocks may go on: a quarter of an hour in the real one."""

CONFIG: Final = """
workers = {workers}
[listen]
address = "10.0.0.1:4200"
[admin]
address = "127.0.0.1:4201"
[store]
url = "sqlite:///gateway.db"
[shutdown]
drain = 3000
orphan_timeout = 60000
[rate_limit]
starts_per_minute = 100000
changes_per_minute = 100000
[[service]]
name = "shop"
routes = [{{ path = "/" }}]
health = {{ path = "/health", interval = 2000, timeout = 1000, retries = 0 }}
timeouts = {{ connect = 500, response_header = 2000 }}
breaker = {{ reset_timeout = 2000 }}
{sticky}
[[service.webhooks]]
url = "http://10.8.0.1:80/news"
timeout = 1000
{questions}
[[service.version]]
version = "v1"
url = "{url}"
weight = 100
"""
STICKY: Final = 'sticky = { by = "header:X-User" }'
QUESTIONS: Final = """
[[service.webhooks]]
url = "http://10.8.0.1:80/questions"
on = ["confirm-start", "confirm-promote", "on-rollback"]
on_timeout = "allow"
timeout = 1000
"""


class Counters:
    """`SharedCounters`: what the workers of a control count their progress in."""

    def __init__(self) -> None:
        self.cells: dict[int, Process] = {}

    def read(self, cell: int) -> int:
        worker = self.cells.get(cell)
        return worker.progress if worker is not None else 0


class Pidfd(network.Thing):
    """What `pidfd_open` returns: readable once the process has ended."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process
        process.on_death.append(self.changed)

    @property
    def is_readable(self) -> bool:
        return self.process.is_dead


class Forking:
    """A template's process, or its twin's: what `template_process` does, with simulated processes to fork."""

    def __init__(self, system: "System", end: Any, counters: Counters, parent: int) -> None:
        """end: where orders come from."""
        self._system = system
        self._counters = counters
        self.process = system.machine.process("template", parent=parent)
        self._fd = system.machine.open(end, self.process)
        self._workers: dict[str, Process] = {}
        """By incarnation."""
        delay_s = 0.001 + 0.01 * system.machine.chance.random()
        system.machine.loop.after(delay_s, lambda: system.machine.loop.enqueue(self.process, self._serve))

    def _serve(self) -> None:
        self._sock = network.Socket(real.AF_UNIX, real.SOCK_SEQPACKET, fileno=self._fd)
        self._system.machine.loop.add_reader(self._fd, self._obey)
        self._answer(orders.Serving(self.process.pid))

    def _obey(self) -> None:
        try:
            packet, fds = recv_with_fds(self._sock, orders.PACKET_BYTES)  # type: ignore[arg-type]
        except OSError:
            packet, fds = b"", []
        if not packet:  # control is gone
            self.process.exit_code = 0
            self._system.machine.loop.remove_reader(self._fd)
            self._system.kill_soon(self.process)
            return
        match orders._decode_command(packet):
            case orders.Kill(incarnation, _):
                self._system.kill_soon(self._workers.get(incarnation))
            case orders.Spare():
                end = self._system.machine.thing(fds[0])
                Forking(self._system, end, self._counters, self.process.pid)
            case Spawn() as order:
                self._fork(order, fds)
        close_all(fds)

    def _fork(self, order: Spawn, fds: list[int]) -> None:
        system, loop = self._system, self._system.machine.loop
        worker = system.machine.process(f"worker{order.slot}", parent=self.process.pid)
        theirs = [system.machine.open(system.machine.thing(fd), worker) for fd in fds]
        self._workers[order.incarnation] = worker
        self._counters.cells[order.progress_cell] = worker
        system.workers[worker.pid] = worker

        def died() -> None:
            status = worker.exit_code if worker.exit_code is not None else -9
            if status:
                system.on_worker_death(worker)
            loop.after(0.001, lambda: loop.enqueue(self.process, ended, status))

        def ended(status: int) -> None:
            if self._workers.pop(order.incarnation, None) is not None:
                self._answer(orders.Exited(order.incarnation, worker.pid, status))

        worker.on_death.append(died)
        self._answer(orders.Forked(order.incarnation, worker.pid), system.machine.open(Pidfd(worker)))
        delay_s = 0.001 + 0.01 * system.machine.chance.random()
        loop.after(delay_s, lambda: loop.enqueue(worker, system.run_worker, worker, order, theirs))

    def _answer(self, answer: orders.Answer, pidfd: int | None = None) -> None:
        fds = [] if pidfd is None else [pidfd]
        with contextlib.suppress(OSError):
            send_with_fds(self._sock, orders.encode(answer), fds)  # type: ignore[arg-type]
        close_all(fds)


class Program:
    """`subprocess.Popen` of a new control."""

    def __init__(self, system: "System", fd: int) -> None:
        self.returncode: int | None = None
        self._process = system.start_control(fd=fd)
        self.pid = self._process.pid

    def kill(self) -> None:
        self._process.machine.loop.after(0.0, self._process.die)

    def wait(self, timeout: float | None = None) -> int:
        if not self._process.is_dead:
            self._process.die()
        return self._process.exit_code if self._process.exit_code is not None else -9


class System:
    """One gateway and its store."""

    def __init__(self, machine_: Machine, *, workers: int, url: str, is_sticky: bool, is_asked: bool) -> None:
        """is_sticky: users keep their version. is_asked: a webhook may say no."""
        self.machine = machine_
        self.folder = ROOT / f"simulation-{machine._real_pid()}"
        """The system works in it, and never says its name, which is another in each run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        os.chdir(self.folder)
        self.workers: dict[int, Process] = {}
        self.planes: dict[int, Any] = {}
        """The real workers, by pid."""
        self.controls: dict[int, Any] = {}
        """The real controls, by pid."""
        self.is_wanted = True
        """Whether a control that ends is started again."""
        self.restart_s: Callable[[], float] = lambda: 0.2
        self.on_worker_death: Callable[[Process], None] = lambda process: None
        path = self.folder / "gateway.toml"
        path.write_text(
            CONFIG.format(
                workers=workers,
                url=url,
                sticky=STICKY if is_sticky else "",
                questions=QUESTIONS if is_asked else "",
            ),
            "utf-8",
        )
        self._path = path

    def close(self) -> None:
        for process in self.machine.processes.values():
            process.die()
        os.chdir(ROOT)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def control(self) -> Any:
        """The control in charge, or the newest; None while there is none."""
        alive = [pid for pid in self.controls if not self.machine.processes[pid].is_dead]
        ready = [pid for pid in alive if self.controls[pid]._unready is None]
        return self.controls[max(ready or alive)] if alive else None

    def alive_workers(self) -> list[Process]:
        return [worker for worker in self.workers.values() if not worker.is_dead]

    def alive_templates(self) -> list[Process]:
        """Return templates and twins."""
        every = self.machine.processes.values()
        return [each for each in every if each.name == "template" and not each.is_dead]

    def alive_controls(self) -> list[Process]:
        return [
            self.machine.processes[pid] for pid in self.controls if not self.machine.processes[pid].is_dead
        ]

    # -- processes

    def start_control(self, fd: int | None = None) -> Process:
        """Start a control; fd: of the conversation with the one that starts it."""
        parent = machine.PROCESS.get()
        process = self.machine.process("control", parent=parent.pid if parent is not None else 1)
        succession: list[int] = []
        if fd is not None:
            succession.append(self.machine.open(self.machine.thing(fd), process))
        process.on_death.append(lambda: self._died(process))
        self.machine.note("starts", process)
        delay_s = 0.01 + 0.2 * self.machine.chance.random()
        self.machine.loop.after(
            delay_s, lambda: self.machine.loop.enqueue(process, self._run_control, process, succession)
        )
        return process

    def _died(self, process: Process) -> None:
        others = [
            each for each in self.machine.processes.values() if each.name == "control" and not each.is_dead
        ]
        if self.is_wanted and not others:
            self.machine.loop.after(self.restart_s(), self.ensure_control)

    def ensure_control(self) -> None:
        """Do what a service manager does."""
        others = [
            each for each in self.machine.processes.values() if each.name == "control" and not each.is_dead
        ]
        if self.is_wanted and not others:
            self.start_control()

    def _run_control(self, process: Process, succession: list[int]) -> None:
        self._spawn(process, self._control(process, succession), "control")

    async def _control(self, process: Process, fds: list[int]) -> int:
        """What `gateway.serve.main.main` does."""
        settings = config.load(str(self._path), environ={})
        found = Succession.from_environ({ENVIRONMENT: str(fds[0])}) if fds else None
        control = processes.Control(
            settings, lambda: config.load(str(self._path), environ={}), self._template(process)
        )
        self.controls[process.pid] = control
        control.listen_to_signals()
        try:
            await control.start(found)
        except BaseException as exc:
            self.machine.note("start_failed", process, repr(exc))
            if found is not None:
                found.failed(str(exc) or type(exc).__name__)
            await control.abandon()
            return 1
        return await control.serve()

    def _template(self, control: Process) -> templates.Template:
        """Do what `Template.start` does."""
        ours, theirs = network.socketpair(real.AF_UNIX, real.SOCK_SEQPACKET)
        counters = Counters()
        forking = Forking(self, self.machine.thing(theirs.fileno()), counters, control.pid)
        theirs.close()
        return templates.Template(ours, forking.process.pid, counters)  # type: ignore[arg-type]

    def kill_soon(self, process: Process | None) -> None:
        """A signal that ends it is on its way."""
        if process is not None:
            self.machine.loop.after(0.0, process.die)

    def run_worker(self, process: Process, order: Spawn, fds: list[int]) -> None:
        """What `gateway.worker.main.run_worker` does."""
        link, *listeners = (network.Socket(fileno=fd) for fd in fds)
        self._spawn(process, self._worker(process, order, link, listeners), "worker")

    async def _worker(self, process: Process, order: Spawn, link: Any, listeners: list[Any]) -> int:
        worker = workers.Worker(order, dict(zip(order.listeners, listeners, strict=True)))
        self.planes[process.pid] = worker
        worker.start(link)
        try:
            return await worker.done
        finally:
            worker.close()

    def _spawn(self, process: Process, work: Any, name: str) -> None:
        task = self.machine.loop.create_task(work, name=name)
        task.add_done_callback(lambda done: self._ended(process, done))

    def _ended(self, process: Process, task: asyncio.Task[int]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.machine.loop.call_exception_handler({"message": f"{process} broke", "exception": exc})
        process.exit_code = 0 if task.cancelled() or task.exception() is not None else task.result()
        self.machine.loop.after(0.0, process.die)


def install(system: "System") -> None:
    """Put the machine's disk, fork and exec in the real ones' place, and its trace in the log's."""
    aiosqlite.connect = disk.connect  # type: ignore[assignment]
    log_sync.fsync = disk.fsync  # type: ignore[misc]
    templates.send_signal = lambda pidfd, number: system.kill_soon(system.machine.thing(pidfd).process)
    upgrades.Upgrade._start = lambda self, theirs: _start(system, theirs)  # type: ignore[method-assign]
    upgrades._is_containers_own = lambda: False
    admin.Site = functools.cache(admin.Site)  # type: ignore[misc]  # the same files for each control
    ask.BLOCKS_S = BLOCKS_S  # type: ignore[misc]

    def note(logger: Any, method: str, event: dict[str, Any]) -> Any:
        process = machine.PROCESS.get()
        event.pop("exc_info", None)
        name = event.pop("event")
        event.pop("native", None)  # the same seed leaves the same trace, compiled or plain
        said = " ".join(f"{k}={v}" for k, v in sorted(event.items()))
        system.machine.note(f"{process} {method} {name}", said.replace(str(system.folder), "FOLDER"))
        raise structlog.DropEvent

    structlog.configure(
        processors=[note], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )


def _start(system: System, theirs: Any) -> Program:
    program = Program(system, theirs.fileno())
    theirs.close()
    return program
