"""A version passes its test gate on every gateway: real processes, a real database, a firewall."""

from contextlib import suppress
from pathlib import Path

import pytest

from bench.harness import World
from tests import postgres
from tests.cable import Cable
from tests.fault.test_followers import CANARY, are, two

pytestmark = [postgres.needs_postgres, pytest.mark.timeout(240)]

TOO_SLOW = "The new version did not pass its gate: the health check failed: no answer within "
"""Where a machine is too busy for the probes of the one in charge, nobody asks the other: order it again."""


async def test_a_version_that_one_gateway_cannot_reach_any_more_gets_no_traffic(tmp_path: Path) -> None:
    """That gateway had found it healthy when it was registered, and asks idle versions seldom."""
    async with two(tmp_path, postgres.shared().database()) as (first, second):
        await second.until(lambda: are(second, a="in charge", b="serves"), "both to be seen")
        sample = first.add_sample("v1.1")
        async with Cable(sample.port) as firewall:
            body = {"serviceName": "auth", "version": "v1.1", "url": f"http://127.0.0.1:{firewall.port}"}
            new = (await first.api("POST", "deployment/versions", body, expect=201))["id"]
            for world in (first, second):
                await world.until(lambda w=world: _is_healthy(w, new), "each to find it healthy")
            follower = second.control.process.pid
            firewall.lets_in = lambda port: not is_of(follower, port)
            for world in (first, second):  # ordered at either of them
                while (why := await _failure(first, world)).startswith(TOO_SLOW):
                    pass
                assert why.startswith("The new version did not pass its gate: gateway b: "), why
                assert "the health check failed: " in why
                assert (await second.version(new))["weight"] == 0
            firewall.lets_in = lambda port: True
            await first.start_rolling("v1.1", **CANARY)


async def _failure(first: World, world: World) -> str:
    """Order a rollout that fails. Returns why it did."""
    rollout = await world.start("v1.1", **CANARY)
    assert await first.settled(rollout) == "failed"
    return str((await first.deployment(rollout))["errorMessage"])


async def _is_healthy(world: World, version_id: str) -> bool:
    return bool((await world.version(version_id))["healthStatus"] == "healthy")


def is_of(pid: int, port: int) -> bool:
    """Whether a process has the end of a connection that is at `port` on 127.0.0.1."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    sockets = {f"socket:[{each[9]}]" for each in fields if each[1] == f"0100007F:{port:04X}"}
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if str(handle.readlink()) in sockets:
                return True
    return False
