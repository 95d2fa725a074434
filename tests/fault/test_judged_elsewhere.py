"""What a follower serves of a rollout is judged by the one in charge: real processes, a real database."""

import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.harness import World
from bench.load import Load
from bench.procs import kill
from tests import postgres
from tests.fault.test_followers import are, light, two
from tests.fault.under_load import under_load

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]

MAY_FAIL = frozenset({"500", "503"})


async def test_a_version_that_fails_only_where_a_follower_serves_it_is_rolled_back(tmp_path: Path) -> None:
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        await first.add_version("v1.1", "--error-rate", "0.5", "--error-path", "/bad")
        hurt = msgspec.structs.replace(light(second), path="/bad")
        async with under_load(light(first)), under_load(hurt, allowed=MAY_FAIL):
            rollout = await first.start_rolling("v1.1", steps=[50, 100], stepInterval=600_000, warmUp=0)
            assert await first.settled(rollout) == "rolled_back"
        said = next(each for each in await decisions(first, rollout) if each["verdict"] == "rollback")
        assert said["actor"] == "judge", said


async def test_the_next_in_charge_judges_what_the_former_one_has_served_on(tmp_path: Path) -> None:
    """Its workers serve on while it is dead: once it follows, what they counted is judged."""
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        await first.add_version("v1.1", "--error-rate", "1", "--error-path", "/bad")
        hurt = msgspec.structs.replace(light(first), path="/bad")
        async with under_load(light(second)):
            rollout = await first.start_rolling("v1.1", steps=[50, 100], stepInterval=600_000, warmUp=0)
            await first.until(lambda: has_seen(first, rollout, 20), "some answers to be judged")
            await first.kill_control()
            async with under_load(hurt, allowed=MAY_FAIL) as load:
                await second.until(lambda: are(second, a="silent", b="in charge"), "b to take over")
                await second.until(lambda: has_failed(load), "errors that nobody hears of")
            judged = (await second.deployment(rollout))["errorCount"]
            assert judged == 0, "nor of its orphans"
            first.start_gateway()
            assert await second.settled(rollout) == "rolled_back"


async def has_failed(load: Load) -> bool:
    return sum(load.lost.values()) > 20


async def has_seen(world: World, rollout: str, answers: int) -> bool:
    return bool((await world.deployment(rollout))["requestCount"] >= answers)


async def test_the_old_version_stays_while_a_gateway_of_the_rollout_is_silent(tmp_path: Path) -> None:
    """Frozen first, which it comes back from; then killed, and removed by hand."""
    plan: dict[str, Any] = {"steps": [50, 100], "stepInterval": 2_000, "warmUp": 0, "minRequests": 5}
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await first.until(lambda: are(first, a="in charge", b="serves"), "both to be seen")
        async with under_load(light(first)):
            await first.add_version("v1.1")
            rollout = await first.start_rolling("v1.1", **plan)
            follower = second.control.process.pid
            kill(follower, signal.SIGSTOP)
            try:
                await first.until(lambda: says(first, rollout, "nothing is heard of the gateway 'b'"), "it")
                await first.until(lambda: is_at(first, rollout, 100), "the last step")
                refused = await first.ask("POST", f"deployment/{rollout}/promote", {"reason": "now"})
                assert refused.status == 409, refused.json()
                assert "gateway nodes rm b" in str(refused.json())
            finally:
                kill(follower, signal.SIGCONT)
            assert await first.settled(rollout) == "completed"
            waits = [each for each in await decisions(first, rollout) if each["verdict"] == "wait"]
            assert len(waits) == 2, waits

            _, new = await first.add_version("v1.2")
            await first.until(lambda: are(first, a="in charge", b="serves"), "both to be seen")
            rollout = await first.start_rolling("v1.2", **plan)
            await second.kill_control()
            await first.until(lambda: are(first, a="in charge", b="silent"), "it to be missed")
            await first.until(lambda: says(first, rollout, "the gateway 'b'"), "it to be waited for")
            await first.until(lambda: is_at(first, rollout, 100), "the last step")
            assert (await first.deployment(rollout))["status"] == "rolling"
            await first.api("DELETE", "nodes/b")
            assert await first.settled(rollout) == "completed"
            assert (await first.version(new))["status"] == "production"


async def decisions(world: World, rollout: str) -> list[Any]:
    return list((await world.api("GET", f"deployment/{rollout}/decisions"))["items"])


async def says(world: World, rollout: str, words: str) -> bool:
    return words in (await world.deployment(rollout))["summary"]


async def is_at(world: World, rollout: str, percent: int) -> bool:
    return bool((await world.deployment(rollout))["trafficPercent"] == percent)
