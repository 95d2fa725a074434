"""All tunnels of a worker: joined from exchanges, drained, counted."""

from types import SimpleNamespace
from typing import Any

from gateway.worker.tunnel.frames import GOING_AWAY, SERVICE_RESTART, close_frame
from gateway.worker.tunnel.tunnels import SPREAD, Tunnels


class Wire:
    """What a tunnel asks of a transport in these tests."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = ""
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.sent += data

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def lose(self) -> None:
        self.protocol.connection_lost(None)


class Joined:
    """An exchange that has become a tunnel."""

    def __init__(
        self,
        tunnels: Tunnels,
        key: str = "e",
        *,
        websocket: bool = True,
        rest: bytes = b"",
        draining: bool = False,
    ) -> None:
        self.client, self.upstream = Wire(), Wire()
        self.ended: list[bool] = []
        exchange: Any = SimpleNamespace(
            client=SimpleNamespace(
                release=lambda: self.client,
                take_pending=lambda: b"early",
                half_closed=False,
                writable=True,
            ),
            upstream=SimpleNamespace(release=lambda: self.upstream, writable=True),
            stream_idle_s=0.0,
            endpoint=SimpleNamespace(key=key, draining=draining),
            began=1.0,
            detach=lambda: self.ended.append,
        )
        tunnels.join(exchange, rest, is_websocket=websocket)

    def end(self) -> None:
        self.client.lose()
        self.upstream.lose()


def test_what_was_read_too_far_passes_first() -> None:
    joined = Joined(Tunnels(), rest=b"rest")
    assert (joined.upstream.sent, joined.client.sent) == (b"early", b"rest")


def test_end_is_told_once_with_whether_it_was_cut() -> None:
    tunnels = Tunnels()
    whole, cut = Joined(tunnels), Joined(tunnels, websocket=False)
    assert len(tunnels.open) == 2
    whole.end()
    assert whole.ended == [False]
    tunnels.drain(100, 10, None)
    tunnels.sweep(110)
    tunnels.sweep(111)
    cut.end()
    assert cut.ended == [True]
    assert (len(tunnels.open), tunnels.forced) == (0, 1)


def test_goodbyes_are_spread_over_the_window() -> None:
    chances = iter([0.0, 0.5, 0.99])
    tunnels = Tunnels(lambda: next(chances))
    joined = [Joined(tunnels) for _ in range(3)]
    tunnels.drain(100, 10, None)
    for now, said in ((100, 1), (100 + 5 * SPREAD, 2), (100 + 10 * SPREAD, 3)):
        tunnels.sweep(now)
        assert [each.client.sent for each in joined].count(close_frame(GOING_AWAY)) == said


def test_a_drain_without_time_says_goodbye_all_the_same() -> None:
    tunnels = Tunnels()
    joined = Joined(tunnels)
    tunnels.drain(100, 0, None)
    assert joined.client.sent == close_frame(GOING_AWAY)
    tunnels.sweep(100)
    assert joined.client.closed == "aborted"


def test_drain_of_an_endpoint_leaves_other_tunnels_alone() -> None:
    tunnels = Tunnels(lambda: 0.0)
    old, other = Joined(tunnels, "old"), Joined(tunnels, "other")
    tunnels.drain(100, 10, frozenset({"old"}))
    tunnels.sweep(101)
    assert old.client.sent == close_frame(SERVICE_RESTART)
    assert other.client.sent == b""
    tunnels.sweep(1000)
    assert other.client.closed == ""


def test_tunnel_that_comes_during_a_drain_leaves_at_once() -> None:
    """Not at the next sweep: the drain may be over by then, and it was cut without a word."""
    for keys, code in ((None, GOING_AWAY), (frozenset({"e"}), SERVICE_RESTART)):
        tunnels = Tunnels()
        tunnels.drain(100, 10, keys)
        late, elsewhere = Joined(tunnels, draining=bool(keys)), Joined(tunnels, "other")
        assert late.client.sent == close_frame(code)
        assert (elsewhere.client.sent == b"") is (keys is not None)


def test_tunnel_to_an_endpoint_that_was_called_back_outlives_its_old_drain() -> None:
    """The endpoint has its key again, and no deadline: what was drained is another object."""
    tunnels = Tunnels(lambda: 0.0)
    tunnels.drain(100, 10, frozenset({"e"}))
    back = Joined(tunnels, draining=False)
    tunnels.sweep(105)
    tunnels.sweep(111)
    assert (back.client.sent, back.client.closed, tunnels.forced) == (b"", "", 0)


def test_abort_drops_them_all() -> None:
    tunnels = Tunnels()
    joined = Joined(tunnels)
    tunnels.abort()
    assert (joined.client.closed, joined.upstream.closed) == ("aborted", "aborted")
