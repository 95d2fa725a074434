"""The README's tour does what it says: its lines as they stand, in order, in one shell, from nothing."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]
PORTS: Final = ("4200", "4201", "7200", "7201", "7202")

pytestmark = pytest.mark.timeout(240)


def tour() -> str:
    """Return the shell blocks of the section whose heading contains `tour`."""
    readme = (ROOT / "README.md").read_text("utf-8")
    [section] = re.findall(r"^## [^\n]*tour[^\n]*\n(.*?)(?=^## )", readme, re.MULTILINE | re.DOTALL)
    return "".join(re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def free_ports(count: int) -> list[str]:
    """Return ports that were free just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is done with curl")
def test_the_tour_is_finished_as_written(tmp_path: Path) -> None:
    assert "--json" not in tour(), "curl before 7.82 does not know it"
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    script = re.sub("|".join(PORTS), lambda found: ports[found[0]], tour())
    own = {
        "GATEWAY__LISTEN__ADDRESS": f"127.0.0.1:{ports['4200']}",
        "GATEWAY__ADMIN__ADDRESS": f"127.0.0.1:{ports['4201']}",
        "GATEWAY__WORKERS": "2",
    }
    shell = ["bash", "-e", "-c", script]
    done = subprocess.run(
        shell, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done
    assert done.stdout.count('{"version": "v1.0"') == 2, "at the start, and after the undo"
    assert "rolled_back v1.0 → v1.1" in done.stdout
    assert "not released: exit code 1" in done.stdout
    assert "completed v1.0 → v1.2" in done.stdout
    assert "without a whole answer: 0" in done.stdout
    statuses = dict(re.findall(r"status (\d+): (\d+)", done.stdout))
    assert set(statuses) <= {"200", "500"}, "only v1.1 makes errors"
