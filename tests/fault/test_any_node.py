"""Any of several gateways over one database takes any call, whoever of them is in charge."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bench.client import Lost, call
from bench.harness import ADMIN, World
from bench.procs import kill
from tests import postgres
from tests.fault.test_followers import CANARY, are, light, two
from tests.fault.under_load import under_load

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(300)]

TIMES = 100


async def test_a_follower_takes_every_order_and_the_one_in_charge_carries_it_out(tmp_path: Path) -> None:
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        async with under_load(light(first)) as load:
            await _registered(first, second)
            _, old = await first.add_version("v1.1")
            rollout = await _started(second, "v1.1", {**CANARY, "steps": [10, 50, 100]})
            await first.until(lambda: first.has_status(rollout, "rolling"), "the one in charge to take it up")
            await first.until(lambda: _has_served(load, "v1.1"), "the new version to get requests")
            assert (await second.api("POST", f"deployment/{rollout}/pause"))["status"] == "paused"
            await first.until(lambda: first.has_status(rollout, "paused"), "the pause to arrive")
            await second.api("POST", f"deployment/{rollout}/resume")
            await second.api("POST", f"deployment/{rollout}/promote", {"reason": "looks good"})
            await first.until(lambda: _has_percent(first, rollout, 50), "the promotion to arrive")
            before = time.monotonic()
            await second.api("POST", f"deployment/{rollout}/rollback", {"reason": "support called"})
            await first.until(lambda: _weighs(first, old, 0), "the rollback to arrive")
            took = time.monotonic() - before
            assert await second.settled(rollout) == "rolled_back"
            await first.until(lambda: _is_drained(first, old), "the one in charge to drain the new version")
            served = load.versions["v1.1"]
            await asyncio.sleep(1)
            assert load.versions["v1.1"] == served, "no request went there any more"
            assert took < 10, "half a second on a quiet machine"
        assert await _told(first, rollout) == await _told(second, rollout)
        trail = [await each.api("GET", "audit?limit=200") for each in (first, second)]
        assert trail[0] == trail[1]
        actions = {row["action"] for row in trail[0]["items"] if row["resourceId"] == rollout}
        assert {
            f"deployment.{verb}" for verb in ("start", "pause", "resume", "promote", "rollback")
        } <= actions
        ordered = [row for row in trail[0]["items"] if row["resourceId"] == rollout]
        assert {row["details"]["node"] for row in ordered} == {"b"}
        events = (await first.api("GET", f"deployment/{rollout}/events"))["items"]
        nodes = {event["kind"]: event["node"] for event in events}
        assert (nodes["deployment.paused"], nodes["deployment.rolled_back"]) == ("b", "a"), nodes
        decisions = (await first.api("GET", f"deployment/{rollout}/decisions"))["items"]
        decided = {each["verdict"]: each["node"] for each in decisions}
        assert (decided["start"], decided["gate"], decided["pause"]) == ("b", "a", "b"), decided
        assert (await first.api("GET", "audit/verify"))["ok"]


async def _registered(first: World, second: World) -> None:
    """Services, tokens and the freeze, by whichever."""
    made = await second.api(
        "POST", "services", {"name": "other", "routes": [{"host": "other.example", "path": "/"}]}
    )
    assert made["name"] == "other"
    await first.until(lambda: _knows(first, "other"), "the service to arrive")
    await first.api("PATCH", "services/other", {"health": False})
    changed = await second.api("PATCH", "services/other", {"onNewVersion": "restart"})
    assert changed["settings"]["health"] is False, "each is decided by what the other one has stored"
    await second.api("DELETE", "services/other")
    await first.until(lambda: _knows(first, "other", knows=False), "the deletion to arrive")
    await second.api("PUT", "freeze", {"frozen": True, "reason": "fair"})
    await first.until(lambda: _freezes(first), "the freeze to arrive")
    await first.api("PUT", "freeze", {"frozen": False})
    token = (await second.api("POST", "tokens", {"name": "both", "role": "viewer"}))["token"]
    await first.until(lambda: _opens(first, token), "the token to arrive")


async def test_of_two_gateways_that_start_a_rollout_at_the_same_time_one_does(tmp_path: Path) -> None:
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        await first.add_version("v1.1")
        body = {"serviceName": "auth", "toVersion": "v1.1", "strategy": "canary", "config": CANARY}
        winners = set()
        for _ in range(TIMES):
            answers = await asyncio.gather(
                first.ask("POST", "deployment/start", body), second.ask("POST", "deployment/start", body)
            )
            statuses = [each.status for each in answers]
            assert sorted(statuses) == [201, 409], [each.json() for each in answers]
            winners.add(statuses.index(201))
            rollout = answers[statuses.index(201)].json()["id"]
            other = (second, first)[statuses.index(201)]
            await other.api("POST", f"deployment/{rollout}/rollback", {"reason": "again"})
            assert await other.settled(rollout) in ("rolled_back", "failed"), "failed: before its gate"
        assert winners == {0, 1}
        assert (await second.api("GET", "audit/verify"))["ok"]


async def test_a_leader_frozen_in_a_transaction_holds_up_no_rollback(tmp_path: Path) -> None:
    url = postgres.shared().database()
    async with two(tmp_path, url) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        _, new = await first.add_version("v1.1")
        rollout = await first.start_rolling("v1.1", **CANARY)
        await second.until(lambda: second.has_status(rollout, "rolling"), "the follower to follow")
        async with under_load(light(second)) as load:
            await second.until(lambda: _has_served(load, "v1.1"), "the new version to get requests")
            frozen = first.control.process.pid
            await _freeze_in_transaction(frozen, url)
            try:
                before = time.monotonic()
                answer = await second.ask("POST", f"deployment/{rollout}/rollback", {"reason": "now"})
                assert answer.status in (200, 202), answer.json()
                await second.until(lambda: _weighs(second, new, 0), "the rollback to be live")
                assert time.monotonic() - before < 10, "two seconds on a quiet machine"
                await second.until(
                    lambda: are(second, a="silent", b="in charge"), "the follower to take over"
                )
                assert await second.settled(rollout) == "rolled_back"
            finally:
                kill(frozen, signal.SIGCONT)
            assert await asyncio.to_thread(first.control.process.wait, 45) == 1
            assert await second.settled(rollout) == "rolled_back"
        rows = (await second.api("GET", "audit?action=deployment.rollback"))["items"]
        assert [row["resourceId"] for row in rows] == [rollout], "ordered once, stored once"
        assert (await second.api("GET", "audit/verify"))["ok"]


async def test_a_rollback_without_the_database_acts_where_it_was_asked_and_is_stored_later(
    tmp_path: Path,
) -> None:
    database = postgres.Server()
    database.start()
    try:
        async with two(tmp_path, database.database()) as (first, second):
            await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
            _, new = await first.add_version("v1.1")
            rollout = await first.start_rolling("v1.1", **CANARY)
            await second.until(lambda: second.has_status(rollout, "rolling"), "the follower to follow")
            async with under_load(light(second)) as load:
                await second.until(lambda: _has_served(load, "v1.1"), "the new version to get requests")
                await asyncio.to_thread(database.crash)
                path, body = f"deployment/{rollout}/rollback", {"reason": "it burns"}
                answer = await second.ask("POST", path, body)
                assert answer.status == 202, answer.json()
                assert (answer.json()["stored"], answer.json()["nodes"]) == (False, ["b"])
                await second.until(lambda: _weighs(second, new, 0), "the rollback to act")
                assert (await first.version(new))["weight"] == 50, "only where it was asked"
                served = load.versions["v1.1"]
                await asyncio.sleep(1)
                assert load.versions["v1.1"] == served, "no request went there any more"
                await asyncio.to_thread(database.start)
                for world in (first, second):
                    await world.until(lambda w=world: _is_over(w, rollout), "it to be stored")
                await first.until(lambda: _weighs(first, new, 0), "it to act everywhere")
            rows = (await second.api("GET", "audit?action=deployment.rollback"))["items"]
            assert [row["details"]["reason"] for row in rows] == ["it burns"]
            assert (await first.deployment(rollout))["nodes"] == []
            assert (await second.api("GET", "audit/verify"))["ok"]
    finally:
        database.remove()


async def _is_over(world: World, rollout: str) -> bool:
    try:
        found = await world.deployment(rollout)
    except (Lost, RuntimeError):
        return False
    return bool(found["status"] == "rolled_back" and found["stored"])


async def _freeze_in_transaction(pid: int, url: str) -> None:
    """Stop a process while it holds the epoch's row: it waits there for a table that we have locked."""
    import asyncpg

    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE gateway_window, gateway_deployment IN SHARE MODE")
            async with asyncio.timeout(30):
                while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.005)
            kill(pid, signal.SIGSTOP)
    finally:
        await holder.close()


