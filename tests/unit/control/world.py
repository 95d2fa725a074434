"""A control process in small: the real store and loops, fakes for catalog, workers and upstreams."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.control.rollouts.acts import Acts
from gateway.control.rollouts.loop import Rollouts
from gateway.control.rollouts.stored import load_counts
from gateway.control.rollouts.webhooks import Webhooks
from gateway.control.tally import Tally
from gateway.control.upstreams.drains import Drains
from gateway.core.rollout.plan import HookKind, RolloutSettings, Strategy, plan
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.smoke import SmokeSettings
from gateway.link.messages import Counts, EndpointLoad
from gateway.link.snapshot import Mark
from gateway.link.totals import JudgedTotals, VersionTotals
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord
from gateway.store.sqlite import SqliteStore

START = datetime(2026, 1, 1, tzinfo=UTC)
GRACE_S = 30.0
"""A machine that is slow is no store that fails."""


class FakeCatalog:
    """Records by name and id, and what was published."""

    def __init__(self) -> None:
        self.services: dict[str, ServiceRecord] = {}
        self.versions: dict[str, VersionRecord] = {}
        self.unusable: set[str] = set()
        self.published: list[dict[str, int]] = []
        """Weights by version name, at each publication."""

    def service_record(self, name: str) -> ServiceRecord:
        return self.services[name]

    def version_record(self, version_id: str) -> VersionRecord:
        return self.versions[version_id]

    def version_records(self) -> Iterable[VersionRecord]:
        return self.versions.values()

    def has_version(self, version_id: str) -> bool:
        return version_id in self.versions

    def put_service(self, record: ServiceRecord) -> None:
        self.services[record.name] = record

    def put_version(self, record: VersionRecord) -> None:
        self.versions[record.id] = record

    def put_ahead(self, service: ServiceRecord | None, versions: Iterable[VersionRecord]) -> None:
        if service is not None:
            self.put_service(service)
        for version in versions:
            self.put_version(version)

    def caught_up(self, service: str) -> None:
        """The real one lets later rows change weights again."""

    def publish(self, names: Iterable[str]) -> int:
        self.published.append({v.version: v.weight for v in self.versions.values()})
        return len(self.published)

    def is_usable(self, version_id: str) -> bool:
        return version_id not in self.unusable

    def is_healthy(self, version_id: str) -> bool:
        return version_id not in self.unusable

    def endpoint_keys(self, version_id: str) -> tuple[str, ...]:
        return (f"{version_id}|url|address",)


class FakeHub:
    """Workers that apply at once, and have `in_flight` exchanges at every endpoint."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.are_there = True
        self.drained: list[tuple[tuple[str, ...], float]] = []

    async def applied(self, number: int, timeout_s: float) -> list[int]:
        return []

    async def carry(self, number: int, timeout_s: float) -> bool:
        return self.are_there

    def drain_endpoints(self, keys: Sequence[str], deadline_s: float) -> None:
        self.drained.append((tuple(keys), deadline_s))

    def drain_state(self, keys: Iterable[str]) -> Mapping[str, EndpointLoad]:
        return {key: EndpointLoad(key, self.in_flight, 0, 0) for key in keys}

    def forget_endpoints(self, keys: Iterable[str]) -> None:
        pass


class FakeWorker:
    """What one worker has counted: it outlives control, and says it again to the next one."""

    def __init__(self, name: str = "worker") -> None:
        self.name = name
        """Its incarnation."""
        self.judged: dict[str, dict[tuple[int, int], tuple[int, int]]] = {}
        """Version id -> (generation, share) -> (answers, errors)."""

    def serve(self, version_id: str, generation: int, share: int, answers: int, errors: int = 0) -> None:
        """Answer requests, chosen while the version had that share."""
        cells = self.judged.setdefault(version_id, {})
        before = cells.get((generation, share), (0, 0))
        cells[generation, share] = before[0] + answers, before[1] + errors

    def report(self, tally: Tally) -> None:
        """Send the totals up, as each 100 ms."""
        versions = tuple(
            VersionTotals(
                service="auth",
                version=version_id,
                version_id=version_id,
                requests=[],
                attempts={},
                latency={},
                latency_us=0,
                in_flight=0,
                streams=0,
                judged=[
                    JudgedTotals(generation, share, answers, {"500": errors} if errors else {}, {})
                    for (generation, share), (answers, errors) in cells.items()
                ],
            )
            for version_id, cells in self.judged.items()
        )
        tally.on_counts(0, self.name, Counts(versions=versions))

    def rewind(self, tally: Tally) -> None:
        """Go back to what `tally` knows: the rest is to happen again."""
        self.judged = {}
        for (version_id, generation, share), total in tally.judged("auth").items():
            self.serve(version_id, generation, share, total.answers, sum(total.errors.values()))


