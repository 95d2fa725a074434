"""One simulated rollout: the real judge and the real machine around a made-up world, in a closed loop.

Whatever the machine orders - a step, an ask's switch, a rollback - changes the share that the world sees in
the next second. Seconds without an error are put together, up to `QUIET_S`: the judge sees the same counts.
"""

import random
from collections.abc import Iterable
from functools import cache
from typing import Final, Literal

import msgspec

from bench.judge_world import HABIT_S, WORLDS, Late, Setting, Side, StickyLate, World
from gateway.core.judge.decision import Decision, Gate, Verdict
from gateway.core.judge.evidence import observe
from gateway.core.judge.judge import weigh
from gateway.core.judge.window import WHOLE, Cell, KeyError64, Window
from gateway.core.rollout.commands import Command, RunGate, RunSmoke, SetWeights
from gateway.core.rollout.events import Event, GatePassed, Judged, SmokeReported, Start, Tick, WeightsApplied
from gateway.core.rollout.moves import MAX_TICK_MS
from gateway.core.rollout.plan import Plan, RolloutSettings, Strategy, plan
from gateway.core.rollout.rollout import move
from gateway.core.rollout.state import Phase, Rollout

PLANS: Final[dict[str, tuple[int, ...]]] = {
    "P1": (10, 50, 100),
    "P2": (1, 5, 25, 50, 100),
    "P3": (10, 50, 95, 100),
    "blue-green": (),
    "immediate": (),
}
SECONDS: Final = 1800
"""A canary takes half an hour, shared out over its steps."""
BAKE_S: Final = 600
"""A switch, blue-green or immediate, is watched for ten minutes."""
TICK_S: Final = MAX_TICK_MS // 1000
QUIET_S: Final = 10
YOUNG_S: Final = 30
"""While the old version is asked, and until the new one has served for so long, every second is shown: blocks
and the warm-up end by the second."""
MOST_NEEDED: Final = 30
"""A step lasts at least until so many requests went to the new version."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How a simulated rollout went. Seconds: from the moment the new version was bad, or from the start."""

    end: Literal["stopped", "paused", "completed"]
    after_s: int
    """Until it was rolled back, paused or complete."""
    off_s: int | None
    """Until its share was first lowered; None: never."""
    bad_answers: int
    """Errors that clients got from the new version, from then on."""
    gate: str
    """What the judge's last word rested on."""


