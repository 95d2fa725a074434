"""What a gateway has to read again of what it has in memory, by where it is and where the store is."""

from itertools import pairwise

import msgspec

from gateway.store.records import EVENTS, EVERYTHING, OF_SERVICE, SETTINGS, Changes, Position


class Unread(msgspec.Struct, frozen=True):
    """What has changed since, and is in memory as it was before."""

    everything: bool = False
    """Nobody can say what has changed: nothing in memory may be relied on."""
    services: frozenset[str] = frozenset()
    settings: bool = False
    """Tokens, the freeze."""
    events: bool = False

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Unread()
ALL = Unread(everything=True)


def unread(applied: Position | None, found: Changes) -> Unread:
    """Return what has to be read again to come from `applied` to where the store was found.

    applied: where memory is; None: nowhere yet. found: with the log from `applied` on. The log counts only if
    it joins the two without a gap: it holds the very commit that memory goes by, and each one after it. It
    does not after a failover that has lost commits, after a backup was put back, where it was pruned, and
    while an older release writes, which keeps no log.
    """
    if applied == found.at:
        return NOTHING
    if applied is None or not _joins(applied, found):
        return ALL
    topics = {topic for change in found.log[1:] for topic in change.topics}
    if EVERYTHING in topics:
        return ALL
    services = {topic.removeprefix(OF_SERVICE) for topic in topics if topic.startswith(OF_SERVICE)}
    return Unread(services=frozenset(services), settings=SETTINGS in topics, events=EVENTS in topics)


def _joins(applied: Position, found: Changes) -> bool:
    """Whether the log leads from the one to the other, and both are on one timeline."""
    if applied.timeline != found.at.timeline or not found.log:
        return False
    first, last = found.log[0], found.log[-1]
    return (
        (first.revision, first.commit) == (applied.revision, applied.commit)
        and (last.revision, last.commit) == (found.at.revision, found.at.commit)
        and all(after.follows == before.commit for before, after in pairwise(found.log))
    )
