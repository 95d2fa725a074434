"""What the supervisor knows of one worker: whether it gets on, and how long its slot waits for the next."""

import uuid
from typing import Final

from gateway.control.processes.peer import Peer
from gateway.link.messages import ListenerName

TICK_S: Final = 0.5
"""How finely the two spans below are measured. Each look takes a core from somebody."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
HEALTHY_S: Final = 30.0
"""A worker that lived so long did not die of its start."""
STALL_S: Final = 2.0
"""A worker whose callbacks do nothing for so long, not even a heartbeat, is hung."""
SILENCE_S: Final = 10.0
"""A busy one owes a heartbeat all the same. Before HELLO: TLS files are read, a busy machine forks slowly."""


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


class Watch:
    """Whether a worker gets on, in time this process itself was awake for.

    A control that was stopped, or starved, wakes up to a queue of heartbeats it has not read: its own absence
    must not count against the workers.
    """

    def __init__(self) -> None:
        self.silent_s = 0.0
        """Since its last message."""
        self.stalled_s = 0.0
        """Since its last message or move of its progress counter: a busy loop has no time for messages."""
        self._heard_at = -1.0
        self._counter = -1

    def tick(self, heard_at: float, counter: int) -> None:
        """Add one tick to what has not moved since the last. heard_at: when its last message came."""
        is_silent = heard_at == self._heard_at
        is_still = is_silent and counter == self._counter
        self.silent_s = self.silent_s + TICK_S if is_silent else 0.0
        self.stalled_s = self.stalled_s + TICK_S if is_still else 0.0
        self._heard_at, self._counter = heard_at, counter

    def is_hung(self, *, has_spoken: bool) -> bool:
        """Whether it is to be killed. has_spoken: it has said HELLO, so it owes heartbeats."""
        return self.silent_s >= SILENCE_S or (has_spoken and self.stalled_s >= STALL_S)


class Worker:
    """One process that our template forked, from the order to fork it to its end."""

    __slots__ = (
        "born_with",
        "cell",
        "incarnation",
        "is_doomed",
        "is_ready",
        "peer",
        "pid",
        "slot",
        "started_at",
        "watch",
    )

    def __init__(self, slot: int, now: float, born_with: tuple[ListenerName, ...], cell: int = 0) -> None:
        self.slot = slot
        self.born_with = born_with
        """The sockets it got from the template: `Accept` is for them."""
        self.cell = cell
        """Which progress counter it raises."""
        self.incarnation = uuid.uuid4().hex
        self.pid = 0
        self.started_at = now
        self.peer: Peer | None = None
        self.is_ready = False
        """It has acknowledged a table."""
        self.is_doomed = False
        """A kill is on its way."""
        self.watch = Watch()

    @property
    def is_heard(self) -> bool:
        """Whether it has said HELLO and its link stands."""
        return self.peer is not None and self.peer.is_open

    @property
    def link(self) -> Peer:
        """Return its link; only after HELLO."""
        assert self.peer is not None
        return self.peer
