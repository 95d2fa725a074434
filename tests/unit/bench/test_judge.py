"""The simulation itself, and a small run of it: what the judge owes must hold in CI too."""

import json
import math
import random
from pathlib import Path

import pytest

from bench.judge import Case, as_table, cases, chosen, main, measure, most, parse, summarise
from bench.judge_loop import PLANS, Run, simulate
from bench.judge_rules import RULES, stop_times
from bench.judge_world import HABIT_S, WORLDS, Setting
from tests.effort import effort

QUICK = [
    Case(cell="constant", plan="P1", rate=10, stopped_most=1, paused_most=5),
    Case(cell="bursts-shared", plan="P3", rate=10, stopped_most=1, paused_most=5),
    Case(cell="outage", plan="blue-green", rate=10, stopped_most=1, paused_most=5),
    Case(cell="bad", plan="P1", rate=10, new_errors=0.2, found_least=99, median_most=30),
    Case(cell="late", plan="P1", rate=10, new_errors=0.2, found_least=99, off_most=4),
    Case(cell="hangs", plan="P1", rate=10, new_errors=0.3, found_least=99, median_most=60),
    Case(cell="4xx", plan="P1", rate=10, old_errors=0.03, new_errors=0.13, found_least=99, median_most=150),
    Case(cell="keyless", plan="P1", rate=10, found_least=99, median_most=15),
]
"""`python -m bench judge` runs all, in numbers; these take a few seconds each."""


@pytest.mark.parametrize("case", QUICK, ids=lambda case: f"{case.cell}-{case.plan}")
def test_the_judge_keeps_its_word(case: Case) -> None:
    result = measure([case], effort(15, 40), 7, 1)[0]
    assert result.ok, result


def test_a_run_can_be_had_again() -> None:
    setting = Setting(rate=10, new_errors=0.05)
    assert simulate("bad", "P1", setting, "a") == simulate("bad", "P1", setting, "a")
    assert simulate("bad", "P1", setting, "a") != simulate("bad", "P1", setting, "b")


@pytest.mark.parametrize("cell", WORLDS)
@pytest.mark.parametrize("percent", [0, 10, 100])
def test_every_request_is_accounted_for(cell: str, percent: int) -> None:
    world = WORLDS[cell](random.Random(1), Setting(rate=7.5, seconds=600))
    served = [0, 0]
    for t in range(-HABIT_S, 600):
        for index, side in enumerate(world.second(t, percent if t >= 0 else 0)):
            served[index] += side.answers
            assert 0 <= sum(side.errors.values()) <= side.answers
            assert len(side.users) <= side.answers
    assert sum(served) == pytest.approx(7.5 * (HABIT_S + 600), abs=8)
    assert served[1] == pytest.approx(7.5 * 600 * percent / 100, abs=8)


def test_errors_come_at_the_rates_asked_for() -> None:
    world = WORLDS["bad"](random.Random(3), Setting(rate=100, old_errors=0.02, new_errors=0.2))
    counts = [[0, 0], [0, 0]]
    for t in range(1_800):
        for count, side in zip(counts, world.second(t, 20), strict=True):
            count[0] += side.answers
            count[1] += side.failed
    (old_n, old_k), (new_n, new_k) = counts
    assert old_k / old_n == pytest.approx(0.02, rel=0.05)
    assert new_k / new_n == pytest.approx(0.2, rel=0.05)
    assert new_n / (new_n + old_n) == pytest.approx(0.2, rel=0.01)


def test_other_rules_stop_good_rollouts() -> None:
    setting = Setting(rate=10, old_errors=0.02, seconds=1800)
    stops = [stop_times("constant", PLANS["P1"], setting, str(run)) for run in range(30)]
    assert sum("flagger" in each for each in stops) > 15
    assert all(each.keys() <= RULES.keys() for each in stops)


def test_it_prints_a_table_and_writes_what_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    options = "--cell bad --plan P1 --rate 10 --new-errors 25 --runs 4 --seed 2 --processes 1 --json"
    assert main([*options.split(), str(path)]) == 0
    assert "bad 25 %, P1, 10/s" in capsys.readouterr().out
    (row,) = json.loads(path.read_text())
    wanted = {
        "cell",
        "plan",
        "rate",
        "runs",
        "stoppedPct",
        "pausedPct",
        "completedPct",
        "medianStopS",
        "badAnswers",
    }
    assert wanted <= row.keys()
    assert (row["cell"], row["plan"], row["rate"], row["runs"]) == ("bad", "P1", 10.0, 4)
    assert row["stoppedPct"] + row["pausedPct"] + row["completedPct"] == pytest.approx(100)


def test_a_cell_without_a_plan_is_run_by_every_plan() -> None:
    assert [case.plan for case in chosen(parse(["--cell", "outage"]))] == list(PLANS)
    assert len(chosen(parse([]))) == len(cases())


def test_what_is_owed_in_the_table_is_owed_by_a_cell_alone() -> None:
    """Guards: a cell asked for by name had no limits, so a check of it could not fail."""
    (case,) = chosen(parse(["--cell", "keyless", "--plan", "P1", "--rate", "10"]))
    assert (case.found_least, case.median_most) == (99, 15)
    assert all(case.stopped_most is not None for case in chosen(parse(["--cell", "outage"])))


def test_the_table_says_where_the_judge_owes_something() -> None:
    case = Case(cell="constant", plan="P1", rate=10, stopped_most=1)
    run = Run(end="stopped", after_s=5, off_s=5, bad_answers=0, gate="comparison")
    owing = summarise(case, [run] * 3)
    assert not owing.ok
    assert "NO" in as_table([case], [owing])


@pytest.mark.parametrize(("rate", "runs", "wrong"), [(0.01, 5_000, 50), (0.2, 5_000, 1_000), (0.0, 500, 0)])
def test_what_is_owed_is_owed_to_the_letter_over_many_runs(rate: float, runs: int, wrong: int) -> None:
    assert most(rate, runs) == wrong


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.2])
def test_few_runs_are_allowed_what_chance_does(rate: float) -> None:
    def chance_of_more(wrong: int) -> float:
        return 1 - sum(math.comb(500, k) * rate**k * (1 - rate) ** (500 - k) for k in range(wrong + 1))

    wrong = most(rate, 500)
    assert chance_of_more(wrong) <= 0.001 < chance_of_more(wrong - 1)
