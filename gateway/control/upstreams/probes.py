"""Health probes: every endpoint asked on its own clock, what they find stored and sent on.

One task an endpoint, asleep nearly always; a bounded number of checks at once. Requests never wait for a
probe: what they see is the health of the last table.
"""

import asyncio
import random
import ssl
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from gateway.core.resilience.health import Health, HealthSettings, HealthState, compile_check, judge_probe
from gateway.core.settings.targets import ANYWHERE, TargetRules
from gateway.errors import Exhausted, GatewayError, StoreError, UpstreamError
from gateway.http1.fetch import fetch, tcp_check
from gateway.log import get_logger
from gateway.store.api import Store, Transaction
from gateway.store.records import EventRecord, HealthCheckRecord, VersionRecord

log = get_logger(component="probes")

CONCURRENT: Final = 64
FLUSH_S: Final = 1.0
FAILURES_PER_PROBE_S: Final = 1.0
"""A passive failure asks for a probe at once, at the most this often for each endpoint."""
GATE_GAP_S: Final = 0.1
NEW_INTERVAL_S: Final = 1.0
RARE: Final = 6
"""Intervals between two probes of what nobody waits for."""
NO_ADDRESS: Final = "its host name has no address"
KEPT_RESULTS: Final = 100_000
"""Results that wait for a store that cannot write: as many as it keeps of 1,000 endpoints."""


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint to probe, as the catalog has it now."""

    key: str
    version_id: str
    url: str
    address: str
    settings: HealthSettings
    state: HealthState
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    is_idle: bool = False
    """Its version has no weight and is in no open rollout: what is found there alarms nobody."""
    is_rare: bool = False
    """It is idle and has been for a while: it is asked at every sixth interval."""


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found: the last of its tries. response_time_ms: of that try."""

    is_healthy: bool
    response_time_ms: int
    status_code: int | None = None
    error: str | None = None


class CatalogView(Protocol):
    """What probing needs of the catalog."""

    def to_probe(self) -> Iterable[str]:
        """Return the key of every endpoint that may answer: but for drained ones that have ceased to."""

    def probed(self, key: str) -> Probed | None:
        """Return what there is to probe under `key`; None if it is gone."""

    def endpoints_of(self, version_id: str) -> list[Probed]:
        """Return the endpoints of one version, whatever its state; none if its health is switched off."""

    def endpoint_keys(self, version_id: str) -> tuple[str, ...]:
        """Return the keys of a version's endpoints, probed or not."""

    def version_record(self, version_id: str) -> VersionRecord: ...
    def put_version(self, record: VersionRecord) -> None: ...
    def health_of(self, version_id: str) -> Health: ...
    def publish(self, names: Iterable[str]) -> int: ...


