"""Keeps N workers running, one a slot, and every listening socket accepted on.

A worker is forked idle, gets a table, and accepts once it has acknowledged one. A dead one is replaced at
once on the same sockets; one that hangs is killed first. A slot whose workers keep dying backs off, but only
while another worker serves: its sockets are lent to a healthy one meanwhile. Workers of another control
(orphans) come in by HELLO: their sockets are adopted, and they drain once ours accept.

Order of calls: build with the template and the hub (its listener open) → `await gather_orphans` →
`listeners.bind()` → `start()` → `await ready()` → `open()`; at the end `await stop()`, or `release()` to
a successor.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.control.processes.hub import Hub
from gateway.control.processes.listeners import Listeners, names_of
from gateway.control.processes.orphans import Orphans
from gateway.control.processes.peer import Peer
from gateway.control.processes.placement import Placement
from gateway.control.processes.slots import TICK_S, Backoff, Worker
from gateway.control.processes.template import Template
from gateway.errors import GatewayError
from gateway.link.fds import close_all
from gateway.link.messages import Hello, Leaving
from gateway.link.spawn import Spawn
from gateway.log import get_logger
from gateway.net.progress import CELLS

log = get_logger(component="supervisor")

FORK_RETRY_S: Final = 10.0
"""After a worker could not even be ordered: descriptors ran out."""
ALONE_S: Final = 0.1
"""The longest pause while no worker serves: somebody must listen, yet a crash loop not take the whole CPU."""
HANDSHAKES_S: Final = 0.25
"""For clients whose connection is under way when the gateway stops: a round trip."""
GRACE_S: Final = 3.0
"""Beyond a drain's deadline, before a worker is killed."""
UNREAD_S: Final = 1.0
"""How long a dead worker's new link may wait to be read, if its last one was cut."""


