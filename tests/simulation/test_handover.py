"""The handover of a socket, checked by Spin in every order of steps and deaths."""

from functools import partial
from pathlib import Path

import pytest

from tests.simulation.spin import build, errors_in, errors_of, needs_spin

ONE_DEATH = (
    *("never_reset", "one_in_charge", "writes_are_current"),
    *("served_again", "handover_ends", "led_again"),
)
pytestmark = needs_spin
handover = partial(errors_of, "handover.pml")


def test_the_handover_survives_any_one_death(tmp_path: Path) -> None:
    build("handover.pml", tmp_path, "KILLS=1")
    assert {claim: errors_in(tmp_path, claim) for claim in ONE_DEATH} == dict.fromkeys(ONE_DEATH, 0)


def test_who_is_in_charge_keeps_the_socket_whoever_else_dies(tmp_path: Path) -> None:
    assert handover(tmp_path, "kept_by_control", "KILLS=3") == 0


@pytest.mark.parametrize(
    ("bug", "claim", "kills"),
    [
        ("BUG_CLOSE", "kept_by_control", 2),
        ("BUG_QUIESCE", "one_in_charge", 0),
        ("BUG_EPOCH", "writes_are_current", 1),
        ("BUG_BACK", "led_again", 1),
        ("BUG_TAKEN", "handover_ends", 0),
    ],
)
def test_each_safeguard_left_out_is_found(tmp_path: Path, bug: str, claim: str, kills: int) -> None:
    assert handover(tmp_path, claim, bug, f"KILLS={kills}") > 0
