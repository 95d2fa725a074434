"""What a rollout is: its phases, its stored state, and what it waits for."""

import enum
from typing import Final, Literal

import msgspec

from gateway.core.judge.judge import Decision, Evidence, Gate, Verdict
from gateway.core.rollout.commands import (
    Act,
    AskHook,
    CallShutdownUrl,
    RunGate,
    RunSmoke,
    SetWeights,
    StartDrain,
)
from gateway.core.rollout.plan import HookKind, Plan, PlannedStep


class Status(enum.StrEnum):
    """The deployment's status, as the API shows it."""

    PENDING = "pending"
    TESTING = "testing"
    ROLLING = "rolling"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


class Phase(enum.StrEnum):
    """Where exactly a rollout is."""

    PENDING = "pending"
    GATE = "gate"
    CONFIRM_START = "confirm_start"
    READY = "ready"
    """The gate has passed; the first step waits for the end of a freeze."""
    STEPPING = "stepping"
    BAKING = "baking"
    """All traffic is on the new version: the last step, or the watch after a switch."""
    ASKING = "asking"
    """Suspicion: the old version is asked, with more of the traffic than the step gives it. The step's clock
    stands still."""
    CONFIRM_PROMOTE = "confirm_promote"
    CONFIRM_ROLLBACK = "confirm_rollback"
    PAUSED = "paused"
    ENDING = "ending"
    """The old version drains; it can still be called back."""
    REVERTING = "reverting"
    """The old weights are on their way to the workers."""
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


STATUS: Final = {
    Phase.PENDING: Status.PENDING,
    Phase.GATE: Status.TESTING,
    Phase.CONFIRM_START: Status.TESTING,
    Phase.READY: Status.TESTING,
    Phase.STEPPING: Status.ROLLING,
    Phase.BAKING: Status.ROLLING,
    Phase.ASKING: Status.ROLLING,
    Phase.CONFIRM_PROMOTE: Status.ROLLING,
    Phase.CONFIRM_ROLLBACK: Status.ROLLING,
    Phase.PAUSED: Status.PAUSED,
    Phase.ENDING: Status.ROLLING,
    Phase.REVERTING: Status.ROLLING,
    Phase.COMPLETED: Status.COMPLETED,
    Phase.ROLLED_BACK: Status.ROLLED_BACK,
    Phase.FAILED: Status.FAILED,
}
ENDED: Final = frozenset({Phase.COMPLETED, Phase.ROLLED_BACK, Phase.FAILED})
WATCHED: Final = frozenset({Phase.PENDING, Phase.GATE, Phase.CONFIRM_START, Phase.READY})
"""Phases in which the judge only looks on, to know later what the old version usually does."""
JUDGED: Final = WATCHED | {
    Phase.STEPPING,
    Phase.BAKING,
    Phase.ASKING,
    Phase.CONFIRM_PROMOTE,
    Phase.CONFIRM_ROLLBACK,
    Phase.PAUSED,
}
"""Phases in which the judge is to be asked."""

PauseKind = Literal["person", "planned", "undecided", "held", "asked", "veto", "breach", "stranded"]


