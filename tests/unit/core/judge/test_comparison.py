"""The comparison: worth one on average if the versions are alike, whatever they go through."""

import random
import statistics

import msgspec
import pytest

from gateway.core.judge.comparison import MAX_ROUTES, ROUTE_WEIGHTS, Comparison
from gateway.core.judge.tallies import Fall, share_of


def test_no_errors_say_nothing() -> None:
    comparison = Comparison()
    for _ in range(500):
        comparison = comparison.times([], [], 1.0)
    assert comparison.value == pytest.approx(1.0)


@pytest.mark.parametrize("process", ["constant", "bursts", "one path"])
def test_if_the_versions_are_alike_it_is_worth_one_on_average(process: str) -> None:
    rng = random.Random(process)
    values, reached = [], 0
    for _ in range(3_000):
        comparison, highest = Comparison(), 0.0
        for second in range(60):
            share = 0.1 if second < 30 else 0.5
            errors = rng.randrange(4) if process == "bursts" else rng.random() < 0.2
            new: list[Fall] = []
            old: list[Fall] = []
            for _ in range(errors):
                route = "POST /pay" if process == "one path" else rng.choice("abcdefgh")
                (new if rng.random() < share else old).append(Fall(share, 1, route))
            comparison = comparison.times(new, old, 1.0)
            highest = max(highest, comparison.value)
        values.append(comparison.value)
        reached += highest >= 20
    assert statistics.fmean(values) <= 1 + 4 * statistics.stdev(values) / len(values) ** 0.5
    assert reached <= 3_000 / 20


def test_one_route_among_many_is_found_and_named() -> None:
    comparison = Comparison()
    for index in range(40):
        comparison = comparison.times([], [Fall(0.1, 1, f"GET /{index % 8}")], 1.0)
    for _ in range(7):
        comparison = comparison.times([Fall(0.1, 1, "POST /pay")], [], 1.0)
    assert comparison.value > 1_000
    assert comparison.culprit == "POST /pay"


def test_a_version_that_fails_everywhere_has_no_culprit() -> None:
    comparison = Comparison()
    for index in range(40):
        comparison = comparison.times([Fall(0.1, 1, f"GET /{index % 8}")], [], 1.0)
    assert comparison.culprit == ""


def test_the_weights_of_all_routes_come_to_less_than_one() -> None:
    assert len(ROUTE_WEIGHTS) == MAX_ROUTES
    assert sum(ROUTE_WEIGHTS) < 1


def test_routes_are_bounded_and_so_is_what_is_stored() -> None:
    comparison = Comparison()
    for index in range(200):
        comparison = comparison.times([Fall(0.1, 1, f"GET /{index}")], [], 1.0)
    assert len(comparison.routes) == MAX_ROUTES
    assert len(msgspec.json.encode(comparison)) < 20_000


def test_twice_as_many_clients_that_leave_are_still_alike() -> None:
    assert share_of(1_000, "500") == pytest.approx(0.1)
    assert share_of(1_000, "abandoned") == pytest.approx(2 / 11)
    assert share_of(10_000, "abandoned") == 1


def test_a_renewed_set_of_users_is_a_new_beginning_and_takes_nothing_back() -> None:
    comparison = Comparison(is_renewed=True).times([Fall(0.1, 1, "")] * 3, [], 1.0)
    before = comparison.value
    comparison = comparison.renewed()
    assert comparison.value == pytest.approx(before)
    for _ in range(12):
        comparison = comparison.renewed()
    assert comparison.value == pytest.approx(before, rel=0.01)
    for _ in range(12):
        comparison = comparison.times([Fall(0.1, 1, "")], [], 1.0)
    assert comparison.value > 1_000
