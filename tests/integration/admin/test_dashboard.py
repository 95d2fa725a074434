"""The dashboard in a real browser, where there is one: what it shows, what it lets whom do, what it never
runs.

Without Chromium on the machine these facts are not tested; nothing else depends on it.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from playwright.async_api import Page as Tab
from playwright.async_api import async_playwright, expect

from gateway.actions.reports import ServiceStats, VersionStats
from gateway.admin.call import BASE
from gateway.core.rollout.plan import RolloutSettings, plan
from gateway.core.rollout.rollout import Phase, Rollout
from gateway.core.routing.service import ServiceSettings
from gateway.store.api import Page
from gateway.store.records import AuditRecord, DeploymentRecord, EventRecord, ServiceRecord, VersionRecord
from tests.unit.admin.bench import AT, Bench

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<img src=x onerror=\"document.title='run'\">"


def furnish(bench: Bench) -> None:
    """Put one service with an open rollout, and a name that tries to be markup, behind the actions."""
    state = Rollout(
        id="dep-1",
        service="auth",
        old="ver-0",
        new="ver-1",
        plan=plan("canary", RolloutSettings()),
        phase=Phase.STEPPING,
        percent=50,
        step=1,
        remaining_ms=120_000,
    )
    rollout = DeploymentRecord(
        id="dep-1",
        service_name="auth",
        from_version_id="ver-0",
        from_version="v1.0",
        to_version_id="ver-1",
        to_version="v1.1",
        status="rolling",
        traffic_percent=50,
        current_step=1,
        state=msgspec.json.encode(state),
        started_at=AT,
        created_by=HOSTILE,
        created_at=AT,
        updated_at=AT,
    )
    versions = [
        VersionRecord(
            id=f"ver-{index}",
            service_id="svc-1",
            service_name="auth",
            version=f"v1.{index}",
            url=f"http://127.0.0.1:720{index}",
            weight=50,
            health_status=health,
            created_at=AT,
            updated_at=AT,
        )
        for index, health in enumerate(("healthy", "unhealthy"))
    ]
    service = ServiceRecord(
        id="svc-1",
        name="auth",
        settings=ServiceSettings(),
        current_version_id="ver-0",
        created_at=AT,
        updated_at=AT,
    )
    ended = msgspec.structs.replace(
        rollout, id="dep-0", status="rolled_back", error_message=HOSTILE, state=b""
    )
    bench.store.event_records = [
        EventRecord(id=1, at=AT, kind="deployment.step", service="auth", data={"text": HOSTILE})
    ]
    bench.actions.answers |= {
        "services.list_all": Page([service]),
        "versions.list_all": Page(versions),
        "deployments.list_all": Page([rollout, ended]),
        "reports.shares": {"ver-0": 100.0},
        "reports.stats": ServiceStats(
            service_name="auth", at=datetime.now(UTC), versions=[stats(one) for one in versions]
        ),
        "gateway.events": bench.store.event_records,
        "gateway.info": SimpleNamespace(
            pid=1, epoch=3, release="0.1", workers=[], native="none", frozen=False
        ),
        "gateway.audit": Page(
            [AuditRecord(id=1, at=AT, actor="alice", action="login", resource="token", prev_hash="", hash="")]
        ),
        "deployments.rollback": msgspec.structs.replace(rollout, status="rolled_back"),
    }


def stats(version: VersionRecord) -> VersionStats:
    return VersionStats(
        version_id=version.id,
        version=version.version,
        weight=version.weight,
        share=100.0,
        requests={"200": 10},
        total=10,
        errors=0,
        attempts={"answered": 10},
        in_flight=0,
        streams=0,
        latency=[(2048, 10)],
        p50_ms=2.0,
        p95_ms=2.0,
        p99_ms=2.0,
        windows=[],
    )


@asynccontextmanager
async def signed_in(bench: Bench, role: Any, complaints: list[str]) -> AsyncIterator[Tab]:
    """Serve the page to a browser whose user has signed in.

    complaints: what the console and the page report.
    """
    sock = socket.create_server(("127.0.0.1", 0))
    await bench.server.start(sock)
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
            tab = await browser.new_page(viewport={"width": 390, "height": 800})
            tab.set_default_timeout(30_000)
            tab.on("console", lambda message: complaints.append(message.text))
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            await tab.goto(f"http://127.0.0.1:{sock.getsockname()[1]}/")
            await tab.fill("#token", bench.token(role))
            await tab.click("#login button")
            await expect(tab.locator("#rollouts article")).to_be_visible(timeout=30_000)
            yield tab
            await browser.close()
    finally:
        await bench.server.close(5.0)


if CHROMIUM.exists():

    async def test_the_page_shows_the_rollout_and_runs_nothing_it_was_told() -> None:
        bench, complaints = Bench(), list[str]()
        furnish(bench)
        async with signed_in(bench, "admin", complaints) as tab:
            await expect(tab.locator("#rollouts article")).to_contain_text("step 2 of 3")
            await expect(tab.locator("#services details")).to_contain_text("unhealthy")
            await expect(tab.locator("#services svg.chart")).to_have_count(3)
            await expect(tab.locator("#history")).to_contain_text(HOSTILE)
            await expect(tab.locator("#events")).to_contain_text(HOSTILE)
            await expect(tab.locator("#audit")).to_contain_text("alice")
            await expect(tab.locator("#live")).to_have_text("live", timeout=30_000)
            assert await tab.title() == "auth 50 % – gateway"
            assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert complaints == []

    async def test_an_event_is_shown_when_it_happens() -> None:
        bench = Bench()
        furnish(bench)
        async with signed_in(bench, "viewer", []) as tab:
            await expect(tab.locator("#live")).to_have_text("live", timeout=30_000)
            bench.store.event_records.append(EventRecord(id=2, at=AT, kind="breaker.opened", service="auth"))
            bench.server.feed.wake()
            await expect(tab.locator("#events")).to_contain_text("breaker.opened", timeout=30_000)

    async def test_a_rollback_is_asked_about_and_sent_with_its_reason() -> None:
        bench = Bench()
        furnish(bench)
        async with signed_in(bench, "deployer", []) as tab:
            await tab.get_by_role("button", name="Roll back").click()
            await tab.fill("#confirm-reason", "errors at login")
            async with tab.expect_response(f"**{BASE}/deployment/dep-1/rollback"):
                await tab.click("#confirm-yes")
            [(_, (actor, deployment_id, body), _)] = [
                call for call in bench.actions.calls if call[0] == "deployments.rollback"
            ]
            assert (actor.name, deployment_id, body.reason) == ("deployer", "dep-1", "errors at login")

    async def test_what_is_offered_first_follows_the_evidence() -> None:
        """Guards a tired person from the big blue button that goes on with what was stopped as worse."""
        bench = Bench()
        furnish(bench)
        paused = {
            "status": "paused",
            "phase": "paused",
            "steps": [10, 100],
            "trafficPercent": 10,
            "remainingMs": None,
        }
        first = """async ([one, verdict]) => {
            const { rollout } = await import("/views.js");
            const figures = { newAnswers: 9, newErrors: 9, newRate: 100,
                oldAnswers: 9, oldErrors: 0, oldRate: 0 };
            const shown = rollout({ ...one, verdict: { verdict, ...figures } }, "deployer", 0, 0);
            return shown.querySelector("button.main").textContent;
        }"""
        async with signed_in(bench, "viewer", []) as tab:
            assert await tab.evaluate(first, [paused, "abort"]) == "Roll back"
            assert await tab.evaluate(first, [paused, "hold"]) == "Resume"

    async def test_a_viewer_sees_no_buttons_and_no_audit() -> None:
        bench = Bench()
        furnish(bench)
        async with signed_in(bench, "viewer", []) as tab:
            await expect(tab.locator("button[data-action]")).to_have_count(0)
            await expect(tab.locator("#audit-section")).to_be_hidden()

    async def test_a_revoked_token_leads_back_to_the_login() -> None:
        bench = Bench()
        furnish(bench)
        async with signed_in(bench, "viewer", []) as tab:
            bench.revoke_all()
            await expect(tab.locator("#login")).to_be_visible(timeout=30_000)
            await expect(tab.locator("#login-error")).to_contain_text("revoked")
            assert await tab.evaluate("sessionStorage.length") == 0
