"""Three gateways over one database, behind a plain balancer: one is killed, cut off, or has its clock wrong.

GATEWAY_KILLS sets how often whoever is in charge is killed (3 by default), GATEWAY_SEED repeats a run.
"""

import asyncio
import json
import os
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from bench.harness import World
from bench.load import Load
from tests import postgres
from tests.clock import clock_off, needs_compiler
from tests.fault.test_isolation import is_isolated, light, not_served, served
from tests.fault.three_gateways import NAMES, Cluster, kill_control, three
from tests.fault.under_load import under_load
from tests.integration.rollouts.stage import Listener
from tests.splitter import Splitter

KILLS: Final = int(os.environ.get("GATEWAY_KILLS", "3"))
SEED: Final = int(os.environ.get("GATEWAY_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
MOMENT_S: Final = 7.0
"""About as long as such a canary takes alone."""
CANARY: Final[dict[str, Any]] = {
    "steps": [10, 50, 100],
    "stepInterval": 2_000,
    "minRequests": 5,
    "warmUp": 0,
    "drainTimeout": 5_000,
}
LONG: Final[dict[str, Any]] = {"steps": [30, 100], "stepInterval": 600_000, "warmUp": 0}
REQUESTS: Final = 600
BAD: Final = ("--error-rate", "0.5", "--seed", "1")
MAY_FAIL: Final = frozenset({"500"})
STEPS: Final = [f"{percent} % of traffic to the new version" for percent in CANARY["steps"]]

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240 + 60 * KILLS)]


@needs_compiler
async def test_weights_are_exact_and_rollouts_end_as_they_should_however_often_the_leader_is_killed(
    tmp_path: Path,
) -> None:
    """The clocks of two gateways are an hour off, each its own way: whoever leads, nothing goes by them."""
    chance = random.Random(SEED)
    clocks = {}
    for name, off_s in (("b", -3_600), ("c", 3_600)):
        (tmp_path / f"clock-{name}").mkdir()
        clocks[name] = clock_off(tmp_path / f"clock-{name}", off_s)
    async with Listener(lambda call: 200) as hooks:
        policies = f'webhooks = [{{ url = "{hooks.url}/hook" }}]'
        url = postgres.shared().database()
        async with three(tmp_path, url, isolation_ms=120_000, policies=policies, env=clocks) as cluster:
            await _weights_are_exact(cluster)
            await _a_drain_has_its_time(cluster)
            left, number = KILLS, 0
            while left:
                number += 1
                kills, is_bad = min(left, 1 + number % 2), number % 2 == 0
                left -= kills
                rollout = await _killed(cluster, f"v2.{number}", kills, chance, is_bad=is_bad)
                await _is_told_once(cluster, hooks, rollout, is_bad=is_bad)
            for world in cluster.worlds:
                assert (await world.api("GET", "audit/verify"))["ok"]
            rows = (await cluster.same("audit?limit=200"))["items"]
            off = max(abs(datetime.now(UTC) - datetime.fromisoformat(each["at"])) for each in rows)
            assert off < timedelta(minutes=30), "all of it was within this test"


async def _weights_are_exact(cluster: Cluster) -> None:
    """Of a share of 30 % each gateway gives less than one request more or less."""
    first = cluster.worlds[0]
    await first.add_version("v1.1")
    rollout = await first.start_rolling("v1.1", **LONG)
    for world in cluster.worlds:
        await world.until(lambda world=world: world.has_status(rollout, "rolling"), "each to follow")
        await world.until(world.workers_follow, "the weights to be everywhere")
    report = await Load(cluster.load(rate=500.0)).run(REQUESTS)
    assert report.lost == {}, report.examples
    assert abs(report.versions["v1.1"] - 0.3 * REQUESTS) < len(cluster.worlds), report.versions
    await first.api("POST", f"deployment/{rollout}/rollback", {"reason": "counted"})
    assert await cluster.ended(rollout) == "rolled_back"


async def _a_drain_has_its_time(cluster: Cluster) -> None:
    """Guards against a deadline by another's clock: whoever was in charge cut what ran there at once."""
    first, behind, _ = cluster.worlds
    old = await first.version_id("v1.0")
    _, new = await first.add_version("v1.2")
    reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\na")
    await first.until(lambda: _runs(first), "a request under way")
    await first.api("PATCH", f"deployment/versions/{new}", {"weight": 100})
    await first.until(lambda: first.is_active(new), "v1.2 to be active")
    await first.api("PATCH", f"deployment/versions/{old}", {"weight": 0})
    await behind.until(lambda: _weighs_nothing(behind, old), "the other one to know")
    await behind.api("POST", f"deployment/versions/{old}/drain", {"timeout": 60_000})
    await first.until(lambda: _drains(first, old), "the one in charge to know")
    await asyncio.sleep(1)  # a deadline that has passed is for now
    writer.write(b"b")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await first.until(lambda: _drains(first, old, state="drained"), "it to be drained")


async def _runs(world: World) -> bool:
    versions = (await world.api("GET", "overview"))["items"][0]["versions"]
    return any(each["inFlight"] for each in versions)


