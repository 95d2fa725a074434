"""The sample service, its load, and the story `gateway demo` plays on them.

This room is a user of the gateway like any other: it starts processes and calls the admin API; it knows
nothing of the gateway's inside.
"""

from gateway.demo.story import main

__all__ = ["main"]
