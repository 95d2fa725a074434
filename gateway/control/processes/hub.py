"""The control end of every link: snapshots out, acknowledgements, counts and reports in.

A worker is sent the newest table and nothing is waited for here; who wants to know that all have it asks
`applied`. What a HELLO means (our worker, or an orphan of a dead control) is the supervisor's to say: it sits
in `on_hello`.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import socket

import msgspec

from gateway.control.processes.peer import PAUSE_S, Peer
from gateway.link import channel as link
from gateway.link.fds import close_all
from gateway.link.messages import (
    PROTOCOL,
    Ack,
    BreakerReport,
    Counts,
    DrainReport,
    EndpointLoad,
    Hello,
    Leaving,
    Marks,
    Up,
)
from gateway.link.snapshot import Mark, Snapshot
from gateway.link.spans import Spans
from gateway.log import get_logger

log = get_logger(component="hub")


class WorkerInfo(msgspec.Struct, frozen=True):
    """One worker as the admin API shows it."""

    slot: int
    pid: int
    incarnation: str
    applied: int
    connected: bool
    draining: bool


class HubEvents:
    """Who hears of the workers; each attribute is set once, by whoever builds the control process."""

    def __init__(self) -> None:
        self.is_genuine: Callable[[Peer, Hello], bool] = lambda peer, hello: True
        """Whether a HELLO may be believed; else its link is closed."""
        self.hello: Callable[[Peer, Hello, list[int]], None] = lambda peer, hello, fds: close_all(fds)
        """A worker introduced itself; its descriptors are the callback's to close."""
        self.ack: Callable[[Peer], None] = lambda peer: None
        """The worker applied a snapshot, or refused one."""
        self.counts: Callable[[Peer, Counts], None] = lambda peer, counts: None
        self.breaker: Callable[[Peer, BreakerReport], None] = lambda peer, report: None
        self.spans: Callable[[Spans], None] = lambda spans: None
        self.leaving: Callable[[Peer, Leaving], None] = lambda peer, leaving: None
        self.lost: Callable[[Peer, str], None] = lambda peer, reason: None
        """Its link ended; it may still run."""


