"""`gateway rehearse` passes a service that is safe to deploy, and names what is wrong with another."""

import asyncio
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from gateway.cli import fixes, rehearsal
from gateway.cli.rehearsal import NAMES, Check, Instance
from gateway.cli.talk import Place
from tests.integration.admin.gateway_process import DEADLINE_S, ROOT, running, sample
from tests.integration.admin.rehearsed_faults import FAULTS
from tests.integration.admin.test_command_line import gateway_command

SERVICE: Final = Path(__file__).parent / "rehearsed.py"
PROMISED_S: Final = 40.0


@asynccontextmanager
async def service(fault: str = "") -> AsyncIterator[tuple[str, Process]]:
    """Run the service; gives its url and its process."""
    command = (sys.executable, str(SERVICE), "--fault", fault)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            line = await process.stdout.readline()
        yield f"http://127.0.0.1:{int(line.split()[-1])}", process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def rehearsed(fault: str) -> list[Check]:
    """Return the checks of a service with a fault; of the second of two versions for one of both."""
    async with AsyncExitStack() as stack:
        first = "" if FAULTS.get(fault) == "two-versions" else fault
        url, process = await stack.enter_async_context(service(first))
        second, _ = await stack.enter_async_context(service(fault if first == "" else ""))

        async def stop() -> None:
            process.send_signal(signal.SIGTERM)

        instance = Instance(
            place=Place.of(url),
            second=Place.of(second),
            health_path="/health",
            path="/",
            upload_path="/health",
            idle_s=1.0,
            stop=stop,
        )
        return await rehearsal.rehearse(instance)


async def test_a_good_service_passes_every_check() -> None:
    checks = await rehearsed("")
    assert [check for check in checks if not check.ok or check.skipped] == []
    assert {check.name for check in checks} == set(NAMES)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bad_service_is_named(fault: str) -> None:
    checks = await rehearsed(fault)
    failed = {check.name: check.detail for check in checks if not check.ok}
    expected = FAULTS[fault]
    assert expected in failed, checks
    # A health check that is slow makes others slow, and a connection that is closed each time is never idle.
    shared = {"slow-health": set(NAMES), "early-health": {"two-versions"}, "closes-each": {"idle"}}
    assert failed.keys() - {expected} <= shared.get(fault, set()), failed
    assert failed[expected]


async def test_a_service_that_never_answers_is_reported_in_time() -> None:
    """It accepts, and reads nothing: closing a connection must not wait until it has taken the upload."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Place.of(f"http://127.0.0.1:{silent.getsockname()[1]}")

        async def stop() -> None:
            pass

        instance = Instance(
            place=place, health_path="/health", path="/", upload_path="/health", idle_s=60.0, stop=stop
        )
        began = time.monotonic()
        checks = await rehearsal.rehearse(instance)
    assert time.monotonic() - began < PROMISED_S
    assert {check.name for check in checks if not check.ok} == set(NAMES) - {"two-versions"}


def test_every_check_has_a_fix_for_every_framework() -> None:
    assert set(fixes.FIXES) == set(NAMES)
    for name in NAMES:
        text = fixes.fix_of(name)
        assert all(f"{framework}: " in text for framework in ("gunicorn", "uvicorn", "Node", "Puma", "Go"))
        assert len(fixes.fix_lines(name)) == 6


async def test_the_command_reports_and_keeps_away_from_traffic(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        live = await stack.enter_async_context(sample("v1.0"))
        await gateway_command(gateway, "deploy", "auth", "v1.0", "--url", live, "--route", "/")
        refused = await gateway_command(gateway, "rehearse", "auth", "--url", live)
        assert (refused.code, refused.out) == (2, "")
        assert "which has weight 100" in refused.err
        await gateway_command(gateway, "edit", "auth", "--set", "timeouts.upstreamIdle=1000")

        fresh = await stack.enter_async_context(sample("v1.1"))
        began = time.monotonic()
        said = await gateway_command(
            gateway, "rehearse", "auth", "--url", fresh, "--shutdown-url", f"{fresh}/shutdown", "-o", "json"
        )
        assert time.monotonic() - began < PROMISED_S
        assert said.code == 0, said
        assert said.json["ok"] is True
        assert {check["name"] for check in said.json["checks"]} == set(NAMES)
        assert all({"name", "ok", "detail", "fix"} <= check.keys() for check in said.json["checks"])
        skipped = [check["name"] for check in said.json["checks"] if check.get("skipped")]
        assert skipped == ["two-versions"]

        nothing = await gateway_command(gateway, "rehearse", "auth", "--url", "http://127.0.0.1:1")
        assert nothing.code == 1
        assert "✗ health        not healthy within 5 s: connection refused" in nothing.out
        assert "gunicorn" in nothing.out
        assert nothing.out.splitlines()[-1].startswith("auth would lose requests in a deploy: health")
