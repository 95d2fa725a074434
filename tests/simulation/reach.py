"""Every state a rollout can reach, time and evidence abstracted, and the exits of each.

Time is one tick of the longest that counts; a step lasts one tick and may go on for two. Of the evidence only
stays whether an ask is under way; the judge may say, at any time, whatever it can say there. Shares are those
of the plan, of an ask, of the harm budget, and three that a person may set. Everything else of the state is
kept, so what is reached here is at least what a real rollout can reach.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast

from msgspec.structs import replace

from gateway.core.judge.decision import Decision, Gate, Verdict
from gateway.core.judge.evidence import Evidence, begin_ask
from gateway.core.rollout.commands import AskHook, CallShutdownUrl, RunGate, RunSmoke, SetWeights, StartDrain
from gateway.core.rollout.events import (
    Complete,
    DrainDone,
    Event,
    FreezeOff,
    FreezeOn,
    GateFailed,
    GatePassed,
    HookAnswered,
    Isolated,
    Judged,
    Order,
    Pause,
    Promote,
    PromoteFull,
    Resume,
    Rollback,
    SetPercent,
    ShutdownDone,
    SmokeReported,
    Start,
    Superseded,
    Tick,
    UsabilityChanged,
    WeightsApplied,
)
from gateway.core.rollout.moves import MAX_TICK_MS
from gateway.core.rollout.plan import Plan, RolloutSettings, StepSettings, plan
from gateway.core.rollout.rollout import due, move
from gateway.core.rollout.state import Paused, Phase, Rollout
from gateway.errors import IllegalTransition
from tests import decisions

BETWEEN: Final = 25
"""A share between two steps: that of an ask that mixes, so that there is one less."""
HOOKS: Final = ("confirm-start", "during-step", "confirm-promote", "on-rollback")

Key = tuple[Any, ...]


def _decision(verdict: str, gate: str, affordable: int | None = None) -> Decision:
    said, test = cast(Verdict, verdict), cast(Gate, gate)
    return decisions.decision(said, test, "r", limit=1, comparison="none", affordable=affordable)


ADVANCE: Final = _decision("advance", "clear")
DEAR: Final = _decision("advance", "clear", affordable=BETWEEN)
HOLD: Final = _decision("hold", "requests")
WARMING: Final = _decision("hold", "warming")
SHIFT: Final = _decision("pause", "shift")
ABORT: Final = _decision("abort", "comparison")
USUAL: Final = (ADVANCE, DEAR, HOLD, WARMING, SHIFT, ABORT)
"""What the judge may say while nothing is asked."""
SUSPICIOUS: Final = (
    _decision("ask", "suspicion"),
    _decision("ask", "dead"),
    _decision("pause", "asks"),
    _decision("pause", "nobody"),
)
"""And beside that, from half of the traffic on."""
CLEARED: Final = _decision("cleared", "cleared")
ASKING: Final = (CLEARED, _decision("draw", "block"), _decision("pause", "undecided"), HOLD, ABORT)
"""What it may say while the old version is asked."""
DRAWS: Final = (0.1, 0.9)
"""The coin of an ask by blocks: the new version, and the old one."""

_ASKED: Final = begin_ask(Evidence(), 25, mixes=True, is_dead=False, is_new=False)
_KEPT: Final = {(each.verdict, each.gate, each.affordable): each for each in (ADVANCE, DEAR, WARMING, SHIFT)}


class Exit(NamedTuple):
    """One move out of a state."""

    event: Event
    to: Key


class Graph(NamedTuple):
    """All states of one plan that can be reached."""

    plan: Plan
    first: Key
    states: dict[Key, Rollout]
    exits: dict[Key, list[Exit]]


def plans() -> dict[str, Plan]:
    """Return the plans that are walked: each strategy, and each setting that changes what may follow."""
    usual: dict[str, Any] = {"step_interval": MAX_TICK_MS, "max_step_time": MAX_TICK_MS}
    planned = RolloutSettings(steps=(StepSettings(percent=10, pause=True), 50, 100), **usual)
    plain = RolloutSettings(steps=(10, 100), smoke_tests=False, **usual)
    switch = RolloutSettings(bake_time=MAX_TICK_MS, max_step_time=MAX_TICK_MS)
    patient: dict[str, Any] = {"auto_pause": False, "max_step_time": 2 * MAX_TICK_MS}
    return {
        "canary, with a planned pause": plan("canary", planned),
        "canary, patient": plan("canary", replace(plain, **patient)),
        "canary, patient, then back": plan("canary", replace(plain, on_undecided="rollback", **patient)),
        "canary, breaches pause": plan("canary", replace(plain, on_breach="pause")),
        "canary, dry run": plan("canary", replace(plain, dry_run=True)),
        "canary, webhooks about it": plan("canary", plain, hooks=HOOKS[:2]),
        "canary, webhooks about steps": plan("canary", plain, hooks=HOOKS[2:]),
        "blue-green": plan("blue-green", switch),
        "blue-green, all webhooks": plan("blue-green", replace(switch, smoke_tests=False), hooks=HOOKS),
        "immediate": plan("immediate", replace(switch, smoke_tests=False)),
    }


def key_of(state: Rollout) -> Key:
    """Return what decides which moves a state has, and where they lead."""
    judged, paused = state.judged, state.paused
    return (
        state.phase,
        paused and paused.kind,
        state.step,
        state.percent,
        state.back_to,
        state.applied,
        state.remaining_ms > 0,
        min(state.elapsed_ms, state.planned.max_ms),
        state.frozen,
        state.old_usable,
        state.new_usable,
        judged and (judged.verdict, judged.gate, judged.affordable),
        state.during,
        state.smoke,
        state.cleaned,
        state.evidence.ask is not None,
    )


def plain(state: Rollout) -> Rollout:
    """Return the state without what decides nothing: numbers, texts, times of day, evidence."""
    judged, paused = state.judged if state.is_open else None, state.paused
    if judged is not None:
        judged = _KEPT.get((judged.verdict, judged.gate, judged.affordable), HOLD)
    return replace(
        state,
        paused=Paused(paused.kind, "r", "a") if paused is not None else None,
        serial=min(state.serial, 1),
        elapsed_ms=min(state.elapsed_ms, state.planned.max_ms),
        evidence=_ASKED if state.evidence.ask is not None else Evidence(),
        judged=judged,
        noted=None,
        noted_ms=0,
        ask=min(state.ask, 1),
        old_usable=state.old_usable or not state.is_open,
        new_usable=state.new_usable or not state.is_open,
        reason="",
        cause="",
        warning="",
        records=0,
        started_at=None,
        ended_at=None,
    )


def orders(state: Rollout) -> Iterator[Event]:
    """Yield what a person may ask for."""
    yield from (Start("p"), Promote("p"), PromoteFull("p"), Pause("p"), Resume("p"), Complete("p"))
    yield from (SetPercent("p", share) for share in (0, BETWEEN))
    yield Rollback("p")


def answers(state: Rollout) -> Iterator[Event]:
    """Yield what may come of the acts the state waits for."""
    for act in due(state):
        match act:
            case SetWeights():
                yield WeightsApplied(act.serial, 1)
            case RunGate():
                yield from (GatePassed(), GateFailed("r"))
            case RunSmoke():
                yield from (SmokeReported(act.serial, ok) for ok in (True, False))
            case AskHook():
                yield from (HookAnswered(act.hook, act.ask, allowed) for allowed in (True, False))
            case StartDrain():
                yield DrainDone(act.version)
            case CallShutdownUrl():
                yield ShutdownDone()


def verdicts(state: Rollout) -> Iterator[Event]:
    """Yield what the judge may say."""
    if state.phase is Phase.ASKING:
        found = ASKING
    else:
        found = USUAL + SUSPICIOUS if state.percent >= 50 else USUAL
    for decision in found:
        is_drawn = decision.verdict in ("ask", "draw") and not state.plan.rules.mixes
        for draw in DRAWS if is_drawn else DRAWS[:1]:
            yield Judged(state.evidence, decision, draw)


def surroundings(state: Rollout) -> Iterator[Event]:
    """Yield what else may come from outside: freezes, and what probes and breakers find."""
    yield FreezeOff() if state.frozen else FreezeOn()
    for old in (True, False):
        for new in (True, False):
            if (old, new) != (state.old_usable, state.new_usable):
                yield UsabilityChanged(old, new)
    yield Superseded() if not state.is_open else Isolated(60.0)


def happenings(state: Rollout) -> Iterator[Event]:
    """Yield everything that can happen to the state."""
    yield from orders(state)
    yield from answers(state)
    yield from verdicts(state)
    yield Tick(MAX_TICK_MS)
    yield from surroundings(state)


def explore(plan: Plan, check: Callable[[Rollout], None] = lambda state: None) -> Graph:
    """Walk breadth-first from a rollout nobody has started yet. check: called with each new state."""
    start = plain(Rollout(id="d", service="s", old="v0", new="v1", plan=plan))
    first = key_of(start)
    graph = Graph(plan, first, {first: start}, {})
    waiting = deque([first])
    while waiting:
        key = waiting.popleft()
        graph.exits[key] = exits = []
        for event in happenings(graph.states[key]):
            after = _after(graph.states[key], event)
            if after is None:
                continue
            to = key_of(after)
            if to not in graph.states:
                check(after)
                graph.states[to] = after
                waiting.append(to)
            if to != key:
                exits.append(Exit(event, to))
    return graph


def _after(state: Rollout, event: Event) -> Rollout | None:
    """Return where the event leads; None: nowhere."""
    try:
        after, _ = move(state, event, 0.0)
    except IllegalTransition:
        return None
    return None if after is state else plain(after)


def can_reach(graph: Graph, goal: Callable[[Rollout], bool]) -> set[Key]:
    """Return every state from which some way leads to one that `goal` is true of."""
    into: dict[Key, list[Key]] = {}
    for key, exits in graph.exits.items():
        for each in exits:
            into.setdefault(each.to, []).append(key)
    found = {key for key, state in graph.states.items() if goal(state)}
    waiting = deque(found)
    while waiting:
        for before in into.get(waiting.popleft(), ()):
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found


def place(key: Key) -> Key:
    """Return the state without the judge's last word, which may go to and fro while nothing moves."""
    return (*key[:11], *key[12:])


