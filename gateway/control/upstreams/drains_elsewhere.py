"""Whether a version is drained on the other gateways too: decided from what they say of themselves."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.records import NodeState

log = get_logger(component="drains")

LIVED: Final = timedelta(seconds=3)
"""Who was heard of so shortly before a drain began lived then: only from then on it counts as silent."""
AGAIN_S: Final = 0.1
SELDOM_S: Final = 1.0
"""How often it is looked at most and at least: each time after a tenth of what was waited already."""
SAY_S: Final = 5.0


class Others(Protocol):
    """Where gateways say what still runs there."""

    async def read(self) -> list[NodeState]: ...


class Waiting(msgspec.Struct, frozen=True):
    """What the other gateways are asked of one drain."""

    service: str
    version: str
    version_id: str
    revision: int
    """Whoever goes by it sends nothing new to the version."""
    began: datetime
    """By the store's clock."""


def held_by(nodes: Sequence[NodeState], waiting: Waiting, *, is_over: bool) -> tuple[str, ...]:
    """Return the names of the gateways on account of which the version is not drained yet.

    is_over: whether the deadline has passed, and the moment that cutting takes.
    """
    return tuple(each.name for each in nodes if _holds(each, waiting, is_over=is_over))


def _holds(node: NodeState, waiting: Waiting, *, is_over: bool) -> bool:
    if node.is_leader:  # it knows better than by its row
        return False
    if node.applied_revision is None:  # a stand-by has no requests; one that stops does not hear of the drain
        return node.is_stopping and not node.is_silent
    if node.is_silent:  # it may serve the version, until it is back, or removed
        return node.last_seen >= waiting.began - LIVED
    if node.applied_revision < waiting.revision:
        return True
    if node.draining is None:  # of a release that does not say
        return not is_over
    return waiting.version_id in node.draining  # it cuts at the deadline itself, and says so then


class DrainedElsewhere:
    """Waits for the others, one drain as another."""

    def __init__(self, others: Others) -> None:
        self._others = others
        self.held: dict[str, tuple[str, ...]] = {}
        """By version id: names of those that are waited for."""

    async def passed(self, waiting: Waiting, over_in_s: float, called_back: asyncio.Event) -> None:
        """Return once nothing runs at the version on any other gateway, or it was called back.

        over_in_s: until the deadline and the moment after it have passed.
        """
        began = time.monotonic()
        say_at = began + SAY_S
        try:
            while not called_back.is_set():
                now = time.monotonic()
                held = await self._held_by(waiting, is_over=now >= began + over_in_s)
                if held == ():
                    return
                self.held[waiting.version_id] = held or ()
                if now >= say_at:
                    say_at = now + SAY_S
                    log.warning("drain_waits", service=waiting.service, version=waiting.version, nodes=held)
                await pause(called_back, min(SELDOM_S, max(AGAIN_S, (now - began) / 10)))
        finally:
            self.held.pop(waiting.version_id, None)

    async def _held_by(self, waiting: Waiting, *, is_over: bool) -> tuple[str, ...] | None:
        """Return who is waited for; None: nobody knows."""
        try:
            return held_by(await self._others.read(), waiting, is_over=is_over)
        except StoreError:
            return None


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Return after so long, or as soon as the event is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
