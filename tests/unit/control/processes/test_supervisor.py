"""How long a slot waits, who counts as silent, and who accepts on which socket."""

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.control.processes import slots
from gateway.control.processes import supervisor as module
from gateway.control.processes.hub import Hub
from gateway.control.processes.listeners import Listeners
from gateway.control.processes.slots import Backoff, Watch
from gateway.control.processes.supervisor import Supervisor
from gateway.core.routing.service import ServiceSettings
from gateway.link.channel import Channel, decode_down
from gateway.link.messages import (
    PROTOCOL,
    Accept,
    Ack,
    Counts,
    Drain,
    Hello,
    Lend,
    ListenerName,
    Quit,
    Reclaim,
)
from gateway.link.snapshot import ServiceSnap, Snapshot
from gateway.link.spawn import ListenSpec, Spawn


def test_the_first_replacement_comes_at_once_and_then_ever_later() -> None:
    backoff = Backoff()
    delays = [backoff.after(0.0) for _ in range(10)]
    assert delays == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_a_worker_that_lived_well_ends_the_backoff() -> None:
    backoff = Backoff()
    for _ in range(6):
        backoff.after(1.0)
    assert backoff.after(30.0) == 0
    assert backoff.after(1.0) == 0.1


def ticked(watch: Watch, *moves: tuple[float, int]) -> Watch:
    for heard_at, counter in moves:
        watch.tick(heard_at, counter)
    return watch


def test_a_worker_that_does_nothing_hangs_after_two_seconds() -> None:
    watch = ticked(Watch(), *[(5.0, 7)] * 4)
    assert not watch.is_hung(has_spoken=True)
    assert ticked(watch, (5.0, 7)).is_hung(has_spoken=True)
    assert not watch.is_hung(has_spoken=False), "it is still starting"
    assert not ticked(watch, (5.1, 7)).is_hung(has_spoken=True), "any word ends it"


def test_a_worker_too_busy_for_heartbeats_does_not_hang_while_it_gets_on() -> None:
    """198 MB of heads kept a loop from its timers for three seconds, and its worker was killed for it."""
    watch = ticked(Watch(), *[(5.0, count) for count in range(20)])
    assert watch.silent_s == 9.5
    assert not watch.is_hung(has_spoken=True)
    assert ticked(watch, (5.0, 99)).is_hung(has_spoken=True), "but a heartbeat is owed in ten seconds"


class Process:
    """A worker as the template and the hub see it."""

    def __init__(self, order: Spawn, link: socket.socket, room: "Room") -> None:
        self.order = order
        self.room = room
        self.received: list[Any] = []
        self.held: set[ListenerName] = set()
        self.accepting = False
        self.channel = Channel(link.dup(), decode_down, self)
        self.hello()

    def hello(self, *, draining: bool = False) -> None:
        order = self.order
        self.channel.send(Hello(PROTOCOL, order.slot, order.incarnation, 1000, 0, draining=draining))

    def on_message(self, message: Any, fds: list[int]) -> None:
        self.received.append(message)
        match message:
            case Snapshot():
                self.channel.send(Ack(message.number))
            case Accept():
                self.accepting = True
                self.held.update(self.order.listeners)
            case Lend():
                self.held.update(message.listeners)
                for fd in fds:
                    socket.close(fd)
            case Reclaim():
                self.held.difference_update(message.listeners)
        self.room.changed.set()

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        raise AssertionError(reason)

    def on_lost(self, reason: str) -> None:
        self.room.changed.set()

    def die(self, status: int | None = -9) -> None:
        self.channel.close()
        self.room.processes.remove(self)
        self.room.supervisor.on_exited(self.order.incarnation, 1000, status)


class Counters:
    """Every worker's progress, as a test sets it."""

    def __init__(self) -> None:
        self.cells: dict[int, int] = {}

    def read(self, cell: int) -> int:
        return self.cells.get(cell, 0)


