"""The faults `rehearsed.py` can have."""

from typing import Final

FAULTS: Final = {
    "slow-health": "health",
    "early-health": "health",
    "closes-unannounced": "keep-alive",
    "closes-each": "keep-alive",
    "head-with-body": "head",
    "resets-uploads": "upload",
    "one-at-a-time": "slow-client",
    "short-idle": "idle",
    "dies-at-once": "stop",
    "never-ends": "stop",
    "drops-new-ones": "stop",
    "fails": "two-versions",
}
"""Fault -> the check that has to name it."""
