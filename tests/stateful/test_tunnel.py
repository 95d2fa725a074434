"""A WebSocket tunnel beside a simple model, whatever its ends do and in whatever order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.worker.tunnel.frames import close_frame
from gateway.worker.tunnel.tunnel import Phase
from tests.unit.worker.tunnel.test_tunnel import Pair

CODE = 1012
GOODBYE = close_frame(CODE)
SIZES = st.sampled_from([0, 1, 5, 125, 126, 300, 66_000])
CUTS = st.sampled_from([1, 2, 3, 10, 100, 100_000])


def frame(size: int) -> bytes:
    """A frame whose payload cannot be mistaken for a Close."""
    if size < 126:
        return bytes((0x82, size)) + b"p" * size
    if size < 65_536:
        return b"\x82\x7e" + size.to_bytes(2, "big") + b"p" * size
    return b"\x82\x7f" + size.to_bytes(8, "big") + b"p" * size


class TunnelMachine(RuleBasedStateMachine):
    """The model knows what each end has sent and where frames end; the tunnel must only ever pass that on."""

    @initialize()
    def begin(self) -> None:
        self.pair = Pair(half_close=True)
        self.now = 0.0
        self.cut_at = float("inf")
        self.unsent = b""
        self.from_upstream = b""
        self.ends = {0}
        self.from_client = b""
        self.finished: set[str] = set()
        self.lost: set[str] = set()

    def is_there(self, end: str) -> bool:
        return end not in self.lost and end not in self.finished and not getattr(self.pair, end).closed

    @precondition(lambda self: self.is_there("upstream") and self.pair.upstream.reading)
    @rule(sizes=st.lists(SIZES, min_size=1, max_size=3), cut=CUTS)
    def upstream_sends(self, sizes: list[int], cut: int) -> None:
        for size in sizes:
            self.unsent += frame(size)
            self.ends.add(len(self.from_upstream) + len(self.unsent))
        self.upstream_goes_on(cut)

    @precondition(lambda self: self.unsent and self.is_there("upstream") and self.pair.upstream.reading)
    @rule(cut=CUTS)
    def upstream_goes_on(self, cut: int) -> None:
        piece, self.unsent = self.unsent[:cut], self.unsent[cut:]
        self.from_upstream += piece
        self.pair.from_upstream(piece)

    @precondition(lambda self: self.is_there("client") and self.pair.client.reading)
    @rule(data=st.binary(min_size=1, max_size=5))
    def client_sends(self, data: bytes) -> None:
        self.from_client += data
        self.pair.from_client(data)

    @rule(end=st.sampled_from(["client", "upstream"]), slow=st.booleans())
    def end_is_slow_or_catches_up(self, end: str, slow: bool) -> None:
        if end not in self.lost:
            protocol = getattr(self.pair, end).protocol
            (protocol.pause_writing if slow else protocol.resume_writing)()

    @precondition(lambda self: self.now > 2)  # most runs shall get further than this
    @rule(end=st.sampled_from(["client", "upstream"]))
    def end_finishes_sending(self, end: str) -> None:
        if self.is_there(end):
            self.finished.add(end)
            getattr(self.pair, end).protocol.eof_received()

    @rule(end=st.sampled_from(["client", "upstream"]), broken=st.booleans())
    def end_is_lost(self, end: str, broken: bool) -> None:
        wire = getattr(self.pair, end)
        if end not in self.lost and (wire.closed or (broken and self.now > 5)):
            self.lost.add(end)
            wire.lose(ConnectionResetError() if broken else None)

    @rule(after_s=st.sampled_from([0.0, 1.0]), window_s=st.sampled_from([1.0, 30.0]))
    def drain(self, after_s: float, window_s: float) -> None:
        self.cut_at = min(self.cut_at, self.now + window_s)
        self.pair.tunnel.drain(self.now + after_s, self.now + window_s, CODE)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.pair.tunnel.phase is not Phase.OVER:
            self.pair.tunnel.sweep(self.now)
            if self.now >= self.cut_at:
                assert self.pair.client.closed == "aborted"
                assert self.pair.upstream.closed == "aborted"

    @invariant()
    def client_gets_whole_frames_before_the_goodbye_and_nothing_after(self) -> None:
        sent = self.pair.client.sent
        if sent.endswith(GOODBYE):
            passed = sent.removesuffix(GOODBYE)
            assert len(passed) in self.ends
            assert self.pair.tunnel.phase >= Phase.CLOSING
        else:
            passed = sent
        assert self.from_upstream.startswith(passed)
        if self.pair.tunnel.phase is Phase.OPEN:
            assert passed == self.from_upstream

    @invariant()
    def upstream_gets_what_the_client_sent(self) -> None:
        assert self.from_client.startswith(self.pair.upstream.sent)
        if self.pair.tunnel.phase < Phase.ENDING:
            assert self.pair.upstream.sent == self.from_client

    @invariant()
    def end_is_reported_once_both_are_gone(self) -> None:
        assert self.pair.ended == (len(self.lost) == 2)
        if len(self.lost) == 1:
            (other,) = {"client", "upstream"} - self.lost
            assert getattr(self.pair, other).closed

    @invariant()
    def goodbye_and_cut_exclude_each_other(self) -> None:
        assert not (self.pair.tunnel.forced and self.pair.client.sent.endswith(GOODBYE))


TestTunnel = TunnelMachine.TestCase
TestTunnel.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
