"""What the supervisor knows of one worker: how it is heard, and how long its slot waits for the next."""

import uuid
from typing import Final

from gateway.control.processes.peer import Peer
from gateway.link.messages import ListenerName

TICK_S: Final = 0.25
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
HEALTHY_S: Final = 30.0
"""A worker that lived so long did not die of its start."""


class Backoff:
    """How long a slot waits for its next worker: not at all at first, then doubling while they die young."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def after(self, lived_s: float) -> float:
        """Return the seconds to wait, after a worker that lived `lived_s` seconds."""
        if lived_s >= HEALTHY_S:
            self._next_s = 0.0
        delay_s = self._next_s
        self._next_s = min(max(BACKOFF_FIRST_S, 2 * delay_s), BACKOFF_MAX_S)
        return delay_s


class Silence:
    """How long nothing was heard, in time this process itself was awake for.

    A control that was stopped, or starved, wakes up to a queue of heartbeats it has not read: its own absence
    must not count against the workers.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._heard_at = -1.0

    def tick(self, heard_at: float) -> float:
        """Add one tick, unless something was heard since the last. Returns the seconds of silence."""
        self.seconds = self.seconds + TICK_S if heard_at == self._heard_at else 0.0
        self._heard_at = heard_at
        return self.seconds


class Worker:
    """One process that our template forked, from the order to fork it to its end."""

    __slots__ = (
        "born_with",
        "incarnation",
        "is_doomed",
        "is_ready",
        "peer",
        "pid",
        "silence",
        "slot",
        "started_at",
    )

    def __init__(self, slot: int, now: float, born_with: tuple[ListenerName, ...]) -> None:
        self.slot = slot
        self.born_with = born_with
        """The sockets it got from the template: `Accept` is for them."""
        self.incarnation = uuid.uuid4().hex
        self.pid = 0
        self.started_at = now
        self.peer: Peer | None = None
        self.is_ready = False
        """It has acknowledged a table."""
        self.is_doomed = False
        """A kill is on its way."""
        self.silence = Silence()

    @property
    def is_heard(self) -> bool:
        """Whether it has said HELLO and its link stands."""
        return self.peer is not None and self.peer.is_open

    @property
    def link(self) -> Peer:
        """Return its link; only after HELLO."""
        assert self.peer is not None
        return self.peer
