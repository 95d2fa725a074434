"""Webhooks of real rollouts: those that are asked may say no, those that are told hear it under one key."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.integration.rollouts.stage import PATIENT, Call, Listener, Stage, staged

pytestmark = pytest.mark.timeout(180)

LONG: Final[dict[str, Any]] = {"steps": [50, 100], "stepInterval": 600_000, "drainTimeout": 2_000}
QUICK: Final[dict[str, Any]] = LONG | PATIENT | {"stepInterval": 1_000}
ASKED: Final = ["confirm-start", "confirm-promote", "during-step", "on-rollback"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("hooks")) as made:
        yield made


def saying_no_to(*kinds: str) -> Listener:
    return Listener(lambda call: 403 if call.fields["x-gateway-event"] in kinds else 200)


def silent_on(*kinds: str) -> Listener:
    return Listener(lambda call: None if call.fields["x-gateway-event"] in kinds else 200)


def hook(listener: Listener, *on: str, **more: object) -> dict[str, Any]:
    return {"webhooks": [{"url": f"{listener.url}/hook", "on": list(on), **more}]}


async def test_all_that_are_asked_agree_and_it_completes(stage: Stage) -> None:
    async with saying_no_to() as listener:
        release = await stage.release(stage.good.url, **hook(listener, *ASKED))
        async with release.traffic():
            await release.start(**QUICK)
            await release.becomes("completed")
    counts = {kind: len(listener.about(kind)) for kind in ASKED}
    assert counts == {"confirm-start": 1, "during-step": 2, "confirm-promote": 2, "on-rollback": 0}
    asked = [json.loads(call.body)["data"]["percent"] for call in listener.about("confirm-promote")]
    assert asked == [50, 100]


async def test_veto_of_the_start_moves_no_traffic(stage: Stage) -> None:
    async with saying_no_to("confirm-start") as listener:
        release = await stage.release(stage.good.url, **hook(listener, "confirm-start"))
        async with release.traffic() as traffic:
            await release.start(**QUICK)
            failed = await release.becomes("failed")
            assert await traffic.served() == {"v1.0"}
    why = f"A webhook refused the start: {listener.url}/*** said no to confirm-start: 403"
    assert failed["errorMessage"] == why
    assert failed["trafficPercent"] == 0


@pytest.mark.parametrize(("policy", "status"), [("veto", "failed"), ("allow", "completed")])
async def test_silence_about_the_start_means_what_its_owner_set(
    stage: Stage, policy: str, status: str
) -> None:
    async with silent_on("confirm-start") as listener:
        settings = hook(listener, "confirm-start", timeout=300, onTimeout=policy)
        release = await stage.release(stage.good.url, **settings)
        async with release.traffic():
            await release.start(**QUICK)
            ended = await release.becomes(status)
    assert ("did not answer confirm-start" in (ended["errorMessage"] or "")) == (policy == "veto")


async def test_veto_of_the_next_step_pauses_and_resuming_asks_again(stage: Stage) -> None:
    async with saying_no_to("confirm-promote") as listener:
        release = await stage.release(stage.good.url, **hook(listener, "confirm-promote"))
        async with release.traffic():
            await release.start(**QUICK)
            paused = await release.becomes("paused")
            assert paused["trafficPercent"] == 50
            assert paused["summary"].startswith(
                "paused by hook:confirm-promote: A webhook refused the next step: "
            )
            listener.answer = lambda call: 200
            await release.order("resume")
            await release.becomes("completed")
    keys = [call.fields["idempotency-key"] for call in listener.about("confirm-promote")]
    assert len(set(keys)) == len(keys) == 3  # each is a question of its own


@pytest.mark.parametrize(("policy", "status"), [("veto", "paused"), ("allow", "completed")])
async def test_silence_about_the_next_step_means_what_its_owner_set(
    stage: Stage, policy: str, status: str
) -> None:
    async with silent_on("confirm-promote") as listener:
        settings = hook(listener, "confirm-promote", timeout=300, onTimeout=policy)
        release = await stage.release(stage.good.url, **settings)
        async with release.traffic():
            await release.start(**QUICK)
            found = await release.becomes(status)
    assert ("did not answer confirm-promote" in found["summary"]) == (policy == "veto")


async def test_veto_during_a_step_rolls_back(stage: Stage) -> None:
    async with saying_no_to("during-step") as listener:
        release = await stage.release(stage.good.url, **hook(listener, "during-step"))
        async with release.traffic() as traffic:
            await release.start(**LONG)
            ended = await release.becomes("rolled_back")
            assert await traffic.served() == {"v1.0"}
    assert ended["errorMessage"].startswith("A webhook refused the step: ")
    assert (await release.decision("rollback"))["actor"] == "hook:during-step"


async def test_veto_of_a_rollback_leaves_it_to_a_person(stage: Stage) -> None:
    async with saying_no_to("on-rollback") as listener:
        release = await stage.release(stage.bad.url, **hook(listener, "on-rollback"))
        async with release.traffic("500"):
            await release.start(**LONG)
            paused = await release.becomes("paused")
            assert "A webhook refused the rollback: " in paused["summary"]
            assert "new version" in paused["summary"]  # what the judge has found is not lost
            await release.order("rollback")
            await release.becomes("rolled_back")
    assert len(listener.about("on-rollback")) == 1  # a person is not asked about


async def test_agreed_rollback_keeps_the_judges_reason(stage: Stage) -> None:
    async with saying_no_to() as listener:
        release = await stage.release(stage.bad.url, **hook(listener, "on-rollback"))
        async with release.traffic("500"):
            await release.start(**LONG)
            ended = await release.becomes("rolled_back")
    assert len(listener.about("on-rollback")) == 1
    assert (await release.decision("rollback"))["reason"] == ended["errorMessage"]
    assert "new version" in ended["errorMessage"]


async def test_notification_is_signed_and_retried_under_the_same_key(stage: Stage) -> None:
    def answer(call: Call) -> int:
        return 500 if len(listener.about("deployment.rolled_back")) < 3 else 204

    listener = Listener(answer)
    async with listener:
        settings = hook(listener, "deployment.rolled_back", secret="s3cret")
        release = await stage.release(stage.good.url, **settings)
        await release.start(**LONG)
        await release.reaches(50)
        await release.order("rollback", reason="support called")
        await release.becomes("rolled_back")
        await stage.world.until(lambda: len(listener.calls) >= 3, "the third try", 60)
    first, *again = listener.calls
    assert all(call.fields["idempotency-key"] == first.fields["idempotency-key"] for call in again)
    assert all(call.body == first.body for call in again)
    signature = hmac.new(b"s3cret", first.body, hashlib.sha256).hexdigest()
    assert first.fields["x-gateway-signature"] == f"sha256={signature}"
    told = json.loads(first.body)
    assert (told["kind"], told["service"]) == ("deployment.rolled_back", release.name)
    assert told["text"] == (await release.seen())["errorMessage"]
    assert (told["data"]["fromVersion"], told["data"]["toVersion"]) == ("v1.0", "v1.1")


async def test_whoever_names_no_event_is_told_the_whole_story(stage: Stage) -> None:
    async with saying_no_to() as listener:
        release = await stage.release(stage.good.url, **hook(listener, format="slack"))
        async with release.traffic():
            await release.start(**QUICK)
            await release.becomes("completed")
        wanted = ["deployment.started", "deployment.step", "deployment.step", "deployment.completed"]

        def kinds() -> list[str]:
            told = [call.fields["x-gateway-event"] for call in listener.calls]
            return [kind for kind in told if kind.startswith("deployment.")]

        await stage.world.until(lambda: sorted(kinds()) == sorted(wanted), "the whole story", 60)
    texts = [json.loads(call.body)["text"] for call in listener.calls]
    assert f"[{release.name}] 50 % of traffic to the new version" in texts
