"""False rollbacks and time to catch, simulated on the real judge, beside two rules people use instead.

Every cell is a situation; each of its runs is drawn from `SEED:CELL:RUN`, so a run can be had again. All
three rules are shown the same traffic.
"""

import argparse
import math
import multiprocessing
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.judge_rules import RULES, stop_times
from bench.judge_world import BASE, Rates, Scene, spans
from gateway.core.judge.statistics import beta_cdf

STEPPED: Final = ((10, 50, 100), (10, 50, 95, 100))
MINUTE: Final = 60
FULL: Final = 5_000
"""Runs of a cell that are held to what is owed to the letter."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A situation, and what the judge owes in it."""

    name: str
    scene: Scene
    bad_from: int | None = None
    """Second from which the new version ought to be stopped; None: never."""
    deadline: int | None = None
    """Second until which a stop counts as caught; None: to the end."""
    at_least: float = 99.0
    """Percent of the runs to be caught."""
    median: float | None = None
    """Half of them within so many seconds."""

    @property
    def goal(self) -> str:
        """What is owed, for the table."""
        if self.bad_from is None:
            return "stopped <= 1 %"
        in_time = f" in {self.deadline - self.bad_from} s" if self.deadline else ""
        median = f", median <= {self.median:.0f} s" if self.median else ""
        return f"caught >= {self.at_least:g} %{in_time}{median}"

    def is_met(self, going: int, stopped: int, median_s: float) -> bool:
        """Whether the judge did what it owes: of the runs `going` it stopped so many in time."""
        if self.bad_from is None:
            return stopped <= most(0.01, going)
        is_caught = going - stopped <= most(1 - self.at_least / 100, going)
        return is_caught and (self.median is None or median_s <= self.median)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules did in a cell. Percent of the runs, seconds."""

    cell: str
    goal: str
    runs: int
    stopped: dict[str, float]
    """By rule: of the runs still going when the new version turned bad (if ever), those stopped in time."""
    early: float
    """Stopped by the judge before anything was wrong."""
    median_s: dict[str, float]
    """By rule: from the moment it was bad to the stop, over the runs stopped after it."""
    gates: dict[str, int]
    """By which gates the judge stopped."""
    ok: bool


def cells() -> list[Cell]:
    """Return every situation."""
    return [*_good(), *_shared(), *_bad(), *_dead()]


def _good() -> list[Cell]:
    equal = [
        Cell(
            name=f"equal {BASE:.1%}, {per_second}/s, {_path(steps)}",
            scene=Scene(rates=_equal(BASE), per_second=per_second, steps=steps),
        )
        for steps in ((10,), *STEPPED)
        for per_second in (1, 10, 50)
    ]
    high = [
        Cell(name=f"equal 8%, 10/s, {_path(steps)}", scene=Scene(rates=_equal(0.08), steps=steps))
        for steps in ((10,), *STEPPED)
    ]
    sticky = [
        Cell(
            name=f"sticky, half the errors from 3 of 300 users, {_path(steps)}",
            scene=Scene(rates=_equal(BASE), users=(300, 3), steps=steps),
        )
        for steps in ((10,), *STEPPED)
    ]
    return equal + high + sticky


def _shared() -> list[Cell]:
    jumps = [
        Cell(
            name=f"both to {rate:.0%} at minute 10, {_path(steps)}",
            scene=Scene(rates=_both(rate, 10 * MINUTE), changes=(10 * MINUTE,), steps=steps),
        )
        for rate in (0.05, 0.2, 0.6)
        for steps in ((10,), *STEPPED)
    ]
    late = Cell(
        name="both to 20% in the 95 % step, 10/50/95",
        scene=Scene(rates=_both(0.2, 25 * MINUTE), changes=(25 * MINUTE,), steps=(10, 50, 95)),
    )
    behind_breakers = [
        Cell(
            name=f"both to {rate:.0%} for 10 min, breakers, 10",
            scene=Scene(
                rates=_both(rate, 10 * MINUTE, 20 * MINUTE),
                changes=(10 * MINUTE, 20 * MINUTE),
                breakers=True,
            ),
        )
        for rate in (0.2, 1.0)
    ]
    return [*jumps, late, *behind_breakers]


def _bad() -> list[Cell]:
    return [
        *(
            Cell(
                name=f"5% of errors, 10/s, {_path(steps)}",
                scene=Scene(rates=_worse(0.05), steps=steps),
                bad_from=0,
                median=150,
            )
            for steps in ((10,), *STEPPED)
        ),
        Cell(
            name="50% of errors, 1/s, 10 (60 s from the canary's 10th request)",
            scene=Scene(rates=_worse(0.5), per_second=1),
            bad_from=0,
            deadline=100 + 60,
            at_least=98,
        ),
        Cell(name="1.5% of errors, 10/s, 10", scene=Scene(rates=_worse(0.015)), bad_from=0, at_least=80),
        *(
            Cell(
                name=f"5% of errors from the 100 % step on, {_path(steps)}",
                scene=Scene(rates=_worse_at_full, steps=steps),
                bad_from=(len(steps) - 1) * 1800 // len(steps),
            )
            for steps in STEPPED
        ),
        Cell(
            name="5% of errors from the 95 % step on, 10/50/95",
            scene=Scene(rates=lambda _, percent: (BASE, 0.05 if percent >= 95 else BASE), steps=(10, 50, 95)),
            bad_from=1200,
            at_least=90,
        ),
    ]


def _dead() -> list[Cell]:
    died = 5 * MINUTE
    return [
        Cell(
            name=f"dead behind its breaker at {percent} %",
            scene=Scene(
                rates=lambda second, _: (BASE, 1.0 if second >= died else BASE),
                changes=(died,),
                steps=(percent,),
                seconds=600,
                breakers=True,
            ),
            bad_from=died,
            deadline=died + 15,
            at_least=100,
        )
        for percent in (10, 50, 90)
    ]


def _path(steps: tuple[int, ...]) -> str:
    return "/".join(map(str, steps))


def _equal(rate: float) -> Rates:
    return lambda second, percent: (rate, rate)


def _worse(rate: float) -> Rates:
    return lambda second, percent: (BASE, rate)


def _worse_at_full(second: int, percent: int) -> tuple[float, float]:
    return BASE, 0.05 if percent == 100 else BASE


def _both(rate: float, begin: int, end: int = 1_000_000) -> Rates:
    return lambda second, percent: (rate, rate) if begin <= second < end else (BASE, BASE)


Stops = list[tuple[dict[str, int], str]]


def simulate(index: int, seed: int, first: int, last: int) -> Stops:
    """Return, for runs [first, last) of a cell, when each rule stopped them, the judge by which gate."""
    cell = cells()[index]
    stops = []
    for run in range(first, last):
        rng = random.Random(f"{seed}:{cell.name}:{run}")
        stops.append(stop_times(cell.scene, spans(cell.scene, rng)))
    return stops


def summarise(cell: Cell, stops: Stops) -> Result:
    """Return what came of a cell's runs."""
    begin, deadline = cell.bad_from or 0, cell.deadline or cell.scene.seconds
    stopped, medians, ok = {}, {}, False
    for name in RULES:
        times = [times.get(name, math.inf) for times, _ in stops]
        going = [time - begin for time in times if time > begin]
        counted = [time for time in going if time <= deadline - begin]
        stopped[name] = round(100 * len(counted) / len(going), 3) if going else math.nan
        medians[name] = statistics.median(counted) if counted and cell.bad_from is not None else math.nan
        if name == "judge":
            ok = cell.is_met(len(going), len(counted), medians[name])
    return Result(
        cell=cell.name,
        goal=cell.goal,
        runs=len(stops),
        stopped=stopped,
        early=round(
            100 * sum(1 for times, _ in stops if times.get("judge", math.inf) <= begin) / len(stops), 3
        ),
        median_s=medians,
        gates=dict(Counter(gate for times, gate in stops if "judge" in times)),
        ok=ok,
    )


