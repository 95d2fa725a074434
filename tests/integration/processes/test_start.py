"""What may go wrong, or be asked, while a gateway starts."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.harness import World, gone, processes_naming
from bench.procs import FROM_HERE, ServerProcess
from tests.conftest import Authority

PATIENCE_S = 60.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A gateway that is configured, and not started."""
    world = World(tmp_path, workers=1)
    world.first = [world.add_sample("v1.0")]
    world.write_config()
    yield world
    world.close()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env={**os.environ, **FROM_HERE},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def ended(server: ServerProcess) -> int:
    return server.process.wait(PATIENCE_S)


async def test_signals_for_a_gateway_that_serves_wait_until_it_does(world: World) -> None:
    control = world.launch()
    await world.until(lambda: (world.folder / "gateway.lock").exists(), "the start")
    control.process.send_signal(signal.SIGHUP)
    control.process.send_signal(signal.SIGUSR2)
    await world.until(lambda: control.has_said("reloaded"), "the reload")
    await world.until(
        lambda: world.runtime().get("pid", control.process.pid) != control.process.pid, "the upgrade"
    )
    assert ended(control) == 0
    assert await world.serves()


async def test_a_start_that_is_to_stop_ends_in_order(world: World) -> None:
    control = world.launch()
    await world.until(lambda: (world.folder / "gateway.lock").exists(), "the start")
    control.process.send_signal(signal.SIGTERM)
    assert ended(control) == 0
    await world.until(lambda: not processes_naming(str(world.config)), "every process to end")


async def test_a_start_that_finds_orphans_and_is_to_stop_ends_them(world: World) -> None:
    world.start_anywhere()
    (worker,) = await world.worker_pids()
    await world.kill_control()
    control = world.launch()
    await world.until(lambda: control.has_said("orphan_adopted"), "the orphan")
    control.process.send_signal(signal.SIGTERM)
    assert ended(control) == 0
    await world.until(lambda: gone(worker), "the orphan to end")


async def test_a_stop_during_an_upgrade_ends_both(world: World) -> None:
    world.start_anywhere()
    world.control.process.send_signal(signal.SIGUSR2)
    world.control.process.send_signal(signal.SIGTERM)
    assert ended(world.control) == 0
    await world.until(lambda: not processes_naming(str(world.config)), "every process to end")


@pytest.mark.parametrize("table", ["listen", "service"])
def test_a_certificate_that_cannot_be_read_is_a_wrong_key(world: World, table: str) -> None:
    missing = world.folder / "missing.pem"
    listen = f'tls = {{ certificate = "{missing}", key = "{missing}" }}'
    text = world.config.read_text()
    if table == "listen":
        text = text.replace("[admin]", f"{listen}\n[admin]", 1)
        path = "listen.tls"
    else:
        text = text.replace("health =", f'tls = {{ ca = "{missing}" }}\nhealth =', 1)
        path = "service[0].tls"
    world.config.write_text(text)
    for command in ("check", "serve"):
        done = run(command, "--config", str(world.config))
        assert done.returncode == 2, done.stderr
        assert f"gateway: {path}: cannot use {missing}" in done.stderr


async def test_certificates_in_force_outlive_their_files_until_a_reload(
    world: World, authority: Authority
) -> None:
    """Guards workers born after a file was spoilt: they crashed in a loop, and then nobody spoke TLS."""
    certificate, key = authority.issue("localhost")
    text = world.config.read_text()
    tls = f'[[listen]]\naddress = "127.0.0.1:0"\ntls = {{ certificate = "{certificate}", key = "{key}" }}\n'
    world.config.write_text(text.replace("[listen]", "[[listen]]", 1).replace("[admin]", f"{tls}[admin]", 1))
    world.start_gateway()
    port = int(world.runtime()["listen"][1].rpartition(":")[2])
    assert served_name(port, authority) == "localhost"
    Path(certificate).write_text("no certificate\n")
    world.control.process.send_signal(signal.SIGHUP)
    await world.until(lambda: world.control.has_said("reload_refused"), "the refusal")
    assert world.control.has_said(f"listen[1].tls: cannot use {certificate}")
    (worker,) = await world.worker_pids()
    os.kill(worker, signal.SIGKILL)
    await world.until(lambda: gone(worker), "the worker to end")
    await world.until(lambda: served_name(port, authority) == "localhost", "its successor to speak TLS")
    newer, newer_key = authority.issue("127.0.0.1", "localhost")
    Path(newer_key).replace(key)
    Path(newer).replace(certificate)
    assert served_name(port, authority) == "localhost"
    world.control.process.send_signal(signal.SIGHUP)
    await world.until(lambda: served_name(port, authority) == "127.0.0.1", "the new certificate")
    assert await world.serves()


def served_name(port: int, authority: Authority) -> str:
    """Return the first name of the certificate served there; empty: nobody speaks TLS."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            certificate: Any = tls.getpeercert()
            return str(certificate["subjectAltName"][0][1])
    except OSError:
        return ""
