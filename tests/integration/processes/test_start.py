"""What may go wrong, or be asked, while a gateway starts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


async def test_a_reload_whose_certificate_cannot_be_read_changes_nothing(
    world: World, authority: Authority
) -> None:
    certificate, key = authority.issue("localhost")
    text = world.config.read_text()
    tls = f'[[listen]]\naddress = "127.0.0.1:0"\ntls = {{ certificate = "{certificate}", key = "{key}" }}\n'
    world.config.write_text(text.replace("[listen]", "[[listen]]", 1).replace("[admin]", f"{tls}[admin]", 1))
    world.start_gateway()
    Path(certificate).write_text("no certificate\n")
    world.control.process.send_signal(signal.SIGHUP)
    await world.until(lambda: world.control.has_said("reload_refused"), "the refusal")
    assert world.control.has_said(f"listen[1].tls: cannot use {certificate}")
    assert await world.serves()