class Supervisor:
    """The workers of this control process, and those it inherited."""

    def __init__(
        self,
        *,
        template: Template,
        hub: Hub,
        listeners: Listeners,
        link_path: Path,
        drain_s: float = 30.0,
        orphan_timeout_s: float = 3600.0,
        leftovers: Sequence[Path] = (),
        release: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.template = template
        self.hub = hub
        self.listeners = listeners
        self.link_path = link_path
        self.drain_s = drain_s
        self.orphan_timeout_s = orphan_timeout_s
        self.leftovers = (link_path, *leftovers)
        """What is to be removed when control and its orphans have ended, and nobody has followed."""
        self.release_name = release
        self.restarts: dict[str, int] = {"exited": 0, "killed": 0, "hung": 0}
        """Workers lost, by how: totals for the metrics."""
        self.on_ended: Callable[[str], None] = lambda incarnation: None
        """A worker's process is gone for good, and all it ever said has been heard."""
        self.on_absent: Callable[[str], None] = lambda incarnation: None
        """A worker's link ended; it may still run, and come back."""
        self.on_template_gone: Callable[[], None] = lambda: None
        """No worker can be replaced any more: time for a new control."""
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        """By incarnation: every one of ours that has not exited."""
        self._current: dict[int, str] = {}
        """Slot -> the incarnation that is its worker now; leavers are not."""
        self._last_words: set[str] = set()  # who has exited; what they said last may wait in their links
        self._orphans = Orphans(listeners, drain_s)
        self._placement = Placement(listeners, hub)
        self._backoffs = [Backoff() for _ in range(listeners.slots)]
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        """By slot: what forks its next worker, after a pause."""
        self._tick: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._is_open = self._is_stopping = False
        template.attach(self)
        hub.events.is_genuine = self._is_genuine
        hub.events.hello = self._on_hello
        hub.events.ack = self._on_ack
        hub.events.leaving = self._on_leaving
        hub.events.lost = self._on_lost

    # -- starting

    async def gather_orphans(self, *, expected: bool) -> None:
        """See `Orphans.gather`."""
        await self._orphans.gather(expected=expected)

    def start(self) -> None:
        """Fork a worker for every slot. They get their table, and stay idle until `open`."""
        for slot in range(self.listeners.slots):
            self._spawn(slot)
        self._tick = asyncio.get_running_loop().call_later(TICK_S, self._on_tick)

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every slot's worker has a table. Raises GatewayError if that takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: len(self._ready()) == self.listeners.slots)
        except TimeoutError:
            raise GatewayError(f"the workers are not ready after {timeout_s:g} s") from None

    def open(self) -> None:
        """Let the workers accept; whoever accepted before them drains."""
        self._is_open = True
        self._arrange()
        self._orphans.drain()

    def ready_slots(self) -> list[int]:
        """Return the slots whose own worker serves, or could."""
        return sorted(worker.slot for worker in self._ready())

    # -- stopping

    async def stop(self, deadline_s: float) -> None:
        """Stop accepting, let the workers finish for up to `deadline_s` seconds, and end them all."""
        self._begin_stop()
        if self.listeners.stop_handshakes():
            await asyncio.sleep(HANDSHAKES_S)
        self.listeners.close()
        for peer in list(self.hub.peers.values()):
            peer.drain(deadline_s)
        try:
            async with asyncio.timeout(deadline_s + GRACE_S):
                await self._until(self._is_empty)
        except TimeoutError:
            log.warning("workers_outlived_their_drain", slots=sorted(w.slot for w in self._workers.values()))
        await self.quit()

    async def quit(self) -> None:
        """End every worker now; returns when they are gone. Orphans serve on if ours never took over."""
        self._begin_stop()
        if not self._is_open:
            self._orphans.clear()
        for peer in list(self.hub.peers.values()):
            if self._is_open or peer.incarnation in self._workers:
                peer.quit()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._until(self._is_empty)
        for worker in self._workers.values():
            self.template.kill(worker.incarnation)
        self._orphans.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._until(self._is_empty)
        self.release()

    def release(self) -> None:
        """Give everything up without touching a worker: they are another control's from now on."""
        self._begin_stop()
        self.template.close()
        self.hub.close()
        self.listeners.close()

    def _begin_stop(self) -> None:
        self._is_stopping = True
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        if self._tick is not None:
            self._tick.cancel()

    def _is_empty(self) -> bool:
        return not self._workers and not len(self._orphans)

    # -- one worker

    def _spawn(self, slot: int) -> None:
        if self._is_stopping:
            return
        try:
            self._fork(slot)
        except OSError as exc:
            delay_s = self._pause_s(FORK_RETRY_S)
            log.error("worker_not_forked", slot=slot, reason=str(exc), next_in_s=delay_s)
            self._later(delay_s, slot)

    def _fork(self, slot: int) -> None:
        """Have a worker forked, and its link with it. Raises OSError when descriptors ran out."""
        held = self.listeners.of_slot(slot)
        worker = Worker(slot, self._clock(), names_of(held), self._free_cell())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                self.template.spawn(self._order(worker), theirs, [one.sock for one in held])
            except OSError:
                ours.close()
                raise
        self.hub.add(ours, 0)
        self._workers[worker.incarnation] = worker
        self._current[slot] = worker.incarnation

    def _order(self, worker: Worker) -> Spawn:
        return Spawn(
            slot=worker.slot,
            incarnation=worker.incarnation,
            link_path=str(self.link_path),
            listens=self.listeners.listens,
            listeners=worker.born_with,
            orphan_timeout_s=self.orphan_timeout_s,
            leftovers=tuple(str(path) for path in self.leftovers),
            drain_s=self.drain_s,
            release=self.release_name,
            progress_cell=worker.cell,
        )

    def _free_cell(self) -> int:
        """Return a progress counter no other worker raises; the last is shared if there are too many."""
        taken = {worker.cell for worker in self._workers.values()}
        return next((cell for cell in range(CELLS) if cell not in taken), CELLS - 1)

    def _ready(self) -> list[Worker]:
        """Return the workers that serve, or could, and whose link stands."""
        chosen = [self._workers[incarnation] for incarnation in self._current.values()]
        return [worker for worker in chosen if worker.is_ready and worker.is_heard and not worker.is_doomed]

    def _vacate(self, worker: Worker) -> None:
        """The worker leaves by itself: its slot gets another, while it finishes."""
        if self._is_stopping or self._current.get(worker.slot) != worker.incarnation:
            return
        del self._current[worker.slot]
        self._placement.drop(worker.incarnation)
        log.info("worker_leaving", slot=worker.slot, pid=worker.pid)
        self._spawn(worker.slot)
        self._arrange()

    def _lose(self, worker: Worker, status: int | None) -> None:
        """A worker's process ended; status: None if its template died before it."""
        self._placement.drop(worker.incarnation)
        self._last_words.add(worker.incarnation)
        if not worker.is_heard:  # but may have come back, and not been read yet
            asyncio.get_running_loop().call_later(UNREAD_S, self._end_unheard, worker.incarnation)
        if self._current.get(worker.slot) != worker.incarnation:
            return
        del self._current[worker.slot]
        if self._is_stopping:
            return
        how = "hung" if worker.is_doomed else "killed" if status is None or status < 0 else "exited"
        self.restarts[how] += 1
        lived_s = self._clock() - worker.started_at
        delay_s = self._pause_s(self._backoffs[worker.slot].after(lived_s))
        log.error(
            "worker_lost",
            slot=worker.slot,
            pid=worker.pid,
            how=how,
            status=status,
            lived_s=round(lived_s, 3),
            next_in_s=delay_s,
        )
        self._arrange()
        if delay_s:
            self._later(delay_s, worker.slot)
        else:
            self._spawn(worker.slot)
        if not self._ready():
            self._hurry()

    def _end_unheard(self, incarnation: str) -> None:
        if incarnation not in self._orphans:
            self._end(incarnation)

    def _end(self, incarnation: str) -> None:
        """Nothing more comes from it; if its process has exited, it is over."""
        if incarnation in self._last_words:
            self._last_words.discard(incarnation)
            self.on_ended(incarnation)

    def _pause_s(self, wanted_s: float) -> float:
        """Return how long a slot may wait for its next worker: hardly, while nobody serves its sockets."""
        return wanted_s if self._ready() else min(wanted_s, ALONE_S)

    def _hurry(self) -> None:
        """Nobody serves: what backs off does so no longer."""
        for slot, timer in list(self._waiting.items()):
            timer.cancel()
            self._later(ALONE_S, slot)

    def _later(self, delay_s: float, slot: int) -> None:
        def run() -> None:
            del self._waiting[slot]
            self._spawn(slot)

        self._waiting[slot] = asyncio.get_running_loop().call_later(delay_s, run)

    def _arrange(self) -> None:
        """Have every socket accepted on, once workers may accept at all."""
        if self._is_open and not self._is_stopping:
            self._placement.arrange({worker.slot: worker for worker in self._ready()})

    # -- the link's events

    def _is_genuine(self, peer: Peer, hello: Hello) -> bool:
        """Whether a HELLO in the name of one of our workers comes from its process."""
        worker = self._workers.get(hello.incarnation)
        return worker is None or not peer.is_proven or worker.pid == peer.pid

    def _on_hello(self, peer: Peer, hello: Hello, fds: list[int]) -> None:
        worker = self._workers.get(hello.incarnation)
        if worker is not None:
            close_all(fds)
            worker.peer = peer
            peer.pid = worker.pid or peer.pid
            if hello.draining:
                self._vacate(worker)
            self._arrange()
            return
        self._orphans.adopt(peer, hello, fds)
        if self._is_open:
            self._arrange()
            self._orphans.drain()

    def _on_ack(self, peer: Peer) -> None:
        worker = self._workers.get(peer.incarnation)
        if worker is None or worker.is_ready or not peer.applied:
            return
        worker.is_ready = True
        self._arrange()
        self._changed.set()

    def _on_leaving(self, peer: Peer, leaving: Leaving) -> None:
        if leaving.forced:
            log.warning("drain_cut_exchanges", slot=peer.slot, pid=peer.pid, forced=leaving.forced)
        worker = self._workers.get(peer.incarnation)
        if worker is not None:
            self._vacate(worker)

    def _on_lost(self, peer: Peer, reason: str) -> None:
        self.on_absent(peer.incarnation)
        self._end(peer.incarnation)
        self._orphans.lost(peer, reason)
        self._placement.drop(peer.incarnation)
        self._arrange()
        self._changed.set()

    # -- the template's events

    def on_forked(self, incarnation: str, pid: int) -> None:
        """The worker runs."""
        worker = self._workers.get(incarnation)
        if worker is None:
            self.template.kill(incarnation)  # too late: its slot has another
            return
        worker.pid = pid
        if worker.peer is not None:
            worker.peer.pid = pid
        log.info("worker_started", slot=worker.slot, pid=pid)

    def on_exited(self, incarnation: str, pid: int, status: int | None) -> None:
        """The worker ended, or never came to be. Its last words may still wait in the link."""
        worker = self._workers.pop(incarnation, None)
        if worker is not None:
            self._lose(worker, status)
        self._changed.set()

    def on_template_lost(self) -> None:
        """Template and twin died."""
        if not self._is_stopping:
            log.error("templates_lost", workers=len(self._workers))
            self.on_template_gone()

    # -- time

    def _on_tick(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(TICK_S, self._on_tick)
        for worker in list(self._workers.values()):
            peer = worker.peer
            heard_at = peer.heard_at if peer is not None else worker.started_at
            worker.watch.tick(heard_at, self.template.counters.read(worker.cell))
            if not worker.is_doomed and worker.watch.is_hung(has_spoken=peer is not None):
                self._give_up(worker)

    def _give_up(self, worker: Worker) -> None:
        """The worker is hung, or never came to be."""
        worker.is_doomed = True
        log.error(
            "worker_hung",
            slot=worker.slot,
            pid=worker.pid,
            silent_s=worker.watch.silent_s,
            stalled_s=worker.watch.stalled_s,
        )
        self.template.kill(worker.incarnation)
        if not worker.pid:
            self.on_exited(worker.incarnation, 0, 1)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()
