"""A rollout's settings: what they come to, and where a bad one is named."""

from typing import Any

import msgspec
import pytest

from gateway.core.rollout.plan import PlannedStep, RolloutSettings, StepSettings, plan
from gateway.errors import ConfigError


def test_defaults_are_three_steps_of_five_minutes_the_last_of_which_is_the_bake() -> None:
    steps = plan("canary", RolloutSettings()).steps
    assert [(step.percent, step.interval_ms, step.max_ms) for step in steps] == [
        (10, 300_000, 1_200_000),
        (50, 300_000, 1_200_000),
        (100, 300_000, 1_200_000),
    ]


def test_a_step_may_bring_its_own_interval_and_pause() -> None:
    settings = RolloutSettings(
        steps=(StepSettings(percent=5, interval=1_000, pause=True), 100), step_interval=60_000
    )
    assert plan("canary", settings).steps == (
        PlannedStep(5, 1_000, 4_000, True),
        PlannedStep(100, 60_000, 240_000),
    )


def test_intervals_may_be_listed() -> None:
    settings = RolloutSettings(steps=(10, 100), step_interval=(1_000, 2_000), max_step_time=9_000)
    assert [(step.interval_ms, step.max_ms) for step in plan("canary", settings).steps] == [
        (1_000, 9_000),
        (2_000, 9_000),
    ]


def test_a_canarys_bake_time_lengthens_its_last_step() -> None:
    settings = RolloutSettings(steps=(10, 100), step_interval=1_000, bake_time=500)
    assert [step.interval_ms for step in plan("canary", settings).steps] == [1_000, 1_500]


@pytest.mark.parametrize("strategy", ["blue-green", "immediate"])
def test_a_switch_is_watched_for_five_minutes(strategy: Any) -> None:
    assert plan(strategy, RolloutSettings()).steps == (PlannedStep(100, 300_000, 1_200_000),)
    assert plan(strategy, RolloutSettings(bake_time=7_000)).steps == (PlannedStep(100, 7_000, 28_000),)


def test_percentages_become_fractions_for_the_judge() -> None:
    rules = plan("canary", RolloutSettings(error_threshold=2.5), sticky=True).rules
    assert (rules.error_threshold, rules.sticky) == (0.025, True)


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"steps": ()}, "config/steps"),
        ({"steps": (50, 10, 100)}, "config/steps/1"),
        ({"steps": (10, 10, 100)}, "config/steps/1"),
        ({"steps": (10, 50)}, "config/steps/1"),
        ({"steps": (10, 100), "initial_percent": 20}, "config/initialPercent"),
        ({"steps": (10, 100), "step_interval": (1_000,)}, "config/stepInterval"),
        ({"max_step_time": 1_000}, "config/maxStepTime"),
    ],
)
def test_an_impossible_plan_names_the_field(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan("canary", RolloutSettings(**settings))
    assert caught.value.path == path


@pytest.mark.parametrize(
    "text",
    [
        '{"steps": [0, 100]}',
        '{"steps": [10, 101]}',
        '{"steps": [{"percent": 10, "intervall": 5}, 100]}',
        '{"stepInterval": 0}',
        '{"errorThreshold": 101}',
        '{"onBreach": "panic"}',
        '{"errors": ["6xx"]}',
        '{"strategy": "canary"}',
    ],
)
def test_a_bad_value_is_refused_while_reading(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=RolloutSettings)


def test_the_start_calls_config_is_read_as_written() -> None:
    text = (
        '{"initialPercent": 10, "steps": [10, {"percent": 50, "interval": 1000}, 100], "stepInterval": 3000}'
    )
    settings = msgspec.json.decode(text, type=RolloutSettings)
    assert [step.interval_ms for step in plan("canary", settings).steps] == [3_000, 1_000, 3_000]
