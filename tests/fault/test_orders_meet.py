"""Orders that meet: one approval confirmed at two gateways at once, a rollback that comes back too late."""

import asyncio
import random
from pathlib import Path
from typing import Any, Final

import pytest

from bench.client import Answer, call
from bench.harness import ADMIN, World
from tests import postgres
from tests.fault.test_followers import CANARY, are, two
from tests.fault.three_gateways import Cluster, three

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]

TIMES: Final = 20
APART_S: Final = 0.03
"""How far apart two persons confirm, at the most: about as long as it takes to carry a call out."""


async def test_of_two_gateways_that_confirm_one_call_at_once_one_carries_it_out(tmp_path: Path) -> None:
    chance = random.Random(7)
    env = {"GATEWAY__ADMIN__SECOND_PERSON": "true"}
    async with two(tmp_path, postgres.shared().database(), env=env) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        _, new = await first.add_version("v1.1")
        bob, cid = [await _person(first, name) for name in ("bob", "cid")]
        for world in (first, second):
            await world.until(lambda w=world: _opens(w, cid), "the tokens to arrive")
        for number in range(TIMES):
            asked = await first.ask("PATCH", f"deployment/versions/{new}", {"weight": number % 5 + 1})
            assert asked.status == 202, asked.json()
            path = f"approvals/{asked.json()['approvalId']}"
            answers = await asyncio.gather(
                _confirm(first, path, bob, chance.uniform(0.0, APART_S)),
                _confirm(second, path, cid, chance.uniform(0.0, APART_S)),
            )
            assert sorted(each.status for each in answers) == [200, 409], [each.json() for each in answers]
            lost = next(each.json() for each in answers if each.status == 409)
            winner = ("bob", "cid")[[each.status for each in answers].index(200)]
            assert lost["detail"] in (
                f"{winner} has confirmed it, and it is being carried out",
                f"{winner} has confirmed it already: it was carried out",
            )
            shown = await second.api("GET", path)
            assert (shown["state"], shown["decidedBy"]) == ("carried_out", winner)
        rows = (await first.api("GET", "audit?action=version.patch&limit=200"))["items"]
        assert len([row for row in rows if row["allowed"]]) == TIMES, "each once"
        assert (await second.api("GET", "audit/verify"))["ok"]


async def _person(world: World, name: str) -> str:
    body = {"name": name, "role": "deployer", "owner": name}
    return str((await world.api("POST", "tokens", body))["token"])


async def _opens(world: World, token: str) -> bool:
    return (await call(world.admin_port, "GET", f"{ADMIN}/nodes", token=token)).status == 200


async def _confirm(world: World, path: str, token: str, after_s: float) -> Answer:
    await asyncio.sleep(after_s)
    return await call(world.admin_port, "POST", f"{ADMIN}/{path}", token=token)


async def test_a_rollback_that_comes_back_after_the_rollout_has_ended_is_recorded_as_too_late(
    tmp_path: Path,
) -> None:
    """It acts where it was ordered, without the database; there the rollout has ended otherwise meanwhile."""
    async with three(tmp_path, postgres.shared().database()) as cluster:
        await cluster.worlds[0].add_version("v1.1")
        rollout = await _rolled_back_alone(cluster, "v1.1")
        await cluster.worlds[0].api("POST", f"deployment/{rollout}/rollback", {"reason": "at the leader"})
        assert await cluster.worlds[0].settled(rollout) == "rolled_back"
        row = await _comes_too_late(cluster, rollout)
        assert row["details"]["why"] == "it is rolled back already: the old version has the traffic"
        assert (await cluster.same(f"deployment/{rollout}"))["errorMessage"].endswith("at the leader")

        _, new = await cluster.worlds[0].add_version("v1.2")
        rollout = await _rolled_back_alone(cluster, "v1.2")
        leader = cluster.worlds[0]
        await leader.until(lambda: are(leader, a="in charge", b="serves", c="silent"), "it to be missed")
        await leader.api("DELETE", "nodes/c")
        await leader.api("POST", f"deployment/{rollout}/promote", {"full": True, "reason": "looks good"})
        await leader.until(lambda: _has_percent(leader, rollout, 100), "all traffic")
        await leader.until(lambda: _completes(leader, rollout), "its end to be ordered")
        assert await leader.settled(rollout) == "completed"
        row = await _comes_too_late(cluster, rollout)
        assert "the deployment has ended (completed): undo takes it back" in row["details"]["why"]
        for world in cluster.worlds:
            await world.until(lambda w=world: _weighs(w, new, 100), "each to go by what is stored")
        assert (await cluster.same("audit/verify"))["ok"]


async def _rolled_back_alone(cluster: Cluster, version: str) -> str:
    """Start a canary, and roll it back at the last gateway, which is cut off from the database."""
    leader, *_, alone = cluster.worlds
    rollout = await leader.start_rolling(version, **CANARY)
    await alone.until(lambda: alone.has_status(rollout, "rolling"), "it to follow")
    cluster.cables[-1].refuses = True
    cluster.cables[-1].cut()
    answer = await alone.ask("POST", f"deployment/{rollout}/rollback", {"reason": "it burns"})
    assert answer.status == 202, answer.json()
    assert (answer.json()["stored"], answer.json()["nodes"]) == (False, ["c"])
    return rollout


async def _comes_too_late(cluster: Cluster, rollout: str) -> Any:
    """Let the one that was cut off come back. Returns what the audit trail then has of its rollback."""
    cluster.cables[-1].refuses = False
    leader = cluster.worlds[0]
    found: list[Any] = []

    async def is_noted() -> bool:
        rows = (await leader.api("GET", "audit?action=deployment.rollback&limit=200"))["items"]
        details = [row for row in rows if row["details"].get("reason") == "it burns"]
        found[:] = [row for row in details if row["resourceId"] == rollout]
        return bool(found)

    await leader.until(is_noted, "its rollback to be recorded", 60)
    await leader.until(cluster.all_serve, "it to follow again", 60)
    (row,) = found
    assert (row["details"]["stored"], row["details"]["node"]) == ("too late", "c"), row
    return row


async def _has_percent(world: World, rollout: str, percent: int) -> bool:
    return bool((await world.deployment(rollout))["trafficPercent"] == percent)


async def _completes(world: World, rollout: str) -> bool:
    """Whether the end was taken: all weights have to be live before."""
    return (await world.ask("POST", f"deployment/{rollout}/complete")).status < 300


async def _weighs(world: World, version_id: str, weight: int) -> bool:
    return bool((await world.version(version_id))["weight"] == weight)