class Room:
    """A supervisor over processes that are none: the template only notes its orders."""

    def __init__(self, slots: int, path: Path) -> None:
        self.processes: list[Process] = []
        self.killed: list[str] = []
        self.counters = Counters()
        self.changed = asyncio.Event()
        self.orders: list[Spawn] = []
        self.is_forking = True
        self.error: OSError | None = None
        self.hub = Hub()
        service = ServiceSnap(id="s", name="s", generation=0, settings=ServiceSettings())
        self.hub.whole = lambda: Snapshot(1, True, {"s": service})
        self.listeners = Listeners([ListenSpec("127.0.0.1:0")], slots)
        self.listeners.bind()
        self.now = 0.0
        template: Any = self
        self.supervisor = Supervisor(
            template=template,
            hub=self.hub,
            listeners=self.listeners,
            link_path=path / "control.sock",
            clock=lambda: self.now,
        )

    # -- what a template does

    def attach(self, owner: Any) -> None:
        self.owner = owner

    def spawn(self, order: Spawn, link: socket.socket, sockets: Sequence[socket.socket]) -> None:
        if self.error is not None:
            raise self.error
        assert len(sockets) == len(order.listeners)
        self.orders.append(order)
        if self.is_forking:
            self.processes.append(Process(order, link, self))

    def kill(self, incarnation: str) -> None:
        self.killed.append(incarnation)

    def close(self) -> None:
        for process in self.processes:
            process.channel.close()

    # -- what a test asks

    def of(self, slot: int) -> Process:
        return next(process for process in reversed(self.processes) if process.order.slot == slot)

    def holders(self, slot: int) -> list[int]:
        """Return the slots of the workers that accept on the sockets of `slot`."""
        return sorted(
            process.order.slot
            for process in self.processes
            for name in process.held
            if name.slot == slot and process.accepting
        )

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)

    async def serve(self) -> None:
        self.supervisor.start()
        await self.supervisor.ready()
        self.supervisor.open()
        slots = range(self.listeners.slots)
        await self.until(lambda: all(self.holders(slot) == [slot] for slot in slots))

    def orphan(self, slot: int, name: str, *, sock: socket.socket | None = None) -> "Orphan":
        return Orphan(self, slot, name, sock)


class Orphan:
    """A worker of another control."""

    def __init__(self, room: Room, slot: int, name: str, sock: socket.socket | None) -> None:
        ours, theirs = socket.socketpair()
        room.hub.add(ours, 0)
        self.received: list[Any] = []
        self.channel = Channel(theirs, decode_down, self)
        sockets = [] if sock is None else [sock]
        names = tuple(ListenerName("127.0.0.1:0", slot) for _ in sockets)
        self.channel.send(
            Hello(PROTOCOL, slot, name, 1, 99, names, accepting=True), [one.fileno() for one in sockets]
        )

    def on_message(self, message: Any, fds: list[int]) -> None:
        self.received.append(message)

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        raise AssertionError(reason)

    def on_lost(self, reason: str) -> None:
        pass


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


async def test_workers_get_a_table_before_they_accept(path: Path) -> None:
    room = Room(2, path)
    room.supervisor.start()
    await room.supervisor.ready()
    assert not any(process.accepting for process in room.processes)
    room.supervisor.open()
    await room.until(lambda: all(process.accepting for process in room.processes))
    assert isinstance(room.processes[0].received[0], Snapshot)
    room.supervisor.release()


async def test_sockets_of_a_dead_worker_are_lent_until_its_successor_accepts(path: Path) -> None:
    room = Room(3, path)
    await room.serve()
    room.of(0).die()
    room.of(1).die()
    await room.until(lambda: room.holders(0) == [0] and room.holders(1) == [1] and room.holders(2) == [2])
    lent = [message for message in room.of(2).received if isinstance(message, Lend)]
    assert {name.slot for message in lent for name in message.listeners} == {0, 1}
    assert room.supervisor.restarts["killed"] == 2
    room.supervisor.release()


async def test_lent_sockets_are_spread_over_the_healthy(path: Path) -> None:
    room = Room(4, path)
    await room.serve()
    for process in room.processes[:2]:
        room.supervisor._backoffs[process.order.slot].after(0.0)  # the next one waits
    room.of(0).die()
    room.of(1).die()
    await room.until(lambda: sorted(room.holders(0) + room.holders(1)) == [2, 3])
    room.supervisor.release()


async def test_a_hung_worker_is_killed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.001)
    monkeypatch.setattr(
        slots, "TICK_S", 0.01
    )  # ticks enough for the other to be heard, on a busy machine too
    room = Room(2, path)
    await room.serve()
    hung, healthy = room.of(0), room.of(1)
    while not room.killed:
        healthy.channel.send(Counts())
        await asyncio.sleep(0)
    for _ in range(50):
        healthy.channel.send(Counts())
        await asyncio.sleep(0.001)
    assert room.killed == [hung.order.incarnation]
    hung.die()
    assert room.supervisor.restarts == {"exited": 0, "killed": 0, "hung": 1}
    room.supervisor.release()


async def test_a_worker_that_is_never_forked_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.001)
    monkeypatch.setattr(slots, "SILENCE_S", 1.0)
    room = Room(1, path)
    room.is_forking = False
    room.supervisor.start()
    await room.until(lambda: room.supervisor.restarts["hung"] == 1)
    lost = room.orders[0]
    room.is_forking = True
    await room.until(lambda: room.processes)
    room.killed.clear()
    room.supervisor.on_forked(lost.incarnation, 1000)  # after all: its slot has another
    assert room.killed == [lost.incarnation]
    room.supervisor.release()


