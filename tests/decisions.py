"""What a judge said, made up: for tests of what is done with it."""

from typing import Any

from gateway.core.judge.decision import Decision, Gate, Verdict


def decision(verdict: Verdict, gate: Gate = "clear", reason: str = "because", **given: Any) -> Decision:
    """Return a decision of `verdict`; `given`: fields that matter to the test."""
    usual: dict[str, Any] = {
        "percent": 0,
        "new_answers": 0,
        "new_errors": 0,
        "old_answers": 0,
        "old_errors": 0,
        "new_rate": 0,
        "old_rate": 0,
        "interval": (0, 100),
        "statistic": 1,
        "limit": 125,
        "comparison": "concurrent",
    }
    return Decision(verdict=verdict, gate=gate, reason=reason, **(usual | given))
