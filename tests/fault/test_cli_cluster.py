"""The command line, given several gateways, outlives the one that it talks to."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bench.harness import World
from bench.procs import FROM_HERE
from tests import postgres
from tests.fault.test_followers import are, light, two
from tests.fault.test_upgrade_while_rolling import CONFIG
from tests.fault.under_load import under_load

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]


async def test_who_waits_for_a_rollout_goes_on_at_the_next_gateway(tmp_path: Path) -> None:
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        await first.add_version("v1.1")
        async with under_load(light(second)):
            rollout = await first.start_rolling(
                "v1.1", **{**CONFIG, "steps": [60, 100], "stepInterval": [3_600_000, 1_000]}
            )
            urls = ",".join(f"http://127.0.0.1:{each.admin_port}" for each in (first, second))
            env = {**os.environ, **FROM_HERE, "GATEWAY_ADMIN_URL": urls, "GATEWAY_TOKEN": first.token}
            waits = await _command(first, env, "deploy", "auth", "v1.1", "--wait", "--timeout", "200s")
            watches = await _command(first, env, "get", "auth", "-w")
            try:
                for name in ("deploy", "get"):
                    await first.until(lambda n=name: "60 %" in _said(first, n), f"{name} to look")
                await first.kill_control()
                await second.until(lambda: are(second, a="silent", b="in charge"), "the other to take over")
                await second.until(lambda: _removes(second, "a"), "it to be removed")
                await second.api("POST", f"deployment/{rollout}/promote")
                assert await second.settled(rollout) == "completed"
                async with asyncio.timeout(60):
                    assert await waits.wait() == 0, _said(first, "deploy")
                await first.until(lambda: "going on" in _said(first, "get"), "get to go on")
            finally:
                for each in (waits, watches):
                    if each.returncode is None:
                        each.terminate()
                        await each.wait()
        for name in ("deploy", "get"):
            assert _said(first, name).count(f"; going on at http://127.0.0.1:{second.admin_port}") == 1


async def _command(world: World, env: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    """Start `gateway …`, all that it says in a file of its name."""
    with (world.folder / f"{arguments[0]}.said").open("wb") as said:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *arguments, cwd=world.folder, env=env, stdout=said, stderr=said
        )


async def _removes(world: World, name: str) -> bool:
    """Whether a gateway that has just taken over takes the order."""
    return (await world.ask("DELETE", f"nodes/{name}")).status < 300


def _said(world: World, name: str) -> str:
    return (world.folder / f"{name}.said").read_text()
