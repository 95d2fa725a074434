"""The framing of the link: bytes, descriptors, slow readers and strangers."""

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.routing.service import FallbackSettings, ServiceSettings
from gateway.errors import LinkError
from gateway.link import channel as link
from gateway.link.channel import HEADER, Channel, decode_down, decode_up
from gateway.link.fds import MAX_FDS, link_address, recv_with_fds, send_with_fds
from gateway.link.messages import Accept, Ack, Drain, Hello, ListenerName
from gateway.link.snapshot import ServiceSnap, Snapshot


class Owner:
    """Keeps what a channel says, and wakes who waits for it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.fds: list[list[int]] = []
        self.undecodable: list[bytes] = []
        self.lost: str | None = None
        self.changed = asyncio.Event()

    def on_message(self, message: Any, fds: list[int]) -> None:
        self.messages.append(message)
        self.fds.append(fds)
        self.changed.set()

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        self.undecodable.append(payload)
        self.changed.set()

    def on_lost(self, reason: str) -> None:
        self.lost = reason
        self.changed.set()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def pair() -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    left.setblocking(False)
    return left, right


def service(name: str, generation: int = 0) -> ServiceSnap:
    return ServiceSnap(id=name, name=name, generation=generation, settings=ServiceSettings())


def frame(message: msgspec.Struct, fds: int = 0) -> bytes:
    payload = msgspec.msgpack.encode(message)
    return HEADER.pack(len(payload), fds) + payload


async def test_messages_arrive_whole_and_in_order() -> None:
    left, right = pair()
    owner = Owner()
    receiver = Channel(right, decode_up, owner)
    sender = Channel(left, decode_down, Owner())
    for number in range(100):
        sender.send(Ack(number))
    await owner.until(lambda: len(owner.messages) == 100)
    assert [m.number for m in owner.messages] == list(range(100))
    sender.close()
    receiver.close()


async def test_frames_may_come_byte_by_byte() -> None:
    left, right = pair()
    owner = Owner()
    receiver = Channel(right, decode_up, owner)
    for byte in frame(Ack(7)) + frame(Ack(8)):
        left.send(bytes([byte]))
        await asyncio.sleep(0)
    await owner.until(lambda: len(owner.messages) == 2)
    assert owner.messages == [Ack(7), Ack(8)]
    receiver.close()
    left.close()


async def test_descriptors_arrive_with_their_message() -> None:
    left, right = pair()
    owner = Owner()
    receiver = Channel(right, decode_up, owner)
    sender = Channel(left, decode_down, Owner())
    read_end, write_end = os.pipe()
    name = ListenerName("127.0.0.1:1", 0)
    sender.send(Ack(1))
    sender.send(Hello(1, 0, "i", 1, 0, (name,)), [write_end])
    sender.send(Ack(2))
    sender.send(Hello(1, 0, "i", 1, 0, (name, name)), [write_end, read_end])
    os.close(write_end)
    await owner.until(lambda: len(owner.messages) == 4)
    assert [len(fds) for fds in owner.fds] == [0, 1, 0, 2]
    os.write(owner.fds[1][0], b"x")
    assert os.read(read_end, 1) == b"x"
    assert not os.get_inheritable(owner.fds[1][0])
    for fd in [read_end, *owner.fds[1], *owner.fds[3]]:
        os.close(fd)
    sender.close()
    receiver.close()


async def test_a_slow_reader_gets_waiting_snapshots_merged() -> None:
    left, right = pair()
    sender = Channel(left, decode_up, Owner())
    big = ServiceSettings(fallback=FallbackSettings(status=503, body="x" * 4_000_000))
    sender.send(Snapshot(1, True, {"big": ServiceSnap(id="big", name="big", generation=0, settings=big)}))
    assert sender.backlog == 1
    sender.send(Snapshot(2, False, {"a": service("a", 1)}))
    sender.send(Accept())
    for number in range(3, 500):
        sender.send(Snapshot(number, False, {"a": service("a", number), "b": service("b", number)}))
    sender.send(Snapshot(500, False, {}, removed=("b",)))
    assert sender.backlog == 3
    owner = Owner()
    receiver = Channel(right, decode_down, owner)
    await owner.until(lambda: len(owner.messages) == 3)
    first, second, accept = owner.messages
    assert (first.number, second.number, accept) == (1, 500, Accept())
    assert second.services["a"].generation == 499
    assert second.removed == ("b",)
    sender.close()
    receiver.close()


async def test_a_reader_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_WAITING", 16)
    left, right = pair()
    owner = Owner()
    sender = Channel(left, decode_up, owner)
    while sender.is_open:
        sender.send(Ack(1, error="x" * 10_000))
    assert owner.lost is not None
    assert "does not read" in owner.lost
    right.close()


async def test_the_other_ends_close_is_told_once() -> None:
    left, right = pair()
    owner = Owner()
    Channel(right, decode_up, owner)
    left.send(frame(Ack(1)))
    left.close()
    await owner.until(lambda: owner.lost is not None)
    assert owner.messages == [Ack(1)]


async def test_an_oversized_frame_ends_the_link() -> None:
    left, right = pair()
    owner = Owner()
    Channel(right, decode_up, owner)
    left.send(HEADER.pack(0xFFFFFFFF, 0))
    await owner.until(lambda: owner.lost is not None)
    left.close()


async def test_a_frame_without_its_descriptors_ends_the_link() -> None:
    left, right = pair()
    owner = Owner()
    Channel(right, decode_up, owner)
    left.send(frame(Ack(1), fds=1))
    await owner.until(lambda: owner.lost is not None)
    assert owner.messages == []
    left.close()


async def test_an_unknown_message_is_told_and_the_link_goes_on() -> None:
    left, right = pair()
    owner = Owner()
    receiver = Channel(right, decode_up, owner)
    payload = msgspec.msgpack.encode({"t": "from the future", "x": 1})
    read_end, write_end = os.pipe()
    send_with_fds(left, HEADER.pack(len(payload), 1) + payload, [write_end])
    os.close(write_end)
    left.send(frame(Ack(3)))
    await owner.until(lambda: owner.messages == [Ack(3)])
    assert owner.undecodable == [payload]
    assert os.read(read_end, 1) == b""  # its descriptor was closed
    os.close(read_end)
    receiver.close()
    left.close()


async def test_words_of_another_release_may_have_more_fields() -> None:
    payload = msgspec.msgpack.encode({"t": "drain", "deadline_s": 3.0, "delay_s": 0.0, "mood": "calm"})
    assert decode_down(payload) == Drain(3.0)


async def test_closing_a_channel_closes_descriptors_that_wait() -> None:
    left, right = pair()
    sender = Channel(left, decode_up, Owner())
    sender.send(Snapshot(1, True, {str(n): service(str(n)) for n in range(4000)}))
    read_end, write_end = os.pipe()
    sender.send(Hello(1, 0, "i", 1, 0), [write_end])
    os.close(write_end)
    sender.close()
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    right.close()


async def test_too_many_descriptors_are_refused() -> None:
    left, right = pair()
    sender = Channel(left, decode_up, Owner())
    with pytest.raises(LinkError):
        sender.send(Ack(1), [0] * (MAX_FDS + 1))
    sender.close()
    right.close()


async def test_a_link_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    listener = link.listen(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = link.connect(path)
    assert client is not None
    accepted = link.accept(listener)
    assert accepted is not None
    assert accepted[1] == os.getpid()
    for sock in (client, accepted[0], listener):
        sock.close()
    assert link.connect(path) is None  # stale
    link.listen(path).close()


async def test_a_long_path_becomes_an_abstract_name(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "control.sock"
    address = link_address(path)
    assert isinstance(address, bytes)
    assert address[0] == 0
    listener = link.listen(path)
    client = link.connect(path)
    assert client is not None
    client.close()
    listener.close()


def test_a_stranger_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "control.sock"
    listener = link.listen(path)
    client = link.connect(path)
    assert client is not None
    monkeypatch.setattr("gateway.link.fds.peer_of", lambda sock: (4711, 12345))
    assert link.accept(listener) is None
    assert client.recv(1) == b""
    client.close()
    listener.close()


def test_descriptors_sent_with_the_first_byte_come_with_it() -> None:
    left, right = socket.socketpair()
    read_end, write_end = os.pipe()
    send_with_fds(left, b"abc", [read_end, write_end])
    data, fds = recv_with_fds(right, 1)
    assert (data, len(fds)) == (b"a", 2)
    for fd in [read_end, write_end, *fds]:
        os.close(fd)
    left.close()
    right.close()


async def test_last_words_are_read_although_sending_has_failed() -> None:
    left, right = pair()
    owner = Owner()
    receiver = Channel(right, decode_up, owner)
    left.send(frame(Ack(1)) + frame(Ack(2)))
    left.close()
    receiver.send(Accept())  # fails: nobody reads any more
    await owner.until(lambda: owner.lost is not None)
    assert owner.messages == [Ack(1), Ack(2)]
