"""What is around the gateway: upstreams, clients, operators, as simple as they can be and as bad as they are.

Upstreams echo the number of the request they answer, and clients look at it: an answer that reaches the wrong
client, twice, or torn is seen at once.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.machine import Machine
from tests.simulation.network import WIRE, Address, End

LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
CHUNKED: Final = re.compile(rb"transfer-encoding: chunked", re.IGNORECASE)
USERS: Final = tuple(b"user%d" % number for number in range(12))
VISITOR: Final = re.compile(rb"x-visitor: (\d+)", re.IGNORECASE)
NUMBER: Final = re.compile(rb"x-number: (\d+)", re.IGNORECASE)


class Wire:
    """One end of a stream, held by the world: collects what arrives, in turns of the loop."""

    def __init__(self, machine: Machine, end: End) -> None:
        self.machine = machine
        self.end = end
        end.references += 1
        end.on_change = self._changed
        self.data = b""
        self.is_open = True
        self._is_pending = False
        self._changed()

    def _changed(self) -> None:
        if not self._is_pending:
            self._is_pending = True
            self.machine.loop.after(0.0, self._look)

    def _look(self) -> None:
        self._is_pending = False
        if not self.is_open:
            return
        while self.end.inbox:
            self.data += self.end.take(1 << 20)[0]
        if self.data:
            self.on_data()
        if self.is_open and (self.end.error is not None or self.end.has_eof):
            self.on_end(is_reset=self.end.error is not None)

    def on_data(self) -> None:
        """`data` has grown."""

    def on_end(self, *, is_reset: bool) -> None:
        """The other side is done."""
        self.close()

    def send(self, data: bytes) -> None:
        if self.is_open and self.end.error is None and not self.end.is_shut:
            self.end.send(data)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.end.references = 0
            self.end.end()

    def reset(self) -> None:
        if self.is_open:
            self.end.linger_reset = True
            self.close()


def message(data: bytes, *, is_answer_to_head: bool = False) -> tuple[bytes, bytes, int] | None:
    """Return (head, body, bytes taken) of a complete message with a length, or chunks; None: not yet."""
    at = data.find(b"\r\n\r\n")
    if at < 0:
        return None
    head, begin = data[: at + 2], at + 4
    if is_answer_to_head:
        return head, b"", begin
    if CHUNKED.search(head):
        body = b""
        while True:
            line = data.find(b"\r\n", begin)
            if line < 0:
                return None
            size = int(data[begin:line], 16)
            if len(data) < line + 4 + size:
                return None
            body += data[line + 2 : line + 2 + size]
            begin = line + 4 + size
            if size == 0:
                return head, body, begin
    found = LENGTH.search(head)
    size = int(found[1]) if found is not None else 0
    if len(data) < begin + size:
        return None
    return head, data[begin : begin + size], begin + size


class Upstream:
    """A version's process."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine = machine
        self.name = f"v{number}"
        self.number = number
        self.host = f"{self.name}.shop.internal"
        self.address: Address = (f"10.1.0.{number}", 80)
        self._moves = 0
        self.has_moved = False
        self.delay_s = 0.004
        self.error_share = 0.0
        self.is_healthy = True
        self.mood = "well"
        """well, stalls, resets, garbage, half_closes, slow."""
        self.joined = 0
        """WebSockets it has agreed to."""
        self.served: Counter[int] = Counter()
        """How often it was asked to do each request."""
        self.wires: list[_UpstreamWire] = []
        self.machine.network.names[self.host] = [self.address[0]]  # type: ignore[attr-defined]
        self.start()

    @property
    def url(self) -> str:
        """Every other version is known by a name, the others by their address."""
        return f"http://{self.host if self.number % 2 else self.address[0]}:80"

    def move(self) -> None:
        """Listen at another address, too, and give the name to that one alone."""
        self.has_moved = True
        self._moves = (self._moves + 1) % 200
        self.address = (f"10.{2 + self._moves}.0.{self.number}", 80)
        self.machine.network.names[self.host] = [self.address[0]]  # type: ignore[attr-defined]
        self.start()

    def start(self) -> None:
        """Begin to listen."""
        self.machine.network.servers[self.address] = self._accept  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Its process is gone: nobody listens, and all connections are cut."""
        self.machine.network.servers.pop(self.address, None)  # type: ignore[attr-defined]
        wires, self.wires = self.wires, []
        for wire in wires:
            wire.reset()

    def _accept(self, end: End) -> None:
        self.wires = [wire for wire in self.wires if wire.is_open]
        self.wires.append(_UpstreamWire(self, end))


class _UpstreamWire(Wire):
    def __init__(self, upstream: Upstream, end: End) -> None:
        self.upstream = upstream
        self.visitor = b""
        """Whose WebSocket it has become."""
        super().__init__(upstream.machine, end)

    def on_data(self) -> None:
        if self.visitor:
            said, self.data = self.data, b""
            if b"\n" in said:
                self._say()
            return
        while (found := message(self.data)) is not None:
            head, body, taken = found
            self.data = self.data[taken:]
            self._asked(head, body)

    def _say(self) -> None:
        text = b"%s %s" % (self.upstream.name.encode(), self.visitor)
        self.send(b"\x81%c%s" % (len(text), text))

    def _join(self) -> None:
        self.upstream.joined += 1
        self.send(
            b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n"
            b"X-Version: %s\r\n\r\n" % self.upstream.name.encode()
        )
        self._say()

    def _asked(self, head: bytes, body: bytes) -> None:
        up, machine = self.upstream, self.machine
        found = VISITOR.search(head)
        is_probe = head.startswith((b"GET /health", b"POST /bye"))
        number = NUMBER.search(head)
        if number is not None:
            up.served[int(number[1])] += 1
        delay_s = up.delay_s * (0.5 + machine.chance.random())
        mood = "well" if is_probe else up.mood
        if mood == "stalls":
            return
        if mood == "resets":
            machine.loop.after(delay_s, self.reset)
            return
        if found is not None and mood == "well":
            self.visitor = found[1]
            machine.loop.after(delay_s, self._join)
            return
        status = 200
        if is_probe:
            status = 200 if up.is_healthy else 500
        elif machine.chance.random() < up.error_share:
            status = 500
        text = b"%s %s %d" % (up.name.encode(), number[1] if number else b"-", len(body))
        answer = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)
        if machine.chance.random() < 0.2:
            answer = b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
                status,
                len(text),
                text,
            )
        if head.startswith(b"HEAD"):
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        if mood == "garbage":
            answer = b"HTTP/1.1 banana\r\n\r\n" + answer
        if mood == "half_closes":
            machine.loop.after(delay_s, lambda: (self.send(answer[: len(answer) // 2]), self.close()))
            return
        if mood == "slow":
            delay_s += 1.0
        machine.loop.after(delay_s, lambda: self.send(answer))


class Request:
    """One request of a client, and what became of it."""

    def __init__(self, number: int, method: bytes, at: float) -> None:
        self.number = number
        self.method = method
        self.at = at
        self.outcome = ""
        """Empty while it is under way; then `answered CODE`, `reset`, `refused`, `left`, `closed`."""
        self.version = ""
        self.user = b""
        self.may_fail = False
        """Its upstream breaks its answers off."""


class Client(Wire):
    """One connection of a client, one request at a time."""

    def __init__(self, clients: "Clients", end: End) -> None:
        self.clients = clients
        self.request: Request | None = None
        self.is_reused = False
        super().__init__(clients.machine, end)

    def ask(self, request: Request) -> None:
        self.request = request
        self.data = b""
        body = b"x" * 100 if request.method == b"POST" else b""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        user = b"X-User: %s\r\n" % request.user if request.user else b""
        self.send(
            b"%s /things/%d HTTP/1.1\r\nHost: shop\r\nX-Number: %d\r\n%s%s\r\n%s"
            % (request.method, request.number % 7, request.number, user, length, body)
        )

    def on_data(self) -> None:
        request = self.request
        if request is None:
            self.clients.wrong(f"{len(self.data)} bytes came unasked: {self.data[:60]!r}")
            self.close()
            return
        found = message(self.data, is_answer_to_head=request.method == b"HEAD")
        if found is None:
            return
        head, body, taken = found
        status = int(head.split(b" ", 2)[1])
        if status == 200 and request.method != b"HEAD":
            version, number, sent = body.split(b" ")
            if int(number) != request.number:
                self.clients.wrong(f"request {request.number} got the answer of {number!r}")
            if request.method == b"POST" and int(sent) != 100:
                self.clients.wrong(f"request {request.number} arrived with {sent!r} bytes")
            request.version = version.decode()
        rest, self.data, self.request = self.data[taken:], b"", None
        if rest:
            self.clients.wrong(f"bytes behind an answer: {rest[:60]!r}")
        self.clients.settle(request, f"answered {status}")
        if b"connection: close" in head.lower():
            self.close()
        else:
            self.clients.idle.append(self)

    def on_end(self, *, is_reset: bool) -> None:
        request, self.request = self.request, None
        had_begun = bool(self.data)
        self.close()
        if request is None:
            return
        if self.is_reused and not had_begun:
            self.clients.send(request, None)  # the race of a keep-alive: every client asks again
        else:
            self.clients.settle(request, "reset" if is_reset else "torn" if had_begun else "closed")

    def leave(self) -> None:
        """The user closes the window."""
        request, self.request = self.request, None
        self.close()
        if request is not None:
            self.clients.settle(request, "left")


class Clients:
    """Everybody who asks the gateway for something."""

    def __init__(self, machine: Machine, address: Address) -> None:
        self.machine = machine
        self.address = address
        self.idle: list[Client] = []
        self.busy: dict[int, Request] = {}
        self.outcomes: Counter[str] = Counter()
        self.by_version: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.rate = 10.0
        self.leave_share = 0.01
        self.asked = 0
        self.posted: set[int] = set()
        """Which of their requests were POSTs."""
        self.is_on = True
        self.on_settled: Callable[[Request], None] = lambda request: None

    def start(self) -> None:
        """Ask, at random moments, from now on."""
        if self.is_on:
            self.machine.loop.after(self.machine.chance.expovariate(self.rate), self._next)

    def _next(self) -> None:
        self.ask()
        self.start()

    def wrong(self, what: str) -> None:
        self.complaints.append(f"{self.machine.now:.3f} {what}")

    def settle(self, request: Request, outcome: str) -> None:
        if request.outcome:
            self.wrong(f"request {request.number} ended as {request.outcome}, and again as {outcome}")
        request.outcome = outcome
        self.busy.pop(request.number, None)
        self.outcomes[outcome] += 1
        self.by_version[request.version] += 1
        self.machine.note("settled", request.number, outcome, request.version)
        self.on_settled(request)

    def ask(self) -> None:
        chance = self.machine.chance
        self.asked += 1
        roll = chance.random()
        method = b"GET" if roll < 0.8 else b"POST" if roll < 0.95 else b"HEAD"
        request = Request(self.asked, method, self.machine.now)
        if chance.random() < 0.7:
            request.user = chance.choice(USERS)
        self.busy[request.number] = request
        if method == b"POST":
            self.posted.add(request.number)
        client = None
        while self.idle and method != b"POST" and chance.random() < 0.8 and client is None:
            client = self.idle.pop(int(chance.random() * len(self.idle)))
            client = client if client.is_open and not client.end.is_readable else None
        self.send(request, client)

    def send(self, request: Request, client: Client | None) -> None:
        """Send a request. client: an idle connection to send it on; None: a new one."""
        chance = self.machine.chance
        if client is None:
            source = f"10.9.0.{1 + int(chance.random() * 20)}"
            try:
                end = self.machine.network.dial(self.address, source, WIRE)  # type: ignore[attr-defined]
            except OSError:
                self.settle(request, "refused")
                return
            client = Client(self, end)
        else:
            client.is_reused = True
        client.ask(request)
        if chance.random() < self.leave_share:
            leaver = client
            self.machine.loop.after(
                chance.random() * 0.02, lambda: leaver.leave() if leaver.request is request else None
            )

    def close(self) -> None:
        """Everybody goes home."""
        self.is_on = False
        for client in self.idle:
            client.close()


class Operator:
    """Somebody who calls the admin API, one call a connection."""

    def __init__(self, machine: Machine, address: Address, token: Callable[[], str]) -> None:
        self.machine = machine
        self.address = address
        self.token = token
        self.calls: Counter[str] = Counter()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        then: Callable[[int, Any], None] = lambda status, body: None,
        fields: str = "",
    ) -> None:
        """Make a call. then: called with its status and body; status 0: there was no answer."""
        try:
            end = self.machine.network.dial(self.address, "127.0.0.1", WIRE)  # type: ignore[attr-defined]
        except OSError:
            then(0, None)
            return
        text = json.dumps(body).encode() if body is not None else b""
        head = (
            f"{method} /api/v1/admin/{path} HTTP/1.1\r\nHost: 127.0.0.1:4201\r\n"
            f"Authorization: Bearer {self.token()}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"{fields}Content-Length: {len(text)}\r\n\r\n"
        )
        _Call(self, end, f"{method} {path}", then).send(head.encode() + text)


class _Call(Wire):
    def __init__(self, operator: Operator, end: End, name: str, then: Callable[[int, Any], None]) -> None:
        self.operator = operator
        self.name = name
        self.then = then
        super().__init__(operator.machine, end)
        operator.machine.loop.after(60.0, lambda: self._over(0, None))

    def on_data(self) -> None:
        found = message(self.data)
        if found is None:
            return
        head, body, _ = found
        try:
            value = json.loads(body) if body else None
        except ValueError:
            value = body
        self._over(int(head.split(b" ", 2)[1]), value)

    def on_end(self, *, is_reset: bool) -> None:
        self._over(0, None)

    def _over(self, status: int, value: Any) -> None:
        if self.is_open:
            self.close()
            self.operator.machine.note("call", self.name, status)
            self.then(status, value)
