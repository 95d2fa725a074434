"""The hub between real channels: tables down, words up."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from gateway.control.processes.hub import Hub
from gateway.control.processes.peer import Peer
from gateway.core.routing.service import ServiceSettings
from gateway.link.channel import Channel, decode_down
from gateway.link.messages import (
    PROTOCOL,
    Accept,
    Ack,
    BreakerReport,
    Counts,
    Drain,
    DrainEndpoints,
    DrainReport,
    EndpointLoad,
    Hello,
    InTouch,
    ListenerName,
)
from gateway.link.snapshot import ServiceSnap, Snapshot


class Worker:
    """The other end of a link, as a worker is."""

    def __init__(self, hub: Hub, slot: int, *, answers: bool = True) -> None:
        ours, theirs = socket.socketpair()
        self.peer: Peer = hub.add(ours, 0)
        self.slot = slot
        self.answers = answers
        self.received: list[Any] = []
        self.changed = asyncio.Event()
        self.channel = Channel(theirs, decode_down, self)

    def hello(self, *, protocol: int = PROTOCOL, draining: bool = False, fds: tuple[int, ...] = ()) -> None:
        names = tuple(ListenerName("127.0.0.1:1", self.slot) for _ in fds)
        hello = Hello(protocol, self.slot, f"i{self.slot}", os.getpid(), 99, names, draining=draining)
        self.channel.send(hello, fds)

    def on_message(self, message: Any, fds: list[int]) -> None:
        self.received.append(message)
        if isinstance(message, Snapshot) and self.answers:
            self.channel.send(Ack(message.number, apply_us=7))
        self.changed.set()

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        raise AssertionError(reason)

    def on_lost(self, reason: str) -> None:
        self.changed.set()

    def numbers(self) -> list[int]:
        return [message.number for message in self.received if isinstance(message, Snapshot)]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def snapshot(number: int, *, whole: bool = False) -> Snapshot:
    service = ServiceSnap(id="s", name="s", generation=number, settings=ServiceSettings())
    return Snapshot(number, whole, {"s": service})


async def greeted(hub: Hub, slot: int, **options: Any) -> Worker:
    worker = Worker(hub, slot, **options)
    worker.hello()
    await until(lambda: worker.peer.is_greeted)
    return worker


def end(hub: Hub, *workers: Worker) -> None:
    hub.close()
    for worker in workers:
        worker.channel.close()


async def begun() -> tuple[Hub, Worker]:
    """Return a hub with a table, and a worker that has been sent it."""
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    return hub, await greeted(hub, 0)


async def test_a_worker_gets_the_whole_table_and_then_what_changes() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(5, whole=True)
    worker = await greeted(hub, 0)
    hub.publish(snapshot(6))
    assert await hub.applied(6, 20) == []
    assert worker.numbers() == [5, 6]
    assert [info.applied for info in hub.workers()] == [6]
    assert hub.apply_us == {0: 7}
    end(hub, worker)


async def test_a_worker_hears_that_control_has_the_store_once_it_goes_by_its_table() -> None:
    hub = Hub()
    early = await greeted(hub, 0)
    hub.in_touch(7.0)
    hub.whole = lambda: snapshot(5, whole=True)
    late = await greeted(hub, 1)
    await until(lambda: len(late.received) == 2)
    assert late.received == [snapshot(5, whole=True), InTouch(7.0)]
    hub.publish(snapshot(6, whole=True))
    hub.in_touch(8.0)
    await until(lambda: InTouch(8.0) in early.received)
    assert early.received == [snapshot(6, whole=True), InTouch(8.0)]
    end(hub, early, late)


async def test_tables_that_come_close_together_leave_as_one() -> None:
    hub, worker = await begun()
    for number in range(2, 100):
        hub.publish(snapshot(number))
    assert await hub.applied(99, 20) == []
    assert worker.numbers() in ([1, 99], [1, 2, 99])
    end(hub, worker)


async def test_whoever_waits_for_tables_to_leave_waits_for_the_one_that_is_held() -> None:
    hub, worker = await begun()
    for number in (2, 3):
        hub.publish(snapshot(number))
    assert worker.peer.is_holding
    await hub.sent()
    assert not worker.peer.is_holding
    await until(lambda: worker.numbers()[-1] == 3)
    end(hub, worker)


async def test_no_word_overtakes_the_table_before_it() -> None:
    hub, worker = await begun()
    for number in (2, 3):
        hub.publish(snapshot(number))
        worker.peer.drain_endpoints([f"e{number}"], 1.0)
    await until(lambda: len(worker.received) == 5)
    words = [each.number if isinstance(each, Snapshot) else each.keys for each in worker.received]
    assert words == [1, 2, ("e2",), 3, ("e3",)]
    end(hub, worker)


async def test_a_table_that_waits_goes_with_the_link() -> None:
    hub, worker = await begun()
    for number in (2, 3):
        hub.publish(snapshot(number))
    worker.channel.close()
    await until(lambda: not worker.peer.is_open)
    hub.whole = lambda: snapshot(3, whole=True)
    successor = await greeted(hub, 0)
    assert await hub.applied(3, 20) == []
    assert successor.numbers() == [3]
    end(hub, successor)


async def test_what_was_applied_under_another_control_does_not_count() -> None:
    hub = Hub()
    worker = await greeted(hub, 0)
    assert hub.workers()[0].applied == 0
    end(hub, worker)


async def test_stragglers_are_named_and_not_waited_for_longer() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    quick, slow = await greeted(hub, 0), await greeted(hub, 1, answers=False)
    hub.publish(snapshot(2))
    assert await hub.applied(2, 0.05) == [1]
    end(hub, quick, slow)


async def test_a_worker_that_refuses_a_table_is_a_straggler_at_once() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    worker = await greeted(hub, 0, answers=False)
    worker.channel.send(Ack(1, error="no"))
    assert await hub.applied(1, 20) == [0]
    end(hub, worker)


async def test_a_leaver_that_cannot_read_the_table_is_no_straggler() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    worker = await greeted(hub, 0, answers=False)
    worker.peer.drain(3.0)
    worker.channel.send(Ack(1, error="of another release"))
    assert await hub.applied(1, 20) == []
    end(hub, worker)


async def test_a_worker_that_dies_is_not_waited_for() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    worker = await greeted(hub, 0, answers=False)
    lost: list[str] = []
    hub.events.lost = lambda peer, reason: lost.append(peer.incarnation)
    asyncio.get_running_loop().call_soon(worker.channel.close)
    assert await hub.applied(1, 20) == []
    assert lost == ["i0"]
    end(hub)


async def test_an_early_publish_reaches_a_worker_greeted_before_there_was_a_table() -> None:
    hub = Hub()
    worker = await greeted(hub, 0)
    hub.publish(snapshot(1))  # not whole, and nothing to begin with: it would be refused
    hub.whole = lambda: snapshot(2, whole=True)
    hub.publish(snapshot(2))
    assert await hub.applied(2, 20) == []
    assert worker.numbers() == [2]
    end(hub, worker)


async def test_another_protocol_gets_no_table_but_drains() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    worker = Worker(hub, 0)
    worker.hello(protocol=PROTOCOL + 1)
    await until(lambda: worker.peer.is_greeted)
    worker.peer.drain(3.0)
    await until(lambda: worker.received)
    assert worker.received == [Drain(3.0)]
    assert await hub.applied(1, 20) == []
    end(hub, worker)


async def test_words_before_hello_are_ignored() -> None:
    hub = Hub()
    counted: list[int] = []
    hub.events.counts = lambda peer, counts: counted.append(counts.requests)
    worker = Worker(hub, 0)
    worker.channel.send(Counts(requests=1))
    worker.hello()
    worker.channel.send(Counts(requests=2))
    await until(lambda: counted)
    assert counted == [2]
    end(hub, worker)


async def test_reports_go_to_who_wants_them_and_descriptors_are_not_leaked() -> None:
    hub = Hub()
    reports: list[BreakerReport] = []
    hub.events.breaker = lambda peer, report: reports.append(report)
    worker = Worker(hub, 0)
    read_end, write_end = os.pipe()
    worker.hello(fds=(write_end,))
    os.close(write_end)
    worker.channel.send(BreakerReport("k", 1, "opened"))
    await until(lambda: reports)
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    end(hub, worker)


async def test_a_worker_that_comes_back_replaces_its_old_link() -> None:
    hub = Hub()
    first, second = await greeted(hub, 0), await greeted(hub, 0)
    assert hub.peers == {"i0": second.peer}
    assert not first.peer.is_open
    second.peer.accept()
    await until(lambda: Accept() in second.received)
    end(hub, first, second)


async def test_grants_are_each_workers_own() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)

    def personal(snapshot: Snapshot, incarnation: str) -> Snapshot:
        return Snapshot(snapshot.number, snapshot.whole, snapshot.services, workers=10 + int(incarnation[1:]))

    hub.personal = personal
    workers = [await greeted(hub, slot) for slot in (0, 1)]
    await until(lambda: all(worker.received for worker in workers))
    assert [worker.received[0].workers for worker in workers] == [10, 11]
    end(hub, *workers)


async def test_loads_of_a_draining_endpoint_add_up_once_all_have_reported() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    workers = [await greeted(hub, slot) for slot in (0, 1)]
    hub.drain_endpoints(["k"], 30.0)
    await until(lambda: all(DrainEndpoints(("k",), 30.0) in worker.received for worker in workers))
    assert hub.drain_state(["k"]) == {}
    workers[0].channel.send(DrainReport((EndpointLoad("k", 2, 1, 500),)))
    await until(lambda: workers[0].peer.loads)
    assert hub.drain_state(["k"]) == {}
    workers[1].channel.send(DrainReport((EndpointLoad("k", 3, 0, 900, forced=1),)))
    await until(lambda: hub.drain_state(["k"]))
    assert hub.drain_state(["k", "other"]) == {"k": EndpointLoad("k", 5, 1, 900, 1)}
    end(hub, *workers)


async def test_a_worker_that_comes_later_is_told_of_drains() -> None:
    hub = Hub()
    hub.whole = lambda: snapshot(1, whole=True)
    hub.drain_endpoints(["k"], 30.0)
    worker = await greeted(hub, 0)
    await until(lambda: len(worker.received) == 2)
    assert worker.received[1] == DrainEndpoints(("k",), 30.0)
    hub.forget_endpoints(["k"])
    other = await greeted(hub, 1)
    hub.publish(snapshot(2))
    await until(lambda: other.numbers() == [1, 2])
    assert not any(isinstance(message, DrainEndpoints) for message in other.received)
    end(hub, worker, other)


async def test_one_worker_that_stays_and_has_a_table_carries_it() -> None:
    hub = Hub()
    silent, leaver = await greeted(hub, 0, answers=False), Worker(hub, 1)
    leaver.hello(draining=True)
    await until(lambda: leaver.peer.is_greeted)
    hub.publish(snapshot(7, whole=True))
    await until(lambda: leaver.peer.applied == 7)
    assert not await hub.carry(7, 0.0)
    silent.channel.send(Ack(7))
    assert await hub.carry(7, 20.0)
    assert not await hub.carry(8, 0.0)
    hub.close()


async def test_a_table_that_is_refused_is_carried_by_nobody() -> None:
    hub = Hub()
    worker = await greeted(hub, 0, answers=False)
    hub.publish(snapshot(7, whole=True))
    worker.channel.send(Ack(7, error="no"))
    await until(lambda: worker.peer.refused == 7)
    assert not await hub.carry(7, 0.0)
    hub.close()
