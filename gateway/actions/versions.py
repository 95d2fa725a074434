"""What operators may do with versions: register, change, test, drain, delete."""

import asyncio
import uuid
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from gateway.actions.access import (
    Access,
    Actor,
    allows,
    end_it,
    require_match,
    require_role,
    require_scope,
)
from gateway.actions.bodies import CreateVersion, DrainVersion, PatchVersion, TestVersion
from gateway.actions.problems import conflict, invalid, not_found
from gateway.actions.reports import Report
from gateway.actions.services import Services
from gateway.actions.version_use import version_use
from gateway.control.catalog.entries import ServiceEntry, VersionEntry
from gateway.control.upstreams.drains import DrainState
from gateway.control.upstreams.probes import ProbeResult
from gateway.control.upstreams.smoke import SmokeTest
from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.service import ServiceSettings
from gateway.core.settings.secrets import hidden
from gateway.core.settings.targets import parse_target
from gateway.store.api import Page, Transaction
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord

RESOLVE_S: Final = 2.0
"""How long registering a version waits for its host's name; probes begin whenever it is known."""


UNTESTED: Final[dict[str, Any]] = {
    "ever_healthy": False,
    "health_status": "unknown",
    "last_health_check": None,
}
"""What is known of the health of a version at a url that was never probed."""


class TestReport(Report, frozen=True, kw_only=True):
    """A probe and the smoke tests of a version. response_time: of the probe, milliseconds."""

    __test__ = False  # a report, whatever pytest makes of its name

    is_healthy: bool
    response_time: int
    tests: list[SmokeTest]


