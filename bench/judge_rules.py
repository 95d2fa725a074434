"""Who decides when a simulated rollout is stopped: the gateway's judge, and two rules people use instead."""

import math
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from bench.judge_world import Scene, Span
from gateway.core.judge.evidence import Evidence, Rules, begin_step, observe, step_live
from gateway.core.judge.judge import weigh

FLAGGER_SUCCESS: Final = 0.99
FLAGGER_THRESHOLD: Final = 3
Z_ONE_PERCENT: Final = 2.3263


class Stopper(Protocol):
    """Looks at one span after the other."""

    def stops(self, span: Span) -> bool:
        """Whether it rolls back at the end of this span."""


class Judge:
    """`core/judge.py` itself, with the settings a rollout has by default."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.rules = Rules(sticky=bool(scene.users[0]))
        self.evidence = Evidence()
        self.step = -1
        self.gate = ""

    def stops(self, span: Span) -> bool:
        if span.step != self.step:
            self.step = span.step
            self.evidence = begin_step(self.evidence, self.scene.steps[span.step])
            self.evidence = step_live(self.evidence, span.step + 1)
        self.evidence = observe(self.evidence, span.window, self.rules)
        verdict, self.gate = weigh(self.evidence, self.rules)
        return verdict == "abort"


class Flagger:
    """After Flagger's usual analysis: under 99 % success of the canary in a minute is a failed check.

    The third one rolls back. A minute without canary traffic is no check (to Flagger it is a failed one).
    """

    def __init__(self, scene: Scene) -> None:
        self.failed_checks = 0
        self.answers = self.errors = 0

    def stops(self, span: Span) -> bool:
        self.answers += span.new.answers
        self.errors += span.new.errors
        if not span.ends_minute:
            return False
        if self.answers and 1 - self.errors / self.answers < FLAGGER_SUCCESS:
            self.failed_checks += 1
        self.answers = self.errors = 0
        return self.failed_checks >= FLAGGER_THRESHOLD


class ZTest:
    """A one-sided two-proportion z-test at 1 %, over everything so far, repeated every minute."""

    def __init__(self, scene: Scene) -> None:
        self.new_answers = self.new_errors = self.old_answers = self.old_errors = 0

    def stops(self, span: Span) -> bool:
        self.new_answers += span.new.answers
        self.new_errors += span.new.errors
        self.old_answers += span.old.answers
        self.old_errors += span.old.errors
        return span.ends_minute and self.z() > Z_ONE_PERCENT

    def z(self) -> float:
        """Return the test's statistic; 0 where it has none."""
        new_n, new_k = self.new_answers, self.new_errors
        old_n, old_k = self.old_answers, self.old_errors
        if not new_n or not old_n:
            return 0.0
        pooled = (new_k + old_k) / (new_n + old_n)
        deviation = math.sqrt(pooled * (1 - pooled) * (1 / new_n + 1 / old_n))
        return (new_k / new_n - old_k / old_n) / deviation if deviation else 0.0


RULES: Final[dict[str, Callable[[Scene], Stopper]]] = {"judge": Judge, "flagger": Flagger, "z-test": ZTest}


def stop_times(scene: Scene, run: Iterable[Span]) -> tuple[dict[str, int], str]:
    """Return rule -> second at which it stops the run, where it does; and the judge's gate."""
    waiting = [(name, rule(scene)) for name, rule in RULES.items()]
    stopped: dict[str, int] = {}
    gate = ""
    for span in run:
        for name, rule in waiting:
            if rule.stops(span):
                stopped[name] = span.end
                gate = rule.gate if isinstance(rule, Judge) else gate
        if len(stopped) + len(waiting) > len(RULES):
            waiting = [(name, rule) for name, rule in waiting if name not in stopped]
            if not waiting:
                break
    return stopped, gate
