"""What somebody asks of a rollout, and the concrete plan it comes to."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gateway.core.judge.rules import Effect, Rules
from gateway.core.settings.base import Settings
from gateway.core.settings.limits import Millis, PositiveMillis
from gateway.core.settings.smoke import SmokeSettings
from gateway.errors import ConfigError

Strategy = Literal["canary", "blue-green", "immediate"]
Percent = Annotated[int, Meta(ge=1, le=100)]
HookKind = Literal["confirm-start", "during-step", "confirm-promote", "on-rollback"]

ErrorKind = Annotated[
    str,
    Meta(
        pattern=r"^([45]xx|[45]\d\d|connect|reset|timeout|abandoned|outcome(:[A-Za-z0-9._-]{1,64})?)$",
        extra={
            "is": "a kind of error: 5xx, 4xx, a status such as 503, connect, reset, timeout, abandoned, "
            "outcome or outcome:NAME"
        },
    ),
]
WATCH_MS: Final = 300_000
"""Five minutes: how long all traffic is watched on the new version before the old one may go."""


class StepSettings(Settings, frozen=True, kw_only=True):
    """One step of a canary."""

    percent: Percent
    interval: PositiveMillis | None = None
    """None: the rollout's `stepInterval`."""
    pause: bool = False
    """Wait for a person after this step."""


class RolloutSettings(Settings, frozen=True, kw_only=True):
    """The start call's `config`. Durations in milliseconds, rates in percent."""

    steps: tuple[Percent | StepSettings, ...] = (10, 50, 100)
    step_interval: PositiveMillis | tuple[PositiveMillis, ...] = WATCH_MS
    """One for all steps, or one each."""
    initial_percent: Percent | None = None
    """If given, the first step's percent said again."""
    error_threshold: Annotated[float, Meta(gt=0, lt=100)] = 5.0
    min_requests: Annotated[int, Meta(ge=0, le=1_000_000)] = 20
    """First attempts the new version must have had in a step before it may pass."""
    max_latency_ratio: Annotated[float, Meta(ge=1, le=100)] | None = 1.5
    """New p95 over old p95; None: latency is not judged."""
    on_latency: Effect = "hold"
    """What a new version that is slower leads to: a person is asked, or it is stopped."""
    on_shift: Effect = "hold"
    """What more 4xx answers lead to."""
    errors: tuple[ErrorKind, ...] = ("5xx", "connect", "reset", "timeout", "abandoned", "outcome")
    """What counts as an error: a class of statuses, a status, a failure without an answer, a client that left
    while it waited for the head, or an outcome that the service itself calls failed (`X-Outcome`)."""
    auto_pause: bool = True
    """Pause for a person when a step ends undecided."""
    on_breach: Literal["rollback", "pause"] = "rollback"
    max_step_time: PositiveMillis | None = None
    """None: four times the step's interval."""
    on_undecided: Literal["pause", "rollback"] = "pause"
    """What `maxStepTime` ends in, without `autoPause`."""
    bake_time: Millis | None = None
    """Watch at 100 %, after a canary's last step (None: 0) or from the switch on (None: five minutes)."""
    drain_timeout: Millis = 30_000
    smoke_tests: bool | SmokeSettings = True
    """At the gate and after the switch: those of the version or its service, none, or these."""
    dry_run: bool = False
    """Judge and record, never act on it."""
    false_alarm_rate: Annotated[float, Meta(gt=0, le=0.5)] = 0.01
    """Chance that a rollout of an equally good version is stopped, over all tests together."""
    warm_up: Millis = 10_000
    """From the new version's first request on: errors of this time alone do not stop it."""
    max_failed_users: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    """Failed requests (users, if sticky) beyond the old version's rate that may be spent; None: no limit."""
    mix: bool | None = None
    """Whether both versions may serve at once while the old one is asked. None: unless it is blue-green."""


class PlannedStep(msgspec.Struct, frozen=True):
    """One step with nothing left open. Milliseconds."""

    percent: int
    interval_ms: int
    max_ms: int
    pause: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's settings, resolved. The last step is 100 %: it is the bake."""

    strategy: Strategy
    steps: tuple[PlannedStep, ...]
    rules: Rules
    auto_pause: bool = True
    on_breach: Literal["rollback", "pause"] = "rollback"
    on_undecided: Literal["pause", "rollback"] = "pause"
    drain_timeout_ms: int = 30_000
    smoke_tests: bool | SmokeSettings = True
    dry_run: bool = False
    hooks: tuple[HookKind, ...] = ()
    """Webhooks of the service that are asked and may say no."""


