"""Smoke tests: ask a version what it was asked to answer, and report.

The requests go straight to the version's endpoint, never through the proxy: they are no traffic and count
nowhere.
"""

import asyncio
import ssl
import time
from functools import partial
from typing import Any

import msgspec

from gateway.core.settings.smoke import SmokeEndpoint, SmokeSettings, complaint
from gateway.core.settings.targets import ANYWHERE, TargetRules
from gateway.errors import GatewayError, UpstreamError
from gateway.http1.fetch import fetch


class SmokeTest(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What one test found."""

    method: str
    path: str
    expected_status: int
    status: int | None = None
    ok: bool
    duration_ms: int
    error: str | None = None


class SmokeReport(msgspec.Struct, frozen=True):
    """What a run of a version's smoke tests found. response_time: milliseconds, all tests together."""

    is_healthy: bool
    response_time: int
    tests: tuple[SmokeTest, ...]

    def first_failure(self) -> str:
        """Return one sentence on the first test that failed; empty if none did."""
        for test in self.tests:
            if not test.ok:
                return f"{test.method} {test.path}: {test.error}"
        return ""

    def rows(self) -> list[dict[str, Any]]:
        """Return the tests as plain values, for the store and the API."""
        return [
            {
                "method": test.method,
                "path": test.path,
                "expectedStatus": test.expected_status,
                "status": test.status,
                "ok": test.ok,
                "durationMs": test.duration_ms,
                **({"error": test.error} if test.error else {}),
            }
            for test in self.tests
        ]


async def run_smoke(
    url: str,
    settings: SmokeSettings,
    *,
    tls: ssl.SSLContext | None = None,
    rules: TargetRules = ANYWHERE,
) -> SmokeReport:
    """Run the tests one after the other against `url`.

    tls: the context for https. rules: where it may lead. Never raises for what the upstream does: that is
    what the report says.
    """
    started = time.monotonic()
    tests = [await _run_one(url, test, settings, tls, rules) for test in settings.endpoints]
    elapsed_ms = round((time.monotonic() - started) * 1000)
    return SmokeReport(all(test.ok for test in tests), elapsed_ms, tuple(tests))


async def _run_one(
    url: str, test: SmokeEndpoint, settings: SmokeSettings, tls: ssl.SSLContext | None, rules: TargetRules
) -> SmokeTest:
    result = await _try(url, test, settings.timeout / 1000, tls, rules)
    for attempt in range(settings.retries):
        if result.ok:
            break
        await asyncio.sleep(min(0.1 * 2**attempt, 1.0))
        result = await _try(url, test, settings.timeout / 1000, tls, rules)
    return result


async def _try(
    url: str, test: SmokeEndpoint, timeout_s: float, tls: ssl.SSLContext | None, rules: TargetRules
) -> SmokeTest:
    fields = list(test.headers.items())
    body = b""
    if test.body is not msgspec.UNSET:
        body = msgspec.json.encode(test.body)
        if not any(name.lower() == "content-type" for name, _ in fields):
            fields.append(("Content-Type", "application/json"))
    status: int | None = None
    started = time.monotonic()
    try:
        answer = await fetch(
            url,
            method=test.method,
            path=test.path,
            fields=fields,
            body=body,
            timeout_s=timeout_s,
            ssl=tls,
            may_reach=partial(rules.check, url),
        )
        status = answer.status
        error = complaint(test, answer.status, answer.body)
    except UpstreamError as exc:
        error = f"{type(exc).__name__}: {exc}"
    except GatewayError as exc:
        error = str(exc)
    return SmokeTest(
        method=test.method,
        path=test.path,
        expected_status=test.expected_status,
        status=status,
        ok=error is None,
        duration_ms=round((time.monotonic() - started) * 1000),
        error=error,
    )
