"""The acts of rollouts under way: each is a task that ends in a committed event."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Final, Protocol

from gateway.control.rollouts.running import Running
from gateway.core.rollout.commands import Act, Command
from gateway.core.rollout.events import Event
from gateway.core.rollout.rollout import due
from gateway.core.rollout.state import Rollout
from gateway.errors import GatewayError, StaleEpoch
from gateway.log import get_logger
from gateway.store.records import DeploymentRecord

log = get_logger(component="rollouts")

RETRY_S: Final = 1.0


class Acting(Protocol):
    """Who carries an act out."""

    async def carry_out(self, record: DeploymentRecord, state: Rollout, act: Act) -> Event: ...


class Performer:
    """Begins acts, ends those nobody waits for any more, and reports what came of them."""

    def __init__(
        self,
        acts: Acting,
        commit: Callable[[Running, Event], Awaitable[None]],
        on_ended: Callable[[Running], None],
    ) -> None:
        """commit: stores the event an act ended in. on_ended: called when an act has ended, however."""
        self._acts = acts
        self._commit = commit
        self._on_ended = on_ended
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_stopping = False

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """Return the tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    def perform(self, running: Running, commands: Iterable[Command]) -> None:
        """Begin the acts among what the machine asked for; one already under way is not begun twice."""
        for act in commands:
            if isinstance(act, Act) and repr(act) not in running.acts and not self.is_stopping:
                running.acts[repr(act)] = self._spawn(self._act(running, act), type(act).__name__)

    def drop_unwanted(self, running: Running) -> None:
        """End what nobody waits for any more: a version that is released again must not be asked to stop."""
        if running.acts:
            wanted = {repr(act) for act in due(running.state)}
            for key, task in running.acts.items():
                if key not in wanted:
                    task.cancel()

    def drop_all(self, running: Running) -> None:
        """End every act of a rollout that is no more."""
        for task in running.acts.values():
            task.cancel()

    async def stop(self) -> None:
        """End every act; the next control issues them again."""
        self.is_stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _act(self, running: Running, act: Act) -> None:
        """Carry `act` out and report the event, again and again while it fails and is still wanted."""
        try:
            while True:
                try:
                    event = await self._acts.carry_out(running.record, running.state, act)
                    running.acts.pop(repr(act), None)
                    await self._commit(running, event)
                    return
                except StaleEpoch:
                    return
                except GatewayError as exc:
                    log.error("rollout_act_failed", act=type(act).__name__, error=str(exc))
                await asyncio.sleep(RETRY_S)
                if act not in due(running.state):
                    return
        finally:
            running.acts.pop(repr(act), None)
            self._on_ended(running)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("rollout_act_broke", act=task.get_name(), error=repr(exc))
