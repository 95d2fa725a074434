"""The judge's answer: a verdict, what it rests on, and why."""

from typing import Literal

import msgspec

Verdict = Literal["advance", "hold", "ask", "cleared", "draw", "pause", "abort"]
"""hold: not yet. ask: find out from the old version. While it is asked - cleared: go back to where it was;
draw: begin the next block. pause: a person must look. abort: the new version is worse."""
Gate = Literal[
    "comparison",
    "ask",
    "dead",
    "unavailable",
    "budget",
    "shift",
    "latency",
    "suspicion",
    "asks",
    "asking",
    "cleared",
    "nobody",
    "block",
    "undecided",
    "warming",
    "weights",
    "requests",
    "rate",
    "statistic",
    "forecast",
    "clear",
]
"""What the verdict comes from; clear: nothing stands against an advance."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A verdict with everything it rests on. Rates and interval in percent."""

    verdict: Verdict
    gate: Gate
    reason: str
    percent: int
    new_answers: int
    """First attempts in this step."""
    new_errors: int
    old_answers: int
    old_errors: int
    new_rate: float
    old_rate: float
    interval: tuple[float, float]
    """95 % interval of the new version's rate in this step."""
    statistic: float
    """Likelihood ratio "the new version is worse" : "it is not", of the test that the verdict comes from, or
    that is nearest to its limit."""
    limit: float
    """What that statistic must reach to have its effect."""
    comparison: Literal["concurrent", "record", "none"]
    """What the new version's errors are compared with: the old one beside it, or its record."""
    culprit: str = ""
    """The route class that the difference comes from, if it is one."""
    spent: int | None = None
    """Of the harm budget; None: there is none."""
    affordable: int | None = None
    """Highest share that the harm budget allows the next step; None: any."""