class Paused(msgspec.Struct, frozen=True):
    """Why a rollout is paused.

    person: somebody asked for it. planned: the step says so. undecided: the step ended without a verdict.
    held: a shift of 4xx answers or of latency that a person must accept. asked: asking the old version left
    it undecided, or was done as often as it may be. veto: a webhook said no. breach: `onBreach` or a webhook
    keeps it from rolling back. stranded: it should roll back, but has nowhere to go back to.
    """

    kind: PauseKind
    reason: str
    actor: str


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, whole: what is stored in one column, and all that `move` looks at."""

    id: str
    service: str
    old: str
    """Version ids."""
    new: str
    plan: Plan
    actor: str = ""
    """Who started it."""
    phase: Phase = Phase.PENDING
    paused: Paused | None = None
    step: int = 0
    """Index of the plan's step whose clock runs."""
    percent: int = 0
    """The new version's weight; the old one has the rest."""
    back_to: int | None = None
    """The share before the old version was asked; None: `percent` is not an ask's."""
    serial: int = 0
    """Number of the last `SetWeights`."""
    applied: bool = True
    """Whether every worker serves by it."""
    remaining_ms: int = 0
    """Of the step, in observed time."""
    elapsed_ms: int = 0
    """In the step, in observed time."""
    frozen: bool = False
    old_usable: bool = True
    new_usable: bool = True
    gateways: tuple[str, ...] = ()
    """Ids of those that share the store and took part."""
    silent: tuple[str, ...] = ()
    """Names of those among them that nothing is heard of: the old version stays until they are back."""
    behind: tuple[str, ...] = ()
    """Names of gateways that live and have yet to apply the weights."""
    evidence: Evidence = Evidence()
    judged: Decision | None = None
    """The judge's last word in this step."""
    noted: tuple[Verdict, Gate] | None = None
    """Its last word that went on record in this step."""
    noted_ms: int = 0
    """`elapsed_ms` then."""
    during: Literal["none", "asked", "allowed"] = "none"
    """The during-step webhook."""
    smoke: Literal["none", "due", "passed"] = "none"
    """The smoke tests after the switch."""
    ask: int = 0
    """Number of the last question to a webhook."""
    asked_at: float | None = None
    """Wall clock, seconds since the epoch: when that question, or the step's, came up."""
    reason: str = ""
    """Why it failed, rolled back or is about to."""
    cause: str = ""
    """Who or what brought that about."""
    warning: str = ""
    """What an order was carried out in spite of."""
    cleaned: bool = False
    """Ended, and nothing is left to tidy up."""
    records: int = 0
    """Number of the last record."""
    started_at: float | None = None
    """Wall clock, seconds since the epoch."""
    ended_at: float | None = None

    @property
    def status(self) -> Status:
        """The phase, as the API shows it; a pause that an ask came upon is one still."""
        return Status.PAUSED if self.paused is not None else STATUS[self.phase]

    @property
    def is_open(self) -> bool:
        """Whether it still owns the service's weights."""
        return self.phase not in ENDED

    @property
    def weights(self) -> dict[str, int]:
        """Weight by version id."""
        return {self.old: 100 - self.percent, self.new: self.percent}

    @property
    def planned(self) -> PlannedStep:
        """The step whose clock runs."""
        return self.plan.steps[self.step]

    @property
    def next_percent(self) -> int | None:
        """Where an advance leads; None: to the end."""
        percent = self.percent if self.back_to is None else self.back_to
        return next((step.percent for step in self.plan.steps if step.percent > percent), None)

    @property
    def is_end_held(self) -> bool:
        """Whether the end comes next, and a silent gateway keeps the old version from being drained."""
        return bool(self.silent) and self.next_percent is None


def due(state: Rollout) -> tuple[Act, ...]:
    """Return the acts the state waits for. Issuing them again is harmless."""
    plan = state.plan
    acts: list[Act] = []
    if not state.applied:
        acts.append(weights_act(state))
    if state.phase is Phase.GATE:
        acts.append(RunGate(state.new, False if plan.strategy == "immediate" else plan.smoke_tests))
    hook = _HOOKS.get(state.phase)
    if hook is not None:
        acts.append(AskHook(hook, state.ask))
    if state.applied and state.phase in JUDGED and state.back_to is None:
        if state.during == "asked":
            acts.append(AskHook("during-step", state.serial))
        if state.smoke == "due":
            acts.append(RunSmoke(state.new, state.serial, plan.smoke_tests))
    if state.phase is Phase.ENDING and not state.silent:
        acts.append(StartDrain(state.old, plan.drain_timeout_ms))
    if state.phase is Phase.ROLLED_BACK and not state.cleaned:
        acts.append(StartDrain(state.new, plan.drain_timeout_ms))
    if state.phase is Phase.COMPLETED and not state.cleaned:
        acts.append(CallShutdownUrl(state.old))
    return tuple(acts)


_HOOKS: Final[dict[Phase, HookKind]] = {
    Phase.CONFIRM_START: "confirm-start",
    Phase.CONFIRM_PROMOTE: "confirm-promote",
    Phase.CONFIRM_ROLLBACK: "on-rollback",
}


def weights_act(state: Rollout) -> SetWeights:
    """Return the act that puts the state's weights in force."""
    return SetWeights(state.serial, state.old, 100 - state.percent, state.new, state.percent)
