"""The test gate of a rollout on several gateways: each that serves probes the new version itself.

A follower says with what it serves how that went; the one in charge goes by it, and runs the smoke tests.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from gateway.control.rollouts.barrier import others
from gateway.control.rollouts.served import Word
from gateway.core.rollout.state import Phase, Rollout
from gateway.errors import GatewayError
from gateway.log import get_logger
from gateway.store.records import NodeState

log = get_logger(component="rollouts")

AGAIN_S: Final = 1.0
"""How soon a version that did not pass is probed again, while the one in charge still waits."""
NOT_YET: Final = "its probe was not answered yet"
NOT_KNOWN: Final = "it does not know of it yet"
UNHEALTHY: Final = "it has not passed its probes"
NOTHING_SAID: Final = "it has not said what its probes found"
SHOWN: Final = 3
"""Gateways that a rollout names when it fails by them: the first of them are enough to look at."""


class Probing(Protocol):
    """What asks a version."""

    async def gate(self, version_id: str) -> str:
        """Probe until healthy. Returns why it is not; empty if it is."""


class GatesHere:
    """The gates of rollouts, as far as a gateway that follows has a part in them."""

    def __init__(self, checks: Probing) -> None:
        self.on_news: Callable[[], object] = lambda: None
        """Called when a probe has been answered, or was not: somebody waits to hear it."""
        self._checks = checks
        self._found: dict[str, str] = {}
        """By deployment: why its new version did not pass here; empty: it did."""
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._is_over = False

    def begin(self) -> None:
        """Take part in gates, anew if it was stopped: what was found before is of another time."""
        self._is_over = False
        self._found.clear()

    def word(self, deployment: str) -> str:
        """Return why the new version has not passed here; empty: it has."""
        return self._found.get(deployment, NOT_YET)

    def follow(self, rollouts: Iterable[Rollout]) -> None:
        """Probe for those of the open rollouts that are at their gate, and no longer for any other."""
        if self._is_over:
            return
        asking = {state.id: state for state in rollouts if state.phase is Phase.GATE}
        for deployment in self._under_way.keys() - asking.keys():
            self._under_way[deployment].cancel()
        self._found = {each: found for each, found in self._found.items() if each in asking}
        for deployment in asking.keys() - self._found.keys() - self._under_way.keys():
            state = asking[deployment]
            work = self._probe(deployment, state.new)
            task = asyncio.get_running_loop().create_task(work, name=f"gate {deployment}")
            self._under_way[deployment] = task
            task.add_done_callback(partial(self._ended, state))

    async def stop(self) -> None:
        """End all of it. What was found is still said."""
        self._is_over = True
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self, deployment: str, version_id: str) -> None:
        """Probe until it passes, or nobody asks any more."""
        while True:
            try:
                found = await self._checks.gate(version_id)
            except GatewayError as exc:
                found = str(exc)
            except KeyError:
                found = NOT_KNOWN
            self._found[deployment] = found
            self.on_news()
            if not found:
                return
            await asyncio.sleep(AGAIN_S)

    def _ended(self, state: Rollout, task: asyncio.Task[None]) -> None:
        del self._under_way[state.id]
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("gate_broke", service=state.service, deployment=state.id, error=repr(exc))
            self._found[state.id] = repr(exc)


Missing = Sequence[tuple[str, str]]
"""Names of gateways, which two may share, and why the new version has not passed their probes."""


def not_passed(nodes: Sequence[NodeState], words: Mapping[str, Word]) -> Missing:
    """Return the gateways that live and serve, and whose probes the new version has not passed.

    words: what each says, by id. Why is empty for one that says nothing, and whose release is another than
    that of the one in charge: it may not know that it is asked.
    """
    own = {each.release for each in nodes if each.is_leader}
    found = []
    for node in others(nodes):
        word = words.get(node.id)
        if word is None:
            found.append((node.name, NOTHING_SAID if node.release in own else ""))
        elif word.gate is None and not word.is_healthy:
            found.append((node.name, UNHEALTHY))
        elif word.gate:
            found.append((node.name, word.gate))
    return found


def failure(missing: Missing) -> str:
    """Return why a gate is not passed, by whom it was missed last; empty: it is."""
    failed = [f"gateway {name}: {why}" for name, why in missing if why]
    more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    return "; ".join(failed[:SHOWN]) + more
