"""A real worker at the end of a link that the test holds."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.settings.limits import Limits
from gateway.link import channel as link
from gateway.link.channel import HEADER, Channel, decode_up
from gateway.link.messages import (
    Accept,
    Ack,
    Counts,
    Drain,
    DrainEndpoints,
    DrainReport,
    EndpointLoad,
    Hello,
    Leaving,
    Lend,
    ListenerName,
    Quit,
    Reclaim,
)
from gateway.link.snapshot import EndpointSnap, ProxySettings, ServiceSnap, Snapshot, VersionSnap
from gateway.link.spawn import ListenSpec, Spawn
from tests.integration.processes.harness import ROOT, Upstream

PROGRAM = Path(__file__).with_name("one_worker.py")
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Control:
    """The test as control: it keeps what the worker says."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.messages: list[Any] = []
        self.fds: list[int] = []
        self.is_lost = False
        self.changed = asyncio.Event()
        self.channel = Channel(sock, decode_up, self)

    def on_message(self, message: Any, fds: list[int]) -> None:
        self.messages.append(message)
        self.fds.extend(fds)
        self.changed.set()

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        raise AssertionError(reason)

    def on_lost(self, reason: str) -> None:
        self.is_lost = True
        self.changed.set()

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def close(self) -> None:
        self.channel.close()
        for fd in self.fds:
            os.close(fd)


class Bench:
    """A worker with one socket, and its control."""

    def __init__(self, process: "subprocess.Popen[bytes]", control: Control, listener: socket.socket) -> None:
        self.process = process
        self.control = control
        self.listener = listener

    async def accept(self, upstream: Upstream, **proxy: Any) -> None:
        self.control.channel.send(snapshot(1, upstream.address, **proxy))
        await self.control.until(lambda: self.control.of(Ack))
        self.control.channel.send(Accept())

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 30)


def snapshot(number: int, address: str, *, key: str = "v|u|a", **proxy: Any) -> Snapshot:
    host, _, port = address.partition(":")
    endpoint = EndpointSnap(key=key, url=f"http://{address}", address=host, port=int(port))
    version = VersionSnap(id="v", name="v1", weight=100, active=True, endpoints=(endpoint,))
    settings = ServiceSettings(routes=(RouteSettings(),))
    service = ServiceSnap(id="s", name="s", generation=0, settings=settings, versions=(version,), current="v")
    return Snapshot(number, True, {"s": service}, proxy=ProxySettings(**proxy))


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=128)
    sock.setblocking(False)
    return sock


def name_of(sock: socket.socket, slot: int = 0) -> ListenerName:
    host, port = sock.getsockname()
    return ListenerName(f"{host}:{port}", slot)


@asynccontextmanager
async def worker(path: Path, **changed: Any) -> AsyncIterator[Bench]:
    ours, theirs = socket.socketpair()
    listener = listening()
    order = Spawn(
        slot=0,
        incarnation="one",
        link_path=str(path / "control.sock"),
        listens=(ListenSpec("127.0.0.1:0"),),
        listeners=(name_of(listener),),
        drain_s=10.0,
        **changed,
    )
    fds = [theirs.fileno(), listener.fileno()]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), msgspec.json.encode(order).decode(), *map(str, fds)],
        pass_fds=fds,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    theirs.close()
    bench = Bench(process, Control(ours), listener)
    try:
        await bench.control.until(lambda: bench.control.of(Hello))
        yield bench
    finally:
        bench.control.close()
        listener.close()
        process.kill()
        process.wait()


def served_by(control: Control) -> list[list[tuple[str, int, int]]]:
    """Return the requests in each of the worker's reports that has any: it may report amid the first, too."""
    totals = [each for counts in control.of(Counts) for each in counts.versions]
    return [list(each.requests) for each in totals if each.requests]


async def ask(sock: socket.socket) -> bytes:
    """Return the whole answer of one request at the address of a listening socket."""
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(REQUEST)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_worker_is_born_idle_with_its_sockets(tmp_path: Path) -> None:
    async with worker(tmp_path) as bench:
        (hello,) = bench.control.of(Hello)
        assert (hello.slot, hello.incarnation, hello.applied, hello.accepting) == (0, "one", 0, False)
        assert hello.pid == bench.process.pid
        assert hello.listeners == (name_of(bench.listener),)
        assert os.fstat(bench.control.fds[0]).st_ino == os.fstat(bench.listener.fileno()).st_ino


