"""Who is told of rollouts, and asked about them: takes what it is sent, or not, and late."""

import json
from collections import Counter
from typing import Any, Final

from tests.simulation.machine import Machine
from tests.simulation.network import Address, End
from tests.simulation.world import Wire, message

MOODS: Final = (*("well",) * 7, "refuses", "late", "stalls", "resets")
PATIENCE: Final = 2
"""So many tries of one message may fail: it is sent six times."""


class Hook:
    """A webhook, and all it was ever sent."""

    def __init__(self, machine: Machine, address: Address) -> None:
        self.machine = machine
        self.bodies: dict[str, bytes] = {}
        """By idempotency key."""
        self.taken: set[tuple[str, str]] = set()
        """(kind, deployment) of what it has answered with 2xx."""
        self.outcomes: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._failed: Counter[str] = Counter()
        machine.network.servers[address] = lambda end: _HookWire(self, end) and None  # type: ignore[attr-defined]

    def asked(self, head: bytes, body: bytes) -> str:
        """Take note of a message. Returns what is done to it: one of MOODS, or `vetoes`."""
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        key, kind = fields[b"idempotency-key"].decode(), fields[b"x-gateway-event"].decode()
        before = self.bodies.setdefault(key, body)
        if before != body:
            self.complaints.append(f"webhook {key} came as {before!r}, and as {body!r}")
        mood = self.machine.chance.choice(MOODS)
        if head.startswith(b"POST /questions"):
            mood = "vetoes" if mood == "refuses" else mood
        elif mood != "well":
            self._failed[key] += 1
            mood = mood if self._failed[key] <= PATIENCE else "well"
        if mood in ("well", "late"):
            self.taken.add((kind, str(self._about(body))))
        self.outcomes[mood] += 1
        return mood

    def _about(self, body: bytes) -> Any:
        return json.loads(body)["data"].get("deploymentId")


class _HookWire(Wire):
    def __init__(self, hook: Hook, end: End) -> None:
        self.hook = hook
        super().__init__(hook.machine, end)

    def on_data(self) -> None:
        found = message(self.data)
        if found is None:
            return
        head, body, taken = found
        self.data = self.data[taken:]
        mood = self.hook.asked(head, body)
        chance = self.machine.chance
        if mood == "resets":
            self.reset()
        elif mood != "stalls":
            status = {"refuses": 500, "vetoes": 409}.get(mood, 200)
            delay_s = chance.random() * (0.9 if mood == "late" else 0.02)
            answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
            self.machine.loop.after(delay_s, lambda: self.send(answer))
