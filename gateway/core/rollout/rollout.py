"""The rollout: state + event -> state + commands.

Control commits the state `move` returns, with the records among the commands, in one transaction, and then
carries out the acts. Weights are a function of the state, and so are the acts it waits for (`due`): starting
again from a stored state means issuing those once more. A rollout that was killed anywhere therefore ends as
if it had not been.

Time is what control observed (`Tick`): a second without control is no second of a step. The argument `now` is
the wall clock, for the record only; nothing is decided by it.
"""

from gateway.core.rollout.change import Change
from gateway.core.rollout.commands import Command
from gateway.core.rollout.events import Event, Order, Rollback
from gateway.core.rollout.moves import MOVES
from gateway.core.rollout.state import ENDED, JUDGED, Paused, Phase, Rollout, Status, due, weights_act
from gateway.errors import IllegalTransition

__all__ = [
    "ENDED",
    "JUDGED",
    "Paused",
    "Phase",
    "Rollout",
    "Status",
    "due",
    "move",
    "refusal_once_ended",
    "resume",
]


def move(state: Rollout, event: Event, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    """Return the state `event` leads to, and what is to be done about it: records first, then acts.

    Raises IllegalTransition, having changed nothing, if `event` is an order the state has no move for.
    """
    handler = MOVES[type(event)].get(state.phase)
    if handler is None:
        if isinstance(event, Order):
            raise IllegalTransition(_refusal(state, event))
        return state, ()
    change = Change(state, now)
    handler(change, event)
    before = due(state)
    acts = tuple(act for act in due(change.state) if act not in before)
    return change.state, (*change.records, *acts)


def resume(state: Rollout) -> tuple[Rollout, tuple[Command, ...]]:
    """Return what a stored state needs when control starts: the acts it waits for, and its weights if it is
    open.
    """
    acts = due(state)
    if state.is_open and state.applied and state.serial:
        acts = (weights_act(state), *acts)
    return state, acts


def _refusal(state: Rollout, event: Event) -> str:
    name = type(event).__name__
    if state.is_open:
        return f"{name} is not possible while the deployment is {state.phase.value.replace('_', ' ')}"
    return refusal_once_ended(state.status.value, event)


def refusal_once_ended(status: str, event: Event) -> str:
    """Return why an order comes too late, and what is possible instead."""
    if isinstance(event, Rollback) and status == Status.COMPLETED.value:
        return f"the deployment has ended ({status}): undo takes it back, by a new one"
    if isinstance(event, Rollback) and status == Status.ROLLED_BACK.value:
        return "it is rolled back already: the old version has the traffic"
    return f"the deployment has ended ({status}): start a new one"
