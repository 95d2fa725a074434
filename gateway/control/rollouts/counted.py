"""What rollouts have come to since this control process began, as numbers for whoever watches."""

from typing import Final

from gateway.control.rollouts.moved import Moved
from gateway.core.rollout.commands import Decide

REASONS: Final = (
    *("order", "comparison", "ask", "dead", "unavailable", "budget", "shift", "latency", "asks", "undecided"),
    *("clock", "smoke", "hook", "isolated", "other"),
)
"""What a rollback comes from: a person's order, what the judge's verdict rested on, or who else wanted it."""
ACTIONS: Final = (
    *("start", "gate", "step", "judge", "wait", "ask", "cleared", "pause", "resume", "set_percent"),
    *("promote", "complete", "rollback", "warning", "fail"),
)
"""What a decision did: see `gateway/core/rollout/commands.py`."""


class RolloutCounts:
    """Totals by service."""

    def __init__(self) -> None:
        self.decisions: dict[tuple[str, str], int] = {}
        """(service, action) -> decisions recorded."""
        self.rollbacks: dict[tuple[str, str], int] = {}
        """(service, reason)."""
        self.shifts: dict[str, int] = {}
        """Service -> holds and rollbacks for a shift of 4xx answers."""

    def add(self, moved: Moved) -> None:
        """Count a move that is in force."""
        service = moved.state.service
        for command in moved.commands:
            if not isinstance(command, Decide):
                continue
            _count(self.decisions, (service, command.action))
            if command.action == "rollback":
                _count(self.rollbacks, (service, reason_of(moved, command)))
            if (
                command.action in ("pause", "rollback")
                and command.cause == "judge"
                and _gate(moved) == "shift"
            ):
                self.shifts[service] = self.shifts.get(service, 0) + 1

    def forget(self, known: set[str]) -> None:
        """Drop what was counted of services that are none any more."""
        for counts in (self.decisions, self.rollbacks):
            for key in [key for key in counts if key[0] not in known]:
                del counts[key]
        for service in [service for service in self.shifts if service not in known]:
            del self.shifts[service]


def reason_of(moved: Moved, command: Decide) -> str:
    """Return which of REASONS a rollback comes from."""
    if moved.order is not None:
        return "order"
    cause = "hook" if command.cause.startswith("hook:") else command.cause
    found = _gate(moved) if cause == "judge" else cause
    return found if found in REASONS else "other"


def _gate(moved: Moved) -> str:
    return moved.state.judged.gate if moved.state.judged is not None else ""


def _count(counts: dict[tuple[str, str], int], key: tuple[str, str]) -> None:
    counts[key] = counts.get(key, 0) + 1
