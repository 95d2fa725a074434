"""A control process that can be killed at every point where a kill makes a difference.

The points are not listed: whatever commits, acts or waits for workers passes one before and one after. A run
without a kill counts them; then it is played again, killed at each.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gateway.control.rollouts.acts import Acts
from gateway.control.rollouts.stored import load_counts
from gateway.control.rollouts.webhooks import Answer, Message, Webhooks
from gateway.control.tally import Tally
from gateway.core.rollout.commands import Act
from gateway.core.rollout.events import Event
from gateway.core.rollout.state import Rollout
from gateway.core.routing.service import WebhookSettings
from gateway.store.records import DeploymentRecord
from gateway.store.sqlite import SqliteStore
from gateway.store.transaction import SqliteTransaction
from tests.unit.control.world import FakeHub, World

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """Control is gone: nothing it would still do is done. Not an Exception, so that nobody handles it."""


class Fate:
    """Counts the points control passes, and ends it at one of them."""

    def __init__(self, kill_at: int = -1) -> None:
        self.kill_at = kill_at
        self.passed = 0
        self.is_dead = False
        self.is_told = False
        """Whether the story has begun."""
        self.where = ""

    def point(self, name: str) -> None:
        """Pass a point. Raises Killed at the chosen one, and from then on at every one."""
        if not self.is_told:
            return
        if self.passed == self.kill_at and not self.is_dead:
            self.is_dead, self.where = True, name
        self.passed += 1
        if self.is_dead:
            raise Killed(name)

    def revive(self) -> None:
        """The next control lives."""
        self.is_dead, self.kill_at = False, -1


class MortalStore(SqliteStore):
    """The real store, with a point before each commit and one after it, before anybody knows of it."""

    fate: Fate

    @asynccontextmanager
    async def transaction(
        self, *, urgent: bool = False, anywhere: bool = False
    ) -> AsyncIterator[SqliteTransaction]:
        async with super().transaction(urgent=urgent, anywhere=anywhere) as tx:
            tx.on_commit(lambda: self.fate.point("between a commit and its acts"))
            yield tx
            self.fate.point("before a commit")


class MortalActs(Acts):
    """The real acts, with a point between each and the event it ends in."""

    fate: Fate

    async def carry_out(self, record: DeploymentRecord, state: Rollout, act: Act) -> Event:
        event = await super().carry_out(record, state, act)
        self.fate.point(f"between {type(act).__name__} and its event")
        return event


class MortalHub(FakeHub):
    """Workers; control may die while it waits for them."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self.fate = fate

    async def applied(self, number: int, timeout_s: float) -> list[int]:
        self.fate.point("waiting for workers")
        return []


class Listeners(Webhooks):
    """The other end of the webhooks: what it was told and asked, by idempotency key."""

    def __init__(self, fate: Fate, refused: str = "") -> None:
        super().__init__()
        self.fate = fate
        self.refused = refused
        self.told: dict[str, str] = {}
        self.asked: dict[str, str] = {}

    def notify(self, hooks: Iterable[WebhookSettings], message: Message) -> list[asyncio.Task[None]]:
        if not self.fate.is_dead:
            self.told[message.key] = message.text
        return []

    async def ask(self, hooks: Iterable[WebhookSettings], message: Message) -> Answer:
        self.asked[message.key] = message.kind
        return Answer(message.kind != self.refused, "not today")


class MortalWorld(World):
    """The control world, killed once where `fate` says, and started again by whoever plays it."""

    def __init__(self, path: Path, fate: Fate, *, refused_hook: str = "") -> None:
        super().__init__(path)
        self.fate = fate
        self.hub = MortalHub(fate)
        self.webhooks = Listeners(fate, refused_hook)
        self.listeners = self.webhooks

    async def open_store(self, url: str) -> SqliteStore:
        store = await MortalStore.open(url, now=START)
        store.fate = self.fate
        await store._writer.execute("PRAGMA synchronous = OFF")  # it is not the power that fails here
        return store

    def make_acts(self) -> Acts:
        acts = MortalActs(self.catalog, self.hub, self.checks, self.drains, self.webhooks)
        acts.fate = self.fate
        return acts

    async def revive(self) -> None:
        """Start control again. The requests nobody took down happen again: the script is played by state."""
        self.fate.revive()
        published = self.catalog.published
        kept = Tally()
        await load_counts(self.store, kept)
        self.worker.rewind(kept)
        await self.crash()
        await self.settle()
        await self.rollouts.tick()  # starts the clock
        self.catalog.published[:0] = published

    async def outcome(self) -> dict[str, Any]:
        """Return what a person could tell afterwards, time apart."""
        deployments = (await self.store.deployments(limit=50)).items
        return {
            "deployments": {record.id: _plain(record) for record in deployments},
            "decisions": {
                record.id: [
                    (row.step, row.verdict, row.reason, row.actor, row.data)
                    for row in (await self.store.decisions(record.id, limit=500)).items
                ]
                for record in deployments
            },
            "events": [
                (row.kind, row.version, row.actor, row.data.get("text"), row.data.get("percent"))
                for row in await self.store.events(after=0, limit=500)
            ],
            "versions": {
                row.id: (row.weight, row.status, row.is_active, row.draining, row.drained)
                for row in await self.store.load_versions()
            },
            "services": [
                (row.current_version_id, row.generation) for row in await self.store.load_services()
            ],
            "windows": {record.id: await self._replayable(record.id) for record in deployments},
            "weights the workers saw": _changes(self.catalog.published),
            "told": self.listeners.told,
            "asked": self.listeners.asked,
            "stopped": set(self.checks.shut_downs),
        }

    async def _replayable(self, deployment: str) -> dict[tuple[str, int, int], tuple[int, int]]:
        """Return answers and errors kept for replay, by version, generation, share, however cut."""
        found: dict[tuple[str, int, int], tuple[int, int]] = {}
        for row in await self.store.windows(deployment_id=deployment):
            key = (row.version_id, row.generation, row.share)
            answers, errors = found.get(key, (0, 0))
            found[key] = answers + row.answers, errors + sum(row.errors.values())
        return found


def _plain(record: DeploymentRecord) -> tuple[Any, ...]:
    return (
        record.status,
        record.traffic_percent,
        record.current_step,
        record.error_message,
        record.request_count,
        record.error_count,
    )


def _changes(published: list[dict[str, int]]) -> list[dict[str, int]]:
    return [here for before, here in zip([{}, *published], published, strict=False) if here != before]