def unaided(graph: Graph) -> dict[Key, set[Key]]:
    """Return where a rollout gets by itself, by place: by time, answers, and verdicts that do not take back.

    Left out: people, freezes, usability and isolation; the verdicts that begin an ask or end it, of which the
    evidence allows three and no more; and what lifts the pause for a shift.
    """
    ways: dict[Key, set[Key]] = {}
    for key, exits in graph.exits.items():
        ways.setdefault(place(key), set()).update(
            place(each.to) for each in exits if _is_forward(graph.states[key], each.event)
        )
    return {here: found - {here} for here, found in ways.items()}


def _is_forward(state: Rollout, event: Event) -> bool:
    if isinstance(event, Order | FreezeOn | FreezeOff | UsabilityChanged | Superseded | Isolated):
        return False
    if isinstance(event, Judged):
        is_lifting = state.paused is not None and state.paused.kind == "held"
        return event.decision.verdict not in ("ask", "cleared", "draw") and not is_lifting
    return True


def circle(ways: dict[Key, set[Key]]) -> list[Key]:
    """Return places that lead back to one another; empty: every walk ends."""
    left = {here: set(found) for here, found in ways.items()}
    into: dict[Key, list[Key]] = {}
    for here, found in ways.items():
        for to in found:
            into.setdefault(to, []).append(here)
    ended = [here for here, found in left.items() if not found]
    while ended:
        end = ended.pop()
        del left[end]
        for before in into.get(end, ()):
            left[before].discard(end)
            if not left[before]:
                ended.append(before)
    return list(left)
