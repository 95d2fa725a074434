"""An event loop on the machine's clock: time passes only when nobody has anything to do.

Each process has a queue of its own, run in order; between processes chance decides who goes next, as cores
do. What falls due moves the clock. The kernel's work (bytes that arrive) is in the same heap as timers.
"""

import asyncio
import contextvars
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.simulation import network, transport
from tests.simulation.machine import PROCESS, Machine, Process, running

MAX_AT_ONCE = 200_000
"""Callbacks at one instant: more is a loop that never ends."""

NOBODY: Final = object()
"""Whose turn it is when the kernel or the world does something."""


class Stuck(Exception):
    """Callbacks beget callbacks, and the clock does not move."""


class Task(asyncio.Task[Any]):
    """A task with a number: sets of tasks have the same order in every run."""

    def __init__(self, coro: Any, number: int, **more: Any) -> None:
        self.number = number  # first: asyncio keeps each task in a set from its beginning
        self.process = PROCESS.get()
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self.number


class Handle(events.Handle):
    """A callback. Asyncio's asks for the debug mode, and for the names of who might break."""

    def __init__(self, callback: Any, args: Any, loop: Any, context: Any) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._callback = callback
        self._args = args
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    __slots__ = ()


class Timer(events.TimerHandle):
    """A callback that waits for its time, as light."""

    def __init__(self, when: float, callback: Any, args: Any, context: Any) -> None:
        self._when = when
        self._context = contextvars.copy_context() if context is None else context
        self._callback = callback
        self._args = args
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None

    __slots__ = ()


