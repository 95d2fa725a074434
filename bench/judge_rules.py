"""What people use instead of a judge, shown the same made-up traffic. Each only ever rolls back or does not.

Their rollout goes its steps by the clock, so the traffic does not depend on them. None of them asks anything.
"""

import math
import random
from collections.abc import Callable
from typing import Final, Protocol

from bench.judge_world import HABIT_S, WORLDS, Late, Setting, Side

FLAGGER_SUCCESS: Final = 0.99
FLAGGER_CHECKS: Final = 3
ARGO_SUCCESS: Final = 0.95
ARGO_FAILURES: Final = 3
Z_ONE_PERCENT: Final = 2.3263
MINUTE: Final = 60


class Stopper(Protocol):
    """Looks at one second after the other."""

    def stops(self, t: int, percent: int, old: Side, new: Side) -> bool:
        """Whether it rolls back at the end of second `t`."""


class Flagger:
    """After Flagger's usual analysis: under 99 % success of the canary in a minute is a failed check.

    The third one rolls back. A minute without canary traffic is no check (to Flagger it is a failed one).
    """

    SUCCESS: float = FLAGGER_SUCCESS
    CHECKS: int = FLAGGER_CHECKS
    is_consecutive = False

    def __init__(self, setting: Setting) -> None:
        self.failed_checks = self.answers = self.errors = 0

    def stops(self, t: int, percent: int, old: Side, new: Side) -> bool:
        self.answers += new.answers
        self.errors += new.failed
        if (t + 1) % MINUTE:
            return False
        if self.answers and 1 - self.errors / self.answers < self.SUCCESS:
            self.failed_checks += 1
        elif self.is_consecutive:
            self.failed_checks = 0
        self.answers = self.errors = 0
        return self.failed_checks >= self.CHECKS


class Argo(Flagger):
    """After Argo Rollouts' usual analysis: under 95 % success in a minute, three times in a row."""

    SUCCESS = ARGO_SUCCESS
    CHECKS = ARGO_FAILURES
    is_consecutive = True


class ZTest:
    """A one-sided two-proportion z-test at 1 %, over everything so far, repeated every minute."""

    def __init__(self, setting: Setting) -> None:
        self.new_answers = self.new_errors = self.old_answers = self.old_errors = 0

    def stops(self, t: int, percent: int, old: Side, new: Side) -> bool:
        self.new_answers += new.answers
        self.new_errors += new.failed
        self.old_answers += old.answers
        self.old_errors += old.failed
        return (t + 1) % MINUTE == 0 and self.z() > Z_ONE_PERCENT

    def z(self) -> float:
        """Return the test's statistic; 0 where it has none."""
        new_n, old_n = self.new_answers, self.old_answers
        if not new_n or not old_n:
            return 0.0
        pooled = (self.new_errors + self.old_errors) / (new_n + old_n)
        deviation = math.sqrt(pooled * (1 - pooled) * (1 / new_n + 1 / old_n))
        return (self.new_errors / new_n - self.old_errors / old_n) / deviation if deviation > 0 else 0.0


class MannWhitney:
    """Kayenta's test: a one-sided Mann-Whitney U at 1 %, every minute, over each minute's error rates."""

    def __init__(self, setting: Setting) -> None:
        self.new: list[float] = []
        self.old: list[float] = []
        self.minute = [0, 0, 0, 0]

    def stops(self, t: int, percent: int, old: Side, new: Side) -> bool:
        counts = (new.failed, new.answers, old.failed, old.answers)
        self.minute = [a + b for a, b in zip(self.minute, counts, strict=True)]
        if (t + 1) % MINUTE:
            return False
        new_failed, new_n, old_failed, old_n = self.minute
        self.minute = [0, 0, 0, 0]
        if new_n and old_n:
            self.new.append(new_failed / new_n)
            self.old.append(old_failed / old_n)
        return len(self.new) >= 5 and self.z() > Z_ONE_PERCENT

    def z(self) -> float:
        """Return U as a normal deviate, ties counted half."""
        n = len(self.new)
        above = sum([(a > b) + (a == b) / 2 for a in self.new for b in self.old])
        return (above - n * n / 2) / math.sqrt(n * n * (2 * n + 1) / 12)


class Sprt:
    """Wald's sequential test that knows both rates beforehand: no valid test at 1 % is quicker on average."""

    def __init__(self, setting: Setting) -> None:
        self.odds = max(setting.new_errors / setting.old_errors, 1.5)
        self.log = 0.0

    def stops(self, t: int, percent: int, old: Side, new: Side) -> bool:
        share = percent / 100
        if not 0 < share < 1:
            return False
        both = math.log(self.odds * share + 1 - share)
        self.log += new.failed * (math.log(self.odds) - both) - old.failed * both
        return self.log >= math.log(100)


RULES: Final[dict[str, Callable[[Setting], Stopper]]] = {
    "flagger": Flagger,
    "argo": Argo,
    "mann-whitney": MannWhitney,
    "z-test": ZTest,
    "sprt": Sprt,
}


def stop_times(cell: str, steps: tuple[int, ...], setting: Setting, seed: str) -> dict[str, int]:
    """Return rule -> seconds from the moment the new version was bad to the stop, where it stops the run."""
    rng = random.Random(seed)
    world = WORLDS[cell](rng, setting)
    if isinstance(world, Late) and len(steps) == 1:
        world.delay_s += MINUTE
    for t in range(-HABIT_S, 0):
        world.second(t, 0)
    waiting = {name: rule(setting) for name, rule in RULES.items()}
    stopped: dict[str, int] = {}
    for t in range(setting.seconds):
        percent = steps[min(t * len(steps) // setting.seconds, len(steps) - 1)]
        old, new = world.second(t, percent)
        for name in [name for name, rule in waiting.items() if rule.stops(t, percent, old, new)]:
            del waiting[name]
            stopped[name] = t + 1
    since = world.bad_since if world.is_bad else 0
    return {name: at - since for name, at in stopped.items() if at > since}
