"""What runs beside the admin listener: the components' loops, housekeeping, systemd's watchdog."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gateway import log
from gateway.cluster.presence import Presence
from gateway.control.processes.reaper import keep_reaping
from gateway.control.processes.sdnotify import Notifier
from gateway.control.store_watch import StoreWatch
from gateway.errors import StaleEpoch, StoreError
from gateway.serve.wiring import Components
from gateway.store.api import Store

logger = log.get_logger(component="serve")

HOUSEKEEPING_S: Final = 3600.0
HOUSEKEEPING_AGAIN_S: Final = 60.0
"""After a failure: a full disk is what pruning is for."""


class Background:
    """The owner of every task that the control process runs."""

    def __init__(self, notifier: Notifier, on_broken: Callable[[], None]) -> None:
        """on_broken: a loop ended that never should; the next control starts afresh."""
        self._notifier = notifier
        self._on_broken = on_broken
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._holding: asyncio.Task[None] | None = None
        self._present: asyncio.Task[None] | None = None

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work`; its failure is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        return task

    def be_seen(self, presence: Presence) -> None:
        """Say to other gateways that this one lives, in charge or not; asking twice is as well."""
        if self._present is None:
            self._present = self.spawn(presence.run(), "presence")

    def hold(self, store: Store) -> None:
        """Stay the store's one gateway: also while all is handed over to a successor, in the same place."""
        if self._holding is None:
            self._holding = self.spawn(store.hold(), "lease")

    async def hold_no_longer(self) -> None:
        """Leave being in charge to another gateway; this one is still seen to live."""
        await _ended(self._holding)

    async def release(self) -> None:
        """Neither hold it nor be seen any longer; the store is closed next."""
        await _ended(self._holding)
        await _ended(self._present)

    def lead(self, components: Components) -> None:
        """Run what goes on as long as this control is in charge of the store."""
        if components.feed is not None:
            self._loops.append(self.spawn(components.feed.run(), "feed"))
            self._loops.append(self.spawn(components.actions.approvals.run(), "approvals"))
        self._loops += [
            self.spawn(components.rollouts.run(), "rollouts"),
            self.spawn(components.retention.run(), "retention"),
            self.spawn(components.tally.history.run(components.store), "history"),
            self.spawn(keep_house(components.store, components.watch), "housekeeping"),
            self.spawn(components.watch.run(), "store watch"),
        ]

    def follow(self, following: Coroutine[Any, Any, None]) -> None:
        """Run what goes on as long as another gateway is in charge: it ends in being in charge."""
        self._loops.append(self.spawn(following, "following"))

    def start_loops(self, components: Components) -> None:
        """Run what goes on as long as this control has workers."""
        self._loops += [
            self.spawn(components.probes.run(), "probes"),
            self.spawn(components.breakers.run(), "breakers"),
            self.spawn(components.resolver.run(), "resolver"),
            self.spawn(components.spans.run(), "spans"),
            self.spawn(keep_reaping(), "reaper"),
        ]
        if components.isolation.limit_s:
            self._loops.append(self.spawn(components.isolation.run(), "isolation"))
        if self._notifier.watchdog_s is not None:
            self._loops.append(
                self.spawn(feed_watchdog(self._notifier, self._notifier.watchdog_s), "watchdog")
            )

    async def stop_loops(self) -> None:
        """End them; returns when they have."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        logger.error("task_broke", task=task.get_name(), error=repr(task.exception()))
        if task in self._loops or task is self._holding:
            self._on_broken()


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def keep_house(store: Store, watch: StoreWatch) -> None:
    """Prune the store and verify its audit chain, hourly. Raises StaleEpoch: another control is in charge."""
    while True:
        try:
            pruned = await store.prune(store.now())
            report = await watch.verified()
        except StaleEpoch:
            raise
        except StoreError as exc:
            logger.error("housekeeping_failed", error=str(exc), next_in_s=HOUSEKEEPING_AGAIN_S)
            await asyncio.sleep(HOUSEKEEPING_AGAIN_S)
            continue
        logger.info("audit_head", ok=report.ok, count=report.count, head=report.head_hash, pruned=pruned)
        await asyncio.sleep(HOUSEKEEPING_S)


async def feed_watchdog(notifier: Notifier, interval_s: float) -> None:
    """Show systemd that the loop still turns."""
    while True:
        notifier.watchdog()
        await asyncio.sleep(interval_s)