class Loop:
    """A rollout and the world it happens in."""

    def __init__(self, world: World, settings: Plan, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.state = Rollout(id="r", service="s", old="old", new="new", plan=settings)
        self.generation = 1
        self.live = (1, 0)
        """The generation in force and the new version's share in it, percent."""
        self.waiting: list[tuple[int, int, Side, Side]] = []
        """(generation, percent, old, new): seconds not yet shown to the judge."""
        self.off_s: int | None = None
        self.paused_s: int | None = None
        self.bad_answers = 0

    def run(self, last: int) -> Run:
        """Play until the rollout ends, pauses, or `last` seconds are over."""
        self.send(Start("bench"))
        for t in range(-HABIT_S, 0):
            self.pass_second(t)
        self.show()
        self.send(GatePassed())
        t = 0
        while t < last and self.state.phase not in _OVER:
            self.pass_second(t)
            t += 1
            if self.state.phase is Phase.PAUSED:
                self.paused_s = self.paused_s or t
                if t >= self.world.setting.seconds:
                    break  # nobody comes, and the judge has guarded on for as long as the rollout might take
        end = _end(self.state.phase)
        if end == "paused":
            t = self.paused_s or t
        since = self.world.bad_since if self.world.is_bad else 0
        return Run(
            end=end,
            after_s=t - since,
            off_s=None if self.off_s is None else self.off_s - since,
            bad_answers=self.bad_answers,
            gate=self.state.judged.gate if self.state.judged else "",
        )

    def pass_second(self, t: int) -> None:
        """Serve a second, and let judge and clock see it unless nothing happened in it."""
        generation, share = self.live
        old, new = self.world.second(t, share)
        if t >= (self.world.bad_since if self.world.is_bad else 0):
            self.bad_answers += new.failed
        is_quiet = not (old.errors or new.errors)
        is_other = bool(self.waiting) and self.waiting[0][0] != generation
        if is_other or (not is_quiet and t >= 0):
            self.show()
        self.waiting.append((generation, share, old, new))
        most = 1 if self.is_closely_watched else QUIET_S
        if (t >= 0 and not is_quiet) or len(self.waiting) >= most:
            self.show()
        self.live = self.generation, self.state.percent
        is_bad_now = not self.world.is_bad or t >= self.world.bad_since
        if self.state.percent < share and self.off_s is None and is_bad_now:
            self.off_s = t + 1

    @property
    def is_closely_watched(self) -> bool:
        """Whether it matters in which second something happened."""
        if self.state.phase is Phase.ASKING:
            return True
        age_s = self.state.evidence.warm_s
        return self.state.percent > 0 and (age_s is None or age_s < YOUNG_S)

    def show(self) -> None:
        """Let the judge see what waits, and the clock what passed."""
        if not self.waiting:
            return
        window = _window(self.waiting, self.state.percent)
        self.waiting = []
        evidence = observe(self.state.evidence, window, self.state.plan.rules)
        word = spoken(*weigh(evidence, self.state.plan.rules))
        self.send(Judged(evidence, word, draw=self.rng.random()))
        for seconds in range(round(window.seconds), 0, -TICK_S):
            self.send(Tick(min(seconds, TICK_S) * 1000))

    def send(self, *events: Event) -> None:
        """Move through events, and carry out what is asked for: at once, as workers do."""
        for event in events:
            self.state, commands = move(self.state, event, 0.0)
            self.send(*self.done(commands))

    def done(self, commands: Iterable[Command]) -> list[Event]:
        """Return the events that acts end in."""
        events: list[Event] = []
        for command in commands:
            if isinstance(command, SetWeights):
                self.generation += 1
                events.append(WeightsApplied(command.serial, self.generation))
            elif isinstance(command, RunSmoke):
                events.append(SmokeReported(command.serial, ok=True))
            elif isinstance(command, RunGate):
                pass  # it passes when the world has shown its habits
        return events


@cache
def spoken(verdict: Verdict, gate: Gate) -> Decision:
    """Return the judge's word without its sentence and figures: writing them is half of the work."""
    return Decision(
        verdict=verdict,
        gate=gate,
        reason=gate,
        percent=0,
        new_answers=0,
        new_errors=0,
        old_answers=0,
        old_errors=0,
        new_rate=0.0,
        old_rate=0.0,
        interval=(0.0, 1.0),
        statistic=0.0,
        limit=1.0,
        comparison="none",
    )


_OVER: Final = frozenset({Phase.ENDING, Phase.REVERTING, Phase.COMPLETED, Phase.ROLLED_BACK, Phase.FAILED})


def _end(phase: Phase) -> Literal["stopped", "paused", "completed"]:
    if phase in (Phase.REVERTING, Phase.ROLLED_BACK):
        return "stopped"
    return "paused" if phase is Phase.PAUSED else "completed"


def _window(seconds: list[tuple[int, int, Side, Side]], percent: int) -> Window:
    """Return the seconds, all under one share, as one window."""
    generation, share = seconds[0][0], seconds[0][1]
    old, new = [second[2] for second in seconds], [second[3] for second in seconds]
    return Window(
        seconds=float(len(seconds)),
        old=_cells(old, generation, WHOLE - share * 100),
        new=_cells(new, generation, share * 100),
        old_keys=_keys(old, generation, WHOLE - share * 100),
        new_keys=_keys(new, generation, share * 100),
        percent=percent,
    )


def _cells(sides: list[Side], generation: int, share: int) -> tuple[Cell, ...]:
    answers = sum([side.answers for side in sides])
    if not answers:
        return ()
    errors: dict[str, int] = {}
    latency: dict[int, int] = {}
    for side in sides:
        for kind, count in side.errors.items():
            errors[kind] = errors.get(kind, 0) + count
        for bucket, count in side.latency.items():
            latency[bucket] = latency.get(bucket, 0) + count
    return (Cell(generation, share, answers, errors, latency),)


def _keys(sides: list[Side], generation: int, share: int) -> tuple[KeyError64, ...]:
    return tuple([KeyError64(generation, share, key, kind) for side in sides for key, kind in side.users])


def simulate(cell: str, plan_name: str, setting: Setting, seed: str) -> Run:
    """Return what comes of one rollout. seed: the same seed, the same run."""
    rng = random.Random(seed)
    kind = WORLDS[cell]
    steps = PLANS[plan_name]
    seconds = SECONDS if steps else BAKE_S
    if kind is StickyLate:
        # Six hours are over in the middle of the last step but one; a switch is watched for longer.
        seconds = round(StickyLate.LATE_S * len(steps) / (len(steps) - 1.5)) if steps else 7 * 3600
    setting = msgspec.structs.replace(setting, seconds=seconds)
    world = kind(rng, setting)
    if isinstance(world, Late) and not steps:
        world.delay_s += 60
    if steps:
        # No shorter than it takes to see minRequests and some more.
        intervals = [
            max(seconds / len(steps), MOST_NEEDED / setting.rate / percent * 100) for percent in steps
        ]
        settings = RolloutSettings(steps=steps, step_interval=tuple(round(each * 1000) for each in intervals))
        world.setting = msgspec.structs.replace(setting, seconds=round(sum(intervals)))
        resolved = plan("canary", settings, sticky=kind.sticky)
    else:
        settings = RolloutSettings(bake_time=seconds * 1000)
        strategy: Strategy = "immediate" if plan_name == "immediate" else "blue-green"
        resolved = plan(strategy, settings, sticky=kind.sticky)
    return Loop(world, resolved, rng).run(3 * world.setting.seconds)
