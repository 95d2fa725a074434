"""One worker process: its sockets, its table, its link to control, from the fork to the last byte.

It is forked idle. It serves by the newest snapshot, counts, and does what control says; without control
it goes on by itself: its table stays, the link is tried again, and after the orphan timeout it drains and
leaves.
"""

import asyncio
import gc
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from gateway.errors import BadRequest, ConfigError, LinkError
from gateway.http1.message import final_answer
from gateway.link.fds import MAX_FDS, close_all
from gateway.link.messages import (
    PROTOCOL,
    Accept,
    Ack,
    Down,
    Drain,
    DrainEndpoints,
    Hello,
    InTouch,
    Leaving,
    Lend,
    ListenerName,
    Marks,
    Quit,
    Reclaim,
    ReopenLogs,
)
from gateway.link.snapshot import ProxySettings, Snapshot
from gateway.link.spawn import Spawn
from gateway.log import get_logger
from gateway.net.listener import Listener, connections_within, raise_descriptor_limit
from gateway.net.progress import PROGRESS
from gateway.net.tls import Certificate, ServerTls
from gateway.worker.isolation import Isolation
from gateway.worker.plane import Plane
from gateway.worker.reporter import Reporter
from gateway.worker.uplink import Uplink

log = get_logger(component="worker")

FLUSH_S: Final = 1.0
"""How long a leaving worker gives control to take its last counts."""
GC_THRESHOLD: Final = (50_000, 20, 100)
"""Requests make few cycles: a collection every 50,000 net allocations keeps memory flat and the tail
clean.
"""


def run_worker(order: Spawn, link: socket.socket, listeners: list[socket.socket]) -> int:
    """Run a worker to its end. Returns its exit code.

    link: connected to control. listeners: bound and listening, in the order of `order.listeners`.
    """
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(order, link, listeners))


async def _run(order: Spawn, link: socket.socket, listeners: list[socket.socket]) -> int:
    worker = Worker(order, dict(zip(order.listeners, listeners, strict=True)))
    worker.start(link)
    try:
        return await worker.done
    finally:
        worker.close()


