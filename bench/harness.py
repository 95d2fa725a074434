"""The real gateway and real sample services, for fault rows and tests: start, ask, hurt, start again.

Everything lives in one folder and is gone at the end: `async with World(folder) as world`.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from bench.client import Answer, Lost, call
from bench.procs import FROM_HERE, ServerProcess, free_port, kill

ADMIN: Final = "/api/v1/admin"
CONFIG: Final = """
workers = {workers}
[listen]
address = "127.0.0.1:{port}"
[admin]
address = "127.0.0.1:{admin}"
[store]
url = "{store}"
[timeouts]
connect = 15000    # of a busy machine, too
[shutdown]
drain = {drain_ms}
orphan_timeout = {orphan_timeout_ms}
[rate_limit]
starts_per_minute = 100000
changes_per_minute = 100000
failed_logins_per_15_minutes = 100000
{extra}
[[service]]
name = "auth"
routes = [{{ path = "/" }}]
health = {{ interval = 1000, timeout = 900, retries = 0 }}
{policies}
[[service.version]]
version = "v1.0"
url = "{url}"
replicas = [{replicas}]
weight = 100
"""
PORT_TRIES: Final = 5
SETTLED: Final = ("completed", "rolled_back", "failed")


class Sample(ServerProcess):
    """One process of the sample service. Its address stays the same when it is started again."""

    def __init__(self, version: str, folder: Path, *flags: str, port: int) -> None:
        self.version = version
        self.flags = flags
        options = ["--port", str(port), "--version", version, *flags]
        command = [sys.executable, "-m", "gateway.demo.sample", *options]
        super().__init__(f"sample-{version}-{port}", command, port=port, folder=folder, env=FROM_HERE)
        self.wait_until(lambda: self.has_said(f"listening on {port}\n"), "listening")

    @classmethod
    def start(cls, version: str, folder: Path, *flags: str) -> "Sample":
        """Start one at a free port. Another process may take that first: then at another one."""
        for _ in range(PORT_TRIES):
            with contextlib.suppress(RuntimeError):
                return cls(version, folder, *flags, port=free_port())
        raise RuntimeError(f"sample {version} found no free port")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it as a crash would, between two instructions."""
        self.process.kill()
        self.process.wait()

    def again(self) -> "Sample":
        """Return a new process of the same version at the same address."""
        return Sample(self.version, self.folder, *self.flags, port=self.port)