class Hub:
    """All links of this control process."""

    def __init__(self) -> None:
        self.events = HubEvents()
        self.whole: Callable[[], Snapshot] | None = None
        """The newest whole table, for a worker that says HELLO; None until there is one."""
        self.personal: Callable[[Snapshot, str], Snapshot] = lambda snapshot, incarnation: snapshot
        """Puts a worker's own half-open grants into a snapshot, by incarnation."""
        self.peers: dict[str, Peer] = {}
        """By incarnation: greeted links that stand."""
        self.apply_us: dict[int, int] = {}
        """By slot: how long its last snapshot took to apply, microseconds."""
        self._nameless: set[Peer] = set()
        self._listener: socket | None = None
        self._progress = asyncio.Event()
        self._drains: dict[str, float] = {}
        """Endpoint key -> monotonic deadline, sent to workers that come later too."""
        self._in_touch_at: float | None = None
        """When control last had the store; None: it has not gone by it yet, or shares it with nobody."""

    # -- links

    def open(self, listener: socket) -> None:
        """Accept workers' links on `listener`, from the running loop on."""
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._on_connection)

    def pause(self) -> None:
        """Accept no new link (a successor is about to); standing ones go on. `open` again undoes it."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())

    def close(self) -> None:
        """End every link and accept none."""
        self.pause()
        self._listener = None
        for peer in [*self._nameless, *self.peers.values()]:
            peer.close()
        self._nameless.clear()
        self.peers.clear()

    def add(self, sock: socket, pid: int) -> Peer:
        """Take a connected link in; its HELLO comes next."""
        peer = Peer(sock, pid, self)
        self._nameless.add(peer)
        return peer

    def _on_connection(self) -> None:
        if self._listener is not None and (accepted := link.accept(self._listener)) is not None:
            self.add(*accepted)

    def lost(self, peer: Peer, reason: str) -> None:
        """Forget a link that ended."""
        self._nameless.discard(peer)
        if self.peers.get(peer.incarnation) is peer:
            del self.peers[peer.incarnation]
            self.events.lost(peer, reason)
        self._progress.set()

    def received(self, peer: Peer, message: Up, fds: list[int]) -> None:
        """Handle one message of `peer`."""
        if isinstance(message, Hello):
            self._greet(peer, message, fds)
            return
        close_all(fds)
        if not peer.is_greeted:
            return
        if peer.marks is None:
            peer.marks = ()  # of an older release: it knows none
            self._progress.set()
        match message:
            case Counts():
                self.events.counts(peer, message)
            case Ack():
                self._acknowledged(peer, message)
            case Marks():
                peer.marks = message.marks
            case BreakerReport():
                self.events.breaker(peer, message)
            case Spans():
                self.events.spans(message)
            case DrainReport():
                peer.loads.update((load.key, load) for load in message.endpoints)
                self._progress.set()
            case Leaving():
                peer.draining = True
                self.events.leaving(peer, message)
                self._progress.set()

    def _greet(self, peer: Peer, hello: Hello, fds: list[int]) -> None:
        """Name the link and bring its worker up to date. A worker that comes back replaces its old link."""
        if not self.events.is_genuine(peer, hello):
            log.error("hello_refused", slot=hello.slot, claimed_pid=hello.pid, pid=peer.pid)
            close_all(fds)
            self._drop(peer)
            return
        self._nameless.discard(peer)
        previous = self.peers.pop(hello.incarnation, None)
        if previous is not None and previous is not peer:
            previous.close()
        peer.slot, peer.incarnation = hello.slot, hello.incarnation
        if not peer.is_proven:
            peer.pid = hello.pid
        peer.draining, peer.accepting, peer.is_greeted = hello.draining, hello.accepting, True
        self.peers[hello.incarnation] = peer
        self.events.hello(peer, hello, fds)
        if hello.protocol == PROTOCOL and self.whole is not None and not peer.sent:
            peer.snapshot(self.personal(self.whole(), peer.incarnation))
            self._repeat_drains(peer)
            if self._in_touch_at is not None:
                peer.in_touch(self._in_touch_at)

    def _drop(self, peer: Peer) -> None:
        self._nameless.discard(peer)
        peer.close()

    def _acknowledged(self, peer: Peer, ack: Ack) -> None:
        if ack.error:
            peer.refused = max(peer.refused, ack.number)
            log.error("snapshot_refused", slot=peer.slot, pid=peer.pid, number=ack.number, reason=ack.error)
        else:
            peer.applied = max(peer.applied, ack.number)
            peer.apply_us = self.apply_us[peer.slot] = ack.apply_us
        self.events.ack(peer)
        self._progress.set()

    # -- down

    def publish(self, snapshot: Snapshot) -> None:
        """Send `snapshot` to every worker; returns at once."""
        for peer in self.peers.values():
            if peer.sent or snapshot.whole:
                peer.snapshot(self.personal(snapshot, peer.incarnation))
            elif self.whole is not None:
                peer.snapshot(self.personal(self.whole(), peer.incarnation))

    def in_touch(self, at: float) -> None:
        """Let every worker that goes by our table know when control had the store. at: monotonic seconds."""
        self._in_touch_at = at
        for peer in self.peers.values():
            if peer.sent:
                peer.in_touch(at)

    async def sent(self) -> None:
        """Return once every table published so far has left: who is answered then finds it in force, or on
        its way ahead of all they can send.
        """
        if any(peer.is_holding for peer in self.peers.values()):
            await asyncio.sleep(PAUSE_S)  # begun after the pause that holds it

    def reopen_logs(self) -> None:
        """Have every worker open its log file anew: it was moved away."""
        for peer in self.peers.values():
            peer.reopen_logs()
        log.info("logs_reopened", workers=len(self.peers))

    async def applied(self, number: int, timeout_s: float) -> list[int]:
        """Wait until every running worker serves by snapshot `number` or a newer one.

        Returns the slots that do not after `timeout_s` seconds. A worker that dies meanwhile is not waited
        for: its successor starts with the newest table.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while any(peer.refused < number for peer in self._behind(number)):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            pass
        return sorted(peer.slot for peer in self._behind(number))

    async def carry(self, number: int, timeout_s: float) -> bool:
        """Wait until a worker that stays serves by snapshot `number` or a newer one.

        Returns whether one does after `timeout_s` seconds.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._is_with_any(number):
                    self._progress.clear()
                    await self._progress.wait()
        return self._is_with_any(number)

    def _is_with_any(self, number: int) -> bool:
        return any(peer.applied >= number and not peer.draining for peer in self.peers.values())

    def _behind(self, number: int) -> list[Peer]:
        """Return who should serve by `number` and does not. A leaver of another release may not read it."""
        behind = [peer for peer in self.peers.values() if peer.sent and peer.applied < number]
        return [peer for peer in behind if not (peer.draining and peer.refused >= number)]

    async def marks(self, timeout_s: float) -> dict[str, Mark]:
        """Return what the workers' tables say was done and not stored, by deployment: the newest of each.

        Waits up to `timeout_s` seconds for those that have not said.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while any(peer.marks is None for peer in self.peers.values()):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            silent = sorted(peer.pid for peer in self.peers.values() if peer.marks is None)
            log.warning("marks_not_heard", pids=silent)
        found = [mark for peer in self.peers.values() for mark in peer.marks or ()]
        return {mark.deployment: mark for mark in sorted(found, key=lambda mark: mark.serial)}

    def workers(self) -> list[WorkerInfo]:
        """Return every worker that said HELLO and whose link stands, orphans too."""
        return [
            WorkerInfo(peer.slot, peer.pid, peer.incarnation, peer.applied, peer.is_open, peer.draining)
            for peer in sorted(self.peers.values(), key=lambda peer: (peer.draining, peer.slot))
        ]

    # -- draining endpoints

    def drain_endpoints(self, keys: Iterable[str], deadline_s: float) -> None:
        """Give endpoints that a published snapshot marks draining `deadline_s` seconds to finish."""
        chosen = tuple(keys)
        now = time.monotonic()
        for key in chosen:
            self._drains[key] = now + deadline_s
        for peer in self.peers.values():
            for key in chosen:
                peer.loads.pop(key, None)
            peer.drain_endpoints(chosen, deadline_s)

    def forget_endpoints(self, keys: Iterable[str]) -> None:
        """The endpoints are gone or in use again: no drain of theirs is sent to new workers."""
        for key in keys:
            self._drains.pop(key, None)
            for peer in self.peers.values():
                peer.loads.pop(key, None)

    def drain_state(self, keys: Iterable[str]) -> dict[str, EndpointLoad]:
        """Return what still runs at each draining endpoint, over all workers.

        An endpoint some worker has not reported on yet is absent: nothing is known of it.
        """
        found = {key: self._load_of(key) for key in keys}
        return {key: load for key, load in found.items() if load is not None}

    def _load_of(self, key: str) -> EndpointLoad | None:
        loads = [peer.loads.get(key) for peer in self.peers.values() if peer.sent]
        known = [load for load in loads if load is not None]
        if len(known) < len(loads) or not loads:
            return None
        return EndpointLoad(
            key=key,
            in_flight=sum(load.in_flight for load in known),
            streams=sum(load.streams for load in known),
            oldest_ms=max(load.oldest_ms for load in known),
            forced=sum(load.forced for load in known),
        )

    def _repeat_drains(self, peer: Peer) -> None:
        now = time.monotonic()
        deadlines: dict[int, list[str]] = {}
        for key, at in self._drains.items():
            deadlines.setdefault(max(0, math.ceil(at - now)), []).append(key)
        for left_s, keys in deadlines.items():
            peer.drain_endpoints(keys, float(left_s))
