"""False rollbacks and time to catch: rollouts simulated on the real judge and the real machine.

A cell is what goes wrong (`judge_world.py`), a plan the rollout's steps, a rate the requests per second. Each
run is drawn from `SEED:CELL:PLAN:RATE:RUN`, so it can be had again.
"""

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.judge_loop import BAKE_S, PLANS, SECONDS, Run, simulate
from bench.judge_rules import RULES, stop_times
from bench.judge_world import BASE, WORLDS, Setting
from gateway.core.judge.statistics import beta_cdf

GOOD: Final = tuple(name for name, world in WORLDS.items() if not world.is_bad)
FULL: Final = 2_000
"""Runs of a cell that are held to what is owed to the letter."""
ASKS_A_PERSON: Final = frozenset({"4xx", "latency"})
"""Cells whose finding pauses the rollout: there a pause counts as the stop."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table, and what is owed in it. Percent of the runs, seconds."""

    cell: str
    plan: str
    rate: float
    old_errors: float = BASE
    new_errors: float = 0.05
    stopped_most: float | None = None
    paused_most: float | None = None
    found_least: float | None = None
    median_most: float | None = None
    off_most: float | None = None
    """Until the share is first lowered, median."""


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What came of a case."""

    cell: str
    plan: str
    rate: float
    runs: int
    stopped_pct: float
    paused_pct: float
    completed_pct: float
    median_stop_s: float | None
    """From the moment it was bad; None: none was stopped."""
    bad_answers: float
    """Errors from the new version that clients got, mean of a run."""
    median_off_s: float | None = None
    ok: bool = True


def cases() -> list[Case]:
    """Return the whole table."""
    return [*_good(), *_bad()]


def _good() -> Iterator[Case]:
    for cell in GOOD:
        lax = cell in ("bursts-own", "cold-start")
        for plan in PLANS:
            for rate in (10.0, 1.0):
                if cell != "equal-latency" or (plan == "P1" and rate == 10):
                    paused = 5.0 if rate >= 10 else 30.0
                    yield Case(
                        cell=cell,
                        plan=plan,
                        rate=rate,
                        stopped_most=5.0 if lax else 1.0,
                        paused_most=None if lax else paused,
                    )
    for cell in ("constant", "bursts-shared", "outage"):
        for plan in ("P1", "blue-green", "immediate"):
            yield Case(cell=cell, plan=plan, rate=100, stopped_most=1.0, paused_most=5.0)


def _bad() -> Iterator[Case]:
    yield Case(cell="bad", plan="P1", rate=10, found_least=99, median_most=100)
    yield Case(cell="bad", plan="P1", rate=10, new_errors=0.2, found_least=99, median_most=20)
    yield Case(cell="bad", plan="P1", rate=10, new_errors=0.015, found_least=90)
    for rate in (1.0, 100.0):
        yield Case(cell="bad", plan="P1", rate=rate, new_errors=0.2, found_least=99)
    for plan in ("blue-green", "immediate"):
        yield Case(cell="bad", plan=plan, rate=10, found_least=90, off_most=20, median_most=200)
        yield Case(
            cell="bad", plan=plan, rate=10, new_errors=0.2, found_least=99, off_most=5, median_most=200
        )
    for plan in PLANS:
        yield Case(cell="late", plan=plan, rate=10, found_least=90, off_most=20, median_most=200)
        yield Case(
            cell="late", plan=plan, rate=10, new_errors=0.2, found_least=99, off_most=3, median_most=200
        )
    for plan in ("P1", "blue-green", "immediate"):
        yield Case(cell="outage-then-bad", plan=plan, rate=10, new_errors=0.2, found_least=90)
    yield Case(cell="hangs", plan="P1", rate=10, new_errors=0.3, found_least=99, median_most=60)
    yield Case(
        cell="4xx", plan="P1", rate=10, old_errors=0.03, new_errors=0.08, found_least=90, median_most=400
    )
    yield Case(
        cell="4xx", plan="P1", rate=10, old_errors=0.03, new_errors=0.13, found_least=99, median_most=120
    )
    yield Case(cell="one-path", plan="P1", rate=10, found_least=80)
    yield Case(cell="keyless", plan="P1", rate=10, found_least=99, median_most=15)
    yield Case(cell="sticky-late", plan="P1", rate=10, new_errors=0.2, found_least=90)
    yield Case(cell="leak", plan="P1", rate=10, found_least=90)
    yield Case(cell="crash-loop", plan="P1", rate=10, found_least=90)
    yield Case(cell="latency", plan="P1", rate=10, found_least=99)


def summarise(case: Case, runs: Sequence[Run]) -> Result:
    """Return what came of a case's runs."""
    ends = [run.end for run in runs]
    finding = ("stopped", "paused") if case.cell in ASKS_A_PERSON else ("stopped",)
    times = [run.after_s for run in runs if run.end in finding]
    offs = [run.off_s for run in runs if run.off_s is not None]
    percent = {end: round(100 * ends.count(end) / len(runs), 2) for end in ("stopped", "paused", "completed")}
    result = Result(
        cell=case.cell,
        plan=case.plan,
        rate=case.rate,
        runs=len(runs),
        stopped_pct=percent["stopped"],
        paused_pct=percent["paused"],
        completed_pct=percent["completed"],
        median_stop_s=statistics.median(times) if times else None,
        median_off_s=statistics.median(offs) if offs else None,
        bad_answers=round(statistics.fmean([run.bad_answers for run in runs]), 1),
    )
    return msgspec.structs.replace(result, ok=is_met(case, result, len(times)))


