"""What a version is put through before it gets traffic, and after: probes, smoke tests, and its shutdown
call.
"""

import asyncio
import ssl
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from gateway.control.upstreams.probes import ProbeResult, Probes
from gateway.control.upstreams.smoke import SmokeReport, run_smoke
from gateway.core.resilience.health import HealthSettings
from gateway.core.settings.smoke import SmokeEndpoint, SmokeSettings
from gateway.core.settings.targets import ANYWHERE, TargetRules
from gateway.errors import GatewayError
from gateway.http1.fetch import fetch
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.records import ServiceRecord, SmokeRecord, VersionRecord

log = get_logger(component="checks")

SHUTDOWN_WAITS_S: Final = (0.0, 0.5, 2.0, 5.0)
SHUTDOWN_TIMEOUT_S: Final = 5.0


class CatalogView(Protocol):
    """What checking needs of the catalog."""

    def service_record(self, name: str) -> ServiceRecord: ...
    def version_record(self, version_id: str) -> VersionRecord: ...
    def tls_of(self, version_id: str) -> ssl.SSLContext | None: ...


class Checks:
    """Checks of whole versions."""

    def __init__(
        self,
        store: Store,
        catalog: CatalogView,
        probes: Probes,
        *,
        rules: TargetRules = ANYWHERE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._probes = probes
        self._rules = rules
        self._now = now

    async def gate(self, version_id: str) -> str:
        """Probe until healthy. Returns why it is not; empty if it is."""
        return await self._probes.gate(version_id)

    async def probe(self, version_id: str) -> ProbeResult:
        """Probe every endpoint of a version now."""
        return await self._probes.check_now(version_id)

    async def smoke(
        self, version_id: str, tests: SmokeSettings | None = None, deployment_id: str | None = None
    ) -> str:
        """Run smoke tests and store the report. Returns the first complaint; empty if all passed."""
        report = await self.smoke_report(version_id, tests, deployment_id)
        complaint = report.first_failure()
        return f"a smoke test failed: {complaint}" if complaint else ""

    async def smoke_report(
        self, version_id: str, tests: SmokeSettings | None = None, deployment_id: str | None = None
    ) -> SmokeReport:
        """Run smoke tests (None: the version's own, else its service's) and store what they found."""
        record = self._catalog.version_record(version_id)
        chosen = tests or self.smoke_settings(record)
        report = await run_smoke(record.url, chosen, tls=self._catalog.tls_of(version_id), rules=self._rules)
        async with self._store.transaction(anywhere=True) as tx:
            tx.add_smoke(
                SmokeRecord(
                    id=str(uuid.uuid4()),
                    version_id=version_id,
                    deployment_id=deployment_id,
                    is_healthy=report.is_healthy,
                    response_time=report.response_time,
                    tests=report.rows(),
                    at=self._now(),
                )
            )
        return report

    def smoke_settings(self, record: VersionRecord) -> SmokeSettings:
        """Return a version's tests: its own, its service's, or one GET of the service's health path."""
        settings = self._catalog.service_record(record.service_name).settings
        chosen = record.smoke_tests or settings.smoke_tests
        if chosen is not None:
            return chosen
        health = settings.health
        if not isinstance(health, HealthSettings) or health.kind != "http":
            return SmokeSettings()
        return SmokeSettings(endpoints=(SmokeEndpoint(path=health.path),))

    async def shut_down(self, version_id: str, deployment_id: str) -> None:
        """POST the version's shutdown url until it is taken (2xx), or given up on. No url: nothing to do.

        The key is the deployment's: a version that is released and retired again is asked again.
        """
        record = self._catalog.version_record(version_id)
        if record.shutdown_url is None:
            return
        error = ""
        for wait_s in SHUTDOWN_WAITS_S:
            await asyncio.sleep(wait_s)
            try:
                answer = await fetch(
                    record.shutdown_url,
                    method="POST",
                    fields=[("Idempotency-Key", f"shutdown:{deployment_id}")],
                    timeout_s=SHUTDOWN_TIMEOUT_S,
                    may_reach=partial(self._rules.check, record.shutdown_url),
                )
            except GatewayError as exc:
                error = str(exc)
                continue
            if 200 <= answer.status < 300:
                log.info("version_asked_to_stop", service=record.service_name, version=record.version)
                return
            error = f"answered {answer.status}"
        url = record.shutdown_url.partition("?")[0]
        log.warning(
            "shutdown_url_failed", service=record.service_name, url=url, version=record.version, error=error
        )
