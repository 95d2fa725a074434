"""The order in which xdist's workers run the tests: each begins with its share of what takes long.

By itself each worker gets a stretch of the alphabet: one all that starts processes and waits for them, the
others all that computes, and in the end they wait for the one. Files stay whole: they share what they start.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, TypeVar

import pytest

Test = TypeVar("Test")
LONG_S: Final = {
    "tests/integration/rollouts/test_outcomes.py": 180,
    "tests/fault/test_rows.py": 150,
    "tests/integration/admin/test_rehearse.py": 100,
    "tests/integration/admin/test_command_line.py": 90,
    "tests/fault/test_three_gateways.py": 90,
    "tests/fault/test_processes.py": 90,
    "tests/integration/rollouts/test_matrix.py": 80,
    "tests/integration/real_clients/test_clients.py": 70,
    "tests/integration/test_rollout_story.py": 70,
    "tests/integration/admin/test_contract.py": 50,
    "tests/integration/choosing/test_policies.py": 50,
    "tests/integration/rollouts/test_judge_worlds.py": 50,
    "tests/fault/test_failing_store.py": 50,
    "tests/fault/test_postgres.py": 50,
    "tests/fault/test_followers.py": 50,
    "tests/integration/admin/test_dashboard.py": 40,
    "tests/integration/rollouts/test_hooks.py": 40,
    "tests/fault/test_rollout_kills.py": 40,
    "tests/integration/test_demo.py": 60,
    "tests/integration/admin/test_tour.py": 40,
    "tests/unit/control/rollouts/test_killed.py": 30,
    "tests/unit/store/test_postgres.py": 30,
}
"""Roughly, beside others. Only the time a run takes depends on it."""
WAITING: Final = ("tests/fault/", "tests/integration/", "tests/stateful/")
WAITING_S: Final = 20
"""Of any other file there."""


def seconds(name: str) -> int:
    """Return how long a file is about to take; 0 for one that is over at once."""
    return LONG_S.get(name, WAITING_S if name.startswith(WAITING) else 0)


def deal(files: dict[str, list[Test]], hands: int) -> list[Test]:
    """Return all tests so that `hands` stretches of like length hold a like share of the long files."""
    total = sum(len(tests) for tests in files.values())
    sizes = [(total + hand) // hands for hand in range(hands)]  # as xdist cuts: the longer ones last
    dealt: list[list[Test]] = [[] for _ in sizes]
    spent = [0] * hands
    quick: list[Test] = []
    for name in sorted(files, key=seconds, reverse=True):
        tests = files[name]
        free = [hand for hand in range(hands) if len(dealt[hand]) + len(tests) <= sizes[hand]]
        if not seconds(name) or not free:
            quick += tests
            continue
        hand = min(free, key=spent.__getitem__)
        dealt[hand] += tests
        spent[hand] += seconds(name)
    for hand, size in zip(dealt, sizes, strict=True):
        missing = size - len(hand)
        hand += quick[:missing]
        del quick[:missing]
    return [test for hand in dealt for test in hand]


def in_order(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return the tests as `workers` workers of xdist are to get them."""
    files: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.nodeid.partition("::")[0]].append(item)
    return deal(files, workers)