class FakeChecks:
    """Gates that pass, unless told to fail."""

    def __init__(self) -> None:
        self.gate_reason = ""
        self.smoke_reason = ""
        self.shut_downs: list[str] = []

    async def gate(self, version_id: str) -> str:
        return self.gate_reason

    async def smoke(
        self, version_id: str, tests: SmokeSettings | None, deployment_id: str | None = None
    ) -> str:
        return self.smoke_reason

    async def shut_down(self, version_id: str, deployment_id: str) -> None:
        self.shut_downs.append(version_id)


class World:
    """One service `auth` with v1 at 100 % and v2 at 0 %."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.catalog = FakeCatalog()
        self.hub = FakeHub()
        self.worker = FakeWorker()
        self.webhooks = Webhooks()
        self.checks = FakeChecks()
        self.now = 1000.0
        self.marks: Mapping[str, Mark] = {}
        self.grace_s = GRACE_S

    async def open(self) -> "World":
        """Open the store, as a control that starts; call again after `crash`."""
        self.store = await self.open_store(f"sqlite:///{self.path / 'gateway.db'}")
        if not await self.store.load_services():
            await self._fill()
        for service in await self.store.load_services():
            self.catalog.put_service(service)
        for version in await self.store.load_versions():
            self.catalog.put_version(version)
        self.tally = Tally()
        self.worker.report(self.tally)  # it may have found control before control has read the store
        await load_counts(self.store, self.tally)
        self.drains = Drains(self.store, self.catalog, self.hub)
        self.rollouts = Rollouts(
            self.store,
            self.catalog,
            self.tally,
            self.make_acts(),
            clock=lambda: self.now,
            grace_s=self.grace_s,
            chance=lambda: 0.1,
        )
        await self.rollouts.recover(self.marks)
        self.marks = {}
        return self

    async def open_store(self, url: str) -> SqliteStore:
        return await SqliteStore.open(url, now=START)

    def make_acts(self) -> Acts:
        return Acts(self.catalog, self.hub, self.checks, self.drains, self.webhooks)

    async def crash(self, marks: Mapping[str, Mark] | None = None) -> None:
        """End without a last tick, as a kill does, and start again. marks: what the workers' tables say."""
        self.marks = marks or {}
        for task in self.rollouts.under_way:
            task.cancel()
        await self.drains.stop()
        await self.store.close()
        self.catalog = FakeCatalog()
        await self.open()

    async def close(self) -> None:
        await self.rollouts.stop()
        await self.drains.stop()
        await self.store.close()

    async def _fill(self) -> None:
        service = ServiceRecord(
            id=str(uuid.uuid4()),
            name="auth",
            settings=ServiceSettings(),
            current_version_id="v1",
            created_at=START,
            updated_at=START,
        )
        async with self.store.transaction() as tx:
            tx.put_service(service)
            for name, weight, active in (("v1", 100, True), ("v2", 0, False)):
                tx.put_version(
                    VersionRecord(
                        id=name,
                        service_id=service.id,
                        service_name="auth",
                        version=name,
                        url="http://127.0.0.1:1",
                        weight=weight,
                        is_active=active,
                        status="production" if active else "testing",
                        created_at=START,
                        updated_at=START,
                    )
                )

    async def start(
        self,
        strategy: Strategy = "canary",
        *,
        old: str = "v1",
        new: str = "v2",
        deployment: str | None = None,
        hooks: tuple[HookKind, ...] = (),
        **config: object,
    ) -> str:
        """Start a deployment; returns its id. deployment: its id; None: a fresh one."""
        settings = RolloutSettings(**{"warm_up": 0, **config})  # type: ignore[arg-type]
        record = DeploymentRecord(
            id=deployment or str(uuid.uuid4()),
            service_name="auth",
            from_version_id=old,
            from_version=old,
            to_version_id=new,
            to_version=new,
            strategy=strategy,
            created_at=START,
            updated_at=START,
        )
        async with self.store.transaction() as tx:
            self.rollouts.begin(tx, record, plan(strategy, settings, hooks=hooks), "ann")
        return record.id

    async def settle(self) -> None:
        """Let every act that can end, end."""
        while tasks := self.rollouts.under_way:
            done, _ = await asyncio.wait(tasks, timeout=5)
            if not done:
                return

    async def second(self, *, answers: int = 0, errors: int = 0) -> None:
        """Let a second pass in which the new version answered so much, at its present share."""
        generation = self.catalog.services["auth"].generation
        weight = self.catalog.versions["v2"].weight
        if answers:
            self.worker.serve("v2", generation, weight * 100, answers, errors)
            self.worker.serve("v1", generation, 10_000 - weight * 100, answers * 5)
            self.worker.report(self.tally)
        self.now += 1
        await self.rollouts.tick()
        await self.settle()

    def weights(self) -> tuple[int, int]:
        return self.catalog.versions["v1"].weight, self.catalog.versions["v2"].weight
