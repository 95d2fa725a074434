"""The gateway as the simulation runs it: real controls and workers, in simulated processes.

Only three things stand in for the real ones: the template (it forks, which a simulated process cannot), the
new program of an upgrade, and the service manager that starts a dead control again.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiosqlite
import structlog

from gateway import config
from gateway.control.processes import template as templates
from gateway.control.processes import upgrade as upgrades
from gateway.control.processes.conversation import ENVIRONMENT
from gateway.control.processes.succession import Succession
from gateway.link.spawn import Spawn
from gateway.serve import process as processes
from gateway.store import log_sync
from gateway.worker import main as workers
from tests.simulation import disk, machine, network
from tests.simulation.machine import Machine, Process

LISTEN: Final = ("10.0.0.1", 4200)
ADMIN: Final = ("127.0.0.1", 4201)
ROOT: Final = Path("/dev/shm")

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
[[service.version]]
version = "v1"
url = "{url}"
weight = 100
"""


class Template:
    """Forks workers: makes a process and lets it run the real worker."""

    def __init__(self, system: "System", process: Process) -> None:
        self.pid, self.spare_pid = system.machine.next_pid(), system.machine.next_pid()
        self.counters = self
        self._system = system
        self._process = process
        self._owner: Any = None
        self._workers: dict[str, Process] = {}
        self._cells: dict[int, Process] = {}

    def attach(self, owner: Any) -> None:
        self._owner = owner

    def read(self, cell: int) -> int:
        """`SharedCounters.read`."""
        worker = self._cells.get(cell)
        return int(worker.counter[0]) if worker is not None else 0

    def spawn(self, order: Spawn, link: Any, listeners: Sequence[Any]) -> None:
        machine_, loop = self._system.machine, self._system.machine.loop
        worker = machine_.process(f"worker{order.slot}", parent=self.pid)
        fds = [machine_.open(sock._thing(), worker) for sock in (link, *listeners)]
        self._workers[order.incarnation] = worker
        self._cells[order.progress_cell] = worker
        self._system.workers[worker.pid] = worker

        def report() -> None:
            if not worker.is_dead:
                self._owner.on_forked(order.incarnation, worker.pid)

        def died() -> None:
            status = worker.exit_code if worker.exit_code is not None else -9
            if status:
                self._system.on_worker_death(worker)
            loop.after(0.001, lambda: loop.enqueue(self._process, ended, status))

        def ended(status: int) -> None:
            self._workers.pop(order.incarnation, None)
            self._owner.on_exited(order.incarnation, worker.pid, status)

        worker.on_death.append(died)
        delay_s = 0.001 + 0.01 * machine_.chance.random()
        loop.after(delay_s, lambda: loop.enqueue(self._process, report))
        loop.after(delay_s, lambda: loop.enqueue(worker, self._system.run_worker, worker, order, fds))

    def kill(self, incarnation: str) -> None:
        worker = self._workers.get(incarnation)
        if worker is not None:
            worker.machine.loop.after(0.0, worker.die)

    def close(self) -> None:
        """Workers go on."""


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

    def __init__(self, machine_: Machine, *, workers: int, url: str) -> None:
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
        path.write_text(CONFIG.format(workers=workers, url=url), "utf-8")
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
        """What `gateway.serve.process.main` does."""
        settings = config.load(str(self._path), environ={})
        found = Succession.from_environ({ENVIRONMENT: str(fds[0])}) if fds else None
        control = processes.Control(
            settings, lambda: config.load(str(self._path), environ={}), Template(self, process)
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
    templates.Template = Template  # type: ignore[assignment,misc]
    upgrades.Upgrade._start = lambda self, theirs: _start(system, theirs)  # type: ignore[method-assign]
    upgrades._is_containers_own = lambda: False

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
