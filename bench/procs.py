"""Processes under measurement: start them, wait until they listen, read what they cost, end them."""

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

PORTS: Final = range(20_000, 30_000)
"""Below the range Linux takes source ports from, so that no outgoing connection of ours can hold one."""
START_S: Final = 30.0
FROM_HERE: Final = {"PYTHONPATH": os.environ.get("BENCH_PACKAGE") or str(Path(__file__).parent.parent)}
"""Environment for Python servers: this source tree, whatever folder they run in; or the one BENCH_PACKAGE
names, where `.ci/build.py package` has put the compiled package."""


_given: Final[set[int]] = set()
"""Whoever was given a port may not listen on it yet: it is given to nobody else."""


def free_port() -> int:
    """Return a TCP port nobody listens on, and that this process has not been given before.

    Raises OSError when forty picks were all taken.
    """
    for _ in range(40):
        port = random.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise OSError("no free port found")


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to the hard one, and return it. Children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def find_program(name: str) -> str | None:
    """Return the path of an installed program: of this Python's environment, or of the system.

    Debian keeps daemons where not everybody looks.
    """
    own = str(Path(sys.executable).parent)
    return shutil.which(name, path=f"{own}:{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class ServerProcess:
    """A server and all processes it forks, in a session of their own, its output in a log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        folder: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.log_begin = log.tell()
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def wait_listening(self, deadline_s: float = START_S) -> "ServerProcess":
        """Return self once the port accepts. Raises RuntimeError, with the log's end, if it never does."""
        self.wait_until(lambda: accepts(self.port), f"listening on {self.port}", deadline_s)
        return self

    def wait_until(self, holds: Callable[[], bool], what: str, deadline_s: float = START_S) -> None:
        """Return once `holds()`. Raises RuntimeError with the log's end if it ends before, or is too slow."""
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline and self.process.poll() is None:
            if holds():
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"{self.name} is not {what}:\n{self.log_tail()}")

    def has_said(self, text: str) -> bool:
        """Whether this process, not one before it with the same log, wrote `text`."""
        return text.encode() in self.log.read_bytes()[self.log_begin :]

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def pids(self) -> list[int]:
        """Return every process of this server: its session and all descendants."""
        return members(self.process.pid)

    def stop(self, grace_s: float = 5.0) -> None:
        """End it: TERM, and KILL after `grace_s`. Leaves no process of its session behind."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        for pid in self.pids():
            kill(pid, signal.SIGKILL)
        self.process.wait()


def accepts(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is already gone is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def members(session: int) -> list[int]:
    """Return the pids of a session and of every descendant of one of its processes."""
    rows = [row for row in map(stat_row, live_pids()) if row]
    found = {pid for pid, _, sid in rows if sid == session or pid == session}
    while True:
        more = {pid for pid, parent, _ in rows if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def live_pids() -> list[int]:
    """Return the pids of all processes now running."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def stat_row(pid: int) -> tuple[int, int, int] | None:
    """Return (pid, parent, session), or None for a process that is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, _, session = text.rpartition(")")[2].split()[:4]
    return None if state == "Z" else (pid, int(parent), int(session))


def cpu_ns(pids: Sequence[int]) -> int:
    """Return the nanoseconds on a CPU of all threads of these processes, in user and kernel mode."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total


def memory_bytes(pids: Sequence[int]) -> int:
    """Return the proportional set size of these processes: shared pages are counted once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total