async def _started(world: World, version: str, config: dict[str, Any]) -> str:
    body = {"serviceName": "auth", "toVersion": version, "strategy": "canary", "config": config}
    return str((await world.api("POST", "deployment/start", body))["id"])


async def _told(world: World, rollout: str) -> list[tuple[Any, ...]]:
    """Return what a gateway says of a rollout that has ended."""
    events = (await world.api("GET", f"deployment/{rollout}/events"))["items"]
    decisions = (await world.api("GET", f"deployment/{rollout}/decisions"))["items"]
    return [tuple(map(str, events)), tuple(map(str, decisions))]


async def _has_served(load: Any, version: str) -> bool:
    return bool(load.versions[version] > 3)


async def _has_percent(world: World, rollout: str, percent: int) -> bool:
    return bool((await world.deployment(rollout))["trafficPercent"] == percent)


async def _weighs(world: World, version_id: str, weight: int) -> bool:
    return bool((await world.version(version_id))["weight"] == weight)


async def _is_drained(world: World, version_id: str) -> bool:
    return bool((await world.version(version_id))["drained"])


async def _knows(world: World, name: str, *, knows: bool = True) -> bool:
    found = (await world.api("GET", "services"))["items"]
    return (name in [each["name"] for each in found]) is knows


async def _freezes(world: World) -> bool:
    try:
        return bool((await world.api("GET", "freeze"))["frozen"])
    except (Lost, RuntimeError):
        return False


async def _opens(world: World, token: str) -> bool:
    return (await call(world.admin_port, "GET", f"{ADMIN}/nodes", token=token)).status == 200
