"""What the judge goes by."""

from typing import Literal

import msgspec

Effect = Literal["hold", "abort"]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's settings, as far as they are the judge's."""

    error_threshold: float = 0.05
    """An error rate up to this, as a fraction, holds up no advance."""
    min_requests: int = 20
    errors: tuple[str, ...] = ("5xx", "connect", "reset", "timeout", "abandoned", "outcome")
    false_alarm_rate: float = 0.01
    max_latency_ratio: float | None = 1.5
    on_latency: Effect = "hold"
    on_shift: Effect = "hold"
    """What a shift of 4xx answers leads to."""
    max_failed: int | None = None
    """The harm budget: failures of the new version beyond the old one's rate. None: no limit."""
    warm_up_s: float = 10.0
    """A process's first seconds, in which errors alone do not convict it."""
    mixes: bool = True
    """Whether an ask may let both versions serve at once."""
    reset_s: float = 60.0
    """The breakers' reset time-out."""
    interval_s: float = 300.0
    """A step's length: slowness that has not shown for so long holds nothing up any more."""
    sticky: bool = False
    """Users stay on a version: in the comparison, a user's first error stands for all of that user's."""

    def is_error(self, kind: str) -> bool:
        """Whether an error of `kind` counts (see `window.Error.kind`)."""
        if kind == "bad_response":
            kind = "reset"
        if kind in self.errors:
            return True
        if kind.startswith("outcome:"):
            return "outcome" in self.errors
        return kind[0] in "45" and f"{kind[0]}xx" in self.errors

    def is_shift(self, kind: str) -> bool:
        """Whether an answer of `kind` is counted by the shift test: a 4xx that is no error."""
        return kind[0] == "4" and not self.is_error(kind)
