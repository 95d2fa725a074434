"""Completion in zsh and fish, which are driven as a person would: bash is tried in `test_scripts.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.admin import shells
from tests.integration.admin.gateway_process import ROOT

LINES = {
    "gateway dep": "deploy",
    "gateway get --al": "--all",
    "gateway deploy --strat": "--strategy",
    "gateway deploy x v1 --strategy can": "canary",
}
"""What is begun, and the word it is completed with. Several: in zsh the second one of each shell was not."""


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_what_is_begun_is_completed_as_often_as_tab_is_pressed(tmp_path: Path, name: str) -> None:
    if shells.missing(name):
        pytest.skip(f"{name} is not installed")
    known = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = subprocess.run(
        ["gateway", "completion", name], env=known, cwd=ROOT, capture_output=True, text=True, check=True
    )
    complete = shells.zsh if name == "zsh" else shells.fish
    found = complete(tuple(LINES), printed.stdout, tmp_path, known)
    assert [word in words for word, words in zip(LINES.values(), found, strict=True)] == [True] * 4, found