def most(rate: float, runs: int) -> int:
    """Return how many of `runs` may go wrong where `rate` of them (a fraction) is owed.

    Of `FULL` and more, that many. Of fewer, what chance would go beyond once in a thousand times if exactly
    that were so: a run of hundreds is no finer measure.
    """
    wrong = math.floor(rate * runs + 1e-9)
    if runs < FULL and rate > 0:
        while wrong < runs and beta_cdf(rate, wrong + 1, runs - wrong) > 0.001:
            wrong += 1
    return wrong


def measure(runs: int, seed: int, processes: int, only: str = "") -> list[Result]:
    """Run every cell whose name contains `only`, saying how each went."""
    chunk = max(1, min(100, runs // processes))
    wanted = [(index, cell) for index, cell in enumerate(cells()) if only in cell.name]
    firsts = range(0, runs, chunk)
    parts = [(index, seed, first, min(first + chunk, runs)) for index, _ in wanted for first in firsts]
    results = []
    with multiprocessing.Pool(processes) as pool:
        began = time.perf_counter()
        done = pool.imap(_simulate_part, parts)
        for _, cell in wanted:
            stops = [stop for _ in firsts for stop in next(done)]
            results.append(summarise(cell, stops))
            print(f"{time.perf_counter() - began:6.1f} s  {_line(results[-1])}", flush=True)
    return results


def _simulate_part(part: tuple[int, int, int, int]) -> Stops:
    return simulate(*part)


def _line(result: Result) -> str:
    shares = "  ".join(f"{name} {share:.2f} %" for name, share in result.stopped.items())
    return f"{'ok  ' if result.ok else 'MISS'} {result.cell}: {shares}"


def as_table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    head = ["situation", "owed", "met", "judge %", "median s", "Flagger-like %", "z-test %", "judge's gates"]
    rows = [
        [
            result.cell,
            result.goal,
            "yes" if result.ok else "NO",
            f"{result.stopped['judge']:.2f}",
            "-"
            if result.median_s["judge"] != result.median_s["judge"]
            else f"{result.median_s['judge']:.0f}",
            f"{result.stopped['flagger']:.2f}",
            f"{result.stopped['z-test']:.2f}",
            ", ".join(f"{gate} {count}" for gate, count in sorted(result.gates.items())) or "-",
        ]
        for result in results
    ]
    return report.table(head, rows)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench judge", description=__doc__)
    parser.add_argument("--runs", type=int, default=FULL, help="runs of each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--only", default="", help="part of a cell's name")
    parser.add_argument("--folder", type=Path, default=report.RESULTS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Simulate, print the table, write JSON and picture. 1 if the judge owes something."""
    options = parse(arguments)
    print(f"{options.runs} runs a cell, seed {options.seed}")
    if options.runs < FULL:
        print("So few are missed where chance explains them less than once in a thousand times.")
    print()
    results = measure(options.runs, options.seed, options.processes, options.only)
    print("\n" + as_table(results))
    answer = {"runs": options.runs, "seed": options.seed, "cells": msgspec.to_builtins(results)}
    report.save("judge", answer, options.folder)
    report.save_bars(
        "judge",
        f"Rollouts stopped, % of {options.runs} (first those that should go on)",
        [result.cell for result in results],
        {name: [result.stopped[name] for result in results] for name in RULES},
        options.folder,
    )
    return 0 if all(result.ok for result in results) else 1