class Probes:
    """All probing of this control process."""

    def __init__(
        self,
        store: Store,
        catalog: CatalogView,
        *,
        rules: TargetRules = ANYWHERE,
        chance: Callable[[], float] = random.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._rules = rules
        self._chance = chance
        self._now = now
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hurry: dict[str, asyncio.Event] = {}
        self._hurried_at: dict[str, float] = {}
        self.counts: dict[str, dict[str, int]] = {}
        """Version id -> checks made since the start, by result."""
        self._results: list[HealthCheckRecord] = []
        self._events: list[EventRecord] = []
        self._news = asyncio.Event()
        self._is_failing = False

    # -- the loop

    async def run(self) -> None:
        """Probe until cancelled; what was found is stored once a second, in one transaction."""
        try:
            while True:
                self.reconcile()
                await self._pause()
                await self._store_what_came()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._tasks.clear()

    async def _store_what_came(self) -> None:
        """Store; a store that cannot now gets it later."""
        try:
            await self.flush()
        except StoreError as exc:
            if not self._is_failing:
                log.error(
                    "probe_results_not_stored", error=str(exc), consequence="tried again until it works"
                )
            self._is_failing = True
        else:
            self._is_failing = False

    async def _pause(self) -> None:
        """Wait for a change of health, which is stored at once, or for the time to store the rest."""
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def reconcile(self) -> None:
        """Give every endpoint to probe its task, and end those of endpoints that are gone."""
        wanted = set(self._catalog.to_probe())
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
            self._hurry.pop(key, None)
            self._hurried_at.pop(key, None)
        for key in wanted - self._tasks.keys():
            self._hurry[key] = asyncio.Event()
            work = self._watch(key, self._hurry[key])
            self._tasks[key] = asyncio.get_running_loop().create_task(work, name=f"probe {key}")

    def hurry(self, key: str) -> None:
        """Probe an endpoint at once: requests have failed there."""
        now = time.monotonic()
        event = self._hurry.get(key)
        if event is not None and now - self._hurried_at.get(key, -1e9) >= FAILURES_PER_PROBE_S:
            self._hurried_at[key] = now
            event.set()

    async def _watch(self, key: str, hurry: asyncio.Event) -> None:
        """Check one endpoint at once, and then at its interval, spread out by a tenth of it.

        What has never passed is asked once a second: a service that still starts need not wait for its turn.
        """
        while (probed := self._catalog.probed(key)) is not None:
            async with self._slots:
                await self.check(probed)
            interval_s = probed.settings.interval / 1000
            if probed.state.health is Health.UNKNOWN:
                interval_s = min(interval_s, NEW_INTERVAL_S)
            elif probed.is_rare:
                interval_s *= RARE
            try:
                async with asyncio.timeout(interval_s * (0.9 + 0.2 * self._chance())):
                    await hurry.wait()
            except TimeoutError:
                pass
            hurry.clear()

    # -- one check

    async def check(self, probed: Probed) -> ProbeResult:
        """Check one endpoint, note what it found, and tell the workers if its health changed."""
        try:
            result = await probe(probed, self._rules)
        except Exhausted as exc:  # it was not asked, so there is nothing to hold against it
            service = self._catalog.version_record(probed.version_id).service_name
            log.warning("probe_not_made", service=service, endpoint=probed.url, error=str(exc))
            return ProbeResult(is_healthy=False, response_time_ms=0, error=str(exc))
        before = self._catalog.health_of(probed.version_id)
        changed = probed.state.checked(ok=result.is_healthy)
        self._note(probed, result)
        if changed:
            self._changed(probed, before, result)
        return result

    def _note(self, probed: Probed, result: ProbeResult) -> None:
        counted = self.counts.setdefault(probed.version_id, {"passed": 0, "failed": 0})
        counted["passed" if result.is_healthy else "failed"] += 1
        self._results.append(
            HealthCheckRecord(
                id=str(uuid.uuid4()),
                version_id=probed.version_id,
                endpoint=probed.key,
                is_healthy=result.is_healthy,
                response_time=result.response_time_ms,
                status_code=result.status_code,
                error_message=result.error,
                checked_at=self._now(),
            )
        )

    def _changed(self, probed: Probed, before: Health, result: ProbeResult) -> None:
        record = self._catalog.version_record(probed.version_id)
        self._catalog.publish([record.service_name])
        self._news.set()
        log.info(
            "endpoint_health",
            service=record.service_name,
            version=record.version,
            endpoint=probed.url,
            health=probed.state.health,
            error=result.error,
        )
        after = self._catalog.health_of(probed.version_id)
        if after is before:
            return
        self._events.append(
            EventRecord(
                at=self._now(),
                kind=f"version.{after.value}",
                service=record.service_name,
                version=record.version,
                data={"endpoint": probed.url, "error": result.error, "idle": probed.is_idle},
            )
        )

    async def flush(self) -> None:
        """Store what was found since the last time, in one transaction.

        Raises StoreError; nothing is forgotten then, but for results older than the store would keep.
        """
        if self._store.follows:  # whoever is in charge stores what it finds itself
            self._results.clear()
            self._events.clear()
        if not self._results and not self._events:
            return
        async with self._store.transaction() as tx:
            del self._results[:-KEPT_RESULTS]
            results, events = tuple(self._results), tuple(self._events)
            tx.add_health(results)
            for event in events:
                tx.add_event(event)
            for version_id, checked_at in {each.version_id: each.checked_at for each in results}.items():
                self._write_version(tx, version_id, checked_at)

            def stored() -> None:
                del self._results[: len(results)], self._events[: len(events)]

            tx.on_commit(stored)

    def _write_version(self, tx: Transaction, version_id: str, checked_at: datetime) -> None:
        """Let a version's row say what its probes come to."""
        try:
            record = self._catalog.version_record(version_id)
        except KeyError:
            return  # deleted meanwhile
        health = self._catalog.health_of(version_id)
        record = replace(
            record,
            health_status=health.value if health is not Health.DRAINED else record.health_status,
            ever_healthy=record.ever_healthy or health is Health.HEALTHY,
            last_health_check=checked_at,
        )
        tx.put_version(record)
        tx.on_commit(partial(self._catalog.put_version, record))

    # -- on demand

    async def check_now(self, version_id: str) -> ProbeResult:
        """Check every endpoint of a version at once; the result of its worst url.

        A url is as good as the best of its addresses: `localhost` may well resolve to one nobody listens on.
        A version whose health is switched off is healthy by definition.
        """
        endpoints = self._catalog.endpoints_of(version_id)
        results = await asyncio.gather(*(self.check(probed) for probed in endpoints))
        await self._store_what_came()
        if not results:
            error = None if self._catalog.endpoint_keys(version_id) else NO_ADDRESS
            return ProbeResult(is_healthy=error is None, response_time_ms=0, error=error)
        by_url: dict[str, ProbeResult] = {}
        for probed, result in zip(endpoints, results, strict=True):
            by_url[probed.url] = max(result, by_url.get(probed.url, result), key=_goodness)
        return min(by_url.values(), key=_goodness)

    async def gate(self, version_id: str) -> str:
        """Check a version until it counts as healthy. Returns why it does not; empty if it does."""
        endpoints = self._catalog.endpoints_of(version_id)
        if not endpoints:
            return "" if self._catalog.endpoint_keys(version_id) else f"the health check failed: {NO_ADDRESS}"
        for _ in range(max(probed.settings.healthy_threshold for probed in endpoints)):
            result = await self.check_now(version_id)
            if not result.is_healthy:
                return f"the health check failed: {result.error}"
            if self._catalog.health_of(version_id) is Health.HEALTHY:
                return ""
            await asyncio.sleep(GATE_GAP_S)
        return f"the version is {self._catalog.health_of(version_id).value}"


def _goodness(result: ProbeResult) -> tuple[bool, int]:
    return result.is_healthy, -result.response_time_ms


async def probe(probed: Probed, rules: TargetRules = ANYWHERE) -> ProbeResult:
    """Ask one endpoint, with the settings' retries; never raises for what the endpoint does.

    Raises Exhausted if we could not ask.
    """
    result = await _try(probed, rules)
    for _ in range(probed.settings.retries):
        if result.is_healthy:
            break
        result = await _try(probed, rules)
    return result


async def _try(probed: Probed, rules: TargetRules) -> ProbeResult:
    settings = probed.settings
    started = time.monotonic()
    status: int | None = None
    error: str | None
    try:
        rules.check(probed.url, probed.address)
        if settings.kind == "tcp":
            await tcp_check(probed.url, timeout_s=settings.timeout / 1000, address=probed.address or None)
            error = None
        else:
            fields = list(settings.headers.items())
            if settings.host is not None:
                fields.append(("Host", settings.host))
            answer = await fetch(
                probed.url,
                path=settings.path,
                fields=fields,
                timeout_s=settings.timeout / 1000,
                address=probed.address or None,
                server_name=probed.server_name,
                ssl=probed.tls,
            )
            status = answer.status
            error = judge_probe(compile_check(settings), status=answer.status, body=answer.body)
    except UpstreamError as exc:
        error = str(exc)
    except Exhausted:
        raise
    except GatewayError as exc:
        error = f"cannot be asked: {exc}"
    return ProbeResult(
        is_healthy=error is None,
        response_time_ms=round((time.monotonic() - started) * 1000),
        status_code=status,
        error=error,
    )
