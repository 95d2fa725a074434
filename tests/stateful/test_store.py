"""The store beside a dictionary: whatever is committed, failed, reopened or pruned, both hold the same."""

import asyncio
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.routing.service import ServiceSettings
from gateway.errors import StaleEpoch
from gateway.store.api import Transaction
from gateway.store.opening import open_store
from gateway.store.records import (
    OPEN_STATUSES,
    AuditEntry,
    DeploymentRecord,
    EventRecord,
    Retention,
    ServiceRecord,
    VersionRecord,
)
from tests import postgres

pytestmark = pytest.mark.timeout(1_800)
"""Enough for the `deep` profile on a busy machine."""

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = st.sampled_from(["a", "b"])
VERSIONS = st.sampled_from(["v1", "v2", "v3"])


class Failed(Exception):
    """A block that does not end well."""


class StoreMachine(RuleBasedStateMachine):
    """Rows by id in memory: what the store must say whenever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory()
        self.services: dict[str, ServiceRecord] = {}
        self.versions: dict[str, VersionRecord] = {}
        self.deployments: dict[str, DeploymentRecord] = {}
        self.events: list[int] = []
        self.audited = 0
        self.day = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)

    def now(self) -> datetime:
        return START + timedelta(days=self.day)

    def place(self) -> str:
        """Return the url of a new store."""
        return f"sqlite:///{Path(self._folder.name) / 'gateway.db'}"

    @initialize()
    def begin(self) -> None:
        self._url = self.place()
        self.open()

    def open(self) -> None:
        self.store = self.run(open_store(self._url, now=self.now()))

    def teardown(self) -> None:
        self.run(self.store.close())
        self._loop.close()
        self._folder.cleanup()

    @rule(service=SERVICES, generation=st.integers(0, 9), fails=st.booleans())
    def put_service(self, service: str, generation: int, fails: bool) -> None:
        record = ServiceRecord(
            id=f"id-{service}",
            name=service,
            settings=ServiceSettings(),
            generation=generation,
            created_at=START,
            updated_at=self.now(),
        )
        if self.change(lambda tx: tx.put_service(record), fails=fails):
            self.services[record.id] = record

    @rule(service=SERVICES, version=VERSIONS, weight=st.integers(0, 100), fails=st.booleans())
    def put_version(self, service: str, version: str, weight: int, fails: bool) -> None:
        if f"id-{service}" not in self.services:
            return
        record = VersionRecord(
            id=f"{service}-{version}",
            service_id=f"id-{service}",
            service_name=service,
            version=version,
            url="http://127.0.0.1:1",
            weight=weight,
            created_at=START,
            updated_at=self.now(),
        )
        if self.change(lambda tx: tx.put_version(record), fails=fails):
            self.versions[record.id] = record

    @rule(service=SERVICES, again=st.booleans(), fails=st.booleans())
    def delete_service(self, service: str, again: bool, fails: bool) -> None:
        """Delete a service; `again`: and make it anew in the same transaction."""
        key = f"id-{service}"
        known = self.services.get(key)

        def work(tx: Transaction) -> None:
            tx.delete_service(key)
            if again and known is not None:
                tx.put_service(known)

        if self.change(work, fails=fails):
            self.services.pop(key, None)
            self.versions = {name: each for name, each in self.versions.items() if each.service_id != key}
            if again and known is not None:
                self.services[key] = known

    @rule(service=SERVICES, status=st.sampled_from(["rolling", "paused", "completed", "failed"]))
    def put_deployment(self, service: str, status: Any) -> None:
        is_open = status in OPEN_STATUSES
        others = [each for each in self.deployments.values() if each.service_name == service]
        if is_open and any(each.status in OPEN_STATUSES for each in others):
            return
        record = DeploymentRecord(
            id=f"d{len(self.deployments):03}",
            service_name=service,
            to_version_id="x",
            status=status,
            created_at=self.now(),
            updated_at=self.now(),
        )
        if self.change(lambda tx: tx.put_deployment(record), fails=False):
            self.deployments[record.id] = record

    @rule(fails=st.booleans())
    def add_event(self, fails: bool) -> None:
        given: list[int] = []
        record = EventRecord(at=self.now(), kind="k")
        if self.change(lambda tx: given.append(tx.add_event(record)), fails=fails):
            assert not self.events or given[0] > self.events[-1]
            self.events += given

    @rule()
    def another_control_takes_over(self) -> None:
        """The old process may not write any more; the store goes on with the new one."""
        old = self.store
        self.open()
        self.run(self.store.raise_epoch())
        self.store, new = old, self.store
        try:
            self.change(lambda tx: tx.set_meta("x", b"stale"), fails=False)
        except StaleEpoch:
            self.store = new
        assert self.store is new
        self.run(old.close())

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.open()

    @rule(days=st.integers(1, 5))
    def let_days_pass(self, days: int) -> None:
        self.day += days

    @precondition(lambda self: self.audited > 0)
    @rule()
    def prune(self) -> None:
        self.run(self.store.prune(self.now(), Retention(audit_days=2, events_days=365)))

    def change(self, work: Any, *, fails: bool) -> bool:
        """Do `work` in a transaction with its audit row. Returns whether it was committed."""

        async def transact() -> None:
            async with self.store.transaction() as tx:
                work(tx)
                tx.add_audit(AuditEntry(at=self.now(), actor="a", action="b", resource="c"))
                if fails:
                    await tx.flush()
                    raise Failed

        try:
            self.run(transact())
        except Failed:
            return False
        self.audited += 1
        return True

    @invariant()
    def the_store_says_what_was_committed(self) -> None:
        async def look() -> None:
            assert {each.id: each for each in await self.store.load_services()} == self.services
            assert {each.id: each for each in await self.store.load_versions()} == self.versions
            assert [each.id for each in await self.store.events()] == self.events
            found = [each.id for each in (await self.store.open_deployments())]
            wanted = [each.id for each in self.deployments.values() if each.status in OPEN_STATUSES]
            assert sorted(found) == sorted(wanted)
            report = await self.store.verify_audit()
            assert report.ok, report.reason

        self.run(look())

    @invariant()
    def pages_together_are_the_whole_list(self) -> None:
        async def look() -> list[str]:
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = await self.store.deployments(cursor=cursor, limit=3)
                seen += [each.id for each in page.items]
                if page.next is None:
                    return seen
                cursor = page.next

        wanted = sorted(self.deployments.values(), key=lambda each: (each.created_at, each.id), reverse=True)
        assert self.run(look()) == [each.id for each in wanted]


# Every step waits for a disk: fewer examples than of machines that live in memory.
StoreMachine.TestCase.settings = settings(
    max_examples=settings.default.max_examples // 3, stateful_step_count=12
)
TestStore = StoreMachine.TestCase


class PostgresMachine(StoreMachine):
    """The same of a store in PostgreSQL: each example has a database of its own."""

    def place(self) -> str:
        return postgres.shared().migrated()


PostgresMachine.TestCase.settings = settings(
    max_examples=max(3, settings.default.max_examples // 25), stateful_step_count=12
)
TestPostgres = postgres.needs_postgres(PostgresMachine.TestCase)
