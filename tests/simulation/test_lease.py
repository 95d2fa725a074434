"""The lease of a database and its fence, checked by Spin in every order of steps, freezes and time-outs."""

from pathlib import Path

import pytest

from tests.simulation.spin import errors_of, needs_spin

pytestmark = needs_spin


def test_one_gateway_writes_in_an_epoch_and_who_was_overtaken_writes_nothing(tmp_path: Path) -> None:
    assert errors_of("lease.pml", tmp_path, "") == 0


@pytest.mark.parametrize("bug", ["BUG_EPOCH", "BUG_LOCK", "BUG_RAISE", "BUG_LEASE", "BUG_DOUBT"])
def test_each_safeguard_left_out_is_found(tmp_path: Path, bug: str) -> None:
    assert errors_of("lease.pml", tmp_path, "", bug) > 0


def test_the_lease_does_change_hands(tmp_path: Path) -> None:
    """Else all that is claimed would hold of gateways that never write."""
    assert errors_of("lease.pml", tmp_path, "", "WITNESS") > 0
