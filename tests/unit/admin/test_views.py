"""A rollout always says why it stands where it stands."""

import pytest

from gateway.admin.views import summary
from gateway.core.judge.evidence import Evidence
from gateway.core.judge.judge import decide
from gateway.core.rollout.plan import RolloutSettings, plan
from gateway.core.rollout.rollout import Paused, Phase, Rollout

PLAN = plan("canary", RolloutSettings())
JUDGED = decide(Evidence(), PLAN.rules)


def rollout(phase: Phase, **fields: object) -> Rollout:
    return Rollout(id="d", service="auth", old="o", new="n", plan=PLAN, phase=phase, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.PENDING}))
def test_no_phase_is_without_a_word(phase: Phase) -> None:
    reason = "" if phase in (Phase.COMPLETED, Phase.ENDING) else "because"
    paused = Paused("person", "lunch", "ann") if phase is Phase.PAUSED else None
    assert summary(rollout(phase, judged=JUDGED, reason=reason, cause="ann", paused=paused))


def test_a_completed_rollout_says_who_or_what_ended_it() -> None:
    assert summary(rollout(Phase.COMPLETED, cause="ann")) == (
        "The new version serves everything; the old one is drained (completed by ann)."
    )


def test_a_rollout_that_a_freeze_holds_says_so() -> None:
    assert summary(rollout(Phase.STEPPING, frozen=True)) == "changes are frozen, it stays here"
    said = summary(rollout(Phase.STEPPING, frozen=True, judged=JUDGED))
    assert said == f"changes are frozen, it stays here; hold: {JUDGED.reason}"
    assert "frozen" in summary(rollout(Phase.READY, frozen=True))
