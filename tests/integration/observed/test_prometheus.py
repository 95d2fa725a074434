"""What a real Prometheus makes of a running gateway: every panel has something to show, every rule holds."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.client import Lost, call
from bench.harness import World
from bench.load import KEPT, Load, LoadReport, LoadSettings
from bench.procs import FROM_HERE, ServerProcess, free_port
from gateway.control.rollouts.counted import ACTIONS, REASONS

ROOT: Final = Path(__file__).parents[3]
CONFIG: Final = ROOT / "config"
BOARDS: Final = sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
PATIENCE_S: Final = 60.0
SCRAPE: Final = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: gateway
    static_configs: [{{ targets: ["127.0.0.1:{admin}"] }}]
"""
TRACED: Final = "[trace]\nsample = 50\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("observed"), extra=TRACED)
    asyncio.run(world.__aenter__())
    try:
        yield world
    finally:
        world.close()


async def loaded(world: World, requests: int, rate: float = 200.0) -> LoadReport:
    return await Load(LoadSettings(port=world.port, rate=rate, connections=8, cycle=(KEPT,))).run(requests)


async def scraped(world: World) -> str:
    answer = await call(world.admin_port, "GET", "/metrics")
    assert answer.status == 200
    return answer.body.decode()


async def total(world: World, name: str, **labels: str) -> float:
    """Return the sum of a counter's series that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(await scraped(world))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def answered(world: World) -> float:
    return await total(world, "gateway_requests_total", service="auth", code="200")


async def test_totals_are_the_loads_to_the_request_and_outlive_a_worker_that_is_killed(world: World) -> None:
    await world.until(world.serves, "the service", PATIENCE_S)
    before = await steady(world)
    first = await loaded(world, 400)
    await world.until(lambda: _is(world, before + first.ok), "every request to be counted", PATIENCE_S)
    (victim, *_) = await world.worker_pids()
    os.kill(victim, signal.SIGKILL)
    await world.until(lambda: world.all_workers_serve(frozenset({victim})), "a successor", PATIENCE_S)
    second = await loaded(world, 400)
    assert (first.lost, second.lost) == ({}, {})
    await world.until(lambda: _is(world, before + first.ok + second.ok), "all to be counted", PATIENCE_S)
    assert await total(world, "gateway_attempts_total", service="auth", outcome="answered") == await answered(
        world
    )
    seconds = await total(world, "gateway_request_duration_seconds_count", service="auth")
    assert seconds == await total(world, "gateway_requests_total", service="auth")
    assert await total(world, "gateway_own_duration_seconds_count", service="auth") == seconds
    assert await total(world, "gateway_upstream_duration_seconds_count", service="auth") == seconds


async def _is(world: World, value: float) -> bool:
    return await answered(world) == value


async def steady(world: World) -> float:
    """Return what is counted once nothing is under way: the start's own requests may still be reported."""
    before = -1.0
    while before != (before := await answered(world)):
        await asyncio.sleep(0.5)
    return before


async def test_killed_amid_load_a_worker_loses_no_more_than_its_last_report(world: World) -> None:
    """A second is allowed for a busy machine; the simulation holds it to 100 ms of a clock of its own."""
    before, rate = await steady(world), 200.0
    running = asyncio.ensure_future(loaded(world, 600, rate))
    await asyncio.sleep(1.0)
    (victim, *_) = await world.worker_pids()
    os.kill(victim, signal.SIGKILL)
    report = await running
    counted = await steady(world) - before
    assert report.ok - rate <= counted <= report.sent


async def test_what_is_scraped_is_bounded_whatever_clients_make_up(world: World) -> None:
    """Guards against labels that a stranger can add values to."""

    async def series() -> set[str]:
        text = await scraped(world)
        return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = f"M{number} /p{number}?q={number} HTTP/1.1\r\nHost: h{number}\r\nX-Request-ID: i{number}\r\n"
        writer.write(
            f"{head}traceparent: 00-{number:032x}-{number:016x}-01\r\nConnection: close\r\n\r\n".encode()
        )
        await reader.read()
        writer.close()

    await ask(1)
    await world.until(lambda: _has(world, 'method="OTHER"'), "the first to be counted", PATIENCE_S)
    before = await series()
    for start in range(2, 202, 20):
        await asyncio.gather(*(ask(number) for number in range(start, start + 20)))
    await steady(world)
    added = {line for line in await series() - before if "admin_request" not in line}
    assert len(added) <= 10, added  # a status or two that had not come before


async def _has(world: World, text: str) -> bool:
    return text in await scraped(world)


# A real Prometheus


