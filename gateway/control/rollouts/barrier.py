"""Which gateways have to apply what before a rollout goes on: plain functions of the nodes seen."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, Protocol

from gateway.core.rollout.events import Event, GatewaysSeen
from gateway.core.rollout.state import Rollout
from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.records import NodeState

log = get_logger(component="rollouts")

AGAIN_S: Final = 0.1
"""How often it is looked whether all have applied; those who have say so at once."""
SAY_S: Final = 5.0


class Shared(Protocol):
    """Where gateways say what they go by."""

    @property
    def is_shared(self) -> bool: ...
    @property
    def revision(self) -> int: ...
    async def nodes(self) -> list[NodeState]: ...


def serving(nodes: Sequence[NodeState]) -> tuple[str, ...]:
    """Return the ids of the gateways that live and serve; a stand-by does not."""
    return tuple(each.id for each in nodes if not each.is_silent and each.applied_revision is not None)


def others(nodes: Sequence[NodeState]) -> list[NodeState]:
    """Return the gateways that live and serve, but for the one in charge."""
    return [
        each
        for each in nodes
        if not each.is_silent and not each.is_leader and each.applied_revision is not None
    ]


def behind(nodes: Sequence[NodeState], revision: int) -> tuple[str, ...]:
    """Return the names of the gateways that live and have not applied `revision`.

    The one in charge is not among them: it knows better than by its row.
    """
    return tuple(each.name for each in others(nodes) if (each.applied_revision or 0) < revision)


def silent(nodes: Sequence[NodeState], took_part: Collection[str]) -> tuple[str, ...]:
    """Return the names of the gateways that took part, that nothing is heard of, and that nobody removed.

    One that was ending in order when it was heard of last has ended.
    """
    return tuple(
        each.name for each in nodes if each.is_silent and not each.is_stopping and each.id in took_part
    )


def seen(nodes: Sequence[NodeState], state: Rollout, late: tuple[str, ...]) -> GatewaysSeen | None:
    """Return what a rollout does not know yet of the gateways; None: it knows. late: see `behind`."""
    event = GatewaysSeen(serving(nodes), silent(nodes, state.gateways), () if state.applied else late)
    is_known = (
        state.gateways
        and {*event.serving} <= {*state.gateways}
        and (event.silent, event.behind) == (state.silent, state.behind)
    )
    return None if is_known else event


class Barrier:
    """The nodes as they were seen last, and whoever waits for them."""

    def __init__(self, store: Shared, *, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: monotonic seconds."""
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._read_at = -1.0
        self.nodes: list[NodeState] | None = None
        """None: they were not read yet."""
        self.late: dict[str, tuple[str, ...]] = {}
        """By deployment: names of those whose applying is waited for."""

    @property
    def is_blind(self) -> bool:
        """Whether there may be others, and nobody knows who."""
        return self._store.is_shared and self.nodes is None

    def news(self, state: Rollout) -> list[Event]:
        """Return what a rollout does not know yet of the gateways."""
        if self.nodes is None:
            return []
        event = seen(self.nodes, state, self.late.get(state.id, ()))
        return [] if event is None else [event]

    async def look(self, patience_s: float) -> None:
        """Read the nodes, unless the store needs longer: then what was seen last counts."""
        if self._store.is_shared:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self.read()

    async def read(self) -> list[NodeState]:
        """Return the nodes as they are now; all who ask at once share an answer. Raises StoreError."""
        asked_at = self._clock()
        async with self._lock:
            if self.nodes is None or self._read_at < asked_at:
                started = self._clock()
                self.nodes = await self._store.nodes()
                self._read_at = started
            return self.nodes

    async def passed(self, service: str, deployment: str) -> None:
        """Return when every gateway that lives has applied what is stored now, as long as that takes."""
        if not self._store.is_shared:
            return
        revision, say_at = self._store.revision, self._clock() + SAY_S
        try:
            while (late := await self._late(revision)) != ():
                self.late[deployment] = late or ()
                if self._clock() >= say_at:
                    say_at = self._clock() + SAY_S
                    log.warning("gateways_late", service=service, deployment=deployment, nodes=late)
                await asyncio.sleep(AGAIN_S)
        finally:
            self.late.pop(deployment, None)

    async def _late(self, revision: int) -> tuple[str, ...] | None:
        """Return who has not applied `revision`; None: nobody knows."""
        try:
            return behind(await self.read(), revision)
        except StoreError:
            return None