async def test_a_fork_that_fails_for_want_of_descriptors_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORK_RETRY_S", 0.01)
    room = Room(1, path)
    room.error = OSError(24, "Too many open files")
    room.supervisor.start()
    assert room.processes == []
    room.error = None
    await room.supervisor.ready()
    room.supervisor.release()


async def test_a_worker_that_leaves_by_itself_is_replaced_while_it_drains(path: Path) -> None:
    room = Room(2, path)
    await room.serve()
    leaver = room.of(0)
    leaver.accepting = False
    leaver.hello(draining=True)
    await room.until(lambda: room.of(0) is not leaver and room.holders(0) == [0])
    leaver.die(0)
    assert sum(room.supervisor.restarts.values()) == 0
    assert len(room.processes) == 2
    room.supervisor.release()


async def test_sockets_of_a_worker_whose_link_is_lost_are_lent_until_it_is_back(path: Path) -> None:
    room = Room(2, path)
    await room.serve()
    lost = room.of(0)
    lost.channel.close()
    await room.until(lambda: 1 in room.holders(0))
    ours, theirs = socket.socketpair()
    room.hub.add(ours, 0)
    lost.channel = Channel(theirs, decode_down, lost)
    lost.hello()
    await room.until(lambda: room.holders(0) == [0])
    room.supervisor.release()


async def test_orphans_drain_only_once_ours_accept(path: Path) -> None:
    room = Room(1, path)
    orphan = room.orphan(0, "o")
    await room.until(lambda: "o" in room.hub.peers)
    room.supervisor.start()
    await room.supervisor.ready()
    assert not any(isinstance(message, Drain) for message in orphan.received)
    room.supervisor.open()
    await room.until(lambda: Drain(30.0) in orphan.received)
    room.supervisor.release()
    orphan.channel.close()


async def test_the_sockets_of_an_orphan_that_dies_during_a_start_go_to_another_one(path: Path) -> None:
    """Who connected there waited for the end of the start, and was reset where that did not come."""
    room = Room(2, path)
    brought = socket.create_server(("127.0.0.1", 0), reuse_port=True)
    dying, heir = room.orphan(0, "dying", sock=brought), room.orphan(1, "heir")
    brought.close()
    await room.until(lambda: {"dying", "heir"} <= room.hub.peers.keys() and len(room.listeners.held) == 3)
    dying.channel.close()
    await room.until(lambda: any(isinstance(message, Lend) for message in heir.received))
    (lent,) = [message for message in heir.received if isinstance(message, Lend)]
    assert len(lent.listeners) == 1
    room.supervisor.release()
    heir.channel.close()


async def test_an_orphan_that_comes_late_brings_a_socket_that_is_served(path: Path) -> None:
    room = Room(1, path)
    await room.serve()
    extra = socket.socket()
    extra.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    extra.bind(("127.0.0.1", 0))
    extra.listen()
    orphan = room.orphan(0, "o", sock=extra)
    extra.close()
    await room.until(
        lambda: room.holders(1) == [0]
    )  # its slot had a socket: the newcomer gets the next free one
    await room.until(lambda: Drain(30.0) in orphan.received)
    room.supervisor.release()
    orphan.channel.close()


async def test_a_start_that_fails_leaves_orphans_serving(path: Path) -> None:
    room = Room(1, path)
    orphan = room.orphan(0, "o")
    await room.until(lambda: "o" in room.hub.peers)
    room.supervisor.start()
    await room.supervisor.ready()
    worker = room.of(0)
    ended = asyncio.ensure_future(room.supervisor.quit())
    await room.until(lambda: Quit() in worker.received)
    worker.die(0)
    await ended
    assert not any(isinstance(message, Drain | Quit) for message in orphan.received)
    orphan.channel.close()


async def test_a_stop_drains_everybody_and_waits(path: Path) -> None:
    room = Room(2, path)
    await room.serve()
    stopped = asyncio.ensure_future(room.supervisor.stop(5.0))
    await room.until(lambda: all(Drain(5.0) in process.received for process in room.processes))
    assert not stopped.done()
    assert room.listeners.held == []
    for process in list(room.processes):
        process.die(0)
    await stopped
    assert sum(room.supervisor.restarts.values()) == 0


async def test_a_slot_backs_off_only_while_another_worker_serves(path: Path) -> None:
    """Ten seconds of nobody listening is an outage, whatever made the workers die."""
    room = Room(2, path)
    await room.serve()
    for _ in range(10):
        room.supervisor._backoffs[0].after(0.0)
        room.supervisor._backoffs[1].after(0.0)  # the next ones wait ten seconds, if they may
    room.of(0).die()
    assert sorted(room.supervisor._waiting) == [0], "slot 1 serves: slot 0 backs off"
    room.of(1).die()
    async with asyncio.timeout(5):
        await room.until(lambda: room.holders(0) == [0] and room.holders(1) == [1])
    room.supervisor.release()