class Prometheus:
    """One that scrapes the gateway each second."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def query(self, expression: str) -> list[Any]:
        return list((await self._get(f"query?query={quote(expression)}"))["result"])

    async def _get(self, path: str) -> Any:
        answer = await call(self.port, "GET", f"/api/v1/{path}")
        found = json.loads(answer.body)
        assert found["status"] == "success", f"{path}: {found}"
        return found["data"]

    async def rules(self) -> list[Any]:
        return [rule for group in (await self._get("rules"))["groups"] for rule in group["rules"]]

    async def targets(self) -> list[Any]:
        return list((await self._get("targets"))["activeTargets"])

    async def exemplars(self, name: str) -> list[Any]:
        return list(await self._get(f"query_exemplars?query={name}&start=0&end=4102444800"))


async def is_ready(port: int) -> bool:
    """Whether it answers queries: its port is open before it does."""
    try:
        return (await call(port, "GET", "/-/ready")).status == 200
    except Lost:
        return False


@asynccontextmanager
async def prometheus(world: World, folder: Path) -> AsyncIterator[Prometheus]:
    """Run a Prometheus beside the block."""
    settings, port = folder / "prometheus.yml", free_port()
    settings.write_text(SCRAPE.format(rules=CONFIG / "alerts.yml", admin=world.admin_port))
    command = [
        "prometheus",
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    process = ServerProcess("prometheus", command, port=port, folder=folder, env=FROM_HERE)
    try:
        await world.until(lambda: is_ready(port), "Prometheus to have read what it stored", PATIENCE_S)
        yield Prometheus(port)
    finally:
        process.process.terminate()
        process.process.wait(20)


def expressions() -> list[tuple[str, str]]:
    """Return (panel, expression) of all dashboards, as they are asked over the last seconds."""
    found = []
    for board in BOARDS:
        for panel in json.loads(board.read_text())["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "4s")
                found.append((f"{board.stem}: {panel['title']}", re.sub(r"\$(service|instance)", ".*", text)))
    return found


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus here")
async def test_no_panel_is_empty_and_every_rule_is_evaluated(world: World, tmp_path: Path) -> None:
    """Series that exist from the start are what makes a panel of errors show 0 instead of nothing."""
    assert len(BOARDS) == 3
    await world.until(world.serves, "the service", PATIENCE_S)
    async with prometheus(world, tmp_path) as watcher:
        empty: list[tuple[str, str]] = expressions()
        assert len(empty) > 50
        async with asyncio.timeout(PATIENCE_S):
            while empty:
                await loaded(world, 100)
                empty = [each for each in empty if not await watcher.query(each[1])]
        await world.until(lambda: _are_evaluated(watcher), "the rules", PATIENCE_S)
        rules = await watcher.rules()
        assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
        firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
        assert firing == set(), "a healthy gateway alarms nobody"
        (target,) = await watcher.targets()
        assert (target["health"], target["lastError"]) == ("up", "")
        (found, *_) = await watcher.exemplars("gateway_request_duration_seconds_bucket")
        assert re.fullmatch(r"[0-9a-f]{32}", found["exemplars"][0]["labels"]["trace_id"])


async def _are_evaluated(watcher: Prometheus) -> bool:
    rules = await watcher.rules()
    return bool(rules) and all(rule["health"] != "unknown" for rule in rules)


# What is committed


def test_dashboards_are_what_their_generator_makes() -> None:
    """`python .ci/dashboards.py` makes them anew."""
    spec = importlib.util.spec_from_file_location("dashboards", ROOT / ".ci" / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {board.name: board.read_text() for board in BOARDS} == module.made()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
def test_each_rule_does_what_its_cases_say() -> None:
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        done = subprocess.run(["promtool", *command], cwd=CONFIG, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_decision_and_rollback_that_the_code_knows_is_counted_under_its_name() -> None:
    from typing import get_args

    from gateway.core.rollout.commands import Action

    assert set(get_args(Action)) == set(ACTIONS)
    assert len(set(REASONS)) == len(REASONS)


def test_compose_takes_the_stack(tmp_path: Path) -> None:
    """Whatever Compose is installed reads it; the old one knows no name of a project."""
    composes = (["docker", "compose"], ["docker-compose"])
    found = [each for each in composes if shutil.which(each[0]) and succeeds([*each, "version"])]
    if not found:
        pytest.skip("no Compose is installed: apt-get install docker-compose")
    stack = yaml.safe_load((CONFIG / "compose.yml").read_text())
    if found[0] == ["docker-compose"]:
        del stack["name"]
    path = tmp_path / "compose.yml"
    path.write_text(yaml.safe_dump(stack))
    words = [*found[0], "--project-directory", str(CONFIG), "--file", str(path), "config", "--quiet"]
    assert succeeds(words)
    stack["services"]["load"]["depends_on"]["nobody"] = {"condition": "service_started"}
    path.write_text(yaml.safe_dump(stack))
    assert not succeeds(words), "a service that is not there"


def succeeds(words: list[str]) -> bool:
    return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 0


def test_the_stack_is_made_of_what_lies_here() -> None:
    """Not run in CI for want of a registry: its parts are, and the files it names exist."""
    stack = yaml.safe_load((CONFIG / "compose.yml").read_text())
    assert set(stack) == {"name", "services", "volumes"}
    services = stack["services"]
    assert set(services) == {"gateway", "sample-v1-0", "sample-v1-1", "load", "prometheus", "grafana"}
    known = {"build", "image", "command", "entrypoint", "depends_on", "volumes", "ports", "environment"}
    known |= {"network_mode", "restart", "healthcheck", "stop_grace_period", "user", "read_only", "tmpfs"}
    for name, service in services.items():
        assert set(service) <= known, name
        assert ("image" in service) != ("build" in service) or name == "gateway"
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (CONFIG / source).exists() if source.startswith(".") else source in stack["volumes"]
        for other in service.get("depends_on", {}):
            assert other in services
    dashboards = yaml.safe_load((CONFIG / "grafana/provisioning/dashboards/gateway.yml").read_text())
    mounted = [mount.split(":")[1] for mount in services["grafana"]["volumes"]]
    assert dashboards["providers"][0]["options"]["path"] in mounted
