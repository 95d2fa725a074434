"""One rollout in this process."""

import asyncio

from gateway.control.rollouts.moved import Moved
from gateway.control.rollouts.windows import Windows
from gateway.core.rollout.rollout import due
from gateway.core.rollout.state import Rollout
from gateway.store.records import DeploymentRecord


class Running:
    """Its row and its state as they are in force, and what is being done about it."""

    def __init__(self, record: DeploymentRecord, state: Rollout) -> None:
        self.record = record
        self.state = state
        self.acts: dict[str, asyncio.Task[None]] = {}
        """By what is done: an act itself may hold smoke tests, which cannot be hashed."""
        self.windows = Windows(state.id, state.old, state.new)
        self.closed = asyncio.Event()
        """Set once it is not open any more."""
        self.counted = b""
        """What had been counted when the newest window was closed, or when windows began, as it is stored."""
        self.elapsed_s = 0.0
        """Observed time that no state in force has used up."""
        self.proposed: Moved | None = None
        """What the last transaction about it would store: perhaps on its way, perhaps failed."""
        self.unstored: list[Moved] = []
        """Moves that are in force, and not stored yet."""
        self.overtaken: list[Moved] = []
        """Moves that were stored when something else had gone ahead of them: what they stored is to be taken
        back."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, tidying up included."""
        return not self.state.is_open and not due(self.state)
