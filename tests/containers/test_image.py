"""The image as it is shipped: built from the Dockerfile, run with nothing writable but its volume.

`.ci/containers` builds it and names it in GATEWAY_TEST_IMAGE; without an image there is nothing to try here.
"""

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from bench.hitless_peers import ask, until
from bench.procs import free_port

ROOT: Final = Path(__file__).parents[2]

IMAGE: Final = os.environ.get("GATEWAY_TEST_IMAGE", "")
ENGINE: Final = os.environ.get("GATEWAY_TEST_ENGINE", "podman --storage-driver=vfs --runtime runc").split()
FLAGS: Final = ("--network", "host", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
PATIENCE_S: Final = 60.0

pytestmark = [
    pytest.mark.skipif(not IMAGE, reason="no image was built: GATEWAY_TEST_IMAGE is not set"),
    pytest.mark.timeout(300),
]


def engine(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Call the engine; its answer as text."""
    result = subprocess.run((*ENGINE, *arguments), capture_output=True, text=True, timeout=120, check=False)
    assert not check or result.returncode == 0, f"{arguments}: {result.stderr}"
    return result


class Container:
    """A running gateway in a container of its own."""

    def __init__(self, name: str, port: int, admin_port: int) -> None:
        self.name = name
        self.port = port
        self.admin_port = admin_port

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return engine("exec", self.name, *command, check=check)

    def get(self, path: str, *, port: int | None = None) -> tuple[int, bytes]:
        """Return status and content of an answer."""
        return ask(port or self.port, "GET", path)

    def until_ready(self) -> None:
        """Return once /readyz says 200."""
        try:
            until(self.is_ready, "the gateway to be ready")
        except TimeoutError as exc:
            raise AssertionError(engine("logs", self.name, check=False).stderr) from exc

    def is_ready(self) -> bool:
        with suppress(OSError):
            return self.get("/readyz", port=self.admin_port)[0] == 200
        return False

    def state(self) -> dict[str, Any]:
        """Return what the engine knows of it."""
        found: dict[str, Any] = json.loads(engine("inspect", self.name).stdout)[0]
        return found


@contextmanager
def running() -> Iterator[Container]:
    """Run the image read-only; what it leaves is removed."""
    # It shares the network, so each needs ports of its own.
    container = Container(f"gateway-test-{uuid.uuid4().hex[:8]}", free_port(), free_port())
    try:
        engine(
            "run", "--detach", "--name", container.name, *FLAGS,
            "--read-only", "--read-only-tmpfs=false", "--volume", f"{container.name}:/var/lib/gateway",
            "--env", f"GATEWAY__LISTEN__ADDRESS=127.0.0.1:{container.port}",
            "--env", f"GATEWAY__ADMIN__ADDRESS=127.0.0.1:{container.admin_port}",
            IMAGE,
        )  # fmt: skip
        container.until_ready()
        yield container
    finally:
        engine("rm", "--force", "--time", "0", container.name, check=False)
        engine("volume", "rm", "--force", container.name, check=False)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """One for all that leave it as it was: the engine takes some 20 s to lay one out."""
    with running() as made:
        yield made


@contextmanager
def sample(version: str) -> Iterator[str]:
    """Run the sample service on this machine; gives its url."""
    command = (sys.executable, "-m", "gateway.demo.sample", "--port", "0", "--version", version)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline().split()[-1])}"
        finally:
            process.terminate()


def test_image_runs_as_nobody_special_and_says_how_it_is_stopped_and_checked() -> None:
    found = json.loads(engine("inspect", IMAGE).stdout)[0]
    config = found["Config"]
    assert config["User"] == "gateway"
    assert config["StopSignal"] in ("SIGTERM", "15")
    check = config.get("Healthcheck") or found["Healthcheck"]
    assert check["Test"] == ["CMD", "gateway", "healthcheck"]
    assert config["Entrypoint"] == ["gateway"]


def test_image_holds_nothing_of_the_machine_it_was_built_on() -> None:
    looked = engine(
        "run", "--rm", *FLAGS, "--entrypoint", "sh", IMAGE,
        "-c", "cat /etc/pip.conf /etc/xdg/pip/* /root/.config/pip/* 2>/dev/null; env | grep -i ^pip || true",
    )  # fmt: skip
    assert looked.stdout == ""


def test_read_only_container_deploys_and_proxies(container: Container) -> None:
    with sample("v1.0") as url:
        assert container.run("gateway", "healthcheck").returncode == 0
        deployed = container.run("gateway", "deploy", "auth", "v1.0", "--url", url, "--route", "/api")
        assert deployed.returncode == 0
        until(lambda: container.get("/api/login")[0] == 200, "an answer")
        status, content = container.get("/api/login")
        assert (status, json.loads(content)["version"]) == (200, "v1.0")
        assert "v1.0" in container.run("gateway", "get").stdout


def test_stop_drains_and_ends_well() -> None:
    with running() as container, sample("v1.0") as url:
        container.run("gateway", "deploy", "auth", "v1.0", "--url", url, "--route", "/api")
        until(lambda: container.get("/api/ready")[0] == 200, "an answer")
        answers: list[tuple[int, bytes]] = []
        client = threading.Thread(target=lambda: answers.append(container.get("/api/slow?delay_ms=3000")))
        client.start()
        until(lambda: in_flight(container) > 0, "a request to be on its way")
        engine("stop", "--time", "40", container.name)
        client.join(PATIENCE_S)
        assert [status for status, _ in answers] == [200], "what was running is finished first"
        assert container.state()["State"]["ExitCode"] == 0


def in_flight(container: Container) -> float:
    """Return how many requests run now, by /metrics."""
    text = container.get("/metrics", port=container.admin_port)[1].decode()
    lines = [line for line in text.splitlines() if line.startswith("gateway_requests_in_flight{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_upgrade_of_the_containers_first_process_is_refused_with_a_reason(container: Container) -> None:
    refused = container.run("gateway", "upgrade", check=False)
    assert refused.returncode == 1
    assert "start a new container" in refused.stderr
    container.until_ready()


def test_first_process_reaps_orphans(container: Container) -> None:
    container.run("sh", "-c", "for i in 1 2 3; do (sleep 0.2 &) ; done")
    # A zombie keeps its place among the processes for ever.
    until(lambda: states(container) == [], "no process to be left")


def states(container: Container) -> list[str]:
    """Return the lines of `sleep` processes that are still there, alive or not."""
    read = 'read -r _ name state _ < $d/stat 2>/dev/null && echo "$name $state"'
    listed = container.run("sh", "-c", f"for d in /proc/[0-9]*; do {read}; done; true").stdout
    return [line for line in listed.splitlines() if line.startswith("(sleep)")]
