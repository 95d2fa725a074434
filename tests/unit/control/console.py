"""An operator's calls in small: real store, catalog, rollouts and drains; fakes for workers and upstreams."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from gateway.actions.access import Access, Actor
from gateway.actions.actions import Actions
from gateway.actions.bodies import CreateService, CreateVersion, StartDeployment
from gateway.control.catalog.catalog import Catalog
from gateway.control.catalog.declared import store_declared
from gateway.control.processes.hub import WorkerInfo
from gateway.control.rollouts.acts import Acts
from gateway.control.rollouts.loop import Rollouts
from gateway.control.rollouts.webhooks import Webhooks
from gateway.control.store_watch import StoreWatch
from gateway.control.tally import Part, Tally
from gateway.control.upstreams.breakers import BreakerStatus
from gateway.control.upstreams.drains import Drains
from gateway.control.upstreams.probes import ProbeResult
from gateway.control.upstreams.smoke import SmokeReport, SmokeTest
from gateway.core.settings.smoke import SmokeSettings
from gateway.core.settings.targets import Listener, TargetRules
from gateway.link.snapshot import Snapshot
from gateway.store.records import AuditRecord, DeploymentRecord, ServiceRecord, VersionRecord
from gateway.store.sqlite import SqliteStore
from tests.unit.control.world import FakeChecks, FakeHub

START = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Actor(name="ann", role="deployer", address="10.0.0.9", user_agent="curl")
OPERATOR = Actor(name="oli", role="operator")
ROOT = Actor(name="root", role="admin")


class Links(FakeHub):
    """Workers that apply at once; keeps the tables they were sent."""

    def __init__(self) -> None:
        super().__init__()
        self.whole: Any = None
        self.tables: list[Snapshot] = []

    def publish(self, snapshot: Snapshot) -> None:
        self.tables.append(snapshot)

    def workers(self) -> list[WorkerInfo]:
        return [WorkerInfo(0, 4711, "i", 7, True, False)]

    @property
    def newest(self) -> Snapshot:
        return self.tables[-1]


class ConsoleChecks(FakeChecks):
    """Probes and smoke tests that end as told."""

    def __init__(self) -> None:
        super().__init__()
        self.probe_error: str | None = None
        self.smoke_ok = True
        self.tested: list[SmokeSettings | None] = []
        self.probed: list[str] = []
        self.before_probe: Callable[[str], Awaitable[None]] | None = None
        """What a probe finds out, before it answers."""

    async def probe(self, version_id: str) -> ProbeResult:
        self.probed.append(version_id)
        if self.before_probe is not None:
            await self.before_probe(version_id)
        return ProbeResult(
            is_healthy=self.probe_error is None, response_time_ms=3, status_code=200, error=self.probe_error
        )

    async def smoke_report(self, version_id: str, tests: SmokeSettings | None = None) -> SmokeReport:
        self.tested.append(tests)
        test = SmokeTest(
            method="GET", path="/x", expected_status=200, status=200, ok=self.smoke_ok, duration_ms=2
        )
        return SmokeReport(self.smoke_ok, 2, (test,))


class Console:
    """Everything an operator's call goes through, built as a control process builds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.links = Links()
        self.checks = ConsoleChecks()
        self.tally = Tally()
        self.time = START
        self.addresses: dict[str, tuple[str, ...]] = {}
        """Url -> what its host resolves to."""
        self.looked_up: list[str] = []
        self.breakers: dict[str, BreakerStatus] = {}
        self.upgraded = 0
        self.declared: Sequence[Any] = ()
        self.second_person = False

    async def open(self) -> "Console":
        self.store = await SqliteStore.open(f"sqlite:///{self.path / 'gateway.db'}", now=START)
        self.catalog = Catalog(self.links, workers=2, clock=lambda: 50.0, now=self.now)
        await store_declared(self.store, self.declared, self.now())
        await self.catalog.load(self.store, self.declared)
        self.drains = Drains(self.store, self.catalog, self.links)
        acts = Acts(self.catalog, self.links, self.checks, self.drains, Webhooks())
        self.rollouts = Rollouts(self.store, self.catalog, _Counts(), acts)
        await self.rollouts.recover()
        self.catalog.follow(self.rollouts)
        access = Access(
            store=self.store,
            catalog=self.catalog,
            hub=self.links,
            rollouts=self.rollouts,
            drains=self.drains,
            checks=self.checks,
            tally=self.tally,
            resolve=self._resolve,
            upgrade=self._upgrade,
            rules=TargetRules(own=lambda: [Listener("127.0.0.1", 4201)]),
            breaker=lambda key: self.breakers.get(key, BreakerStatus()),
            second_person=self.second_person,
            release="1.2.3",
            now=self.now,
        )
        self.actions = Actions(access, StoreWatch(self.store, self.path, self.now))
        return self

    async def close(self) -> None:
        await self.rollouts.stop()
        await self.drains.stop()
        await self.store.close()

    def now(self) -> datetime:
        """A clock that never says the same twice."""
        self.time += timedelta(milliseconds=1)
        return self.time

    async def _resolve(self, version_id: str, url: str) -> None:
        self.looked_up.append(url)
        self.catalog.set_addresses(version_id, url, self.addresses.get(url, ()))

    async def _upgrade(self) -> int:
        self.upgraded += 1
        return 4712

    # -- steps of a story

    async def register(
        self, version: str, *, actor: Actor = ANN, service: str = "auth", **more: Any
    ) -> VersionRecord:
        """Register a version; routes come along."""
        body: dict[str, Any] = {
            "serviceName": service,
            "version": version,
            "url": f"http://127.0.0.1:72{len(self.catalog.services):02}",
            **more,
        }
        if service not in self.catalog.services:
            body.setdefault("routes", [{"path": f"/{service}"}])
        return await self.actions.versions.create(actor, msgspec.convert(body, CreateVersion))

    async def pass_probe(self, version_id: str) -> None:
        """Let every endpoint of a version pass a probe, and the store hear of it as the probes tell it."""
        for probed in self.catalog.endpoints_of(version_id):
            probed.state.checked(ok=True)
        async with self.store.transaction() as tx:
            record = msgspec.structs.replace(
                self.catalog.version_record(version_id), health_status="healthy", ever_healthy=True
            )
            tx.put_version(record)
            tx.on_commit(lambda: self.catalog.put_version(record))

    async def two_versions(self) -> tuple[str, str]:
        """Register v1, which has the traffic, and v2, which has none; both pass their probes."""
        old, new = await self.register("v1"), await self.register("v2")
        await self.pass_probe(old.id)
        await self.pass_probe(new.id)
        return old.id, new.id

    async def start(self, to: str = "v2", *, key: str | None = None, **more: Any) -> DeploymentRecord:
        """Start a deployment of `auth`."""
        body = {"serviceName": "auth", "toVersion": to, **more}
        return await self.actions.deployments.start(
            ANN, msgspec.convert(body, StartDeployment), idempotency_key=key
        )

    async def settle(self) -> None:
        """Let every act of the rollouts that can end, end."""
        while tasks := self.rollouts.under_way:
            done, _ = await asyncio.wait(tasks, timeout=5)
            if not done:
                return

    async def settle_once(self) -> None:
        """Let some act of the rollouts end."""
        tasks = self.rollouts.under_way
        if tasks:
            await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)

    async def service(self, name: str, **more: Any) -> ServiceRecord:
        """Make a service."""
        body = {"name": name, "routes": [{"path": f"/{name}"}], **more}
        return await self.actions.services.create(ROOT, msgspec.convert(body, CreateService))

    async def audit(self) -> list[AuditRecord]:
        """Return the audit trail, newest first."""
        return (await self.store.audit(limit=200)).items

    async def stored(self, version_id: str) -> VersionRecord:
        """Return a version as the store has it."""
        return {record.id: record for record in await self.store.load_versions()}[version_id]

    def weights(self, service: str = "auth") -> dict[str, int]:
        """Return the weights workers were last told of."""
        table = next(table for table in reversed(self.links.tables) if service in table.services)
        return {version.name: int(version.weight) for version in table.services[service].versions}


class _Counts:
    """No traffic."""

    has_ended = False

    def judged(self, service: str) -> dict[tuple[str, int, int], Any]:
        return {}

    def take_cohort_errors(self, service: str) -> list[tuple[str, int, int, int, str]]:
        return []

    def part(self, service: str) -> Part:
        return Part()

    def start_of(self, part: Part, service: str, floor: int) -> dict[tuple[str, int, int], Any]:
        return {}

    def dump(self) -> bytes:
        return Tally().dump()

    def dump_stored(self) -> None:
        pass


@asynccontextmanager
async def console(path: Path, declared: Sequence[Any] = ()) -> AsyncIterator[Console]:
    """Open a console and close it in the end."""
    made = Console(path)
    made.declared = declared
    await made.open()
    try:
        yield made
    finally:
        await made.close()
