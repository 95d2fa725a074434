"""Gateways that share a database are replaced one by one while a canary runs: nobody loses a request."""

import asyncio
import signal
from pathlib import Path

import pytest

from bench.harness import World, gone
from bench.load import Load
from bench.procs import kill
from tests import postgres
from tests.fault.test_followers import are, light, two
from tests.fault.test_judged_elsewhere import is_at
from tests.fault.test_upgrade_while_rolling import CONFIG, share_of_next
from tests.fault.under_load import under_load, upgrade

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(300)]


async def test_a_canary_goes_on_while_each_gateway_is_upgraded(tmp_path: Path) -> None:
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        async with under_load(light(first)) as at_first:
            await first.add_version("v1.1")
            rollout = await first.start_rolling("v1.1", **CONFIG)
            async with under_load(light(second)) as at_second:
                for world in (second, first):
                    before = await world.info()
                    await upgrade(world)
                    after = await world.info()
                    assert after["epoch"] - before["epoch"] == (world is first), "whoever leads raises it"
                    await first.until(lambda: are(first, a="in charge", b="serves"), "both to be seen")
                    found = await world.deployment(rollout)
                    assert (found["status"], found["currentStep"]) == ("rolling", 0)
                    await _serve((first, at_first), (second, at_second), rollout=rollout, percent=20)
                await second.api("POST", f"deployment/{rollout}/promote")
                await _serve((first, at_first), (second, at_second), rollout=rollout, percent=60)
            await _stop(second)
            await first.until(lambda: are(first, a="in charge"), "the other one to have left")
            second.start_gateway()
            await second.until(second.serves, "the other one to be back")
            async with under_load(light(second)) as at_second:
                await _serve((first, at_first), (second, at_second), rollout=rollout, percent=60)
                await second.api("POST", f"deployment/{rollout}/promote")
                assert await first.settled(rollout) == "completed"
        assert (await second.api("GET", "audit/verify"))["ok"]


async def _serve(*places: tuple[World, Load], rollout: str, percent: int) -> None:
    """Wait until all go by a share, and have it of what each of them serves then."""
    for world, _ in places:
        await world.until(lambda w=world: is_at(w, rollout, percent), f"{percent} %")
        await world.until(world.workers_follow, "its workers to follow")
    shares = await asyncio.gather(*(share_of_next(load, 300) for _, load in places))
    assert all(abs(share - percent) <= 1.5 for share in shares), shares


async def _stop(world: World) -> None:
    """Stop the gateway in order, and wait until it has ended."""
    pid = int((await world.info())["pid"])
    kill(pid, signal.SIGTERM)
    await world.until(lambda: gone(pid), "it to have ended")
