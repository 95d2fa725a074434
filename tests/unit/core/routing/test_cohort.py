"""A user stays on the version it was given while that version grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.cohort import Cohorts

KEYS = [f"user-{index}".encode() for index in range(4_000)]
weighted = st.lists(st.floats(0.01, 100), min_size=1, max_size=8)


def named(weights: list[float]) -> list[tuple[str, float]]:
    return [(f"version-{index}", weight) for index, weight in enumerate(weights)]


@given(st.text(), st.binary(max_size=200))
def test_a_position_is_a_percentage_and_the_same_everywhere(deployment: str, key: bytes) -> None:
    position = Cohorts(deployment).position(key)
    assert 0 <= position < 100
    assert position == Cohorts(deployment).position(key)


@pytest.mark.parametrize("percent", [1, 10, 50, 90])
def test_a_percentage_of_users_is_under_that_percentage(percent: int) -> None:
    cohorts = Cohorts("deployment")
    under = sum(cohorts.position(key) < percent for key in KEYS) / len(KEYS) * 100
    assert abs(under - percent) < 2.5


def test_another_release_picks_other_users() -> None:
    first = {key for key in KEYS if Cohorts("first").position(key) < 10}
    second = {key for key in KEYS if Cohorts("second").position(key) < 10}
    assert len(first & second) / len(first) == pytest.approx(0.1, abs=0.06)


def test_positions_are_stable_over_releases_of_the_gateway() -> None:
    """Guards the hash itself: workers of two releases serve side by side during an upgrade."""
    assert Cohorts("d").number(b"user-1") == 15_286_984_547_448_462_332


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [70.0, 20.0, 10.0], [97.0, 1.0, 1.0, 1.0]], ids=str)
def test_rendezvous_follows_the_weights(weights: list[float]) -> None:
    cohorts = Cohorts("service")
    counts = [0] * len(weights)
    for key in KEYS:
        counts[cohorts.choose(key, named(weights))] += 1
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count / len(KEYS) - weight / sum(weights)) < 0.03


@given(weighted, st.data(), st.binary(max_size=20))
def test_a_key_moves_only_towards_the_version_that_grew(
    weights: list[float], data: st.DataObject, key: bytes
) -> None:
    grown = data.draw(st.integers(0, len(weights) - 1))
    more = [weight * (3 if index == grown else 1) for index, weight in enumerate(weights)]
    before = Cohorts("s").choose(key, named(weights))
    after = Cohorts("s").choose(key, named(more))
    assert after in (before, grown)


@given(weighted, st.data(), st.binary(max_size=20))
def test_a_version_that_leaves_moves_only_its_own_keys(
    weights: list[float], data: st.DataObject, key: bytes
) -> None:
    pairs = [*named(weights), ("leaving", data.draw(st.floats(0.01, 100)))]
    with_it = pairs[Cohorts("s").choose(key, pairs)][0]
    without = pairs[:-1][Cohorts("s").choose(key, pairs[:-1])][0]
    assert with_it in ("leaving", without)
