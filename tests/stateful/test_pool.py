"""The pool beside a simple model: leased and idle is all that is open, and nothing is used twice."""

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.http1.client import UpstreamConnection
from gateway.link.snapshot import ProxySettings
from gateway.worker.pool import AT_ONCE_S, DOUBT_S, Pool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n"


class Wire(asyncio.Transport):
    """A transport that remembers whether it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True

    def write(self, data: Any) -> None:
        assert self.is_open, "a closed connection was used"

    def abort(self) -> None:
        self.is_open = False


class RequestHandler:
    """Takes a response and nothing else."""

    def on_response(self, body: bytes, *, complete: bool) -> None:
        assert complete

    def on_upstream_lost(self, error: Exception) -> None:
        """The exchange is over."""


class PoolMachine(RuleBasedStateMachine):
    """Leases, answers, losses and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint("e", url="http://127.0.0.1:1")
        self.now = 1000.0
        self.pool = Pool(self.endpoint, ServiceSettings(), ProxySettings(), clock=lambda: self.now)
        self.since: dict[UpstreamConnection, float] = {}
        self.doubted_until = 0.0
        self.young: set[UpstreamConnection] = set()
        self.leased: list[UpstreamConnection] = []
        self.idle: list[tuple[UpstreamConnection, float]] = []
        self.wires: list[Wire] = []

    def model_idle(self) -> list[UpstreamConnection]:
        return [each for each, until in self.idle if until > self.now]

    def expected(self) -> UpstreamConnection | None:
        """The one used last is the likeliest to be alive; of a doubtful upstream one that has stayed open."""
        idle = self.model_idle()
        if self.now < self.doubted_until:
            idle = [each for each in idle[:1] if self.now - self.since[each] >= AT_ONCE_S]
        return idle[-1] if idle else None

    def doubt(self, *, is_young: bool) -> None:
        if is_young:
            self.doubted_until = self.now + DOUBT_S

    @rule()
    def lease(self) -> None:
        expected = self.expected()
        connection = self.pool.lease(self.now)
        if connection is None:
            assert expected is None
            connection = UpstreamConnection(self.pool)
            self.wires.append(Wire())
            connection.connection_made(self.wires[-1])
        else:
            assert connection is expected
            assert connection.is_reused
            if self.now - self.since[connection] < AT_ONCE_S:
                self.young.add(connection)
            else:
                self.young.discard(connection)
        assert connection not in self.leased
        kept = [(each, until) for each, until in self.idle if each is not connection]
        self.idle = [pair for pair in kept if pair[0].transport.is_open]  # type: ignore[attr-defined]
        connection.send(RequestHandler(), b"GET", b"GET")  # type: ignore[arg-type]
        self.leased.append(connection)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), more=st.sampled_from([b"", b"Connection: close\r\n", b"Keep-Alive: timeout=3\r\n"]))
    def answer(self, data: st.DataObject, more: bytes) -> None:
        connection = data.draw(st.sampled_from(self.leased))
        self.leased.remove(connection)
        connection.data_received(OK % more)
        self.pool.give_back(connection, self.now)
        if more.startswith(b"Connection") or self.endpoint.draining:
            assert not connection.transport.is_open  # type: ignore[attr-defined]
        else:
            self.idle.append((connection, self.now + (2.0 if more else 4.0)))
            self.since[connection] = self.now

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def lose_leased(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.leased))
        self.leased.remove(connection)
        self.doubt(is_young=connection in self.young)
        connection.transport.abort()
        connection.connection_lost(None)

    @precondition(lambda self: self.idle)
    @rule(data=st.data(), unasked=st.booleans())
    def lose_idle(self, data: st.DataObject, unasked: bool) -> None:
        connection, until = data.draw(st.sampled_from(self.idle))
        self.idle.remove((connection, until))
        self.doubt(is_young=self.now - self.since[connection] < AT_ONCE_S)
        if unasked and connection.is_open:
            connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.transport.abort()
        connection.connection_lost(None)

    @rule(seconds=st.sampled_from([0.5, 1.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pool.sweep(self.now)
        self.idle = [(each, until) for each, until in self.idle if until > self.now]

    @rule()
    def drain(self) -> None:
        self.endpoint.draining = True
        self.pool.sweep(self.now)
        self.idle = []

    @invariant()
    def leased_and_idle_is_all_that_is_open(self) -> None:
        is_open = sum(each.is_open for each in self.wires)
        assert len(self.leased) + len(self.model_idle()) <= is_open
        assert is_open <= len(self.leased) + len(self.idle)


TestPool = PoolMachine.TestCase
