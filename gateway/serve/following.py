"""A gateway that serves while another one is in charge: it goes by what is stored, and takes over in time."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final

from gateway.cluster.feed import Feed
from gateway.cluster.presence import Presence
from gateway.cluster.unread import Unread
from gateway.config import Config
from gateway.control.catalog.followed import Followed
from gateway.control.rollouts.gates import GatesHere
from gateway.control.rollouts.reporting import Reporting
from gateway.core.rollout.isolation import Lease, Then, on_return
from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.serve.background import Background
from gateway.serve.charge import again, if_soon, patiently
from gateway.serve.wiring import Components
from gateway.store.api import Store

log = get_logger(component="cluster")

APPLY_S: Final = 5.0
"""How long workers that do not take a table keep this gateway from saying that it has applied it."""
LATE_S: Final = 0.5
"""How often a follower tries to store what it did without the store."""


TOKEN_NAME: Final = "admin.token"  # noqa: S105  # a file's name


async def begin(
    components: Components, presence: Presence, background: Background, settings: Callable[[], Config]
) -> "Following | None":
    """Lead if the store is ours: None; follow whoever has it. settings: as read last. Raises GatewayError."""
    presence.isolated_in_s = lambda: components.isolation.left_s
    if not presence.is_alone:
        components.feed = Reading(components, presence).feed
        presence.applied = components.feed.applied_revision
        _say_what_drains(components, presence)
    if components.feed is not None and components.store.follows:
        following = Following(components, components.feed, presence, background, settings)
        await following.begin()
        return following
    await _lead(components, background, settings())
    return None


def _say_what_drains(components: Components, presence: Presence) -> None:
    """Have the beat say it while another gateway is in charge; that one knows what drains here by itself."""
    store, here = components.store, components.drains.here
    presence.draining = lambda: here.busy() if store.follows else ()
    here.on_emptied = presence.hurry


async def _lead(components: Components, background: Background, settings: Config) -> None:
    """Go on with what the store says is under way: the catalog is loaded."""
    await components.take_up(settings.store.folder / TOKEN_NAME)
    with suppress(StoreError):  # the first tick tries again
        await components.rollouts.settle()
    background.lead(components)


class Reading:
    """Takes into memory what other gateways have committed, and has the workers go by it."""

    def __init__(self, components: Components, presence: Presence) -> None:
        self._components = components
        self._store: Store = components.store
        self._followed = Followed(components.catalog)
        hurry = presence.hurry
        # Nobody waits for what the one in charge says of itself.
        self.feed = Feed(
            self._store, self._read, self._apply, lambda: self._store.follows and hurry(), self._caught_up
        )
        components.rollouts.follow()  # until they are taken up

    async def _read(self, what: Unread) -> None:
        parts = self._components
        if what.everything or what.services:
            names = None if what.everything else what.services
            rows = await self._store.load_catalog(names)
            stored = await parts.rollouts.stored(rows.deployments, names)
            # All at once from here: what acts find is as it was stored.
            is_leading = not self._store.follows
            self._followed.put(rows, names, skips_unusable=is_leading)
            if parts.rollouts.go_on(stored):
                self._followed.forget()
                self._followed.put(rows, names, skips_unusable=is_leading)
            self._followed.publish()
            if parts.rollouts.leads:
                parts.drains.recover(rows.versions)
            elif not is_leading:
                parts.drains.here.follow(version.id for version in rows.versions)
        if what.everything or what.settings:
            await self._store.reread_tokens()
            await parts.auth.reread()
            await parts.rollouts.reread_freeze()
        self._store.on_event()

    def _caught_up(self, lease: Lease) -> None:
        isolation = self._components.isolation
        if self._store.follows and on_return(lease, isolation.limit_s) is Then.FOLLOW:
            isolation.in_touch(lease.at)

    async def _apply(self) -> None:
        await self._components.resolver.resolve_new()
        await self._components.hub.applied(self._components.catalog.number, APPLY_S)


class Following:
    """The time between its start and its being in charge."""

    def __init__(
        self,
        components: Components,
        feed: Feed,
        presence: Presence,
        background: Background,
        settings: Callable[[], Config],
    ) -> None:
        """settings: as read last."""
        self._components = components
        self._store: Store = components.store
        self._feed = feed
        self._presence = presence
        self._background = background
        self._settings = settings
        self.is_over = False
        """Whether this gateway is in charge now."""
        self._reporting = Reporting(
            components.store,
            components.tally,
            lambda: components.rollouts.under_judgement,
            components.catalog,
            GatesHere(components.checks),
            node=presence.node.id,
        )

    async def begin(self) -> None:
        """Read all that is stored, and follow from now on. Raises GatewayError."""
        self._store.known = None  # a start has read services alone
        await patiently(self._store, self._feed.look)
        self._components.catalog.follow(self._components.rollouts)
        self.go_on()
        log.info("following", revision=self._feed.applied_revision())

    def go_on(self) -> None:
        """Follow in the background, also once more after that was ended."""
        self._background.follow(self._run())

    async def last_words(self) -> None:
        """Say what was not said yet of rollouts, if the store takes it soon: this process is about to end."""
        if not self.is_over:
            await if_soon(self._reporting.report())

    async def _run(self) -> None:
        """Follow until the lease is ours; then lead. The workers stay as they are."""
        if self._store.follows:  # else it was ended amid what follows
            await self._meanwhile(self._feed.run(), self._reporting.run(), self._store_late())
        log.warning("taking_over", revision=self._feed.applied_revision())
        self._components.admin.hold_changes(held=True)
        self._background.hold(self._store)
        settings = self._settings()
        await self._components.begin_anew(settings.service)
        self._reporting.give_back()
        await self._components.drains.here.stop()  # from here on they are ours
        await _lead(self._components, self._background, settings)
        self._components.admin.hold_changes(held=False)
        self.is_over = True

    async def _meanwhile(self, *works: Coroutine[object, object, None]) -> None:
        """Claim the lease, and do this until then: none of it ends by itself."""
        loop = asyncio.get_running_loop()
        claim = loop.create_task(self._claim(), name="claim")
        tasks = [claim, *(loop.create_task(work, name="following") for work in works)]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _store_late(self) -> None:
        """Store what was ordered here without the store, as soon as it takes it."""
        rollouts = self._components.rollouts
        while True:
            await asyncio.sleep(LATE_S)
            if rollouts.has_unstored:
                with suppress(StoreError):
                    await rollouts.store_late()

    async def _claim(self) -> None:
        node = self._presence.node
        await again(lambda: self._store.claim(node.id, node.name), on_refused=lambda error: None)
