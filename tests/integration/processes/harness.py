"""Real processes for tests: a small gateway, an upstream, and clients that count what goes wrong."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
MINI = Path(__file__).with_name("mini.py")
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of `condition`; fail after `deadline_s` seconds."""
    ended = time.monotonic() + deadline_s
    pause = threading.Event()
    while time.monotonic() < ended:
        value = condition()
        if value:
            return value
        pause.wait(0.02)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def free_port() -> int:
    """Return a port nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Upstream:
    """A sample service in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.demo.sample", "--port", "0", "--version", "v1"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{self.process.stdout.readline().rpartition(' ')[2].strip()}"

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Control:
    """One `mini.py` process."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.log = folder / "log"
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(MINI), "--folder", str(folder), *options],
                env={**environ, **(env or {})},
                stderr=log,
                stdout=log,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> int:
        """Return its exit code."""
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """Kill it, and only it, at once."""
        self.process.kill()
        self.process.wait(DEADLINE_S)


class Gateway:
    """The control processes of one folder, one after another, and their workers."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.upstream = upstream
        self.controls: list[Control] = []
        self.pids: set[int] = set()

    def start(self, *options: str, ready: int = 2, env: dict[str, str] | None = None) -> Control:
        """Start a control and wait until `ready` slots are."""
        control = self.launch(*options, env=env)
        self.wait(lambda s: s["pid"] == control.pid and len(s["ready"]) >= ready, "started")
        return control

    def launch(self, *options: str, env: dict[str, str] | None = None) -> Control:
        """Start a control, and wait for nothing."""
        listen = ["--listen", f"127.0.0.1:{self.port}", "--upstream", self.upstream]
        control = Control(self.folder, *listen, *options, env=env)
        self.controls.append(control)
        self.pids.add(control.pid)
        return control

    def ask(self, command: str = "status") -> dict[str, Any]:
        """Return what the control in charge says; empty if none answers."""
        try:
            address = (self.folder / "status").read_text()
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(DEADLINE_S)
                sock.connect(address)
                sock.sendall(command.encode() + b"\n")
                with sock.makefile("rb") as answer:
                    found: dict[str, Any] = json.loads(answer.read() or b"{}")
        except (OSError, ValueError):
            return {}
        if found:
            self.pids |= {
                found["pid"],
                found["template"],
                found["spare"] or found["pid"],
                *(worker["pid"] for worker in found["workers"]),
            }
        return found

    def wait(self, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """Return the first status for which `condition` holds."""

        def check() -> dict[str, Any] | None:
            status = self.ask()
            return status if status and condition(status) else None

        try:
            found: dict[str, Any] = wait_until(check, what)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.ask()}\n{self.logged()}") from None
        return found

    def workers(self) -> dict[int, int]:
        """Return slot -> pid of the workers that do not drain."""
        return {worker["slot"]: worker["pid"] for worker in self.ask()["workers"] if not worker["draining"]}

    def logged(self) -> str:
        """Return all that was logged."""
        return (self.folder / "log").read_text()

    def get(self, path: str = "/") -> int:
        """Return the status of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def close(self) -> None:
        """Kill whatever is left."""
        self.ask()
        for control in self.controls:
            control.process.kill()
            control.process.wait(DEADLINE_S)
        for pid in self.pids:
            if is_alive(pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


class Load:
    """Clients that ask all the time: half keep their connection, half make a new one for each request."""

    def __init__(self, port: int, clients: int = 6) -> None:
        self.port = port
        self.failures: list[str] = []
        self.answered = 0
        self.slowest_s = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number % 2 == 0,), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End it and wait for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def until(self, more: int) -> None:
        """Wait until `more` further requests were answered."""
        goal = self.answered + more
        wait_until(lambda: self.answered >= goal, f"{more} answers, failures: {self.failures[:3]}")

    def _run(self, keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        while not self._stop.is_set():
            began = time.monotonic()
            failure = self._ask(connection, keep)
            with self._lock:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if failure:
                    self.failures.append(failure)
                else:
                    self.answered += 1
            self._stop.wait(0.002)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, keep: bool) -> str:
        """Return what went wrong, beginning with `kept` on a connection that had been used before."""
        age = "new" if connection.sock is None else "kept"
        try:
            connection.request("GET", "/", headers={} if keep else {"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            return f"{age} {exc!r}"
        return "" if response.status == 200 else f"{age} {response.status} {body[:200]!r}"
