"""Every strategy on real processes: good, bad, undecided, paused, promoted, undone."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.integration.rollouts.stage import PATIENT, Stage, staged

pytestmark = pytest.mark.timeout(180)

STRATEGIES: Final[dict[str, dict[str, Any]]] = {
    "canary": {"steps": [50, 100], "stepInterval": 1_000},
    "blue-green": {"bakeTime": 1_000},
    "immediate": {"bakeTime": 1_000},
}
"""Strategy -> a configuration with which it is over in seconds."""
FIRST_SHARE: Final = {"canary": 50, "blue-green": 100, "immediate": 100}
SLOWER: Final[dict[str, dict[str, Any]]] = {
    "canary": {"steps": [50, 100], "stepInterval": [3_000, 1_000]},
    "blue-green": {"bakeTime": 3_000},
    "immediate": {"bakeTime": 3_000},
}
"""The same, with time to step in."""
LONG: Final[dict[str, dict[str, Any]]] = {
    "canary": {"steps": [50, 100], "stepInterval": 600_000},
    "blue-green": {"bakeTime": 600_000},
    "immediate": {"bakeTime": 600_000},
}
"""The same again, waiting where it is until somebody acts."""

SURE_SOON: Final = {"warmUp": 0, "falseAlarmRate": 0.5}
"""A bad version is judged from its first request on, nor must a blue-green throw its coin for minutes."""

each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("matrix")) as made:
        yield made


@each_strategy
async def test_good_version_takes_over(stage: Stage, strategy: str) -> None:
    release = await stage.release(stage.good.url)
    async with release.traffic() as traffic:
        await release.start(strategy, **STRATEGIES[strategy], **PATIENT, drainTimeout=2_000)
        ended = await release.becomes("completed")
        assert await traffic.served() == {"v1.1"}
    assert ended["summary"] == (
        "The new version serves everything; the old one is drained (completed by judge)."
    )
    assert ended["completedAt"] is not None
    assert await release.weights() == {"v1.0": 0, "v1.1": 100}
    old, new = [await stage.world.version(each) for each in (release.old, release.new)]
    assert (old["status"], old["isActive"], new["status"]) == ("deprecated", False, "production")


@each_strategy
async def test_bad_version_is_rolled_back_and_the_reason_kept(stage: Stage, strategy: str) -> None:
    release = await stage.release(stage.bad.url)
    async with release.traffic("500") as traffic:
        await traffic.sent(250)  # what the old version does before: there is no beside it at 100 %
        await release.start(strategy, **LONG[strategy], **SURE_SOON)
        ended = await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    verdict = await release.decision("rollback")
    assert verdict["actor"] == "judge"
    assert verdict["reason"] == ended["errorMessage"] == ended["summary"]
    assert "failed" in verdict["reason"] or "fails" in verdict["reason"]
    assert verdict["data"]["newErrors"] > 0
    assert await release.weights() == {"v1.0": 100, "v1.1": 0}


@each_strategy
async def test_without_traffic_a_person_is_waited_for(stage: Stage, strategy: str) -> None:
    release = await stage.release(stage.good.url)
    await release.start(strategy, **STRATEGIES[strategy])
    paused = await release.becomes("paused")
    assert paused["trafficPercent"] == FIRST_SHARE[strategy]
    assert paused["summary"] == (
        "paused by clock: The step is over, undecided. "
        "Too little traffic so far: 0 of 20 requests in this step."
    )
    assert (await release.decision("pause"))["actor"] == "clock"
    await release.order("rollback", reason="nobody uses it")
    assert (await release.becomes("rolled_back"))["errorMessage"].endswith(": nobody uses it")


@each_strategy
@pytest.mark.parametrize(("on_undecided", "status"), [("rollback", "rolled_back"), ("pause", "paused")])
async def test_undecided_at_the_deadline_does_as_the_settings_say(
    stage: Stage, strategy: str, on_undecided: str, status: str
) -> None:
    release = await stage.release(stage.good.url)
    settings = {"autoPause": False, "maxStepTime": 2_000, "onUndecided": on_undecided}
    await release.start(strategy, **STRATEGIES[strategy], **settings)
    found = await release.becomes(status)
    assert "Still undecided at maxStepTime. Too little traffic so far: 0 of 20" in found["summary"]
    moved = {"v1.0": 100 - FIRST_SHARE[strategy], "v1.1": FIRST_SHARE[strategy]}
    assert await release.weights() == ({"v1.0": 100, "v1.1": 0} if status == "rolled_back" else moved)


@each_strategy
async def test_paused_stands_still_until_it_is_resumed(stage: Stage, strategy: str) -> None:
    release = await stage.release(stage.good.url)
    async with release.traffic() as traffic:
        await release.start(strategy, **SLOWER[strategy], **PATIENT, drainTimeout=2_000)
        await release.reaches(FIRST_SHARE[strategy])
        paused = await release.order("pause", reason="a report")
        assert paused["summary"] == "paused by bootstrap: a report"
        await traffic.sent(480)  # four seconds: longer than its step
        still = await release.seen()
        assert (still["status"], still["remainingMs"]) == ("paused", paused["remainingMs"])
        assert still["trafficPercent"] == FIRST_SHARE[strategy]
        await release.order("resume")
        await release.becomes("completed")


@each_strategy
async def test_paused_is_promoted_by_a_person(stage: Stage, strategy: str) -> None:
    """A canary goes to its next step, a switch that is watched to its end."""
    release = await stage.release(stage.good.url)
    async with release.traffic():
        await release.start(strategy, **LONG[strategy], drainTimeout=2_000)
        await release.reaches(FIRST_SHARE[strategy])
        await release.order("pause")
        promoted = await release.order("promote")
        assert promoted["status"] == "rolling"
        assert promoted["trafficPercent"] == 100
        if strategy == "canary":
            await release.order("complete")
        ended = await release.becomes("completed")
    assert ended["summary"].endswith("the old one is drained (completed by bootstrap).")


@each_strategy
async def test_undone_while_open_everything_is_back_at_once(stage: Stage, strategy: str) -> None:
    release = await stage.release(stage.good.url)
    async with release.traffic() as traffic:
        await release.start(strategy, **LONG[strategy])
        await release.reaches(FIRST_SHARE[strategy])
        await stage.world.api("POST", f"services/{release.name}/undo", {"reason": "support called"})
        ended = await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    assert ended["errorMessage"] == "Rolled back by bootstrap: support called"


@each_strategy
async def test_undone_when_over_it_is_a_release_of_its_own(stage: Stage, strategy: str) -> None:
    release = await stage.release(stage.good.url)
    async with release.traffic() as traffic:
        await release.start(strategy, **STRATEGIES[strategy], **PATIENT, drainTimeout=2_000)
        await release.becomes("completed")
        undone = await stage.world.api("POST", f"services/{release.name}/undo", {"reason": "support called"})
        assert (undone["strategy"], undone["toVersion"]) == ("immediate", "v1.0")
        release.id = undone["id"]
        await release.reaches(100)
        assert await traffic.served() == {"v1.0"}
        assert "healthy" in (await release.decision("gate"))["reason"]
