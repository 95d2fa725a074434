"""The sample service, its load, and the story `gateway demo` plays on them.

This room is a user of the gateway like any other: it starts processes and calls the admin API; it knows
nothing of the gateway's inside.
"""


def main(*, headless: bool = False) -> int:
    """Play the demo. headless: end with the story, not by Ctrl-C. Returns the exit code."""
    from gateway.demo import story

    return story.main(headless=headless)
