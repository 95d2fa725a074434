"""The handover of a socket, checked by Spin in every order of steps and deaths.

Without Spin or a C compiler it cannot be checked; `.ci/run` installs both.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("handover.pml")
ONE_DEATH = ("never_reset", "one_in_charge", "writes_are_current", "served_again")
pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None, reason="needs spin and gcc"
)


def errors_of(folder: Path, claim: str, *defines: str) -> int:
    """Return how many ways Spin finds to break `claim`."""
    made = ["spin", *(f"-D{each}" for each in defines), "-a", str(MODEL)]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    compiled = ["gcc", "-O1", "-w", "-DNFAIR=3", "-o", "pan", "pan.c"]
    subprocess.run(compiled, cwd=folder, check=True, capture_output=True)
    checked = ["./pan", "-a", "-f", "-m100000", "-N", claim]
    said = subprocess.run(checked, cwd=folder, check=True, capture_output=True, text=True).stdout
    assert "search depth too small" not in said
    return int(said.partition("errors: ")[2].split()[0])


@pytest.mark.parametrize("claim", ONE_DEATH)
def test_the_handover_survives_any_one_death(tmp_path: Path, claim: str) -> None:
    assert errors_of(tmp_path, claim, "KILLS=1") == 0


def test_who_is_in_charge_keeps_the_socket_whoever_else_dies(tmp_path: Path) -> None:
    assert errors_of(tmp_path, "kept_by_control", "KILLS=3") == 0


@pytest.mark.parametrize(
    ("bug", "claim", "kills"),
    [
        ("BUG_CLOSE", "kept_by_control", 2),
        ("BUG_QUIESCE", "one_in_charge", 0),
        ("BUG_EPOCH", "writes_are_current", 1),
    ],
)
def test_each_safeguard_left_out_is_found(tmp_path: Path, bug: str, claim: str, kills: int) -> None:
    assert errors_of(tmp_path, claim, bug, f"KILLS={kills}") > 0