class World:
    """A gateway, its service `auth` with version v1.0, and whatever versions are added."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        replicas: int = 0,
        policies: str = "",
        extra: str = "",
        drain_ms: int = 30_000,
        orphan_timeout_ms: int = 3_600_000,
        database: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """policies, extra: TOML inside the service's table, and of further tables. database: the store's url
        in PostgreSQL; None: a file in the folder. env: more of the gateway's environment.
        """
        self.folder = folder
        self.port = free_port()
        self.admin_port = free_port()
        self.workers_wanted = workers
        self.replicas = replicas
        self.policies = policies
        self.extra = extra
        self.drain_ms = drain_ms
        self.orphan_timeout_ms = orphan_timeout_ms
        self.samples: list[Sample] = []
        self.first: list[Sample] = []
        self.controls: list[ServerProcess] = []
        self.config = folder / "gateway.toml"
        self.database = database
        self.env = {**FROM_HERE, **(env or {})}
        self.var = folder if database is None else folder / "var"
        """Where the gateway keeps what belongs to this machine."""

    async def __aenter__(self) -> Self:
        self.first = [self.add_sample("v1.0") for _ in range(1 + self.replicas)]
        self.write_config()
        try:
            self.start_anywhere()
            await self.until(self.serves, "the gateway to answer")
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # the gateway

    def write_config(self, *, extra: str | None = None) -> None:
        """Write gateway.toml; extra replaces the further tables."""
        self.extra = self.extra if extra is None else extra
        self.config.write_text(
            CONFIG.format(
                workers=self.workers_wanted,
                port=self.port,
                admin=self.admin_port,
                store=self.database or f"sqlite:///{self.folder}/gateway.db",
                drain_ms=self.drain_ms,
                orphan_timeout_ms=self.orphan_timeout_ms,
                extra=self.extra,
                policies=self.policies,
                url=self.first[0].url,
                replicas=", ".join(f'"{sample.url}"' for sample in self.first[1:]),
            )
        )

    def start_gateway(self) -> ServerProcess:
        """Start `gateway serve`; returns once it says that it serves. Raises RuntimeError if it ends."""
        server = self.launch()
        server.wait_until(lambda: self.runtime().get("pid") == server.process.pid, "serving")
        return server

    def launch(self) -> ServerProcess:
        """Start `gateway serve`, and wait for nothing."""
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(self.config)]
        server = ServerProcess("gateway", command, port=self.admin_port, folder=self.folder, env=self.env)
        self.controls.append(server)
        return server

    def start_anywhere(self) -> None:
        """Start the first gateway of this world, at other ports if somebody takes its own meanwhile."""
        for _ in range(PORT_TRIES):
            try:
                self.start_gateway()
            except RuntimeError:
                if not self.control.has_said("in use"):
                    raise
                self.port, self.admin_port = free_port(), free_port()
                self.write_config()
            else:
                return
        raise RuntimeError("no free port for the gateway")

    def runtime(self) -> dict[str, Any]:
        """Return what the running gateway says of itself beside its store; empty if none does."""
        try:
            runtime: dict[str, Any] = json.loads((self.var / "gateway.json").read_text())
        except (OSError, ValueError):
            return {}
        return runtime

    @property
    def control(self) -> ServerProcess:
        """The process this world started last; after an upgrade the one in charge is `info()['pid']`."""
        return self.controls[-1]

    async def serves(self) -> bool:
        """Whether a request through the gateway is answered 200."""
        with contextlib.suppress(Lost):
            return (await call(self.port, "GET", "/", timeout_s=5)).status == 200
        return False

    # its admin API

    @property
    def token(self) -> str:
        return (self.var / "admin.token").read_text().strip()

    async def api(
        self, method: str, path: str, body: object | None = None, *, expect: int | None = None
    ) -> Any:
        """Call the admin API below its base and return the JSON. Raises RuntimeError for a refusal."""
        answer = await self.ask(method, path, body)
        if answer.status != expect if expect else answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body.decode()[:500]}")
        return answer.json() if answer.body else None

    async def ask(self, method: str, path: str, body: object | None = None) -> Answer:
        """Call the admin API and return whatever it answers. Raises Lost when there is no answer."""
        return await call(self.admin_port, method, f"{ADMIN}/{path}", token=self.token, body=body)

    async def info(self) -> Any:
        """Return `GET gateway`: pid, epoch, release, workers."""
        return await self.api("GET", "gateway")

    async def workers_follow(self) -> bool:
        """Return whether every worker goes by the newest table."""
        info = await self.info()
        return {row["applied"] for row in info["workers"]} == {info["table"]}

    async def add_version(self, version: str, *flags: str) -> tuple[Sample, str]:
        """Start a sample of a new version, register it, wait until it is healthy. Returns it, its id."""
        sample = self.add_sample(version, *flags)
        body = {
            "serviceName": "auth",
            "version": version,
            "url": sample.url,
            "shutdownUrl": f"{sample.url}/shutdown",
        }
        made = await self.api("POST", "deployment/versions", body, expect=201)
        await self.until(lambda: self.is_healthy(made["id"]), f"{version} to be healthy")
        return sample, made["id"]

    async def is_healthy(self, version_id: str) -> bool:
        return bool((await self.version(version_id))["healthStatus"] == "healthy")

    async def is_active(self, version_id: str) -> bool:
        """Return whether a version may get requests, and every worker knows."""
        return bool((await self.version(version_id))["isActive"]) and await self.workers_follow()

    async def version(self, version_id: str) -> Any:
        return await self.api("GET", f"deployment/versions/{version_id}")

    async def version_id(self, version: str) -> str:
        """Return the id of a version of `auth`. Raises RuntimeError when there is none of that name."""
        rows = (await self.api("GET", "deployment/versions?serviceName=auth"))["items"]
        found = next((row["id"] for row in rows if row["version"] == version), None)
        if found is None:
            raise RuntimeError(f"no version {version} among {[row['version'] for row in rows]}")
        return str(found)

    async def start(self, to_version: str, strategy: str = "canary", **config: object) -> str:
        """Start a deployment of `auth`; returns its id."""
        body = {"serviceName": "auth", "toVersion": to_version, "strategy": strategy, "config": config}
        return str((await self.api("POST", "deployment/start", body, expect=201))["id"])

    async def start_rolling(self, to_version: str, **config: object) -> str:
        """Start a canary and wait until its gate has passed; returns its id."""
        rollout = await self.start(to_version, "canary", **config)
        await self.until(lambda: self.has_status(rollout, "rolling"), "the canary to roll")
        return rollout

    async def deployment(self, deployment_id: str) -> Any:
        return await self.api("GET", f"deployment/{deployment_id}")

    async def has_status(self, deployment_id: str, status: str) -> bool:
        return bool((await self.deployment(deployment_id))["status"] == status)

    async def settled(self, deployment_id: str, deadline_s: float = 120) -> str:
        """Wait until a deployment is over; returns its status."""
        status = ""

        async def over() -> bool:
            nonlocal status
            status = (await self.deployment(deployment_id))["status"]
            return status in SETTLED

        await self.until(over, f"deployment {deployment_id} to end", deadline_s)
        return status

    # faults

    def add_sample(self, version: str, *flags: str) -> Sample:
        sample = Sample.start(version, self.folder, *flags)
        self.samples.append(sample)
        return sample

    def restart_sample(self, sample: Sample) -> Sample:
        """Start a killed sample again at its address."""
        fresh = sample.again()
        self.samples[self.samples.index(sample)] = fresh
        return fresh

    async def kill_control(self) -> int:
        """`kill -9` the control process in charge; returns its pid. The workers live on."""
        pid = int((await self.info())["pid"])
        kill(pid, signal.SIGKILL)
        await self.until(lambda: gone(pid), f"control {pid} to be gone")
        return pid

    async def reload(self) -> None:
        """SIGHUP to control."""
        kill(int((await self.info())["pid"]), signal.SIGHUP)

    async def worker_pids(self) -> list[int]:
        """Return the pids of the workers, by slot."""
        rows = sorted((await self.info())["workers"], key=lambda row: int(row["slot"]))
        return [int(row["pid"]) for row in rows]

    def templates(self) -> list[int]:
        """Return the pids of the processes that fork workers, oldest first: the one in use, then its twin."""
        found = []
        for pid in self.control.pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() in ("gateway-fork\n", "gateway-spare\n"):
                    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    found.append((int(stat[19]), pid))
        return [pid for _, pid in sorted(found)]

    async def all_workers_serve(self, without: frozenset[int] = frozenset()) -> bool:
        """Whether every slot has a live worker with a table, none of them one of `without`."""
        with contextlib.suppress(Lost, RuntimeError):
            rows = (await self.info())["workers"]
            fresh = [row for row in rows if row["pid"] not in without and row["applied"]]
            return len({row["slot"] for row in fresh}) == self.workers_wanted and len(fresh) == len(rows)
        return False

    async def until(
        self, holds: Callable[[], bool | Awaitable[bool]], what: str, deadline_s: float = 30
    ) -> None:
        """Return once `holds()`. Raises TimeoutError with what was waited for and the log's end."""
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.05)
        tail = self.controls[-1].log_tail() if self.controls else ""
        raise TimeoutError(f"waited {deadline_s} s for {what}\n{tail}")

    def close(self) -> None:
        """End every process this world started, orphaned workers and upgraded controls included."""
        for control in self.controls:
            control.stop()
        for pid in processes_naming(str(self.config)):
            kill(pid, signal.SIGKILL)
        for sample in self.samples:
            sample.stop()


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def processes_naming(text: str) -> list[int]:
    """Return the pids of other processes whose command line holds `text`."""
    return [pid for pid, line in command_lines() if text in line and pid != os.getpid()]


def command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            yield (
                int(entry.name),
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"),
            )


def held_connections(pid: int, port: int) -> int:
    """Return how many established TCP connections on local `port` a process has open."""
    sockets = sockets_of(pid)
    return sum(1 for row in tcp_rows(port) if row[3] == "01" and row[9] in sockets)


def owner_of(port: int, client_port: int, pids: Iterable[int]) -> int:
    """Return which of `pids` holds the connection from `client_port` to local `port`. Raises LookupError."""
    ours = {row[9] for row in tcp_rows(port) if row[2].endswith(f":{client_port:04X}")}
    for pid in pids:
        if ours & sockets_of(pid):
            return pid
    raise LookupError(f"nobody holds the connection from port {client_port}")


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process' sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if link := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry)):  # noqa: PTH115  (not a path)
                found.add(link[1])
    return found


def tcp_rows(port: int) -> list[list[str]]:
    """Return the fields of the kernel's IPv4 connections on local `port`."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row for row in rows if row[1].endswith(f":{port:04X}")]
