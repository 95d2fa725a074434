"""A new version at some share, fed second by second."""

from typing import Any

from gateway.core.judge.decision import Decision
from gateway.core.judge.evidence import Evidence, begin_ask, begin_step, draw_block, step_live
from gateway.core.judge.judge import decide, judge
from gateway.core.judge.rules import Rules
from gateway.core.judge.window import WHOLE, Cell, KeyError64, Window


class Trial:
    """What the judge makes of it; no warm-up unless a test asks for one."""

    def __init__(self, percent: int = 10, **rules: Any) -> None:
        self.rules = Rules(**{"warm_up_s": 0.0, **rules})
        self.evidence = Evidence()
        self.generation = 0
        self.percent = 0
        self.decision: Decision
        if percent:
            self.at(percent)

    def at(self, percent: int) -> "Trial":
        """Begin a step."""
        self.generation += 1
        self.percent = percent
        self.evidence = step_live(begin_step(self.evidence, percent), self.generation)
        self.decision = decide(self.evidence, self.rules)
        return self

    def known(self, seconds: int = 300, answers: int = 10, errors_each: int = 200) -> "Trial":
        """Let the old version serve alone, failing one request in `errors_each`."""
        count = 0
        for _ in range(seconds):
            count += answers
            failed, count = divmod(count, errors_each)
            self.feed(old=(answers, failed), share=0)
        return self

    def feed(
        self,
        new: tuple[int, int] = (0, 0),
        old: tuple[int, int] = (0, 0),
        seconds: int = 1,
        share: int | None = None,
        kind: str = "500",
        **window: Any,
    ) -> "Trial":
        """Let seconds pass, each with (answers, errors) of both; stops when something is to be done."""
        share = self.percent * 100 if share is None else share
        for _ in range(seconds):
            self.see(
                Window(
                    seconds=1.0,
                    old=cells(self.generation, WHOLE - share, old, kind),
                    new=cells(self.generation, share, new, kind),
                    percent=self.percent,
                    **window,
                )
            )
            if self.decision.verdict not in ("advance", "hold"):
                break
        return self

    def see(self, window: Window) -> "Trial":
        self.evidence, self.decision = judge(self.evidence, window, self.rules)
        return self

    def ask(self, *, is_new: bool = False) -> "Trial":
        """Do what the verdict "ask" leads to."""
        mixes, is_dead = self.rules.mixes, self.decision.gate == "dead"
        percent = 25 if mixes else 100 * is_new
        self.evidence = begin_ask(self.evidence, percent, mixes=mixes, is_dead=is_dead, is_new=is_new)
        self.generation += 1
        self.percent = percent
        self.evidence = step_live(self.evidence, self.generation)
        return self

    def draw(self, *, is_new: bool) -> "Trial":
        """Do what the verdict "draw" leads to."""
        self.percent = 100 * is_new
        self.evidence = draw_block(self.evidence, self.percent, is_new=is_new)
        self.generation += 1
        self.evidence = step_live(self.evidence, self.generation)
        return self

    def met(self, keys: list[int], *, on_new: bool, kind: str = "500") -> "Trial":
        """Let users known by these keys fail, and as many requests of others go well."""
        share = self.percent * 100 if on_new else WHOLE - self.percent * 100
        errors = {f"{kind}||user": len(keys)}
        cell = Cell(self.generation, share, 2 * len(keys), errors)
        users = tuple(KeyError64(self.generation, share, key, kind) for key in keys)
        side = {"new": (cell,), "new_keys": users} if on_new else {"old": (cell,), "old_keys": users}
        return self.see(Window(seconds=1.0, percent=self.percent, **side))  # type: ignore[arg-type]

    @property
    def verdict(self) -> tuple[str, str]:
        return self.decision.verdict, self.decision.gate


def cells(generation: int, share: int, counts: tuple[int, int], kind: str = "500") -> tuple[Cell, ...]:
    answers, errors = counts
    return (Cell(generation, share, answers, {kind: errors} if errors else {}),) if answers else ()
