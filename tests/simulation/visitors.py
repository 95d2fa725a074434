"""Clients that stay: each opens a WebSocket, says something now and then, and leaves in the end."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.simulation.machine import Machine
from tests.simulation.network import WIRE, Address, End
from tests.simulation.world import Wire

EVERY_S: Final = 4.0
STAY_S: Final = 9.0
TALK_S: Final = 1.5
VERSION: Final = re.compile(rb"(?i)x-version: (\S+)")
CLOSE: Final = b"\x88\x02"
"""A Close frame with a code alone (RFC 6455 §5.5.1)."""


class Visitor(Wire):
    """One WebSocket, as its client sees it."""

    def __init__(self, visitors: "Visitors", number: int, end: End) -> None:
        self.visitors = visitors
        self.number = number
        self.version = ""
        """Who answered; empty before the 101."""
        self.goodbye = 0
        """The code of the Close that came."""
        self.head = b""
        super().__init__(visitors.machine, end)
        self.send(
            b"GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: x\r\nX-Visitor: %d\r\n\r\n" % number
        )
        chance = visitors.machine.chance
        visitors.machine.loop.after(chance.expovariate(1 / STAY_S), self.leave)

    def on_data(self) -> None:
        if not self.head:
            at = self.data.find(b"\r\n\r\n")
            if at < 0:
                return
            self.head, self.data = self.data[:at], self.data[at + 4 :]
            if not self.head.startswith(b"HTTP/1.1 101"):
                self.ended(f"answered {int(self.head.split(b' ', 2)[1])}")
                return
            self.visitors.joined += 1
            self.version = VERSION.search(self.head)[1].decode()  # type: ignore[index]
            self._talk()
        while len(self.data) >= 2 and len(self.data) >= 2 + self.data[1]:
            frame, self.data = self.data[: 2 + self.data[1]], self.data[2 + self.data[1] :]
            self._hear(frame)

    def _hear(self, frame: bytes) -> None:
        if frame.startswith(CLOSE):
            self.goodbye = int.from_bytes(frame[2:4])
            self.send(frame)
            self.ended(f"goodbye {self.goodbye}")
            return
        version, number = frame[2:].decode().split()
        if version != self.version:
            self.visitors.wrong(f"visitor {self.number} is with {self.version}, and heard {version}")
        if int(number) != self.number:
            self.visitors.wrong(f"visitor {self.number} heard what was said to {number}")

    def _talk(self) -> None:
        if self.is_open:
            self.send(b"%d\n" % self.number)
            self.machine.loop.after(self.machine.chance.expovariate(1 / TALK_S), self._talk)

    def leave(self) -> None:
        if self.is_open:
            self.ended("left" if self.head else "left early")

    def on_end(self, *, is_reset: bool) -> None:
        self.ended("cut" if self.head else "refused")

    def ended(self, how: str) -> None:
        """It is over."""
        if self.is_open:
            self.close()
            self.visitors.ended(self, how)


class Visitors:
    """All of them."""

    def __init__(self, machine: Machine, address: Address) -> None:
        self.machine = machine
        self.address = address
        self.open: dict[int, Visitor] = {}
        self.outcomes: Counter[str] = Counter()
        self.joined = 0
        """How many heard a 101."""
        self.complaints: list[str] = []
        self.on_ended: Callable[[Visitor, str], None] = lambda visitor, how: None
        self._count = 0
        self._is_on = True

    def start(self) -> None:
        """Come, at random moments, from now on."""
        if self._is_on:
            self.machine.loop.after(self.machine.chance.expovariate(1 / EVERY_S), self._next)

    def _next(self) -> None:
        if not self._is_on:
            return
        self._count += 1
        try:
            end = self.machine.network.dial(self.address, "10.9.1.1", WIRE)  # type: ignore[attr-defined]
        except OSError:
            self.outcomes["refused"] += 1
        else:
            self.open[self._count] = Visitor(self, self._count, end)
        self.start()

    def wrong(self, what: str) -> None:
        self.complaints.append(f"{self.machine.now:.3f} {what}")

    def ended(self, visitor: Visitor, how: str) -> None:
        self.open.pop(visitor.number, None)
        self.outcomes[how] += 1
        self.machine.note("visited", visitor.number, how, visitor.version)
        self.on_ended(visitor, how)

    def close(self) -> None:
        """Everybody goes home."""
        self._is_on = False
        for visitor in list(self.open.values()):
            visitor.leave()
