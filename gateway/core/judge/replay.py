"""What other settings would have made of an earlier rollout: its stored windows, judged again.

The traffic is what it was: shares and steps are those of the rollout that was recorded; the judge is the
proposed one. Where it would have asked the old version, nobody knows what that would have said: it goes on.
Rows hold neither who met an error nor whether a version was usable, so sticky users are not told apart and no
version is ever found unavailable.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Protocol

import msgspec
from msgspec.structs import replace

from gateway.core.judge.ask import FROM_PERCENT
from gateway.core.judge.decision import Decision, Gate, Verdict
from gateway.core.judge.evidence import Evidence, begin_step, step_live
from gateway.core.judge.judge import judge
from gateway.core.judge.record import Record
from gateway.core.judge.rules import Rules
from gateway.core.judge.window import WHOLE, Cell, Window


class Row(Protocol):
    """A stored window of one version."""

    @property
    def version_id(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def share(self) -> int: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def seconds(self) -> float: ...
    @property
    def answers(self) -> int: ...
    @property
    def errors(self) -> Mapping[str, int]: ...
    @property
    def latency(self) -> Mapping[int, int]: ...


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout would have gone."""

    verdict: Verdict
    """abort: it would have been stopped. Else the judge's last word."""
    gate: Gate
    reason: str
    step: int
    """Index among the shares the rollout went through."""
    percent: int
    after_ms: int
    """Observed time from the first traffic to the verdict."""
    decision: Decision


def replay(rules: Rules, windows: Sequence[Window], record: Record | None = None) -> Replay | None:
    """Judge `windows` (oldest first) by `rules` until they abort. None: the new version never had traffic.

    What asks the old version stays the answer: how an ask would have ended is only known if it then aborts.
    record: what the rollout knew of the old version. A switch is measured by that alone, for its windows
    begin with it; a canary's hold what its own old version did.
    """
    rules = replace(rules, sticky=False)
    evidence = Evidence()
    first = next((window.percent for window in windows if window.percent), 0)
    if record is not None and first >= FROM_PERCENT:
        evidence = Evidence(record=record.unasked)
        windows = [window for window in windows if window.percent]
    step = -1
    elapsed_s = 0.0
    last: Replay | None = None
    for window in _until_rolled_back(windows):
        if window.percent != evidence.percent:
            step += 1
            evidence = step_live(begin_step(evidence, window.percent), _generation(window))
        evidence, decision = judge(evidence, window, rules)
        if step < 0:
            continue
        elapsed_s += window.seconds
        if last is not None and last.verdict == "ask" and decision.verdict != "abort":
            continue
        last = Replay(
            verdict=decision.verdict,
            gate=decision.gate,
            reason=decision.reason,
            step=step,
            percent=window.percent,
            after_ms=round(elapsed_s * 1000),
            decision=decision,
        )
        if decision.verdict == "abort":
            break
    return last


def _until_rolled_back(windows: Sequence[Window]) -> Sequence[Window]:
    """Return the windows up to the last in which the new version had a share."""
    last = max((index for index, window in enumerate(windows) if window.percent), default=len(windows) - 1)
    return windows[: last + 1]


def _generation(window: Window) -> int:
    return max((cell.generation for cell in (*window.old, *window.new)), default=0)


def windows_of(rows: Iterable[Row], old: str, new: str) -> list[Window]:
    """Return the windows of one rollout's rows (oldest first), `old` and `new` being its version ids."""
    rows = list(rows)
    percents = _percents(rows, new)
    return [
        _window(list(together), old, new, percents)
        for _, together in groupby(rows, key=lambda row: (row.started_at, row.seconds))
    ]


def _percents(rows: list[Row], new: str) -> dict[int, int]:
    """Return generation -> the new version's share: what most answers of the generation were chosen under."""
    seen: dict[int, Counter[int]] = {}
    for row in rows:
        share = row.share if row.version_id == new else WHOLE - row.share
        seen.setdefault(row.generation, Counter())[share] += row.answers
    return {generation: round(shares.most_common(1)[0][0] / 100) for generation, shares in seen.items()}


def _window(rows: list[Row], old: str, new: str, percents: Mapping[int, int]) -> Window:
    return Window(
        seconds=rows[0].seconds,
        old=tuple(_cell(row) for row in rows if row.version_id == old),
        new=tuple(_cell(row) for row in rows if row.version_id == new),
        percent=percents[max(row.generation for row in rows)],
    )


def _cell(row: Row) -> Cell:
    return Cell(
        generation=row.generation,
        share=row.share,
        answers=row.answers,
        errors=dict(row.errors),
        latency=dict(row.latency),
    )
