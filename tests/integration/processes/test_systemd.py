"""The gateway under a service manager that speaks as systemd does: sd_listen_fds(3), sd_notify(3)."""

import asyncio
import configparser
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.client import call
from bench.harness import World, gone, processes_naming
from bench.procs import FROM_HERE, ServerProcess, kill

CONFIG = Path(__file__).parents[3] / "config"
PATIENCE_S = 20.0
AS_FD_3 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does between fork and exec: the socket becomes descriptor 3, for this pid."""


class Manager:
    """Holds the gateway's port, and hears what it is notified of."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.bind(str(world.folder / "notify"))
        self.ear.settimeout(PATIENCE_S)
        world.port = self.port.getsockname()[1]
        world.write_config()

    def start(self, **environ: str) -> ServerProcess:
        """Start the service as its unit file has it."""
        fd = self.port.fileno()
        os.set_inheritable(fd, True)
        gateway = [sys.executable, "-m", "gateway", "serve", "--config", str(self.world.config)]
        environ |= {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(self.world.folder / "notify"), **FROM_HERE}
        server = ServerProcess(
            "gateway",
            [sys.executable, "-c", AS_FD_3, str(fd), *gateway],
            port=self.world.admin_port,
            folder=self.world.folder,
            env=environ,
            pass_fds=(fd,),
        )
        self.world.controls.append(server)
        return server

    async def notices(self) -> list[str]:
        """Return the lines of the next datagram."""
        return (await asyncio.to_thread(self.ear.recv, 4096)).decode().split("\n")

    async def hears(self, line: str) -> None:
        """Return once a datagram has this line."""
        while line not in await self.notices():
            continue

    def forget(self) -> None:
        """Read what has come so far."""
        self.ear.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.ear.recv(4096)
        self.ear.settimeout(PATIENCE_S)

    def close(self) -> None:
        self.port.close()
        self.ear.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    world = World(tmp_path, workers=2)
    world.first = [world.add_sample("v1.0")]
    manager = Manager(world)
    yield manager
    world.close()
    manager.close()


async def test_the_manager_is_told_of_every_turn(manager: Manager) -> None:
    first = manager.start()
    assert await manager.notices() == ["READY=1", f"MAINPID={first.process.pid}"]
    await manager.world.until(manager.world.serves, "the first answer")

    first.process.send_signal(signal.SIGHUP)
    reloading, since = await manager.notices()
    assert reloading == "RELOADING=1"
    assert int(since.removeprefix("MONOTONIC_USEC=")) > 0
    assert (await manager.notices())[0] == "READY=1"

    first.process.send_signal(signal.SIGUSR2)
    said = [await manager.notices(), await manager.notices()]
    successor = manager.world.runtime()["pid"]
    assert successor != first.process.pid
    assert sorted(said) == [[f"MAINPID={successor}"], ["READY=1", f"MAINPID={successor}"]]
    assert await asyncio.to_thread(first.process.wait, PATIENCE_S) == 0
    assert await manager.world.serves()

    os.kill(successor, signal.SIGTERM)
    assert await manager.notices() == ["STOPPING=1"]
    await manager.world.until(lambda: gone(successor), "the end")


async def test_a_successor_feeds_the_watchdog_on(manager: Manager) -> None:
    first = manager.start(WATCHDOG_USEC="200000")
    await manager.hears("WATCHDOG=1")
    first.process.send_signal(signal.SIGUSR2)
    assert await asyncio.to_thread(first.process.wait, PATIENCE_S) == 0
    manager.forget()
    await manager.hears("WATCHDOG=1")


async def test_connections_wait_in_the_managers_socket_from_a_stop_to_the_next_start(
    manager: Manager,
) -> None:
    first = manager.start()
    await manager.world.until(manager.world.serves, "the first answer")
    first.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.process.wait, PATIENCE_S) == 0
    await manager.world.until(lambda: not processes_naming(str(manager.world.config)), "the end of all")
    waiting = asyncio.ensure_future(call(manager.world.port, "GET", "/", timeout_s=PATIENCE_S))
    manager.start()
    assert (await waiting).status == 200


async def test_every_worker_accepts_on_the_managers_socket(manager: Manager) -> None:
    manager.start()
    await manager.world.until(manager.world.serves, "the first answer")
    for pid in await manager.world.worker_pids():
        others = [each for each in await manager.world.worker_pids() if each != pid]
        for each in others:
            kill(each, signal.SIGSTOP)
        try:
            assert await manager.world.serves()
        finally:
            for each in others:
                kill(each, signal.SIGCONT)


def test_the_unit_files_say_what_the_gateway_needs() -> None:
    service, unit = (configparser.RawConfigParser(strict=False) for _ in range(2))
    service.read(CONFIG / "gateway.service")
    unit.read(CONFIG / "gateway.socket")
    run = service["Service"]
    assert run["Type"] == "notify"
    assert run["NotifyAccess"] == "all", "a successor speaks for itself"
    assert run["KillMode"] == "process", "workers outlive a control that crashed"
    assert run["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert "ExecStop" not in run, "SIGTERM drains"
    assert int(run["TimeoutStopSec"]) > 30
    assert unit["Socket"]["ListenStream"] == "0.0.0.0:4200"
    assert unit["Install"]["WantedBy"] == "sockets.target"
