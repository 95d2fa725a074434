"""Proxies as an operator runs them: started, pointed elsewhere, reloaded, upgraded, each in its own way.

`point_at` returns when the proxy says, in whatever way it has, that servers it no longer names may stop. What
a proxy has no way for raises `Unsupported` with the reason. The configurations are in `bench/peers/`.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final, Protocol

from bench.harness import gone, processes_naming
from bench.procs import ServerProcess, find_program, free_port, kill, live_pids, stat_row

CONFIGS: Final = Path(__file__).parent / "peers"
PATIENCE_S: Final = 60.0
GRACE_S: Final = 2.0
"""Waited before old servers are stopped where a proxy has no word for it."""


class Unsupported(Exception):
    """The proxy has no way to do this."""


class Peer(Protocol):
    """A proxy under an operator's hands. Servers are ports on 127.0.0.1."""

    port: int

    def start(self, servers: Sequence[int]) -> None: ...
    def point_at(self, servers: Sequence[int]) -> None: ...
    def reload(self) -> None: ...
    def upgrade(self) -> None: ...
    def stop(self) -> None: ...


class Program:
    """What all of them need: a folder, a port, a configuration made from a template, one process."""

    def __init__(self, name: str, program: str, folder: Path) -> None:
        self.name = name
        self.program = program
        self.folder = folder
        self.port = free_port()
        self.admin = free_port()
        self.servers: Sequence[int] = ()
        self.process: ServerProcess | None = None

    def write(self, template: str, name: str, **values: object) -> Path:
        """Fill in a configuration. It is replaced whole: some programs watch the file."""
        text = Template((CONFIGS / template).read_text()).safe_substitute(
            port=self.port, admin=self.admin, folder=self.folder, **values
        )
        draft = self.folder / f".{name}.draft"
        draft.write_text(text)
        return draft.rename(self.folder / name)

    def launch(self, *command: str) -> ServerProcess:
        """Start the program, and return once it listens."""
        env = {
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
        }
        process = ServerProcess(self.name, command, port=self.port, folder=self.folder, env=env)
        return process.wait_listening()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    @property
    def main_pid(self) -> int:
        assert self.process is not None
        return self.process.process.pid


class Nginx(Program):
    """`nginx -s reload`; upgrade by USR2, WINCH, QUIT. Its word: the old workers are gone."""

    def start(self, servers: Sequence[int]) -> None:
        path = self._configure(servers)
        # It must be a daemon: nginx takes no USR2 while whoever started it still waits for it.
        command = f"{self.program} -p {self.folder} -c {path} -e stderr && exec sleep 3600"
        self.process = self.launch("sh", "-c", command)

    def _configure(self, servers: Sequence[int]) -> Path:
        self.servers = servers
        lines = (f"    server 127.0.0.1:{port} max_fails=3 fail_timeout=2s;" for port in servers)
        return self.write("nginx.conf", "nginx.conf", servers="\n".join(lines))

    def point_at(self, servers: Sequence[int]) -> None:
        self._configure(servers)
        self.reload()

    def reload(self) -> None:
        old = children(self._master())
        kill(self._master(), signal.SIGHUP)
        until(lambda: all(map(gone, old)), "the old workers to leave")

    def upgrade(self) -> None:
        old = self._master()
        kill(old, signal.SIGUSR2)
        until(lambda: self._master() != old and bool(children(self._master())), "the new master")
        kill(old, signal.SIGWINCH)
        until(lambda: children(old) == [self._master()], "the old workers to leave")
        kill(old, signal.SIGQUIT)
        until(lambda: gone(old), "the old master to leave")

    def stop(self) -> None:
        master = self._master()
        kill(master, signal.SIGTERM)
        until(lambda: gone(master), "nginx to leave")
        super().stop()

    def _master(self) -> int:
        """Return the pid of the newest master; the file is missing for a moment in an upgrade."""
        for name in ("nginx.pid", "nginx.pid.oldbin"):
            with contextlib.suppress(OSError, ValueError):
                return int((self.folder / name).read_text())
        return self.main_pid