async def test_workers_count_their_progress_apart(path: Path) -> None:
    room = Room(3, path)
    await room.serve()
    cells = [order.progress_cell for order in room.orders]
    assert cells == [0, 1, 2]
    room.of(1).die()
    await room.until(lambda: room.holders(1) == [1])
    assert room.orders[-1].progress_cell == 1, "that of the dead one is free again"
    room.supervisor.release()


async def test_nobody_speaks_in_the_name_of_a_worker_of_ours(path: Path) -> None:
    """A HELLO says who it comes from; only the kernel knows."""
    room = Room(1, path)
    await room.serve()
    worker = room.of(0)
    room.supervisor.on_forked(worker.order.incarnation, 1000)
    ours, theirs = socket.socketpair()
    room.hub.add(ours, 4_000_000)
    said = Hello(PROTOCOL, 0, worker.order.incarnation, 1000, 99, accepting=True)
    stranger = Channel(theirs, decode_down, Deaf())
    stranger.send(said)
    await room.until(lambda: not stranger.is_open)
    assert [info.pid for info in room.hub.workers()] == [1000]
    assert room.holders(0) == [0]
    room.supervisor.release()


async def test_the_pid_of_an_orphan_is_the_kernels(path: Path) -> None:
    """Control would kill whatever process a HELLO names."""
    room = Room(1, path)
    ours, theirs = socket.socketpair()
    room.hub.add(ours, 4_000_000)
    orphan = Channel(theirs, decode_down, Deaf())
    orphan.send(Hello(PROTOCOL, 0, "o", 1, 0))
    await room.until(lambda: "o" in room.hub.peers)
    assert room.hub.peers["o"].pid == 4_000_000
    orphan.close()
    room.supervisor.release()


async def test_a_hello_whose_descriptors_are_no_listening_sockets_is_served_without_them(path: Path) -> None:
    room = Room(1, path)
    await room.serve()
    reading, writing = os.pipe()
    with Path(__file__).open() as file, socket.socket() as idle:
        held = len(room.listeners.held)
        ours, theirs = socket.socketpair()
        room.hub.add(ours, 0)
        names = tuple(ListenerName("127.0.0.1:0", slot) for slot in range(4))
        orphan = Channel(theirs, decode_down, Deaf())
        orphan.send(
            Hello(PROTOCOL, 0, "o", 1, 0, names), [file.fileno(), reading, idle.fileno(), theirs.fileno()]
        )
        await room.until(lambda: "o" in room.hub.peers)
    assert len(room.listeners.held) == held
    os.close(reading)
    os.close(writing)
    orphan.close()
    room.supervisor.release()


class Deaf:
    """The other end of a link, that hears nothing."""

    def on_message(self, message: Any, fds: list[int]) -> None:
        pass

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        pass


async def test_what_a_worker_said_last_is_heard_before_it_is_added_up(path: Path) -> None:
    """Its exit was reported first: its last counts, which waited in the link, then began a second sum, and
    all it had ever counted was there twice, the judge's evidence too.
    """
    room = Room(2, path)
    await room.serve()
    heard: list[tuple[str, str]] = []
    room.hub.events.counts = lambda peer, counts: heard.append(("counts", peer.incarnation))
    room.supervisor.on_ended = lambda incarnation: heard.append(("ended", incarnation))
    for cut_first in (False, True):
        heard.clear()
        doomed = room.of(0)
        name = doomed.order.incarnation
        doomed.channel.send(Counts())
        if cut_first:
            doomed.channel.close()
            await room.until(lambda name=name: name not in room.hub.peers)
        doomed.die()
        await room.until(lambda name=name: ("ended", name) in heard)
        assert heard == [("counts", name), ("ended", name)]
        await room.until(lambda: room.holders(0) == [0])
    room.close()
    room.supervisor.release()


async def test_what_a_worker_says_in_a_new_link_after_its_exit_is_heard_before_it_is_added_up(
    path: Path,
) -> None:
    """Its link was cut, and it had come back before it was killed; its exit was read first."""
    room = Room(1, path)
    await room.serve()
    heard: list[tuple[str, str]] = []
    room.hub.events.counts = lambda peer, counts: heard.append(("counts", peer.incarnation))
    room.supervisor.on_ended = lambda incarnation: heard.append(("ended", incarnation))
    doomed = room.of(0)
    name = doomed.order.incarnation
    doomed.channel.close()
    await room.until(lambda: name not in room.hub.peers)
    ours, theirs = socket.socketpair()
    doomed.channel = Channel(theirs, decode_down, doomed)
    doomed.hello()
    doomed.channel.send(Counts())
    doomed.die()
    room.hub.add(ours, 0)
    await room.until(lambda: ("ended", name) in heard)
    assert heard == [("counts", name), ("ended", name)]
    room.close()
    room.supervisor.release()
