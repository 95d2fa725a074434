"""Tunnels between two pretended transports, under a hand-moved clock."""

import asyncio
from typing import Any

import pytest

from gateway.worker.tunnel.frames import close_frame
from gateway.worker.tunnel.tunnel import CLOSE_S, FLUSH_S, Phase, Tunnel

FRAME = b"\x81\x05hello"


class Wire(asyncio.Transport):
    """A transport that notes what is asked of it. It is lost when the test says so."""

    def __init__(self, *, half_close: bool = True) -> None:
        super().__init__()
        self.sent = b""
        self.reading = True
        self.eof_sent = False
        self.closed = ""
        self.half_close = half_close
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.eof_sent, "written after the end"
        self.sent += bytes(data)

    def can_write_eof(self) -> bool:
        return self.half_close

    def write_eof(self) -> None:
        assert self.half_close
        assert not self.closed
        self.eof_sent = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def lose(self, exc: Exception | None = None) -> None:
        self.closed = self.closed or "lost"
        self.protocol.connection_lost(exc)


class Pair:
    """A tunnel with its two wires."""

    def __init__(
        self, *, websocket: bool = True, half_close: bool = True, start: bool = True, idle_s: float = 0.0
    ) -> None:
        self.client = Wire(half_close=half_close)
        self.upstream = Wire()
        self.ended = 0
        self.tunnel = Tunnel(
            self.client, self.upstream, websocket=websocket, on_end=self.on_end, key="e", idle_s=idle_s
        )
        if start:
            self.tunnel.start()

    def on_end(self, tunnel: Tunnel) -> None:
        assert tunnel is self.tunnel
        self.ended += 1

    def from_client(self, data: bytes) -> None:
        self.client.protocol.data_received(data)

    def from_upstream(self, data: bytes) -> None:
        self.upstream.protocol.data_received(data)


def test_bytes_pass_both_ways_and_are_counted() -> None:
    pair = Pair(websocket=False)
    pair.from_client(b"ab")
    pair.from_upstream(b"cde")
    assert (pair.upstream.sent, pair.client.sent) == (b"ab", b"cde")
    assert (pair.tunnel.bytes_up, pair.tunnel.bytes_down) == (2, 3)


def test_bytes_read_before_the_tunnel_are_delivered() -> None:
    pair = Pair(start=False)
    pair.client.reading = pair.upstream.reading = False
    pair.tunnel.start(b"early", FRAME[:3])
    assert (pair.upstream.sent, pair.client.sent) == (b"early", FRAME[:3])
    assert pair.client.reading
    assert pair.upstream.reading
    pair.tunnel.drain(0, 100, 1001)
    pair.tunnel.sweep(1)
    assert pair.tunnel.phase is Phase.LEAVING, "the frame begun in the early bytes is followed"


def test_slow_end_stops_the_other_from_being_read() -> None:
    pair = Pair()
    pair.client.protocol.pause_writing()
    assert not pair.upstream.reading
    assert pair.client.reading
    pair.client.protocol.resume_writing()
    assert pair.upstream.reading
    pair.upstream.protocol.pause_writing()
    assert not pair.client.reading


def test_end_that_was_slow_before_the_tunnel_is_waited_for() -> None:
    """A transport that has asked for a pause does not ask again."""
    pair = Pair(start=False)
    pair.tunnel.start(client_writable=False)
    assert (pair.client.reading, pair.upstream.reading) == (True, False)
    pair.client.protocol.resume_writing()
    assert pair.upstream.reading
    pair = Pair(start=False)
    pair.tunnel.start(upstream_writable=False)
    assert (pair.client.reading, pair.upstream.reading) == (False, True)


def test_end_that_its_early_bytes_fill_is_waited_for() -> None:
    pair = Pair(start=False)
    full = pair.client.write

    def write(data: bytes) -> None:
        full(data)
        pair.client.protocol.pause_writing()

    pair.client.write = write  # type: ignore[method-assign]
    pair.tunnel.start(from_upstream=FRAME)
    assert not pair.upstream.reading