class Versions:
    """Everything about versions."""

    def __init__(self, access: Access, services: Services) -> None:
        """services: which make a version's service if it is unknown."""
        self._access = access
        self._services = services

    async def list_all(self, service_name: str | None = None) -> Page[VersionRecord]:
        """Return all versions, or those of one service: none of a service there is not."""
        services = self._access.catalog.services
        entries = [entry for name, entry in services.items() if service_name in (None, name)]
        return Page([self._shown(version) for entry in entries for version in entry.versions.values()])

    async def get(self, version_id: str) -> VersionRecord:
        """Return a version."""
        return self._shown(self._access.version(version_id))

    def _shown(self, entry: VersionEntry) -> VersionRecord:
        """Return a version's row with what only memory knows: its breakers, and failures in a row."""
        record = self._access.catalog.version_record(entry.record.id)
        failures = max((self._access.breaker(key).failures for key in entry.endpoints), default=0)
        return replace(record, failure_count=failures)

    # -- registering

    async def create(self, actor: Actor, body: CreateVersion) -> VersionRecord:
        """Register a version, and its service if it is unknown and routes come along."""
        details: dict[str, Any] = {"service": body.service_name, "version": body.version}
        record_id = str(uuid.uuid4())
        async with self._access.change(actor, "version.create", record_id, details) as tx:
            require_scope(actor, body.service_name)
            self._check_urls(body)
            service = self._service_for(tx, actor, body)
            mistyped = self._never_used(body)
            if mistyped is not None:
                entry = self._access.version(mistyped.id)
                await self._require_unused(actor, entry, "changing where it runs")
                record = self._corrected(mistyped, body)
            else:
                record = self._new_version(record_id, service, body, actor)
            details.update(url=record.url, weight=record.weight)
            if record.weight:
                self._next_generation(tx, service)
            tx.put_version(record)
            self._access.add_event(
                tx, "version.created", actor, record.service_name, record.version, weight=record.weight
            )
            tx.on_commit(partial(self._access.catalog.put_version, record))
        await self._look_up(record)
        self._access.catalog.publish([record.service_name])
        return self._shown(self._access.version(record.id))

    def _service_for(self, tx: Transaction, actor: Actor, body: CreateVersion) -> ServiceRecord:
        """Return the service a new version belongs to, made from the body's routes if need be."""
        known = self._access.catalog.services.get(body.service_name)
        if known is None:
            if not body.routes:
                raise not_found("service", body.service_name)
            settings = ServiceSettings(routes=body.routes)
            return self._services.add(tx, actor, body.service_name, settings)
        if body.routes and body.routes != known.record.settings.routes:
            raise conflict(
                f"service {body.service_name!r} exists and has other routes; PATCH services changes them",
                f"leave the routes out, or change them: `gateway edit {body.service_name} --route ROUTE`",
            )
        if known.named(body.version) is not None and self._never_used(body) is None:
            raise conflict(
                f"service {body.service_name!r} already has a version {body.version!r}",
                f"`gateway deploy {body.service_name} {body.version}` moves traffic to it; "
                "a new build takes a new name",
            )
        return known.record

    def _never_used(self, body: CreateVersion) -> VersionRecord | None:
        """Return the version of the same name at another url if it never had traffic: a mistyped url does not
        burn a name.
        """
        service = self._access.catalog.services.get(body.service_name)
        entry = service.named(body.version) if service is not None else None
        if entry is None or entry.record.url == body.url or entry.record.version != body.version:
            return None
        record = entry.record
        is_new = record.status == "testing" and not record.is_active and not record.draining
        return record if is_new and self._open_of(record) is None else None

    def _corrected(self, mistyped: VersionRecord, body: CreateVersion) -> VersionRecord:
        """Return a version that was never used as it is registered now."""
        return replace(
            mistyped,
            url=body.url,
            replicas=body.replicas,
            shutdown_url=body.shutdown_url,
            smoke_tests=body.smoke_tests,
            updated_at=self._access.now(),
            **UNTESTED,
        )

    def _open_of(self, record: VersionRecord) -> DeploymentRecord | None:
        """Return the open deployment that uses a version."""
        deployment = self._access.rollouts.open_for(record.service_name)
        if deployment is None or record.id not in (deployment.from_version_id, deployment.to_version_id):
            return None
        return deployment

    def _refuse_while_rolling(self, record: VersionRecord) -> None:
        """Raise Problem 409 while an open deployment uses a version."""
        deployment = self._open_of(record)
        if deployment is not None:
            raise conflict(
                f"deployment {deployment.id} is open and uses this version", end_it(record.service_name)
            )

    def _new_version(
        self, record_id: str, service: ServiceRecord, body: CreateVersion, actor: Actor
    ) -> VersionRecord:
        entry = self._access.catalog.services.get(service.name)
        is_first = entry is None or not entry.versions
        weight = body.weight if body.weight is not None else 100 if is_first else 0
        if body.version in service.settings.named_versions:
            require_role(actor, "deployer", "registering a version that its service's settings name")
        if weight:
            require_role(actor, "deployer", "giving a version weight, as a service's first one gets,")
        if weight and not is_first:
            self._access.refuse_while_open(service.name)
        if body.status == "deprecated":
            raise invalid("/status", "a new version cannot be deprecated")
        if weight and not is_first:
            what = f"register {body.version} with the weight {weight}"
            self._access.require_second(actor, service.name, what)
        now = self._access.now()
        return VersionRecord(
            id=record_id,
            service_id=service.id,
            service_name=service.name,
            version=body.version,
            url=body.url,
            replicas=body.replicas,
            weight=weight,
            status=body.status or "testing",
            shutdown_url=body.shutdown_url,
            smoke_tests=body.smoke_tests,
            created_at=now,
            updated_at=now,
        )

    def _check_urls(self, body: CreateVersion) -> None:
        self._access.check_url("/url", body.url)
        self._check_replicas(body.url, body.replicas)
        if body.shutdown_url is not None:
            self._access.check_url("/shutdownUrl", body.shutdown_url, is_target=False)
        self._access.refuse_stand_in(body)

    def _check_replicas(self, url: str, replicas: Iterable[str]) -> None:
        seen = {url}
        for index, replica in enumerate(replicas):
            self._access.check_url(f"/replicas/{index}", replica)
            if replica in seen:
                raise invalid(f"/replicas/{index}", f"{replica!r} is named twice")
            seen.add(replica)

    async def _look_up(self, record: VersionRecord) -> None:
        """Find the addresses of named hosts, for a moment; the resolver goes on trying."""
        named = [url for url in (record.url, *record.replicas) if parse_target(url).is_named]
        try:
            async with asyncio.timeout(RESOLVE_S):
                for url in named:
                    await self._access.resolve(record.id, url)
        except TimeoutError:
            pass

    # -- changing

    async def patch(
        self, actor: Actor, version_id: str, body: PatchVersion, *, if_match: str | None = None
    ) -> VersionRecord:
        """Change a version's weight, url, replicas, label, shutdown url or tests."""
        changes = {
            name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET
        }
        details = hidden(msgspec.to_builtins(changes))
        async with self._access.change(actor, "version.patch", version_id, details) as tx:
            entry = self._access.version(version_id)
            require_scope(actor, entry.record.service_name)
            require_match(if_match, entry.record)
            await self._check_patch(actor, entry, body)
            before, record = entry.record, self._changed(entry, changes)
            if record.weight != entry.record.weight:
                self._change_weights(tx, actor, entry.service, record)
            else:
                tx.put_version(record)
                tx.on_commit(partial(self._access.catalog.put_version, record))
        if _where(before) != _where(record):
            await self._look_up(record)
        if (_where(before), before.weight) != (_where(record), record.weight):
            self._access.catalog.publish([record.service_name])  # workers are told nothing else of it
        return self._shown(self._access.version(version_id))

    async def _check_patch(self, actor: Actor, entry: VersionEntry, body: PatchVersion) -> None:
        record = entry.record
        self._access.refuse_stand_in(body)
        url = record.url if body.url is UNSET else body.url
        replicas = record.replicas if body.replicas is UNSET else body.replicas
        if (url, replicas) != (record.url, record.replicas):
            self._access.check_url("/url", url)
            self._check_replicas(url, replicas)
            await self._require_unused(actor, entry, "changing where it runs")
            if record.weight:
                what = f"send the requests of {record.version} to {', '.join((url, *replicas))}"
                self._access.require_second(actor, record.service_name, what)
        elif self._relabels(record, body):
            await self._require_unused(actor, entry, "changing it")
        if isinstance(body.shutdown_url, str):
            self._access.check_url("/shutdownUrl", body.shutdown_url, is_target=False)
        weight = record.weight if body.weight is UNSET else body.weight
        if body.status == "deprecated" and weight:
            raise conflict(
                "a version with weight cannot be deprecated",
                f"`gateway drain {record.service_name} {record.version}` takes it out",
            )

    def _relabels(self, record: VersionRecord, body: PatchVersion) -> bool:
        """Return whether a change moves traffic in the end.

        Tests that fail take a rollout back, a label says which version is current, and what is called at the
        end of a rollout may stop another version.
        """
        names = ("status", "shutdown_url", "smoke_tests")
        given = {name: value for name in names if (value := getattr(body, name)) is not UNSET}
        return any(getattr(record, name) != value for name, value in given.items())

    async def _require_unused(self, actor: Actor, entry: VersionEntry, what: str) -> None:
        """Refuse an operator what changes where live requests go, or may go any moment. Problem 403."""
        if allows(actor.role, "deployer"):
            return
        deployment = self._open_of(entry.record)
        undo_to = await self._access.version_before(entry.service)
        if use := version_use(entry.record, entry.service.record.settings, deployment, undo_to):
            require_role(actor, "deployer", f"{what} (the version {use})")

    def _changed(self, entry: VersionEntry, changes: dict[str, Any]) -> VersionRecord:
        """Return a version's row with `changes`. One whose url is another is untested: it has to pass again.

        In an open deployment its label stays, which belongs to the rollout; its endpoints have to pass there
        too.
        """
        record = replace(entry.record, updated_at=self._access.now(), **changes)
        if record.url == entry.record.url:
            return record
        record = replace(record, **UNTESTED)
        if self._open_of(record) is not None:
            return record
        status = "testing" if "status" not in changes and record.status != "deprecated" else record.status
        return replace(record, is_active=False, status=status)

    def _change_weights(
        self, tx: Transaction, actor: Actor, service: ServiceEntry, changed: VersionRecord
    ) -> None:
        """Put `changed`, whose weight is new, and the service's next generation into `tx`."""
        require_role(actor, "deployer", "changing a weight")
        self._access.refuse_while_open(service.record.name)
        if changed.weight and changed.draining:
            name = f"{changed.service_name} {changed.version}"
            raise conflict("the version has been drained", f"`gateway deploy {name}` brings it back")
        records = [
            changed if each.record.id == changed.id else each.record for each in service.versions.values()
        ]
        carriers = [record for record in records if record.weight]
        if not carriers:
            raise conflict(
                "no version of the service would have any weight",
                f"give another one some first: `gateway set-weight {changed.service_name} VERSION 100`",
            )
        self._access.require_second(
            actor, changed.service_name, f"set the weight of {changed.version} to {changed.weight}"
        )
        current = service.record.current_version_id
        if len(carriers) == 1 and carriers[0].is_active:
            current = carriers[0].id
        self._next_generation(tx, service.record, current_version_id=current)
        tx.put_version(changed)
        weights = {record.version: record.weight for record in carriers}
        self._access.add_event(
            tx, "version.weight", actor, changed.service_name, changed.version, weights=weights
        )
        tx.on_commit(partial(self._access.catalog.put_version, changed))

    def _next_generation(self, tx: Transaction, service: ServiceRecord, **changes: Any) -> None:
        """Put the service's row into `tx` as its weights change: counts of two are never mixed."""
        after = replace(service, generation=service.generation + 1, updated_at=self._access.now(), **changes)
        tx.put_service(after)
        tx.on_commit(partial(self._access.catalog.put_service, after))

    # -- testing

    async def test(self, actor: Actor, version_id: str, body: TestVersion) -> TestReport:
        """Probe a version now and run smoke tests: the body's, else its own, else its service's."""
        async with self._access.refusals(actor, "version.test", version_id):
            entry = self._access.version(version_id)
            require_scope(actor, entry.record.service_name)
            self._access.refuse_stand_in(body)
        probe, smoke = await asyncio.gather(
            self._access.checks.probe(version_id),
            self._access.checks.smoke_report(version_id, body.smoke_tests),
        )
        report = TestReport(
            is_healthy=probe.is_healthy and smoke.is_healthy,
            response_time=probe.response_time_ms,
            tests=[*_failed_probe(entry, probe), *smoke.tests],
        )
        async with self._access.change(actor, "version.test", version_id, {"isHealthy": report.is_healthy}):
            self._access.version(version_id)
        return report

    # -- draining and deleting

    async def drain(self, actor: Actor, version_id: str, body: DrainVersion) -> DrainState:
        """Send a version nothing new; what runs there may finish. Asking again changes nothing."""
        timeout_ms = self._access.drain_ms if body.timeout is None else body.timeout
        async with self._access.change(actor, "version.drain", version_id, {"timeout": timeout_ms}) as tx:
            entry = self._access.version(version_id)
            require_scope(actor, entry.record.service_name)
            if not entry.record.draining:
                await self._check_drain(actor, entry)
                self._mark_draining(tx, actor, entry, timeout_ms)
        if not self._access.version(version_id).record.drained:
            self._access.drains.ordered(version_id, timeout_ms)
        return self._access.drains.state(version_id)

    async def drain_state(self, version_id: str) -> DrainState:
        """Return what still runs at a version."""
        return self._access.drains.state(self._access.version(version_id).record.id)

    async def _check_drain(self, actor: Actor, entry: VersionEntry) -> None:
        service, record = entry.service, entry.record
        await self._require_unused(actor, entry, "draining it")
        self._refuse_while_rolling(record)
        rest = [each for each in service.versions.values() if each is not entry and each.record.weight]
        if record.weight and record.ever_healthy and not any(each.is_usable for each in rest):
            raise conflict(
                "it is the last usable version of its service",
                f"deploy another one first: `gateway deploy {record.service_name} VERSION --url URL`",
            )
        if record.weight and rest:
            what = f"drain {record.version}: what it gets goes to {rest[0].record.version}"
            self._access.require_second(actor, record.service_name, what)

    def _mark_draining(self, tx: Transaction, actor: Actor, entry: VersionEntry, timeout_ms: int) -> None:
        """Put the version's drain into `tx`: no weight from now on, and a deadline that outlives us."""
        now = self._access.now()
        deadline = now + timedelta(milliseconds=timeout_ms)
        marked = replace(
            entry.record,
            draining=True,
            drained=False,
            drain_deadline=deadline,
            weight=0,
            is_active=False,
            status="deprecated",
            updated_at=now,
        )
        service = entry.service.record
        if service.current_version_id == marked.id:
            self._next_generation(tx, service, current_version_id=None)
        elif entry.record.weight:
            self._next_generation(tx, service)
        tx.put_version(marked)
        self._access.add_event(
            tx, "version.draining", actor, marked.service_name, marked.version, deadline=deadline.isoformat()
        )
        tx.on_commit(partial(self._access.catalog.put_version, marked))

    async def delete(self, actor: Actor, version_id: str, *, if_match: str | None = None) -> None:
        """Delete a drained version; its deployments' history stays."""
        details: dict[str, Any] = {}
        async with self._access.change(actor, "version.delete", version_id, details) as tx:
            entry = self._access.version(version_id)
            record = entry.record
            details.update(service=record.service_name, version=record.version)
            require_scope(actor, record.service_name)
            require_match(if_match, record)
            self._refuse_while_rolling(record)
            if not record.drained:
                raise conflict(
                    "the version is not drained",
                    f"drain it first: `gateway drain {record.service_name} {record.version} --wait`",
                )
            await self._require_unused(actor, entry, "deleting it")
            tx.delete_version(version_id)
            self._access.add_event(tx, "version.deleted", actor, record.service_name, record.version)
            tx.on_commit(partial(self._access.catalog.drop_version, version_id))
        self._access.tally.forget([version_id])
        self._access.catalog.publish([record.service_name])


def _where(record: VersionRecord) -> tuple[str, ...]:
    """Return the urls of a version."""
    return (record.url, *record.replicas)


def _failed_probe(entry: VersionEntry, probe: ProbeResult) -> list[SmokeTest]:
    """Return a probe that failed as the first of the tests, so that the report says why; else nothing."""
    if probe.is_healthy:
        return []
    health = entry.service.health or HealthSettings()
    return [
        SmokeTest(
            method="GET" if health.kind == "http" else "CONNECT",
            path=health.path if health.kind == "http" else "",
            expected_status=int(health.expected_status[:3]),
            status=probe.status_code,
            ok=False,
            duration_ms=probe.response_time_ms,
            error=f"health check: {probe.error}",
        )
    ]