def plan(
    strategy: Strategy,
    settings: RolloutSettings,
    *,
    hooks: tuple[HookKind, ...] = (),
    sticky: bool = False,
    reset_ms: int = 60_000,
) -> Plan:
    """Resolve `settings` for `strategy`.

    sticky: the service keeps users on a version, so errors are counted by user. reset_ms: its breakers' reset
    time-out. Raises ConfigError whose path is a JSON pointer without its first slash (`config/steps/1`).
    """
    steps = _canary_steps(settings) if strategy == "canary" else (_switch(settings),)
    return Plan(
        strategy=strategy,
        steps=steps,
        rules=Rules(
            error_threshold=settings.error_threshold / 100,
            min_requests=settings.min_requests,
            errors=settings.errors,
            false_alarm_rate=settings.false_alarm_rate,
            max_latency_ratio=settings.max_latency_ratio,
            on_latency=settings.on_latency,
            on_shift=settings.on_shift,
            max_failed=settings.max_failed_users,
            warm_up_s=settings.warm_up / 1000,
            mixes=strategy != "blue-green" if settings.mix is None else settings.mix,
            reset_s=reset_ms / 1000,
            interval_s=max(step.interval_ms for step in steps) / 1000,
            sticky=sticky,
        ),
        auto_pause=settings.auto_pause,
        on_breach=settings.on_breach,
        on_undecided=settings.on_undecided,
        drain_timeout_ms=settings.drain_timeout,
        smoke_tests=settings.smoke_tests,
        dry_run=settings.dry_run,
        hooks=hooks,
    )


def _switch(settings: RolloutSettings) -> PlannedStep:
    """Return the one step of blue-green and immediate: everything, watched for `bakeTime`."""
    interval = WATCH_MS if settings.bake_time is None else settings.bake_time
    return PlannedStep(100, interval, settings.max_step_time or 4 * interval)


def _canary_steps(settings: RolloutSettings) -> tuple[PlannedStep, ...]:
    steps = tuple(StepSettings(percent=s) if isinstance(s, int) else s for s in settings.steps)
    _check_percents(steps, settings.initial_percent)
    intervals = _intervals(steps, settings)
    _check_deadline(intervals, settings.max_step_time)
    return tuple(
        PlannedStep(step.percent, interval, settings.max_step_time or 4 * interval, step.pause)
        for step, interval in zip(steps, intervals, strict=True)
    )


def _check_percents(steps: tuple[StepSettings, ...], initial: int | None) -> None:
    if not steps:
        raise ConfigError("config/steps", "a canary needs at least one step")
    for index in range(1, len(steps)):
        here, before = steps[index].percent, steps[index - 1].percent
        if here <= before:
            raise ConfigError(
                f"config/steps/{index}", f"{here} does not rise above the step before it, {before}"
            )
    if steps[-1].percent != 100:
        raise ConfigError(
            f"config/steps/{len(steps) - 1}", f"the last step must be 100, not {steps[-1].percent}"
        )
    if initial is not None and initial != steps[0].percent:
        raise ConfigError("config/initialPercent", f"{initial} is not the first step, {steps[0].percent}")


def _intervals(steps: tuple[StepSettings, ...], settings: RolloutSettings) -> list[int]:
    """Return each step's interval; the bake of a canary lengthens its last."""
    general = settings.step_interval
    if isinstance(general, tuple) and len(general) != len(steps):
        raise ConfigError("config/stepInterval", f"{len(general)} intervals for {len(steps)} steps")
    each = general if isinstance(general, tuple) else (general,) * len(steps)
    intervals = [step.interval or interval for step, interval in zip(steps, each, strict=True)]
    intervals[-1] += settings.bake_time or 0
    return intervals


def _check_deadline(intervals: list[int], max_ms: int | None) -> None:
    longest = max(intervals)
    if max_ms is not None and max_ms < longest:
        raise ConfigError("config/maxStepTime", f"{max_ms} ms is shorter than a step of {longest} ms")
