"""Every test is run, once, and what takes long is shared out."""

import pytest

from tests.dealing import deal, seconds

FILES = {
    "tests/fault/test_a.py": 7,
    "tests/integration/test_b.py": 9,
    "tests/integration/test_c.py": 2,
    "tests/stateful/test_d.py": 1,
    "tests/unit/test_e.py": 40,
    "tests/unit/test_f.py": 3,
}


@pytest.mark.parametrize("hands", [1, 2, 3, 4, 7, 62, 100])
def test_every_test_is_dealt_once(hands: int) -> None:
    files = {name: [f"{name}::{number}" for number in range(count)] for name, count in FILES.items()}
    dealt = deal(files, hands)
    assert sorted(dealt) == sorted(test for tests in files.values() for test in tests)


def test_each_hand_begins_with_a_long_file_and_has_it_whole() -> None:
    files = {name: [name] * count for name, count in FILES.items()}
    dealt = deal(files, 3)
    stretches = [dealt[:20], dealt[20:41], dealt[41:]]
    assert all(seconds(stretch[0]) for stretch in stretches)
    for name in FILES:
        if seconds(name):
            assert sum(name in stretch for stretch in stretches) == 1
