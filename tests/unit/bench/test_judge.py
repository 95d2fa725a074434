"""The simulation itself, and a small run of it: what the judge owes must hold in CI too."""

import math
import random

import pytest

from bench.judge import Cell, as_table, cells, main, most, simulate, summarise
from bench.judge_world import Scene, spans
from gateway.core.judge.window import WHOLE

RUNS = 500
CELLS = {cell.name: index for index, cell in enumerate(cells())}
QUICK = [
    "equal 0.5%, 1/s, 10",
    "equal 0.5%, 10/s, 10/50/100",
    "sticky, half the errors from 3 of 300 users, 10/50/100",
    "5% of errors, 10/s, 10",
    "50% of errors, 1/s, 10 (60 s from the canary's 10th request)",
    "5% of errors from the 100 % step on, 10/50/100",
]
"""Cells of which 500 runs take a few seconds; `python -m bench judge` runs all."""


@pytest.mark.parametrize("name", QUICK)
def test_the_judge_keeps_its_word(name: str) -> None:
    index = CELLS[name]
    result = summarise(cells()[index], simulate(index, 7, 0, RUNS))
    assert result.ok, result


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_version_dead_behind_its_breaker_is_dropped_in_time(percent: int) -> None:
    index = CELLS[f"dead behind its breaker at {percent} %"]
    result = summarise(cells()[index], simulate(index, 7, 0, 40))
    assert result.stopped["judge"] == 100, result


def test_the_rules_people_use_instead_stop_good_rollouts() -> None:
    index = CELLS["equal 0.5%, 10/s, 10"]
    result = summarise(cells()[index], simulate(index, 7, 0, 60))
    assert result.stopped["flagger"] > 50
    assert result.stopped["z-test"] > 1


def test_a_run_can_be_had_again() -> None:
    index = CELLS["5% of errors, 10/s, 10"]
    assert simulate(index, 1, 3, 6) == simulate(index, 1, 0, 6)[3:]
    assert simulate(index, 1, 0, 3) != simulate(index, 2, 0, 3)


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.name)
def test_every_request_of_a_run_is_accounted_for(cell: Cell) -> None:
    scene = cell.scene
    answers = seconds = 0
    for span in spans(scene, random.Random(1)):
        window = span.window
        seconds += round(window.seconds)
        assert span.end == seconds
        for part in (*window.old, *window.new):
            answers += part.answers
            assert part.answers > 0
            assert sum(part.errors.values()) <= part.answers
            assert 0 <= part.share <= WHOLE
    assert seconds == scene.seconds
    if not scene.breakers:
        assert answers == pytest.approx(scene.per_second * scene.seconds, rel=0.01)


def test_errors_come_at_the_rates_asked_for() -> None:
    scene = Scene(rates=lambda second, percent: (0.02, 0.2), per_second=50, steps=(20,))
    new = [0, 0]
    old = [0, 0]
    for span in spans(scene, random.Random(3)):
        for total, parts in ((new, span.window.new), (old, span.window.old)):
            total[0] += sum(part.answers for part in parts)
            total[1] += sum(sum(part.errors.values()) for part in parts)
    assert new[1] / new[0] == pytest.approx(0.2, rel=0.05)
    assert old[1] / old[0] == pytest.approx(0.02, rel=0.08)
    assert new[0] / (new[0] + old[0]) == pytest.approx(0.2, rel=0.001)


def test_it_prints_a_table_and_leaves_json_and_a_picture(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    arguments = [
        "--runs",
        "4",
        "--processes",
        "1",
        "--only",
        "equal 0.5%, 1/s, 10",
        "--folder",
        str(tmp_path),
    ]
    assert main(arguments) in (0, 1)
    assert "seed 1" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"judge.json", "judge.svg"}


def test_the_table_says_where_the_judge_owes_something() -> None:
    cell = cells()[0]
    owing = summarise(cell, [({"judge": 5}, "comparison")] * 3)
    assert not owing.ok
    assert "NO" in as_table([owing])


@pytest.mark.parametrize(("rate", "runs", "wrong"), [(0.01, 5_000, 50), (0.2, 5_000, 1_000), (0.0, 500, 0)])
def test_what_is_owed_is_owed_to_the_letter_over_many_runs(rate: float, runs: int, wrong: int) -> None:
    assert most(rate, runs) == wrong


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.2])
def test_few_runs_are_allowed_what_chance_does(rate: float) -> None:
    def chance_of_more(wrong: int) -> float:
        return 1 - sum(math.comb(500, k) * rate**k * (1 - rate) ** (500 - k) for k in range(wrong + 1))

    wrong = most(rate, 500)
    assert chance_of_more(wrong) <= 0.001 < chance_of_more(wrong - 1)
