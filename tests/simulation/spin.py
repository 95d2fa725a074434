"""Spin: a model, and in how many ways what is claimed of it can be broken."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_spin = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None, reason="needs spin and gcc"
)
"""Without Spin or a C compiler a model cannot be checked; `.ci/run` installs both."""


def errors_of(model: str, folder: Path, claim: str, *defines: str) -> int:
    """Return how many ways Spin finds to break `claim`; empty: an assertion in the model."""
    build(model, folder, *defines, is_safety=not claim)
    return errors_in(folder, claim)


def build(model: str, folder: Path, *defines: str, is_safety: bool = False) -> None:
    """Make what checks a model: `pan`, in `folder`. is_safety: its assertions alone, no claim."""
    path = Path(__file__).with_name(model)
    made = ["spin", *(f"-D{each}" for each in defines), "-a", str(path)]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    kind = "-DSAFETY" if is_safety else "-DNFAIR=3"
    subprocess.run(["gcc", "-O1", "-w", kind, "-o", "pan", "pan.c"], cwd=folder, check=True)


def errors_in(folder: Path, claim: str) -> int:
    """Return how many ways the `pan` in `folder` finds to break `claim`; empty: an assertion in the model."""
    options = ["-a", "-f", "-N", claim] if claim else ["-E"]
    checked = ["./pan", "-m100000", *options]
    said = subprocess.run(checked, cwd=folder, check=True, capture_output=True, text=True).stdout
    assert "search depth too small" not in said
    assert "Search not completed" not in said or "errors: 1" in said
    return int(said.partition("errors: ")[2].split()[0])
