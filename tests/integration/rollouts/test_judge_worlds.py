"""What goes wrong with a release in ways that no 5xx of the new version tells, on real processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from bench.client import Answer, call
from bench.harness import Sample
from tests.integration.rollouts.stage import PATIENCE_S, Release, Stage, staged

pytestmark = pytest.mark.timeout(180)

LONG: Final[dict[str, Any]] = {
    "steps": [50, 100],
    "stepInterval": 600_000,
    "drainTimeout": 2_000,
    "warmUp": 0,
    "falseAlarmRate": 0.001,
    "maxLatencyRatio": None,
}
"""It waits where it is until the judge or a person acts, and judges from the first request on."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("worlds")) as made:
        yield made


def failing(stage: Stage, rate: float, *flags: str, version: str = "v1.1") -> Sample:
    """Start a sample that makes so many of its requests fail, 0-1."""
    return stage.world.add_sample(version, "--error-rate", str(rate), "--seed", version[-1], *flags)


async def test_version_that_hangs_is_rolled_back_for_the_clients_that_leave(stage: Stage) -> None:
    """No answer comes that could fail: its clients only give up waiting."""
    release = await stage.release(failing(stage, 0.3, "--hang").url)
    async with release.traffic("timeout", patience_s=1.0) as traffic:
        await release.start(**LONG)
        ended = await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    assert "its commonest error: abandoned" in ended["errorMessage"]
    assert (await release.decision("rollback"))["data"]["gate"] == "comparison"


async def test_clients_that_leave_good_versions_blame_neither(stage: Stage) -> None:
    """Both answer too late for a third of the clients: that is no difference between them."""
    slow = [failing(stage, 0.3, "--hang", version=version) for version in ("v1.0", "v1.1")]
    release = await stage.release(slow[1].url, old_url=slow[0].url)
    async with release.traffic("timeout", patience_s=0.5) as traffic:
        await release.start(**LONG)
        await release.reaches(50)
        await traffic.sent(720)
        found, verdicts = await release.seen(), {row["verdict"] for row in await release.decisions()}
        await release.order("rollback")
    assert found["status"] == "rolling", "an ask would be no blame: it rolls on, with less, meanwhile"
    assert not verdicts & {"pause", "rollback"}, verdicts


# 4xx


async def held_for_404(release: Release) -> Any:
    """Start a release whose new version answers 404 too often; returns it once a person is asked."""
    await release.start(**LONG)
    paused = await release.becomes("paused")
    assert paused["summary"].startswith(
        "paused by judge: 4xx answers fall on the new version more often than"
    )
    assert "A person decides: resume or promote accepts it." in paused["summary"]
    assert await release.weights() == {"v1.0": 50, "v1.1": 50}
    pause = await release.decision("pause")
    assert (pause["actor"], pause["data"]["gate"]) == ("judge", "shift")
    return paused


async def test_404s_hold_a_release_until_a_person_promotes_it(stage: Stage) -> None:
    release = await stage.release(failing(stage, 0.3, "--error-status", "404").url)
    async with release.traffic():
        await held_for_404(release)
        promoted = await release.order("promote")
        assert (promoted["status"], promoted["trafficPercent"]) == ("rolling", 100)
        await release.order("complete")
        await release.becomes("completed")
    rows = [(row["verdict"], row["actor"]) for row in await release.decisions()]
    assert ("pause", "judge") in rows
    assert not [row for row in rows if row[0] == "rollback"]


async def test_404s_accepted_by_a_resume_are_on_record_with_who_did(stage: Stage) -> None:
    """The test begins anew; the 404s are over by then, so nothing holds it again."""
    gone = stage.world.folder / "gone"
    gone.touch()
    picky = failing(stage, 0.3, "--error-status", "404", "--error-while", str(gone))
    release = await stage.release(picky.url)
    async with release.traffic() as traffic:
        await held_for_404(release)
        gone.unlink()
        await traffic.sent(120)
        assert (await release.seen())["status"] == "paused"  # it does not fall away by itself
        resumed = await release.order("resume")
        assert resumed["status"] == "rolling"
        await traffic.sent(240)
        assert (await release.seen())["status"] == "rolling"
        await release.order("rollback")
    resume = await release.decision("resume")
    assert resume["reason"] == "Resumed by bootstrap, who accepts what held it up."
    assert resume["actor"] == "bootstrap"


async def test_404s_may_stop_a_release_by_setting(stage: Stage) -> None:
    release = await stage.release(failing(stage, 0.3, "--error-status", "404").url)
    async with release.traffic() as traffic:
        await release.start(**LONG, onShift="abort")
        ended = await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    assert ended["errorMessage"].startswith("4xx answers fall on the new version more often than")