class Worker:
    """What this process holds and does."""

    def __init__(self, order: Spawn, sockets: dict[ListenerName, socket.socket]) -> None:
        self.order = order
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The exit code, once there is nothing left to do."""
        self.is_accepting = False
        self.is_draining = False
        self.is_ending = False
        """The last words are being said."""
        self.is_abandoned = False
        """No control has come for the whole orphan timeout."""
        self.plane = Plane(slot=order.slot)
        self.uplink = Uplink(Path(order.link_path), self)
        self.reporter = Reporter(self.plane, self.uplink)
        self.live_table = self.plane.live_table
        self.isolation = Isolation(self.live_table, order.slot)
        self.live_table.on_breaker = self.uplink.send
        self.capacity = self.plane.capacity
        self.plane.draining.arriving = lambda: self.capacity.open > self.plane.connections
        self._sockets = sockets
        self._workers = 0
        """How many share the connections there may be, as last heard."""
        self._listeners: dict[ListenerName, Listener] = {}
        self._tls: dict[int, ServerTls] = {}
        """By index of the listen table."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        """The few timers a worker has, by what they are for."""
        self._ending: asyncio.Task[None] | None = None
        self._exhaustion_logged_at = -math.inf

    def start(self, link: socket.socket) -> None:
        """Introduce the worker, and begin to tick."""
        loop = asyncio.get_running_loop()
        # An interrupt at the terminal reaches the whole process group; control alone acts on it, and drains.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        self.plane.start(self._on_tick)
        self.uplink.start(link)

    def close(self) -> None:
        """Close everything."""
        for timer in self._timers.values():
            timer.cancel()
        self._stop_accepting()
        self.plane.close_now()
        self.uplink.close()
        if self.is_abandoned:
            self.uplink.remove(self.order.leftovers)

    # -- UplinkOwner

    def hello(self) -> tuple[Hello, list[int]]:
        """Return who this is now, and the descriptors it listens on: as many as one message takes."""
        names = tuple(self._sockets)[:MAX_FDS]
        message = Hello(
            protocol=PROTOCOL,
            slot=self.order.slot,
            incarnation=self.order.incarnation,
            pid=os.getpid(),
            applied=self.live_table.current.number,
            listeners=names,
            accepting=self.is_accepting,
            draining=self.is_draining,
            release=self.order.release,
        )
        return message, [self._sockets[name].fileno() for name in names]

    def on_link_lost(self) -> None:
        """Serve on; leave if nobody comes. A worker that never accepted serves nobody, and leaves at once."""
        if not self.is_accepting and not self.is_draining:
            self._be_done()
            return
        timeout_s = self.order.orphan_timeout_s
        if self.live_table.current.number:
            timeout_s = self.live_table.proxy.orphan_timeout_s
        log.warning("control_lost", slot=self.order.slot, drains_in_s=timeout_s)
        self._later("orphan", timeout_s, self._on_orphan_timeout)

    def on_link_found(self) -> None:
        """Tell the new control everything, once."""
        self.uplink.send(Marks(self.live_table.marks()))
        self._cancel("orphan")
        self.is_abandoned = False
        self.reporter.repeat()
        if self.is_ending:
            self._say_last_words()

    def on_message(self, message: Down, fds: list[int]) -> None:
        """Do what control says."""
        match message:
            case Snapshot():
                self._apply(message)
            case InTouch():
                self.isolation.in_touch(message.at)
            case Accept():
                self._accept()
            case Lend():
                self._borrow(message.listeners, fds)
                return
            case Reclaim():
                self._give_back(message.listeners)
            case DrainEndpoints():
                self.plane.draining.begin_endpoints(message.keys, message.deadline_s)
                self.reporter.watch(message.keys)
            case Drain():
                self._drain_after(message.delay_s, message.deadline_s)
            case ReopenLogs():
                self.plane.context.log_file.reopen()
            case Quit():
                self._end()
        close_all(fds)

    # -- tables

    def _apply(self, snapshot: Snapshot) -> None:
        is_first = not self.live_table.current.number
        began = time.perf_counter_ns()
        try:
            self.plane.apply(snapshot)
        except LinkError as exc:
            self.uplink.send(Ack(snapshot.number, error=str(exc)))
            return
        self.uplink.send(Ack(snapshot.number, apply_us=(time.perf_counter_ns() - began) // 1000))
        if snapshot.proxy is not None or snapshot.workers != self._workers:
            self._limit(self.live_table.proxy, snapshot.workers)
        if snapshot.proxy is not None:
            self._use_certificates(snapshot.proxy)
        self.isolation.look(is_serving=self.is_accepting)
        if is_first:
            _settle_memory()
        elif snapshot.proxy is not None:
            self.plane.pools.reload_tls()

    def _limit(self, proxy: ProxySettings, workers: int) -> None:
        self._workers = workers
        limits = proxy.limits
        share = math.ceil(limits.connections / max(workers, 1))
        possible = connections_within(raise_descriptor_limit())
        self.capacity.set_limits(min(share, possible), limits.connections_per_client)

    def _use_certificates(self, proxy: ProxySettings) -> None:
        """Serve with the certificates in force, which control has tried: files may have changed since."""
        for index, each in enumerate(proxy.certificates):
            certificates = [Certificate(pem.chain, pem.key, pem.source) for pem in each]
            try:
                if index in self._tls:
                    self._tls[index].use(certificates)
                elif certificates:
                    self._tls[index] = ServerTls(certificates)
            except ConfigError as exc:
                log.error("certificate_not_used", slot=self.order.slot, reason=str(exc))
        if self.is_accepting:
            self._accept()

    # -- sockets

    def _accept(self) -> None:
        if self.is_draining:
            return
        self.is_accepting = True
        for name, sock in self._sockets.items():
            self._listen(name, sock)

    def _listen(self, name: ListenerName, sock: socket.socket) -> None:
        if name in self._listeners:
            return
        listen = self.order.listens[name.listen]
        tls = self._tls.get(name.listen)
        if listen.tls and tls is None:
            return  # until its certificates come: never in plain text
        factory = self.plane.factory(tls=tls is not None, listen=name.listen)
        listener = Listener(
            sock,
            factory,
            self.capacity,
            tls=tls,
            plain_answer=_plain_answer,
            is_proxy=partial(self.plane.context.is_proxy, name.listen),
            proxy_protocol=listen.proxy_protocol,
            on_refused=self.plane.clients.count_refusal,
            on_exhausted=self._on_exhausted,
        )
        self._listeners[name] = listener
        listener.start()

    def _on_exhausted(self, exc: OSError) -> None:
        """Say so at most once in ten seconds: it comes back ten times in one."""
        now = time.monotonic()
        if now >= self._exhaustion_logged_at + 10:
            self._exhaustion_logged_at = now
            log.error("accepting_rests", slot=self.order.slot, reason=str(exc))

    def _borrow(self, names: tuple[ListenerName, ...], fds: list[int]) -> None:
        for name, fd in zip(names, fds, strict=True):
            sock = socket.socket(fileno=fd)
            if self.is_draining or name in self._sockets:
                sock.close()
                continue
            self._sockets[name] = sock
            if self.is_accepting:
                self._listen(name, sock)

    def _give_back(self, names: tuple[ListenerName, ...], *, take_queue: bool = False) -> None:
        for name in names:
            sock = self._sockets.pop(name, None)
            listener = self._listeners.pop(name, None)
            if listener is not None:
                listener.stop(take_queue=take_queue)
            elif sock is not None:
                sock.close()

    def _stop_accepting(self, *, take_queue: bool = False) -> None:
        """Close the sockets. take_queue: serve those who wait in them, whom nobody else might."""
        self.is_accepting = False
        self._give_back(tuple(self._sockets), take_queue=take_queue)

    # -- leaving

    def _on_sigterm(self) -> None:
        """Somebody wants this one worker gone: it drains, and control replaces it meanwhile."""
        self._drain(self.order.drain_s)

    def _on_orphan_timeout(self) -> None:
        log.warning("orphan_drains", slot=self.order.slot)
        self.is_abandoned = True
        self._drain(self.live_table.proxy.drain_s)

    def _drain_after(self, delay_s: float, deadline_s: float) -> None:
        if delay_s > 0:
            self._later("delay", delay_s, lambda: self._drain(deadline_s))
        else:
            self._drain(deadline_s)

    def _drain(self, deadline_s: float) -> None:
        """Take no more, finish what runs, leave. A later call may only bring the deadline forward."""
        first = not self.is_draining
        self.is_draining = True
        self._stop_accepting(take_queue=True)
        self.plane.draining.begin(deadline_s)
        if first:
            message, _ = self.hello()
            self.uplink.send(message)
            self._ending = asyncio.get_running_loop().create_task(self._leave(), name="leave")

    async def _leave(self) -> None:
        await self.plane.draining.drained.wait()
        self._end()

    def _end(self) -> None:
        """Say the last words, and be done once control has them: one that was killed is back in a moment."""
        if self.done.done() or self.is_ending:
            return
        self.is_ending = True
        self.is_draining = True
        self._stop_accepting()
        self.plane.close_now()
        self._later("flush", FLUSH_S, self._be_done)
        if self.uplink.is_connected:
            self._say_last_words()

    def _say_last_words(self) -> None:
        self.uplink.send(Leaving(self.plane.draining.forced))
        self.reporter.report_last()
        self.uplink.when_flushed(self._be_done)

    def _be_done(self) -> None:
        if not self.done.done():
            self.done.set_result(0)

    # -- time

    def _on_tick(self, lag_us: int) -> None:
        PROGRESS.show()
        self.live_table.tick(time.monotonic())
        self.isolation.look(is_serving=self.is_accepting)
        self.reporter.report(lag_us)

    def _later(self, name: str, delay_s: float, callback: Callable[[], None]) -> None:
        self._cancel(name)
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, callback)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


def _settle_memory() -> None:
    """Leave what lives as long as the process out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)


def _plain_answer() -> bytes:
    """Return what a client hears that speaks plain HTTP where TLS is wanted."""
    return final_answer(BadRequest("plain HTTP on a port that speaks TLS: ask for https"))