class Loop(asyncio.AbstractEventLoop):
    """The only loop of a simulation, for all its processes."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.loop = self
        self._random = machine.chance.random
        self._queues: dict[Process | None, deque[events.Handle]] = {}
        self._ready: list[Process | None] = []
        """Whose queue is not empty."""
        self._heap: list[tuple[float, int, Any, Any]] = []
        self._count = 0
        self._tasks: dict[int, Task] = {}
        """Those that have not ended: nothing of a dead process is ever cleaned up."""
        self._watched: dict[tuple[Process | None, int, str], events.Handle] = {}
        self.failures: list[str] = []
        self.on_turn: Callable[[Process | None], None] | None = None
        """Called before each callback: the moment to kill somebody."""

    # -- time

    def time(self) -> float:
        return self.machine.now

    def run_until(self, when: float) -> None:
        """Let everything happen up to `when`."""
        events._set_running_loop(self)
        ready, heap, machine, turn = self._ready, self._heap, self.machine, self._turn
        pop = heapq.heappop
        at_once = 0
        try:
            while True:
                if ready:
                    at_once += 1
                    if at_once > MAX_AT_ONCE:
                        raise Stuck(f"at {machine.now}")
                    turn()
                elif heap and heap[0][0] <= when:
                    at_once = 0
                    due, _, process, what = pop(heap)
                    if due > machine.now:
                        machine.now = due
                    if process is NOBODY:
                        what()
                    elif not what._cancelled:
                        self._append(process, what)
                else:
                    machine.now = max(machine.now, when)
                    return
        finally:
            events._set_running_loop(None)

    def _turn(self) -> None:
        """Run one callback of one process."""
        ready = self._ready
        count = len(ready)
        chosen = int(self._random() * count) if count > 1 else 0
        process = ready[chosen]
        if self.on_turn is not None:
            self.on_turn(process)
        queue = self._queues.get(process)
        if not queue:
            return  # it has just been killed
        if process is not None and process.stopped_until > self.machine.now:
            del ready[chosen]
            self.at(process.stopped_until, lambda: self._wake(process))
            return
        handle = queue.popleft()
        if not queue:
            del ready[chosen]
        if handle._cancelled:
            return
        try:
            handle._context.run(handle._callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # as asyncio's own handles do
            handle._context.run(self._broke, handle._callback, exc)

    def _broke(self, callback: Any, exc: BaseException) -> None:
        self.call_exception_handler({"message": f"Exception in callback {callback}", "exception": exc})

    def _wake(self, process: Process) -> None:
        if self._queues.get(process) and process not in self._ready:
            self._ready.append(process)

    def at(self, when: float, what: Callable[[], object]) -> None:
        """Have the kernel, or the world, do something at a time."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, NOBODY, what))

    def after(self, delay_s: float, what: Callable[[], object]) -> None:
        self.at(self.machine.now + delay_s, what)

    # -- processes

    def enqueue(self, process: Process | None, callback: Callable[..., object], *args: Any) -> None:
        """Let a process run `callback` when its turn comes."""
        context = process.context if process is not None else None
        self._append(process, Handle(callback, args, self, context))

    def _append(self, process: Process | None, handle: events.Handle) -> None:
        queue = self._queues.get(process)
        if queue:
            queue.append(handle)
            return
        if process is not None and process.is_dead:
            return
        if queue is None:
            queue = self._queues[process] = deque()
        if process is None or process.stopped_until <= self.machine.now:
            self._ready.append(process)
        else:
            self.at(process.stopped_until, lambda: self._wake(process))
        queue.append(handle)

    def forget(self, process: Process) -> None:
        """A process is dead: what it was about to do never happens."""
        self._queues.pop(process, None)
        if process in self._ready:
            self._ready.remove(process)
        for key in [key for key in self._watched if key[0] is process]:
            del self._watched[key]

    # -- what asyncio asks for

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> events.Handle:
        handle = Handle(callback, args, self, context)
        self._append(PROCESS.get() if context is None else context.get(PROCESS), handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        return self.call_at(self.machine.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> events.TimerHandle:
        timer = Timer(when, callback, args, context)
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is None or not process.is_dead:
            self._count += 1
            heapq.heappush(self._heap, (when, self._count, process, timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Task:
        self._count += 1
        task = Task(coro, self._count, loop=self, name=name, context=context)
        self._tasks[task.number] = task
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: Any) -> None:
        self._tasks.pop(task.number, None)

    def tasks_of(self, process: Process | None) -> list[Task]:
        return [task for task in self._tasks.values() if task.process is process]

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        process = PROCESS.get()
        if process is None or not process.is_dead:
            exc = context.get("exception")
            if exc is not None:
                import traceback

                self.failures.append(
                    f"{context.get('message')}: {exc!r}\n{''.join(traceback.format_exception(exc))}"
                )
            else:
                self.failures.append(str(context.get("message")))

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Let a moment pass, and do it here."""
        future = self.create_future()

        def run() -> None:
            if future.done():
                return
            try:
                future.set_result(func(*args))
            except Exception as exc:
                future.set_exception(exc)

        self.call_later(0.001, run)
        return future

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        running().signals[int(sig)] = lambda: callback(*args)

    # -- descriptors

    def add_reader(self, fd: int, callback: Any, *args: Any) -> None:
        self._watch(fd, "r", callback, args)

    def add_writer(self, fd: int, callback: Any, *args: Any) -> None:
        self._watch(fd, "w", callback, args)

    def remove_reader(self, fd: int) -> bool:
        return self._watched.pop((PROCESS.get(), fd, "r"), None) is not None

    def remove_writer(self, fd: int) -> bool:
        return self._watched.pop((PROCESS.get(), fd, "w"), None) is not None

    def unwatch(self, process: Process, fd: int) -> None:
        self._watched.pop((process, fd, "r"), None)
        self._watched.pop((process, fd, "w"), None)

    def _watch(self, fd: int, kind: str, callback: Any, args: Any) -> None:
        process = running()
        thing = self.machine.thing(fd)
        key = (process, fd, kind)

        pending = False

        def is_ready() -> bool:
            return bool(thing.is_readable if kind == "r" else thing.is_writable)

        def ready() -> None:
            nonlocal pending
            pending = False
            if self._watched.get(key) is handle and is_ready():
                callback(*args)
                look()

        def look() -> None:
            """Level-triggered: as long as it is ready, again in the next round."""
            nonlocal pending
            if not pending and self._watched.get(key) is handle and is_ready():
                pending = True
                self.enqueue(process, ready)

        handle = Handle(ready, (), self, process.context)
        self._watched[key] = handle
        thing.watch(process, fd, kind, look)
        look()

    # -- connections

    async def getaddrinfo(self, host: Any, port: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(self.machine.chance.random() * 0.005)
        return network.lookup(self.machine, host, port)

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **kwargs: Any) -> Any:
        return await transport.connect(self, factory, host, port)

    async def create_unix_connection(self, factory: Any, path: Any = None, **kwargs: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory")

    async def connect_accepted_socket(self, factory: Any, sock: Any, **kwargs: Any) -> Any:
        protocol = factory()
        return transport.Transport(self, sock, protocol), protocol
