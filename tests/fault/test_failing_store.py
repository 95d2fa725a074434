"""The store fails under a running gateway: traffic returns all the same, and nothing is forgotten.

Full means here what a limit of file sizes does to control: every write beyond it is an I/O error.
"""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from bench.client import call
from bench.harness import ADMIN, World
from bench.load import KEPT, LoadSettings
from bench.store_faults import full_disk, locked, until_returned, verdict_at
from tests.fault.under_load import under_load

CANARY: Final[dict[str, Any]] = {"steps": [50, 100], "stepInterval": 600_000}

pytestmark = pytest.mark.timeout(180)


def light(world: World) -> LoadSettings:
    return LoadSettings(port=world.port, rate=100.0, connections=8, cycle=(KEPT,))


async def control_pid(world: World) -> int:
    return int((await world.info())["pid"])


async def stored(world: World, rollout: str) -> bool:
    return bool((await world.deployment(rollout))["stored"])


async def test_bad_canary_is_rolled_back_on_a_full_disk_and_no_client_fails_after(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        _, new = await world.add_version("v1.1", "--error-rate", "0.5", "--seed", "1")
        async with under_load(light(world), allowed=frozenset({"500"})) as load:
            rollout = await world.start_rolling("v1.1", **CANARY)
            with full_disk(await control_pid(world)):
                async with asyncio.timeout(60):
                    returned = await until_returned(world, new)
                await asyncio.sleep(0.2)
                errors = load.lost["500"]
                assert not await stored(world, rollout)
                refused = await world.ask("POST", f"deployment/{rollout}/promote")
                assert refused.status in (409, 503)
                await asyncio.sleep(2)
                assert load.lost["500"] == errors, "everything is served by the old version"
            assert await world.settled(rollout) == "rolled_back"
        assert returned - await verdict_at(world, rollout) < 2.0
        assert await stored(world, rollout)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_ordered_rollback_acts_on_a_full_disk_and_outlives_control(
    tmp_path: Path, *, is_killed: bool
) -> None:
    async with World(tmp_path) as world:
        _, new = await world.add_version("v1.1")
        async with under_load(light(world)) as load:
            rollout = await world.start_rolling("v1.1", **CANARY)
            with full_disk(await control_pid(world)):
                answer = await world.ask("POST", f"deployment/{rollout}/rollback", {"reason": "it smells"})
                assert (answer.status, answer.json()["stored"]) == (202, False)
                async with asyncio.timeout(2):
                    await until_returned(world, new)
                again = {"serviceName": "auth", "toVersion": "v1.1"}
                assert (await world.ask("POST", "deployment/start", again)).status in (409, 503)
                await asyncio.sleep(0.3)
                before = load.versions["v1.1"]
                await asyncio.sleep(0.7)
                assert load.versions["v1.1"] == before
                if is_killed:
                    await world.kill_control()
            if is_killed:
                await asyncio.sleep(0.5)
                await asyncio.to_thread(world.start_gateway)
            assert await world.settled(rollout) == "rolled_back"
            assert load.versions["v1.1"] == before, "not one request went there again"
        rows = (await world.api("GET", "audit?action=deployment.rollback"))["items"]
        assert [row["details"]["reason"] for row in rows] == ["it smells"]


async def test_locked_store_is_503_within_five_seconds_and_holds_no_rollback(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        _, new = await world.add_version("v1.1")
        rollout = await world.start_rolling("v1.1", **CANARY)
        loop = asyncio.get_running_loop()
        with locked(world):
            began = loop.time()
            body = {"frozen": True}
            freezes = [asyncio.ensure_future(world.ask("PUT", "freeze", body)) for _ in range(5)]
            await asyncio.sleep(0.3)
            answer = await world.ask("POST", f"deployment/{rollout}/rollback")
            assert (answer.status, answer.json()["stored"]) == (202, False)
            async with asyncio.timeout(2):
                await until_returned(world, new)
            refused = await asyncio.gather(*freezes)
            assert {each.status for each in refused} == {503}
            assert all(str(tmp_path).encode() not in each.body for each in refused)
            assert loop.time() - began < 6
        assert await world.settled(rollout) == "rolled_back"


async def test_deleted_store_is_written_anew(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        rows = (await world.api("GET", "audit?limit=100"))["items"]
        for each in tmp_path.glob("gateway.db*"):
            each.unlink()
        await world.until((tmp_path / "gateway.db").exists, "the store to be put back")
        assert await world.api("PUT", "freeze", {"frozen": True, "reason": "kept"})
        await world.kill_control()
        await asyncio.to_thread(world.start_gateway)
        found = await world.api("GET", "audit/verify")
        assert (found["ok"], found["count"]) == (True, len(rows) + 1)
        metrics = (await call(world.admin_port, "GET", "/metrics")).body.decode()
        lines = metrics.splitlines()
        assert "gateway_audit_ok 1" in lines, (await call(world.admin_port, "GET", "/readyz")).body
        assert "gateway_store_ok 1" in lines


async def test_damaged_store_stops_a_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"this was a store once" * 1_000)
    command = [sys.executable, "-m", "gateway", "serve", "--store", f"sqlite:///{tmp_path}/gateway.db"]
    ended = await asyncio.to_thread(
        subprocess.run,
        [*command, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "gateway backup" in ended.stderr


async def test_backup_is_a_store(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        copy = tmp_path / "copy.db"
        command = [sys.executable, "-m", "gateway", "backup", str(copy), "--config", str(world.config)]
        ended = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        with contextlib.closing(sqlite3.connect(copy)) as database:
            assert database.execute("SELECT count(*) FROM gateway_service_config").fetchone() == (1,)
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not list(tmp_path.glob("*.part"))
        assert (await call(world.admin_port, "GET", f"{ADMIN}/backup")).status == 401
