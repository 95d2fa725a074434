"""Exact at every prefix, fair at every place, for any set of weights."""

import math
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.split import split

any_weights = st.one_of(
    st.lists(st.integers(1, 100), min_size=1, max_size=6),
    st.lists(st.integers(1, 10_000), min_size=2, max_size=3),
    st.lists(st.integers(1, 9), min_size=7, max_size=100),
)


def largest_window_error(places: list[int], index: int, share: float) -> float:
    """Return the most that any window's count of `index` differs from its length times `share`."""
    lag = highest = lowest = 0.0
    for place in places:
        lag += (place == index) - share
        highest, lowest = max(highest, lag), min(lowest, lag)
    return highest - lowest


@given(any_weights, st.text(max_size=5), st.floats(0, 1, exclude_max=True))
def test_every_prefix_is_less_than_one_request_from_exact(
    weights: list[int], seed: str, phase: float
) -> None:
    total = sum(weights)
    counts = [0] * len(weights)
    for n, chosen in enumerate(islice(split(weights, seed=seed, phase=phase), 400), start=1):
        counts[chosen] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count * total - n * weight) < total


@given(any_weights, st.text(max_size=5))
def test_every_window_is_less_than_two_requests_from_exact(weights: list[int], seed: str) -> None:
    places = list(islice(split(weights, seed=seed), 300))
    for index, weight in enumerate(weights):
        assert largest_window_error(places, index, weight / sum(weights)) < 2


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.text(max_size=5))
def test_a_whole_round_is_exact(weights: list[int], seed: str) -> None:
    unit = math.gcd(*weights)
    length = sum(weights) // unit
    draw = split(weights, seed=seed)
    for _ in range(3):
        counts = Counter(islice(draw, length))
        assert [counts[index] for index in range(len(weights))] == [each // unit for each in weights]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10, 37, 100])
def test_a_hundred_versions_split_as_one_does(size: int) -> None:
    weights = [1 + index % 7 for index in range(size)]
    places = Counter(islice(split(weights, seed="size"), sum(weights) * 2))
    assert [places[index] for index in range(size)] == [2 * each for each in weights]


def calls_of_a_cycle(weights: list[int], rounds: int) -> list[Counter[int]]:
    """Return, for each call of a cycle as long as the round, how often each version took it."""
    draw = split(weights, seed="cycle")
    calls = [Counter[int]() for _ in range(sum(weights) // math.gcd(*weights))]
    for _ in range(rounds):
        for call in calls:
            call[next(draw)] += 1
    return calls


@pytest.mark.parametrize(
    "weights",
    [[90, 10], [99, 1], [1, 1], [70, 20, 10], [50, 30, 20], [60, 33, 7], [34, 33, 33], [98, 1, 1], [1, 1, 1]],
    ids=str,
)
def test_a_client_in_step_with_the_round_sees_each_call_split_by_the_weights(weights: list[int]) -> None:
    """Guards against a fixed order: one call of a cycle would always be one version's."""
    rounds = 3_000
    calls = calls_of_a_cycle(weights, rounds)
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = math.sqrt(share * (1 - share) / rounds)
        for call in calls:
            assert abs(call[index] / rounds - share) < 5 * deviation


@pytest.mark.parametrize("weights", [[40, 30, 20, 10], [50, 20, 10, 10, 5, 5], [96, 1, 1, 1, 1]], ids=str)
def test_with_several_versions_each_call_of_a_cycle_is_split_nearly_by_the_weights(
    weights: list[int],
) -> None:
    rounds = 600
    calls = calls_of_a_cycle(weights, rounds)
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        for call in calls:
            assert abs(call[index] / rounds - share) < 0.06


@pytest.mark.parametrize("weights", [[60, *[5] * 8], [20, 15, 13, 11, 9, 8, 8, 6, 5, 5], [1] * 20], ids=str)
def test_shuffled_turns_leave_no_call_of_a_cycle_to_one_version(weights: list[int]) -> None:
    rounds = 400
    calls = calls_of_a_cycle(weights, rounds)
    for index, weight in enumerate(weights):
        for call in calls:
            assert abs(call[index] / rounds - weight / sum(weights)) < 0.3


def test_a_cycle_of_ten_calls_sees_each_call_split_by_70_20_10_in_whole_and_in_part() -> None:
    draw = split([70, 20, 10], seed="cycle of ten")
    calls = [Counter[int]() for _ in range(10)]
    for _ in range(10_000):
        for call in calls:
            call[next(draw)] += 1
    for call in calls:
        assert abs(call[0] - 7_000) < 250
        assert abs(call[1] - 2_000) < 220
        assert abs(call[2] - 1_000) < 160


def test_the_order_of_rounds_differs_from_round_to_round() -> None:
    draw = split([5, 3, 2], seed="order")
    assert len({tuple(islice(draw, 10)) for _ in range(50)}) > 25


def test_one_seed_makes_one_order() -> None:
    one = list(islice(split([7, 2, 1], seed="a"), 200))
    assert one == list(islice(split([7, 2, 1], seed="a"), 200))
    assert one != list(islice(split([7, 2, 1], seed="b"), 200))


@pytest.mark.parametrize("seed", ["a", "b", "c"])
@pytest.mark.parametrize(("weights", "workers"), [([1, 1], 2), ([3, 1], 4), ([70, 20, 10], 10)])
def test_workers_that_begin_together_begin_spread_by_the_weights(
    weights: list[int], workers: int, seed: str
) -> None:
    first = Counter(next(split(weights, seed=seed, phase=slot / workers)) for slot in range(workers))
    assert [first[index] for index in range(len(weights))] == [
        weight * workers // sum(weights) for weight in weights
    ]


def test_only_ratios_matter() -> None:
    small = list(islice(split([7, 2, 1], seed="x"), 100))
    assert small == list(islice(split([7_000, 2_000, 1_000], seed="x"), 100))


@pytest.mark.parametrize("weights", [[], [0], [1, 0], [3, -1]], ids=str)
def test_weights_that_are_not_above_zero_are_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        split(weights, seed="")
