"""What a rollout wants done.

*Records* are rows: control writes them in the transaction that commits the state, so they are neither lost
nor doubled. *Acts* are carried out after that transaction. A state knows which acts it is waiting for
(`rollout.due`): after a crash they are simply issued again, hence each is idempotent, or names itself with a
number that stays the same.
"""

from typing import Literal

import msgspec

from gateway.core.judge.judge import Decision
from gateway.core.rollout.plan import HookKind
from gateway.core.settings.smoke import SmokeSettings

Action = Literal[
    "start",
    "gate",
    "step",
    "judge",
    "wait",
    "ask",
    "cleared",
    "pause",
    "resume",
    "set_percent",
    "promote",
    "complete",
    "rollback",
    "warning",
    "fail",
]
Happening = Literal["started", "step", "paused", "resumed", "rolled_back", "completed", "failed"]


class Activate(msgspec.Struct, frozen=True):
    """Record: `version` has passed its gate: active, status `staging`."""

    version: str


class MakeCurrent(msgspec.Struct, frozen=True):
    """Record: `version` is the service's current one, status `production`."""

    version: str


class Deprecate(msgspec.Struct, frozen=True):
    """Record: `version` is drained: inactive, status `deprecated`."""

    version: str


class Decide(msgspec.Struct, frozen=True, kw_only=True):
    """Record: a row of the deployment's decisions."""

    number: int
    """Rises with every record of this rollout."""
    at: float
    """Wall clock, seconds since the epoch."""
    step: int
    percent: int
    action: Action
    cause: str
    """Who or what: an actor, `judge`, `clock`, `gate`, `smoke`, or `hook:KIND`."""
    reason: str
    judged: Decision | None = None
    """What the judge last saw in this step."""


class Notify(msgspec.Struct, frozen=True, kw_only=True):
    """Record: something to tell the service's webhooks and the event stream. (rollout id, number) is its
    idempotency key.
    """

    number: int
    happening: Happening
    cause: str
    """Who or what, as in `Decide`."""
    percent: int
    text: str
    alert: bool = False
    """A person is wanted."""


class RunGate(msgspec.Struct, frozen=True):
    """Act: check that `version` is fit for traffic, then report GatePassed or GateFailed."""

    version: str
    smoke_tests: bool | SmokeSettings
    """False: one health check only. True: those of the version or its service."""


class RunSmoke(msgspec.Struct, frozen=True):
    """Act: repeat the smoke tests after the switch, then report SmokeReported."""

    version: str
    serial: int
    smoke_tests: bool | SmokeSettings


class AskHook(msgspec.Struct, frozen=True):
    """Act: ask the service's webhooks of this kind, then report HookAnswered.

    (rollout id, hook, ask) is the idempotency key.
    """

    hook: HookKind
    ask: int


class SetWeights(msgspec.Struct, frozen=True):
    """Act: give the two versions these weights (0–100, together 100), then report WeightsApplied.

    A version that gets weight here is not draining any more.
    """

    serial: int
    old: str
    old_weight: int
    new: str
    new_weight: int


class StartDrain(msgspec.Struct, frozen=True):
    """Act: drain `version`, cut what still runs after `timeout_ms`, then report DrainDone."""

    version: str
    timeout_ms: int


class CallShutdownUrl(msgspec.Struct, frozen=True):
    """Act: tell `version`'s process that it may stop, if it named a URL for that; then report
    ShutdownDone."""

    version: str


Record = Activate | MakeCurrent | Deprecate | Decide | Notify
Act = RunGate | RunSmoke | AskHook | SetWeights | StartDrain | CallShutdownUrl
Command = Record | Act
