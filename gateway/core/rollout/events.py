"""What can happen to a rollout: orders of people, and what control observes."""

import msgspec

from gateway.core.judge.judge import Decision, Evidence
from gateway.core.rollout.plan import HookKind


class Event(msgspec.Struct, frozen=True):
    """The base of all."""


class Order(Event, frozen=True):
    """Somebody wants something. Refused (IllegalTransition) where the table has no move for it."""

    actor: str
    """Who: a token's name, or `gateway` for what the gateway orders by itself."""


class Observation(Event, frozen=True):
    """Something is so. Where the table has no move for it, it comes too late and changes nothing."""


class Start(Order, frozen=True):
    """Begin with the gate."""


class Promote(Order, frozen=True):
    """Go to the next step now; at 100 %, end the bake."""

    reason: str = ""


class PromoteFull(Order, frozen=True):
    """Go to 100 % now, then bake."""

    reason: str = ""


class SetPercent(Order, frozen=True):
    """Set the new version's share (0–100). The next step is the first above it."""

    percent: int
    reason: str = ""


class Pause(Order, frozen=True):
    """Stop the clock; traffic stays as it is and the judge goes on guarding."""

    reason: str = ""


class Resume(Order, frozen=True):
    """Go on. After a breach: in spite of it, judged afresh from here."""

    reason: str = ""


class Complete(Order, frozen=True):
    """End the bake now. Only at 100 %."""

    reason: str = ""


class Rollback(Order, frozen=True):
    """Return all traffic to the old version."""

    reason: str = ""


class Undo(Order, frozen=True):
    """While open: a rollback. Once ended, undoing is a new rollout, which is not this machine's business."""

    reason: str = ""


class GatePassed(Observation, frozen=True):
    """The new version is healthy and passed its tests."""


class GateFailed(Observation, frozen=True):
    """It is not, or did not."""

    reason: str


class HookAnswered(Observation, frozen=True):
    """A webhook that was asked has answered, or ran out of time and its policy decided."""

    hook: HookKind
    ask: int
    """The number of the `AskHook` it answers."""
    allowed: bool
    reason: str = ""


class WeightsApplied(Observation, frozen=True):
    """Every live worker serves by the weights of `SetWeights(serial)`."""

    serial: int
    generation: int
    """The service's generation under those weights."""


class Tick(Observation, frozen=True):
    """Time passed while control was watching."""

    elapsed_ms: int


class Judged(Observation, frozen=True):
    """The judge looked. Report it before the `Tick` of the same moment, and commit both at once."""

    evidence: Evidence
    decision: Decision
    draw: float
    """By chance in [0, 1): the coin of an ask by blocks, should one begin now."""


class SmokeReported(Observation, frozen=True):
    """The smoke tests after the switch have run."""

    serial: int
    """The number of the `RunSmoke` it answers."""
    ok: bool
    reason: str = ""


class UsabilityChanged(Observation, frozen=True):
    """Which of the two versions could take traffic."""

    old: bool
    new: bool


class GatewaysSeen(Observation, frozen=True):
    """Which gateways share the store, and what is waited for."""

    serving: tuple[str, ...]
    """Ids of those that serve and live."""
    silent: tuple[str, ...] = ()
    """Names of those that took part, are silent, and were not removed."""
    behind: tuple[str, ...] = ()
    """Names of those that live and have not applied the weights."""


class FreezeOn(Observation, frozen=True):
    """No advance until further notice. Rollbacks go on working."""


class FreezeOff(Observation, frozen=True):
    """Advances are allowed again."""


class Isolated(Observation, frozen=True):
    """No gateway was in charge for longer than nodes serve a new version that nobody judges: they have gone
    back to the old one by themselves.
    """

    seconds: float
    """For how long."""


class DrainDone(Observation, frozen=True):
    """Nothing runs at `version` any more."""

    version: str


class ShutdownDone(Observation, frozen=True):
    """The old version's shutdown URL was called, or given up on, or there is none."""


class Superseded(Observation, frozen=True):
    """A newer rollout took the service over: leave both versions as they are."""
