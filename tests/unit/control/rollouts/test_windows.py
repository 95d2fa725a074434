"""Windows are differences of running totals."""

from gateway.control.rollouts.windows import Key, Windows
from gateway.control.sums import JudgedSum
from gateway.core.judge.window import Cell


def came(windows: Windows, judged: dict[Key, JudgedSum]) -> tuple[Cell, ...]:
    windows.close(judged, (), seconds=1.0, usable=(True, True), percent=10)
    return windows.pending[-1].new


def test_a_window_is_what_came_since_the_last() -> None:
    windows = Windows("d", "v1", "v2")
    windows.start_from({("v2", 1, 1000): JudgedSum(3, {"502": 1}, {4: 3})})
    totals = {("v2", 1, 1000): JudgedSum(5, {"502": 2}, {4: 4, 6: 1})}
    assert came(windows, totals) == (Cell(1, 1000, 2, {"502": 1}, {4: 1, 6: 1}),)
    assert came(windows, totals) == ()


def test_a_total_that_was_forgotten_begins_anew() -> None:
    """Weights long gone are forgotten; an answer that comes as late as that must not count below nothing."""
    windows = Windows("d", "v1", "v2")
    windows.start_from({("v2", 1, 1000): JudgedSum(30, {}, {4: 30})})
    assert came(windows, {("v2", 1, 1000): JudgedSum(1, {}, {7: 1})}) == (Cell(1, 1000, 1, {}, {7: 1}),)