def is_met(case: Case, result: Result, found: int) -> bool:
    """Whether the judge did what it owes."""
    runs = result.runs
    stopped, paused = round(result.stopped_pct * runs / 100), round(result.paused_pct * runs / 100)
    return (
        (case.stopped_most is None or stopped <= most(case.stopped_most / 100, runs))
        and (case.paused_most is None or paused <= most(case.paused_most / 100, runs))
        and (case.found_least is None or runs - found <= most(1 - case.found_least / 100, runs))
        and (case.median_most is None or (result.median_stop_s or math.inf) <= case.median_most)
        and (case.off_most is None or (result.median_off_s or math.inf) <= case.off_most)
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


def measure(table: Sequence[Case], runs: int, seed: int, processes: int) -> list[Result]:
    """Run every case, saying how each went."""
    chunk = max(1, min(50, runs // processes))
    parts = [
        (case, seed, first, min(first + chunk, runs)) for case in table for first in range(0, runs, chunk)
    ]
    each = len(range(0, runs, chunk))
    results = []
    with multiprocessing.Pool(processes) as pool:
        began = time.perf_counter()
        done = pool.imap(_simulate_part, parts)
        for case in table:
            results.append(summarise(case, [run for _ in range(each) for run in next(done)]))
            print(f"{time.perf_counter() - began:6.0f} s  {_line(case, results[-1])}", flush=True)
    return results


def _simulate_part(part: tuple[Case, int, int, int]) -> list[Run]:
    case, seed, first, last = part
    return [
        simulate(case.cell, case.plan, _setting(case), _seed(case, seed, run)) for run in range(first, last)
    ]


def _setting(case: Case) -> Setting:
    seconds = SECONDS if PLANS[case.plan] else BAKE_S
    return Setting(rate=case.rate, old_errors=case.old_errors, new_errors=case.new_errors, seconds=seconds)


def _seed(case: Case, seed: int, run: int) -> str:
    return f"{seed}:{case.cell}:{case.plan}:{case.rate:g}:{run}"


def _line(case: Case, result: Result) -> str:
    median = "-" if result.median_stop_s is None else f"{result.median_stop_s:.0f} s"
    off = "-" if result.median_off_s is None else f"{result.median_off_s:.0f} s"
    return (
        f"{'ok  ' if result.ok else 'MISS'} {_name(case)}: stopped {result.stopped_pct:.2f} %, paused "
        f"{result.paused_pct:.2f} %, median stop {median}, off {off}, bad answers {result.bad_answers:.1f}"
    )


def _name(case: Case) -> str:
    errors = f" {100 * case.new_errors:g} %" if WORLDS[case.cell].is_bad else ""
    return f"{case.cell}{errors}, {case.plan}, {case.rate:g}/s"


def as_table(table: Sequence[Case], results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    head = ["situation", "stopped %", "paused %", "median stop s", "median off s", "bad answers", "met"]
    rows = [
        [
            _name(case),
            f"{result.stopped_pct:.2f}",
            f"{result.paused_pct:.2f}",
            "-" if result.median_stop_s is None else f"{result.median_stop_s:.0f}",
            "-" if result.median_off_s is None else f"{result.median_off_s:.0f}",
            f"{result.bad_answers:.1f}",
            "yes" if result.ok else "NO",
        ]
        for case, result in zip(table, results, strict=True)
    ]
    return report.table(head, rows)


def rivals(table: Sequence[Case], runs: int, seed: int) -> str:
    """Return what other rules make of the same cases, as a Markdown table: percent stopped, median s."""
    rows = []
    for case in table:
        steps = PLANS[case.plan] or (100,)
        times = [stop_times(case.cell, steps, _setting(case), _seed(case, seed, run)) for run in range(runs)]
        row = [_name(case)]
        for rule in RULES:
            stopped = [each[rule] for each in times if rule in each]
            median = f" ({statistics.median(stopped):.0f} s)" if stopped else ""
            row.append(f"{100 * len(stopped) / runs:.1f}{median}")
        rows.append(row)
    return report.table(["situation", *RULES], rows)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench judge", description=__doc__)
    parser.add_argument("--cell", choices=WORLDS, help="one situation only; else the whole table")
    parser.add_argument("--plan", choices=PLANS, help="one plan only")
    parser.add_argument("--rate", type=float, help="requests per second (10)")
    parser.add_argument("--new-errors", type=float, metavar="PCT", help="of the new version, percent")
    parser.add_argument("--old-errors", type=float, metavar="PCT", help="of the old version, percent")
    parser.add_argument("--runs", type=int, default=FULL, help="runs of each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rivals", action="store_true", help="show other rules the same traffic, too")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for."""
    if options.cell is None:
        return [
            case
            for case in cases()
            if options.plan in (None, case.plan) and options.rate in (None, case.rate)
        ]
    made = [
        Case(
            cell=options.cell,
            plan=plan,
            rate=options.rate or 10.0,
            old_errors=_fraction(options.old_errors, 0.03 if options.cell == "4xx" else BASE),
            new_errors=_fraction(options.new_errors, _USUAL.get(options.cell, 0.05)),
        )
        for plan in ([options.plan] if options.plan else PLANS)
    ]
    owed = {_world_of(case): case for case in cases()}
    return [owed.get(_world_of(case), case) for case in made]


def _world_of(case: Case) -> tuple[str, str, float, float, float]:
    return case.cell, case.plan, case.rate, case.old_errors, case.new_errors


_USUAL: Final = {"hangs": 0.3, "4xx": 0.08, "sticky-late": 0.2, "outage-then-bad": 0.2, "late": 0.2}


def _fraction(percent: float | None, default: float) -> float:
    return default if percent is None else percent / 100


def main(arguments: list[str]) -> int:
    """Simulate and print the table. Returns 1 if the judge owes something."""
    options = parse(arguments)
    table = chosen(options)
    print(f"{options.runs} runs a cell, seed {options.seed}")
    results = measure(table, options.runs, options.seed, options.processes)
    print("\n" + as_table(table, results))
    if options.rivals:
        print("\n" + rivals(table, options.runs, options.seed))
    if options.json is not None:
        rows = [msgspec.to_builtins(result) for result in results]
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    return 0 if all(result.ok for result in results) else 1