def test_each_direction_closes_by_itself() -> None:
    pair = Pair(websocket=False)
    assert pair.client.protocol.eof_received() is True
    assert pair.upstream.eof_sent
    pair.from_upstream(b"still")
    assert pair.client.sent == b"still"
    assert pair.upstream.protocol.eof_received() is False
    assert (pair.client.closed, pair.upstream.closed) == ("closed", "closed")


def test_client_that_had_finished_before_is_passed_on() -> None:
    pair = Pair(start=False)
    pair.tunnel.start(b"last", client_eof=True)
    assert pair.upstream.sent == b"last"
    assert pair.upstream.eof_sent


def test_tls_end_closes_both_directions() -> None:
    for end in ("client", "upstream"):
        pair = Pair(half_close=False)
        assert getattr(pair, end).protocol.eof_received() is False
        assert (pair.client.closed, pair.upstream.closed) == ("closed", "closed")


@pytest.mark.parametrize(("exc", "how"), [(None, "closed"), (ConnectionResetError(), "aborted")])
def test_lost_end_takes_the_other_along_and_the_end_is_told_once(exc: Exception | None, how: str) -> None:
    for first, second in (("client", "upstream"), ("upstream", "client")):
        pair = Pair()
        getattr(pair, first).lose(exc)
        assert getattr(pair, second).closed == how
        assert pair.ended == 0
        getattr(pair, second).lose()
        assert pair.ended == 1
        assert pair.tunnel.phase is Phase.OVER


def test_nothing_is_written_to_an_end_that_is_gone() -> None:
    pair = Pair()
    pair.upstream.lose()
    pair.from_client(b"late")
    assert pair.upstream.sent == b""
    pair = Pair()
    pair.client.lose()
    pair.from_upstream(b"late")
    assert pair.client.sent == b""


def test_end_that_does_not_take_its_last_bytes_is_dropped() -> None:
    pair = Pair()
    pair.upstream.lose()
    pair.tunnel.sweep(0)
    pair.tunnel.sweep(FLUSH_S - 1)
    assert pair.client.closed == "closed"
    pair.tunnel.sweep(FLUSH_S)
    assert pair.client.closed == "aborted"


# Drain of a WebSocket


def test_goodbye_between_frames_is_said_when_its_time_has_come() -> None:
    pair = Pair()
    pair.from_upstream(FRAME)
    pair.tunnel.drain(leave_at=10, cut_at=30, code=1012)
    pair.tunnel.sweep(9)
    assert pair.client.sent == FRAME
    pair.tunnel.sweep(10)
    assert pair.client.sent == FRAME + close_frame(1012)
    assert pair.tunnel.phase is Phase.CLOSING


@pytest.mark.parametrize(
    "pieces", [(FRAME[:3], FRAME[3:]), tuple(FRAME[i : i + 1] for i in range(len(FRAME)))]
)
def test_goodbye_waits_for_the_frame_under_way(pieces: tuple[bytes, ...]) -> None:
    pair = Pair()
    pair.from_upstream(pieces[0])
    pair.tunnel.drain(0, 30, 1001)
    pair.tunnel.sweep(1)
    for piece in pieces[1:]:
        assert close_frame(1001) not in pair.client.sent
        pair.from_upstream(piece)
    assert pair.client.sent == FRAME + close_frame(1001)


def test_what_the_upstream_sends_after_the_goodbye_is_thrown_away() -> None:
    pair = Pair()
    pair.from_upstream(FRAME[:3])
    pair.tunnel.drain(0, 30, 1001)
    pair.tunnel.sweep(1)
    pair.client.protocol.pause_writing()
    pair.from_upstream(FRAME[3:] + FRAME)
    pair.from_upstream(FRAME)
    assert pair.client.sent == FRAME + close_frame(1001)
    assert pair.upstream.reading, "its close must still be seen"


def test_clients_answer_reaches_the_upstream_whose_close_ends_it() -> None:
    pair = Pair()
    pair.tunnel.drain(0, 30, 1001)
    pair.tunnel.sweep(1)
    pair.from_client(b"\x88\x82....abcd")
    assert pair.upstream.sent == b"\x88\x82....abcd"
    pair.upstream.protocol.eof_received()
    assert (pair.client.closed, pair.upstream.closed) == ("closed", "closed")
    assert not pair.tunnel.forced


