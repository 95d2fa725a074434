"""What else becomes of real rollouts: what the judge, smoke tests, a freeze and people make of them."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.integration.rollouts.stage import PATIENCE_S, PATIENT, Call, Listener, Stage, staged

pytestmark = pytest.mark.timeout(180)

LONG: Final[dict[str, Any]] = {"steps": [50, 100], "stepInterval": 600_000, "drainTimeout": 2_000}
QUICK: Final[dict[str, Any]] = LONG | PATIENT | {"stepInterval": 1_000}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("outcomes")) as made:
        yield made


# The judge


async def test_breach_may_pause_instead_and_leave_the_traffic(stage: Stage) -> None:
    release = await stage.release(stage.bad.url)
    async with release.traffic("500"):
        await release.start(**LONG, onBreach="pause")
        paused = await release.becomes("paused")
        assert paused["summary"].startswith("paused by judge: ")
        # At the step's share, or at the quarter at which the old version was asked: not taken back.
        assert (await release.weights())["v1.1"] in (25, 50)
        await release.order("rollback")
        await release.becomes("rolled_back")


async def test_dry_run_records_its_verdict_and_goes_on(stage: Stage) -> None:
    release = await stage.release(stage.bad.url)
    async with release.traffic("500"):
        await release.start(**QUICK | {"stepInterval": 3_000}, dryRun=True, warmUp=0)
        await release.becomes("completed")
    rows = await release.decisions()
    assert any(row["reason"].endswith("(Dry run: nothing is done about it.)") for row in rows)
    assert not any(row["verdict"] == "rollback" for row in rows)


async def test_version_dead_behind_its_breaker_is_aborted_as_unavailable(stage: Stage) -> None:
    """Its failures are retried elsewhere and then there are none: only its absence speaks against it."""
    dead = stage.world.add_sample("v1.1", "--error-rate", "1", "--error-status", "503")
    release = await stage.release(dead.url, breaker={"failureThreshold": 3, "resetTimeout": 4_000})
    async with release.traffic(rate=60) as traffic:
        await release.start(**LONG | {"steps": [20, 100]}, falseAlarmRate=1e-9)
        await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    verdict = await release.decision("rollback")
    assert verdict["data"]["gate"] == "unavailable"
    unusable_s = re.search(r"^The new version has been unusable for (\d+) s", verdict["reason"])
    assert unusable_s is not None
    assert int(unusable_s[1]) >= 4  # one reset of the breakers was waited out


async def test_version_that_is_killed_is_aborted(stage: Stage) -> None:
    sample = stage.world.add_sample("v1.1")
    release = await stage.release(sample.url)
    async with release.traffic():
        await release.start(**LONG)
        await release.reaches(50)
        sample.kill()
        ended = await release.becomes("rolled_back")
    assert "new version" in ended["errorMessage"]


async def test_version_that_is_slow_is_rolled_back_if_latency_is_judged(stage: Stage) -> None:
    slow = stage.world.add_sample("v1.1", "--delay-ms", "150")
    release = await stage.release(slow.url)
    async with release.traffic() as traffic:
        await release.start(**LONG, maxLatencyRatio=2, onLatency="abort")
        await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    verdict = await release.decision("rollback")
    assert verdict["data"]["gate"] == "latency"
    assert verdict["reason"].startswith("The new version is slow: ")


@pytest.mark.parametrize(("errors", "status"), [(["4xx"], "rolled_back"), (["5xx"], "paused")])
async def test_what_counts_as_an_error_is_a_setting(stage: Stage, errors: list[str], status: str) -> None:
    picky = stage.world.add_sample("v1.1", "--error-rate", "0.6", "--error-status", "404", "--seed", "7")
    release = await stage.release(picky.url)
    async with release.traffic():
        await release.start(**QUICK | {"stepInterval": 3_000}, errors=errors)
        await release.becomes(status)


# Nowhere to go back to


async def test_automatic_rollback_waits_until_there_is_somewhere_to_go_back_to(stage: Stage) -> None:
    old = stage.world.add_sample("v1.0")
    status = 200
    async with Listener(lambda call: 200 if call.path == "/api/health" else status) as new:
        release = await stage.release(new.url, old_url=old.url)
        async with release.traffic("500", rate=60) as traffic:
            await traffic.sent(250)
            await release.start("blue-green", bakeTime=600_000)
            await release.reaches(100)
            old.kill()

            async def old_is_out() -> bool:
                return bool((await stage.world.version(release.old))["healthStatus"] == "unhealthy")

            await stage.world.until(old_is_out, "the old version to be out", 60)
            status = 500
            stranded = await release.becomes("paused")
            assert "Nowhere to go back to, the old version is not usable." in stranded["summary"]
            assert await release.weights() == {"v1.0": 0, "v1.1": 100}
            stage.world.restart_sample(old)
            await release.becomes("rolled_back")
            assert await traffic.served() == {"v1.0"}


async def test_rollback_by_a_person_acts_even_then_and_warns(stage: Stage) -> None:
    old = stage.world.add_sample("v1.0")
    release = await stage.release(stage.good.url, old_url=old.url, fallback={"status": 503})
    async with release.traffic():
        await release.start("blue-green", bakeTime=600_000)
        await release.reaches(100)
    old.kill()

    async def old_is_unusable() -> bool:
        return bool((await stage.world.version(release.old))["healthStatus"] == "unhealthy")

    await stage.world.until(old_is_unusable, "the old version to be out", 60)
    answer = await release.order("rollback")
    assert answer["warning"].startswith("The old version is not usable at the moment")
    assert (await release.becomes("rolled_back"))["trafficPercent"] == 0
    assert await release.weights() == {"v1.0": 100, "v1.1": 0}


# Smoke tests


async def test_failing_smoke_test_at_the_gate_blocks_the_start(stage: Stage) -> None:
    release = await stage.release(stage.good.url)
    smoke = {"endpoints": [{"method": "GET", "path": "/", "expectedStatus": 418}], "retries": 0}
    async with release.traffic() as traffic:
        await release.start(**QUICK, smokeTests=smoke)
        failed = await release.becomes("failed")
        assert await traffic.served() == {"v1.0"}
    assert failed["trafficPercent"] == 0
    assert "a smoke test failed: GET /" in failed["errorMessage"]
    assert [row["verdict"] for row in await release.decisions()] == ["start", "fail"]


async def test_failing_smoke_test_after_the_switch_rolls_back(stage: Stage) -> None:
    """It passes at the gate, and the second time no more."""
    runs = itertools.count(1)

    def answer(call: Call) -> int:
        return 500 if call.path == "/smoke" and next(runs) == 2 else 200

    async with Listener(answer) as new:
        release = await stage.release(new.url)
        smoke = {"endpoints": [{"method": "GET", "path": "/smoke"}], "retries": 0}
        async with release.traffic(rate=60) as traffic:
            await release.start("blue-green", bakeTime=600_000, smokeTests=smoke)
            ended = await release.becomes("rolled_back")
            assert await traffic.served() == {"v1.0"}
    assert ended["errorMessage"].startswith(
        "Smoke tests failed after the switch: a smoke test failed: GET /s"
    )
    assert (await release.decision("rollback"))["actor"] == "smoke"


# People


async def test_freeze_refuses_a_start_and_holds_what_is_open(stage: Stage) -> None:
    release, other = await stage.release(stage.good.url), await stage.release(stage.good.url)
    async with release.traffic() as traffic:
        await release.start(**QUICK | {"stepInterval": 3_000})
        await release.reaches(50)
        await stage.world.api("PUT", "freeze", {"frozen": True, "reason": "launch day"})
        try:
            await traffic.sent(480)  # four seconds: longer than its step
            held = await release.seen()
            refused = await stage.world.ask("POST", f"deployment/{release.id}/promote", {})
            start = await other.try_to_start(**QUICK)
            await release.order("rollback")
            await release.becomes("rolled_back")
        finally:
            await stage.world.api("PUT", "freeze", {"frozen": False})
    assert (held["status"], held["trafficPercent"], refused.status, start.status) == ("rolling", 50, 409, 409)
    assert held["summary"].startswith("changes are frozen, it stays here")
    assert start.json()["detail"] == "changes are frozen by bootstrap (launch day): no deployment may start"


async def test_planned_pause_waits_for_a_person(stage: Stage) -> None:
    release = await stage.release(stage.good.url)
    async with release.traffic():
        await release.start(**QUICK | {"steps": [{"percent": 50, "pause": True}, 100]})
        paused = await release.becomes("paused")
        assert paused["summary"].startswith("paused by clock: The step passed; its settings ask for a person")
        await release.order("resume")
        await release.becomes("completed")


async def test_rolled_back_version_may_try_again(stage: Stage) -> None:
    release = await stage.release(stage.good.url)
    async with release.traffic():
        first = await release.start(**LONG)
        await release.reaches(50)
        await release.order("rollback")
        await release.becomes("rolled_back")
        assert await release.start(**QUICK) != first
        await release.becomes("completed")
    assert await release.weights() == {"v1.0": 0, "v1.1": 100}


async def test_second_start_is_refused_while_one_is_open(stage: Stage) -> None:
    release = await stage.release(stage.good.url)
    await release.register("v1.2", stage.good.url)
    await release.start(**LONG)
    await release.reaches(50)
    refused = await release.try_to_start(to="v1.2", **LONG)
    assert refused.status == 409
    assert release.id in refused.json()["detail"]


async def test_newer_version_may_replace_the_one_that_rolls(stage: Stage) -> None:
    release = await stage.release(stage.good.url, onNewVersion="restart")
    await release.register("v1.2", stage.good.url)
    async with release.traffic():
        replaced = await release.start(**LONG)
        await release.reaches(50)
        await release.start(to="v1.2", **QUICK)
        await release.becomes("completed")
    assert await release.weights() == {"v1.0": 0, "v1.1": 0, "v1.2": 100}
    earlier = await stage.world.deployment(replaced)
    assert earlier["errorMessage"] == "Rolled back by bootstrap: replaced by a deployment of v1.2"


# Waiting and looking back


async def test_whoever_waits_for_a_deploy_hears_of_a_pause_and_of_its_end(stage: Stage) -> None:
    release = await stage.release(stage.good.url)
    deploy = ("deploy", release.name, "v1.1", "--steps", "50,100", "--step-interval", "1s", "--wait")
    async with stage.commanded(*deploy) as waiting:
        assert waiting.stderr is not None
        said = ""
        while "waiting for somebody" not in said:
            line = (await asyncio.wait_for(waiting.stderr.readline(), PATIENCE_S)).decode()
            assert line, said
            said += line
        assert "paused: 50 % on v1.1 (paused by clock: The step is over, undecided." in said
        assert (await stage.command("rollback", release.name, "--reason", "nobody uses it")).code == 0
        out, err = await asyncio.wait_for(waiting.communicate(), PATIENCE_S)
    assert waiting.returncode == 1
    assert "rolled_back: 0 % on v1.1 (Rolled back by bootstrap: nobody uses it)" in err.decode()
    assert out.decode().startswith("rolled_back v1.0 → v1.1 (canary) in step 1/2, ")


async def test_decisions_tell_the_story_of_a_rollback(stage: Stage) -> None:
    release = await stage.release(stage.bad.url)
    async with release.traffic("500"):
        await release.start(**LONG)
        ended = await release.becomes("rolled_back")
    said = await stage.command("decisions", release.name)
    assert said.code == 0, said
    verdicts = re.findall(r"^\S+ \S+ +\d+ +\d+ % +(\w+) ", said.out, re.MULTILINE)
    assert verdicts[:3] == ["start", "gate", "step"]
    assert verdicts[-1] == "rollback"
    assert ended["errorMessage"][:40] in said.out
    assert (await stage.command("status", release.name)).code == 1


async def test_whatif_replays_what_really_happened(stage: Stage) -> None:
    bad, good = await stage.release(stage.bad.url), await stage.release(stage.good.url)
    async with bad.traffic("500"), good.traffic():
        await bad.start(**QUICK | {"stepInterval": 3_000}, dryRun=True, warmUp=0)
        await good.start(**QUICK | {"stepInterval": 3_000})
        await bad.becomes("completed")
        await good.becomes("completed")
    said = await stage.command("whatif", bad.name, "--error-threshold", "1")
    assert said.code == 0, said
    row = said.out.splitlines()[1].split()
    assert row[:3] == [bad.id[:8], "completed", "ask"]
    assert "the old one failed 0.0 %" in said.out or "the old one 0.0 %" in said.out
    said = await stage.command("whatif", good.name, "--error-threshold", "1")
    assert said.out.splitlines()[1].split()[:3] == [good.id[:8], "completed", "advance"]


@pytest.mark.parametrize("strategy", ["blue-green", "immediate"])
async def test_whatif_comes_to_the_question_the_switch_had(stage: Stage, strategy: str) -> None:
    """What the old version would have answered is not on record, only that it was asked."""
    release = await stage.release(stage.bad.url)
    async with release.traffic("500") as traffic:
        await traffic.sent(250)
        await release.start(strategy, bakeTime=600_000, warmUp=0, falseAlarmRate=0.5)
        ended = await release.becomes("rolled_back")
    said = await stage.command("whatif", release.name, "--strategy", strategy)
    row = said.out.splitlines()[1].split()
    assert row[:2] == [release.id[:8], "rolled_back"]
    assert row[2] in ("ask", "abort", "hold"), "never: go on"
    # A coin draws who serves: if it is the new version at once, its failures may be enough at such a rate.
    assert re.search(r"the old one 0\.0 % \(0 of [0-9]", ended["errorMessage"])
    assert row[2] != "ask" or "asking the old version" in said.out