async def _drains(world: World, version_id: str, state: str = "draining") -> bool:
    return bool((await world.api("GET", f"deployment/versions/{version_id}/drain"))["state"] == state)


async def _weighs_nothing(world: World, version_id: str) -> bool:
    return bool((await world.version(version_id))["weight"] == 0)


async def _killed(
    cluster: Cluster, to_version: str, kills: int, chance: random.Random, *, is_bad: bool
) -> str:
    """Roll a version out, kill whoever is in charge meanwhile, and wait for the end. Returns the rollout."""
    world = chance.choice(cluster.worlds)
    await world.add_version(to_version, *(BAD if is_bad else ()))
    async with under_load(cluster.load(), allowed=MAY_FAIL if is_bad else frozenset()):
        rollout = await world.start(to_version, **CANARY)
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.0, MOMENT_S / (1 + is_bad)))
            victim = await cluster.leader()
            await kill_control(victim)
            await asyncio.sleep(chance.uniform(0.0, MOMENT_S))
            await asyncio.to_thread(victim.start_gateway)
        assert await cluster.ended(rollout) == ("rolled_back" if is_bad else "completed"), f"seed {SEED}"
        await world.until(cluster.all_serve, "each to be back")
    weights = {row["version"]: row["weight"] for row in (await _versions(world))}
    assert (weights[to_version] == 0) is is_bad, f"seed {SEED}"
    assert sorted(weights.values())[-2:] == [0, 100], f"seed {SEED}"
    return rollout


async def _versions(world: World) -> list[Any]:
    return list((await world.api("GET", "deployment/versions?serviceName=auth"))["items"])


async def _is_told_once(cluster: Cluster, hooks: Listener, rollout: str, *, is_bad: bool) -> None:
    """Each gateway tells of a rollout what it would be without a kill; webhooks got it under one key each."""
    events = (await cluster.same(f"deployment/{rollout}/events"))["items"]
    first, *steps, last = events
    end = "deployment.rolled_back" if is_bad else "deployment.completed"
    assert (first["kind"], last["kind"]) == ("deployment.started", end), f"seed {SEED}"
    assert {each["kind"] for each in steps} == {"deployment.step"}, f"seed {SEED}"
    texts = [each["data"]["text"] for each in steps]
    assert texts == STEPS[: len(texts) if is_bad else len(STEPS)], f"seed {SEED}"
    starts = (await cluster.same("audit?action=deployment.start&limit=200"))["items"]
    assert [each["resourceId"] for each in starts].count(rollout) == 1, f"seed {SEED}"
    await cluster.same(f"deployment/{rollout}/decisions")

    def told() -> dict[tuple[str, str], set[str]]:
        keys = defaultdict(set)
        for each in hooks.calls:
            said = json.loads(each.body)
            if said["data"].get("deploymentId") == rollout:
                assert said["node"] in NAMES, said
                keys[said["kind"], said["text"]].add(each.fields["idempotency-key"])
        return keys

    await cluster.worlds[0].until(lambda: len(told()) >= len(events), "all to be told")
    assert len(told()) == len(events), told()
    assert all(len(keys) == 1 for keys in told().values()), told()


async def test_a_leader_cut_off_in_a_bad_canary_goes_back_alone_while_another_rolls_back(
    tmp_path: Path,
) -> None:
    """What it serves is good, so that nothing but its isolation can make it return."""
    url = postgres.shared().database()
    async with three(tmp_path, url, isolation_ms=6_000) as cluster:
        leader, *others = cluster.worlds
        cable = cluster.cables[0]
        await leader.add_version("v1.1", "--error-rate", "1", "--error-path", "/bad")
        async with Splitter([each.port for each in others]) as splitter, under_load(light(leader)) as load:
            rollout = await leader.start_rolling("v1.1", **LONG)
            for world in cluster.worlds:
                await world.until(lambda world=world: world.has_status(rollout, "rolling"), "each to follow")
            await leader.until(lambda: served(load, "v1.1"), "it to be served")
            cable.refuses = True
            cable.cut()
            hurt = msgspec.structs.replace(cluster.load(), port=splitter.port, path="/bad")
            async with under_load(hurt, allowed=MAY_FAIL):
                cluster.worlds.remove(leader)
                judge = await cluster.leader()
                assert await judge.settled(rollout) == "rolled_back"
            assert not (await judge.deployment(rollout))["errorMessage"].startswith("isolated")
            await leader.until(lambda: not_served(load, "v1.1"), "the one cut off to go back")
            await leader.until(lambda: is_isolated(leader), "it to say so")
            before = load.versions["v1.1"]
            cable.refuses = False
            assert await asyncio.to_thread(leader.control.process.wait, 60) == 1, "it is in charge no more"
            await asyncio.to_thread(leader.start_gateway)
            await leader.until(lambda: leader.has_status(rollout, "rolled_back"), "it to follow")
            assert not await served(load, "v1.1")
            assert load.versions["v1.1"] == before, "it never went forward"
        cluster.worlds.insert(0, leader)
        await leader.until(cluster.all_serve, "each to be seen")
        assert (await cluster.same("audit/verify"))["ok"]