def test_client_that_does_not_answer_is_closed_after_five_seconds() -> None:
    pair = Pair()
    pair.tunnel.drain(1, 30, 1001)
    pair.tunnel.sweep(1)
    pair.from_client(b"still talking")
    pair.tunnel.sweep(1 + CLOSE_S - 0.1)
    assert pair.client.closed == ""
    pair.tunnel.sweep(1 + CLOSE_S)
    assert (pair.client.closed, pair.upstream.closed) == ("closed", "closed")
    assert not pair.tunnel.forced


def test_second_close_is_never_sent() -> None:
    pair = Pair()
    pair.from_upstream(close_frame(1000))
    pair.tunnel.drain(0, 30, 1001)
    pair.tunnel.sweep(1)
    assert pair.client.sent == close_frame(1000)
    assert pair.tunnel.phase is Phase.CLOSING


def test_no_goodbye_after_the_upstream_has_finished_sending() -> None:
    pair = Pair()
    pair.upstream.protocol.eof_received()
    pair.tunnel.drain(0, 30, 1001)
    pair.tunnel.sweep(1)
    assert pair.client.sent == b""
    assert pair.client.closed == "closed"


def test_frame_without_an_end_is_cut_at_the_deadline_and_counted() -> None:
    pair = Pair()
    pair.from_upstream(FRAME[:3])
    pair.tunnel.drain(0, 30, 1001)
    pair.tunnel.sweep(29)
    assert pair.client.closed == ""
    pair.tunnel.sweep(30)
    pair.client.lose()
    pair.tunnel.sweep(31)
    pair.upstream.lose()
    assert pair.tunnel.forced
    assert (pair.client.closed, pair.upstream.closed) == ("aborted", "aborted")


def test_silence_mid_frame_waits_for_the_deadline() -> None:
    pair = Pair()
    pair.tunnel.sweep(0)
    pair.from_upstream(FRAME[:3])
    pair.tunnel.drain(0, 30, 1001)
    for now in range(1, 30):
        pair.tunnel.sweep(now)
    assert pair.client.closed == ""


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_no_websocket_is_cut_at_the_deadline_and_counted(broken: bool) -> None:
    pair = Pair(websocket=broken)
    pair.from_upstream(b"\x81\x7f" + b"\xff" * 8)
    pair.tunnel.drain(0, 30, 1001)
    pair.tunnel.sweep(1)
    pair.from_upstream(b"more")
    pair.from_client(b"more")
    pair.tunnel.sweep(29)
    assert pair.client.sent.endswith(b"more")
    assert pair.client.closed == ""
    pair.tunnel.sweep(30)
    assert pair.tunnel.forced


def test_later_drain_only_brings_the_end_forward() -> None:
    pair = Pair()
    pair.tunnel.drain(20, 40, 1001)
    pair.tunnel.drain(10, 60, 1012)
    pair.tunnel.sweep(10)
    assert pair.client.sent == close_frame(1012)
    pair = Pair(websocket=False)
    pair.tunnel.drain(20, 40, 1001)
    pair.tunnel.drain(10, 60, 1012)
    pair.tunnel.sweep(40)
    assert pair.tunnel.forced


# Silence


def test_silent_tunnel_is_ended_only_if_asked_to() -> None:
    pair = Pair(websocket=False)
    pair.tunnel.sweep(0)
    pair.tunnel.sweep(1e9)
    assert pair.client.closed == ""


def test_silent_tunnel_is_closed_and_a_websocket_hears_why() -> None:
    for websocket, said in ((False, b""), (True, close_frame(1001))):
        pair = Pair(websocket=websocket, idle_s=60)
        pair.tunnel.sweep(0)
        pair.from_client(b"x")
        pair.tunnel.sweep(50)
        pair.tunnel.sweep(109)
        assert pair.client.sent == b""
        assert pair.client.closed == ""
        pair.tunnel.sweep(110)
        pair.tunnel.sweep(111)
        pair.tunnel.sweep(111 + CLOSE_S)
        assert pair.client.sent == said
        assert pair.client.closed == "closed"
        assert not pair.tunnel.forced