class Haproxy(Program):
    """Master-worker mode: SIGUSR2 to the master starts a new worker on the same sockets.

    Its word: the old worker is gone.
    """

    def start(self, servers: Sequence[int]) -> None:
        path = self._configure(servers)
        self.process = self.launch(self.program, "-W", "-f", str(path))

    def _configure(self, servers: Sequence[int]) -> Path:
        self.servers = servers
        lines = (f"  server s{port} 127.0.0.1:{port}" for port in servers)
        return self.write("haproxy.cfg", "haproxy.cfg", servers="\n".join(lines))

    def point_at(self, servers: Sequence[int]) -> None:
        self._configure(servers)
        self.reload()

    def reload(self) -> None:
        old = children(self.main_pid)
        kill(self.main_pid, signal.SIGUSR2)
        until(lambda: all(map(gone, old)) and bool(children(self.main_pid)), "the old worker to leave")

    def upgrade(self) -> None:
        self.reload()  # the master executes itself anew: a reload is an upgrade


class Caddy(Program):
    """`caddy reload`, which returns when the new configuration is in force. No upgrade."""

    def start(self, servers: Sequence[int]) -> None:
        path = self._configure(servers)
        self.process = self.launch(self.program, "run", "--adapter", "caddyfile", "--config", str(path))

    def _configure(self, servers: Sequence[int]) -> Path:
        self.servers = servers
        return self.write("Caddyfile", "Caddyfile", servers=" ".join(f"127.0.0.1:{port}" for port in servers))

    def point_at(self, servers: Sequence[int]) -> None:
        self._configure(servers)
        self.reload()
        time.sleep(GRACE_S)

    def reload(self) -> None:
        run(
            self.folder, self.program, "reload", "--force", "--adapter", "caddyfile",
            "--config", str(self.folder / "Caddyfile"), "--address", f"127.0.0.1:{self.admin}",
        )  # fmt: skip

    def upgrade(self) -> None:
        raise Unsupported("cannot hand its sockets to another process")


class Traefik(Program):
    """The file provider sees its file change. No word when old servers are free; no reload, no upgrade."""

    def start(self, servers: Sequence[int]) -> None:
        self._configure(servers)
        path = self.write("traefik.yml", "traefik.yml")
        self.process = self.launch(self.program, f"--configFile={path}")

    def _configure(self, servers: Sequence[int]) -> None:
        self.servers = servers
        lines = (f'        - url: "http://127.0.0.1:{port}"' for port in servers)
        self.write("traefik-dynamic.yml", "dynamic.yml", servers="\n".join(lines))

    def point_at(self, servers: Sequence[int]) -> None:
        self._configure(servers)
        time.sleep(2 * GRACE_S)

    def reload(self) -> None:
        self._configure(self.servers)
        time.sleep(GRACE_S)

    def upgrade(self) -> None:
        raise Unsupported("cannot hand its sockets to another process")


class Envoy(Program):
    """Clusters by a watched file, hot restart by epochs. Its word: no request is active on the old hosts."""

    def start(self, servers: Sequence[int]) -> None:
        self.epoch = 0
        self.base_id = self.port
        self._configure(servers)
        self.process = self._next()

    def _configure(self, servers: Sequence[int]) -> None:
        self.servers = servers
        address = "{{socket_address: {{address: 127.0.0.1, port_value: {}}}}}"
        lines = (f"      - endpoint: {{address: {address.format(port)}}}" for port in servers)
        self.write("envoy-clusters.yml", "clusters.yml", servers="\n".join(lines))

    def _next(self) -> ServerProcess:
        path = self.write("envoy.yml", "envoy.yml")
        process = self.launch(
            self.program, "-c", str(path), "--concurrency", "2", "--base-id", str(self.base_id),
            "--restart-epoch", str(self.epoch), "--drain-time-s", "3", "--parent-shutdown-time-s", "5",
            "--log-level", "error",
        )  # fmt: skip
        self.epoch += 1
        return process

    def point_at(self, servers: Sequence[int]) -> None:
        old = [port for port in self.servers if port not in servers]
        self._configure(servers)
        until(lambda: not any(f":{port}::" in self._clusters() for port in old), "the old hosts to be let go")
        time.sleep(GRACE_S)

    def _clusters(self) -> str:
        return ask(self.admin, "GET", "/clusters")[1].decode()

    def reload(self) -> None:
        self._configure(self.servers)
        time.sleep(GRACE_S)

    def upgrade(self) -> None:
        old = self.process
        assert old is not None
        fresh = self._next()
        until(lambda: old.process.poll() is not None, "the old process to leave")
        self.process = fresh