async def test_a_worker_serves_counts_and_quits(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        assert (await ask(bench.listener)).startswith(b"HTTP/1.1 200")
        control = bench.control
        await control.until(lambda: served_by(control))
        assert served_by(control)[0] == [("GET", 200, 1)]
        control.channel.send(Quit())
        assert await bench.ended() == 0


async def test_a_table_that_cannot_be_applied_is_refused_by_number(
    tmp_path: Path, upstream: Upstream
) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        good = snapshot(2, upstream.address).services["s"]
        double = msgspec.structs.replace(good, versions=good.versions * 2)
        bench.control.channel.send(Snapshot(2, True, {"s": double}))
        await bench.control.until(lambda: len(bench.control.of(Ack)) == 2)
        assert bench.control.of(Ack)[1].number == 2
        assert bench.control.of(Ack)[1].error
        assert (await ask(bench.listener)).startswith(b"HTTP/1.1 200")


async def test_a_table_of_another_release_is_refused_by_number(tmp_path: Path) -> None:
    async with worker(tmp_path) as bench:
        payload = msgspec.msgpack.encode({"t": "snapshot", "number": 9, "services": "something new"})
        bench.control.sock.send(HEADER.pack(len(payload), 0) + payload)
        await bench.control.until(lambda: bench.control.of(Ack))
        assert bench.control.of(Ack)[0].number == 9
        assert bench.control.of(Ack)[0].error


async def test_lent_sockets_are_served_until_they_are_reclaimed(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        lent = listening()
        bench.control.channel.send(Lend((name_of(lent, 1),)), [lent.fileno()])
        assert (await ask(lent)).startswith(b"HTTP/1.1 200")
        bench.control.channel.send(Reclaim((name_of(lent, 1),)))
        bench.control.channel.send(snapshot(2, upstream.address))
        await bench.control.until(lambda: len(bench.control.of(Ack)) == 2)
        _, writer = await asyncio.open_connection(*lent.getsockname())
        writer.write(REQUEST)
        conn, _ = await asyncio.get_running_loop().sock_accept(lent)  # only we accept there now
        conn.close()
        lent.close()
        writer.close()
        assert (await ask(bench.listener)).startswith(b"HTTP/1.1 200")


async def test_endpoints_that_drain_are_reported_at_once_and_to_a_new_control(
    tmp_path: Path, upstream: Upstream
) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        bench.control.channel.send(DrainEndpoints(("v|u|a", "gone"), 5.0))
        await bench.control.until(lambda: bench.control.of(DrainReport))
        idle = (EndpointLoad("gone", 0, 0, 0), EndpointLoad("v|u|a", 0, 0, 0))
        assert bench.control.of(DrainReport)[0].endpoints == idle
        listener = link.listen(tmp_path / "control.sock")
        bench.control.channel.close()
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        second = Control(sock)
        await second.until(lambda: second.of(DrainReport))
        (hello,) = second.of(Hello)
        assert (hello.applied, hello.accepting) == (1, True)
        second.close()
        listener.close()


async def test_all_totals_go_to_a_new_control(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        await ask(bench.listener)
        await bench.control.until(lambda: served_by(bench.control))
        listener = link.listen(tmp_path / "control.sock")
        bench.control.channel.close()
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        second = Control(sock)
        await second.until(lambda: served_by(second))
        assert served_by(second)[0] == [("GET", 200, 1)]
        second.close()
        listener.close()


async def test_a_drained_worker_says_how_it_went_and_ends(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        bench.control.channel.send(Drain(10.0))
        await bench.control.until(lambda: bench.control.is_lost)
        assert bench.control.of(Hello)[-1].draining
        assert bench.control.of(Leaving) == [Leaving(0)]
        assert isinstance(bench.control.messages[-1], Counts)
        assert await bench.ended() == 0


async def test_a_worker_that_ends_between_two_controls_tells_the_next_one(
    tmp_path: Path, upstream: Upstream
) -> None:
    """What it had served since control was killed was never counted."""
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        await ask(bench.listener)
        bench.control.channel.close()
        os.kill(bench.process.pid, signal.SIGTERM)
        listener = link.listen(tmp_path / "control.sock")
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        second = Control(sock)
        await second.until(lambda: second.is_lost)
        assert second.of(Leaving) == [Leaving(0)]
        assert served_by(second)[-1] == [("GET", 200, 1)]
        assert await bench.ended() == 0
        listener.close()


async def test_a_worker_told_to_end_introduces_itself_as_leaving(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        await ask(bench.listener)
        os.kill(bench.process.pid, signal.SIGTERM)
        await bench.control.until(lambda: bench.control.of(Hello)[-1].draining)
        assert bench.control.of(Hello)[-1].listeners == ()
        assert await bench.ended() == 0


async def test_an_interrupt_at_the_terminal_is_controls_to_act_on(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream)
        await ask(bench.listener)
        os.kill(bench.process.pid, signal.SIGINT)
        assert (await ask(bench.listener)).startswith(b"HTTP/1.1 200")


async def test_a_worker_that_never_served_ends_with_its_control(tmp_path: Path) -> None:
    async with worker(tmp_path) as bench:
        bench.control.channel.close()
        assert await bench.ended() == 0


async def test_an_orphan_serves_until_its_time_is_over(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream, orphan_timeout_s=1.0, drain_s=10.0)
        await ask(bench.listener)
        bench.control.channel.close()
        assert (await ask(bench.listener)).startswith(b"HTTP/1.1 200")
        assert await bench.ended() == 0


async def test_connections_are_shared_out_over_the_workers(tmp_path: Path, upstream: Upstream) -> None:
    async with worker(tmp_path) as bench:
        await bench.accept(upstream, limits=Limits(connections=1))
        first = await asyncio.open_connection(*bench.listener.getsockname())
        first[1].write(REQUEST.replace(b"close", b"keep-alive"))
        assert (await first[0].readline()).startswith(b"HTTP/1.1 200")
        second = asyncio.ensure_future(ask(bench.listener))  # waits in the kernel's queue
        first[1].close()
        assert (await second).startswith(b"HTTP/1.1 200")
