"""The sample service, its load, and the story `gateway demo` plays on them.

This room is a user of the gateway like any other: it starts processes and calls the admin API; it knows
nothing of the gateway's inside.
"""


def main(*, hold: bool = False) -> int:
    """Play the demo. Returns the exit code: 0 if both canaries ended as they should."""
    from gateway.demo import story

    return story.main(hold=hold)