# Who counts


async def test_requests_without_a_key_of_a_sticky_service_count(stage: Stage) -> None:
    """Guards: only users known by a cookie were compared, so a version dead for all others was not."""
    release = await stage.release(failing(stage, 1).url, sticky={"by": "cookie:uid"})
    async with release.traffic("500") as traffic:
        await release.start(**LONG | {"steps": [20, 100]})
        await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    assert (await release.decision("rollback"))["actor"] == "judge"


async def test_outcome_that_the_service_calls_failed_counts_and_is_stripped(stage: Stage) -> None:
    paying = failing(stage, 0.6, "--error-status", "200", "--outcome", "pay=failed")
    release = await stage.release(paying.url)
    async with release.traffic():
        await release.start(**LONG, onBreach="pause")
        paused = await release.becomes("paused")
        unpaid = await answered_so(release, b"made to fail")
        await release.order("rollback")
        await release.becomes("rolled_back")
    assert "its commonest error: outcome:pay" in paused["summary"]
    assert unpaid.status == 200
    assert "x-outcome" not in unpaid.fields


async def answered_so(release: Release, text: bytes) -> Answer:
    """Ask until an answer's body holds `text`; returns it."""
    found: Answer | None = None

    async def is_found() -> bool:
        nonlocal found
        answer = await call(release.world.port, "GET", f"/{release.name}/")
        found = answer if text in answer.body else None
        return found is not None

    await release.world.until(is_found, f"an answer with {text!r}", PATIENCE_S)
    assert found is not None
    return found


async def test_verdict_names_the_one_path_that_is_dead(stage: Stage) -> None:
    release = await stage.release(failing(stage, 1, "--error-path", "/pay").url)
    async with release.traffic(), release.traffic("500", path="pay", rate=15):
        await release.start(**LONG)
        ended = await release.becomes("rolled_back")
    assert ended["errorMessage"].endswith(f"; only GET /{release.name}/pay.")
    assert (await release.decision("rollback"))["data"]["culprit"] == f"GET /{release.name}/pay"


# All traffic on the new version


async def test_burst_that_both_share_is_asked_about_and_blames_nobody(stage: Stage, tmp_path: Path) -> None:
    """At 100 % there is no old version beside it: a quarter of the traffic stays and shows that both fail."""
    down = tmp_path / "dependency-is-down"
    both = [failing(stage, 0.4, "--error-while", str(down), version=version) for version in ("v1.0", "v1.1")]
    unbroken = {"failureThreshold": 10_000}
    release = await stage.release(both[1].url, old_url=both[0].url, breaker=unbroken)
    async with release.traffic("500", rate=200) as traffic:
        await release.start(**LONG | {"stepInterval": [1_500, 600_000]}, autoPause=False, maxStepTime=600_000)
        await release.reaches(100)
        await traffic.sent(200)
        down.touch()
        await release.reaches(25)
        await traffic.sent(80)
        down.unlink()
        back = await release.reaches(100)
        assert back["status"] == "rolling"
        await release.order("complete")
        await release.becomes("completed")
    assert "asking the old " in (await release.decision("ask"))["reason"]
    assert (await release.decision("cleared"))["reason"].startswith("Asked the old version: it fails alike; ")


async def test_version_that_fails_alone_at_100_is_asked_about_and_rolled_back(
    stage: Stage, tmp_path: Path
) -> None:
    """The other side of the same: the old version answers well when it is asked."""
    down = tmp_path / "new-one-is-down"
    late = failing(stage, 0.4, "--error-while", str(down))
    release = await stage.release(late.url, breaker={"failureThreshold": 10_000})
    async with release.traffic("500", rate=200) as traffic:
        await release.start(**LONG | {"stepInterval": [1_500, 600_000]}, autoPause=False, maxStepTime=600_000)
        await release.reaches(100)
        await traffic.sent(200)
        down.touch()
        ended = await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    assert ended["errorMessage"].startswith(("The old version was asked: ", "The new version fails "))
    assert [row["verdict"] for row in await release.decisions()].count("ask") >= 1


async def test_errors_of_the_warm_up_do_not_clear_a_version_that_is_asked_about(stage: Stage) -> None:
    """Guards: what the warm-up left out of the comparison counted as "came to both alike", three times over,
    and then a person was asked, with all traffic still on the version that failed.
    """
    release = await stage.release(stage.bad.url)
    async with release.traffic("500") as traffic:
        await traffic.sent(250)
        await release.start("immediate", bakeTime=600_000, warmUp=4_000)
        await release.becomes("rolled_back")
        assert await traffic.served() == {"v1.0"}
    assert [row["verdict"] for row in await release.decisions()].count("cleared") == 0