class Gateway(Program):
    """This gateway: an immediate deployment, whose end says that the old version is drained."""

    def start(self, servers: Sequence[int]) -> None:
        self.servers = servers
        self.release = 1
        config = self.write(
            "gateway.toml", "gateway.toml", servers="", url=url(servers[0]), replicas=urls(servers[1:])
        )
        command = (sys.executable, "-m", "gateway", "serve", "--config", str(config))
        env = {"PYTHONPATH": str(Path(__file__).parent.parent)}
        self.process = ServerProcess("gateway", command, port=self.port, folder=self.folder, env=env)
        self.process.wait_listening()
        until(self._answers, "the first probe")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return ask(self.port, "GET", "/")[0] == 200
        return False

    def point_at(self, servers: Sequence[int]) -> None:
        self.release += 1
        body = {"serviceName": "app", "version": f"v{self.release}", "url": url(servers[0])}
        made = self._call("POST", "deployment/versions", body)
        until(
            lambda: self._call("GET", f"deployment/versions/{made['id']}")["healthStatus"] == "healthy",
            "health",
        )
        start = {
            "serviceName": "app", "toVersion": f"v{self.release}", "strategy": "immediate",
            "config": {"bakeTime": 2000, "minRequests": 1},
        }  # fmt: skip
        rollout = self._call("POST", "deployment/start", start)["id"]
        until(lambda: self._status(rollout) == "completed", "the deployment to complete")
        self.servers = servers

    def _status(self, rollout: str) -> str:
        return str(self._call("GET", f"deployment/{rollout}")["status"])

    def reload(self) -> None:
        kill(int(self._call("GET", "gateway")["pid"]), signal.SIGHUP)
        time.sleep(1)

    def upgrade(self) -> None:
        before = self._call("GET", "gateway")["pid"]
        self._call("POST", "gateway/upgrade")
        until(lambda: self._call("GET", "gateway")["pid"] != before, "the new control process")

    def _call(self, method: str, path: str, body: object = None) -> dict[str, str]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._ask(method, path, body)
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline or method != "GET":
                    raise
                time.sleep(0.1)

    def _ask(self, method: str, path: str, body: object) -> dict[str, str]:
        token = (self.folder / "admin.token").read_text().strip()
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        text = json.dumps(body) if body else None
        status, content = ask(self.admin, method, f"/api/v1/admin/{path}", text, fields)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {content.decode()}")
        found: dict[str, str] = json.loads(content) if content else {}
        return found

    def stop(self) -> None:
        config = str(self.folder / "gateway.toml")
        super().stop()
        for pid in processes_naming(config):
            kill(pid, signal.SIGKILL)


PEERS: Final[dict[str, Callable[[str, str, Path], Peer]]] = {
    "nginx": Nginx,
    "haproxy": Haproxy,
    "envoy": Envoy,
    "traefik": Traefik,
    "caddy": Caddy,
}
VERSIONS: Final = {
    "nginx": ("-v",),
    "haproxy": ("-v",),
    "envoy": ("--version",),
    "traefik": ("version",),
    "caddy": ("version",),
}


def program_of(name: str) -> str | None:
    """Return the path of an installed peer: beside our Python, or where the system keeps it."""
    own = Path(sys.executable).parent / name
    return str(own) if own.exists() else find_program(name)


def children(pid: int) -> list[int]:
    """Return the pids of a process's running children."""
    rows = [row for row in map(stat_row, live_pids()) if row]
    return [child for child, parent, _ in rows if parent == pid]


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def urls(ports: Sequence[int]) -> str:
    return ", ".join(f'"{url(port)}"' for port in ports)


def ask(
    port: int, method: str, path: str, body: str | None = None, fields: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Return status and content of one answer on this machine. Raises OSError or HTTPException."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, body, fields or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def until(holds: Callable[[], bool], what: str) -> None:
    """Return once `holds()`. Raises TimeoutError with what was waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.05)


def run(folder: Path, *command: str) -> None:
    """Run a command of a proxy. Raises RuntimeError with its output if it fails."""
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
