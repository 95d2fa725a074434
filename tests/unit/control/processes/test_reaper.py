"""Zombies whose parents have gone are waited for, our own children never."""

import os
import subprocess
import sys
from pathlib import Path

from gateway.control.processes.reaper import zombies_of

ROOT = Path(__file__).parents[4]


def dead_child() -> int:
    """Return the pid of a child that has ended and was not waited for."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_dead_child_of_nobody_is_found_and_reaped() -> None:
    # In a process of its own: the test runner's other children are none of our business.
    script = (
        "import os\n"
        "from gateway.control.processes.reaper import reap, zombies_of\n"
        "from tests.unit.control.processes.test_reaper import dead_child\n"
        "child = dead_child()\n"
        "assert zombies_of(os.getpid()) == [child]\n"
        "reap([child, child])\n"
        "assert zombies_of(os.getpid()) == []\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_a_running_child_is_no_zombie() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid not in zombies_of(os.getpid())
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
