"""Every command that a README shows is run: here, by a test that is named, or not, for a reason given.

What is code in a shell block or in the text counts, if it begins as a command does. What is new in a README
and in none of the tables below fails.
"""

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.__main__ import MEASUREMENTS
from gateway.cli.commands import root, run
from tests.effort import PROFILE
from tests.integration.rollouts.stage import ROOT, Stage, staged

pytestmark = pytest.mark.timeout(400)

READMES: Final = (
    "README.md",
    "gateway/README.md",
    "gateway/admin/README.md",
    "config/README.md",
    "bench/README.md",
)
PROGRAMS: Final = ("gateway ", "python", "pytest", "docker ", "curl ", "systemctl ", "ss ", "promtool ")
BY_TESTS: Final = {
    "python3 -m venv .venv": ".ci/run",
    "python -m gateway.demo": "tests/integration/admin/test_tour.py",
    "python .ci/build.py": ".ci/native",
    "pytest": ".ci/run",
    "curl -s": "tests/integration/admin/test_tour.py",
    "docker": ".ci/containers",
}
"""The beginning of a command -> what runs it. What begins with `gateway` is looked for in all tests."""
NOT_RUN: Final = {
    "ss -ltnp": "lists the machine's sockets, nothing of ours",
    "gateway audit acknowledge": "wants a broken trail; tests/unit/store/test_safety.py has one",
}
HERE: Final = {
    "gateway --help": 0,
    "gateway --version": 0,
    "gateway check --config FILE": 0,
    "gateway get": 0,
    "gateway get SERVICE": 0,
    "gateway status SERVICE": 1,
    "gateway why SERVICE": 0,
    "gateway whatif SERVICE": 0,
    "gateway events SERVICE": 0,
    "gateway audit": 0,
    "gateway audit verify": 0,
    "gateway backup FILE": 0,
    "gateway drain SERVICE VERSION --wait": 0,
}
"""Run in this order on a service with a rollout that is over -> exit code."""
TINY: Final = {
    "proxy": "--rounds 1 --seconds 1 --profiles small --only gateway",
    "path": "--rounds 1 --requests 100 --profiles small",
    "latency": "--rounds 1 --seconds 1 --rate 200 --only gateway",
    "bodies": "--rounds 1 --megabytes 4 --slow-seconds 1 --only gateway",
    "idle": "--connections 50 --only gateway",
    "routes": "--rounds 1 --seconds 1",
    "differential": "--only gateway",
    "hitless": "--only gateway --rate 50 --rows killed",
    "faults": "--requests 100 --rate 100 --only reload",
    "probes": "--endpoints 10 --seconds 3",
    "rollouts": "--rollouts 2 --rate 50 --seconds 5 --step-s 2",
    "breakers": "--openings 2 --rate 50",
    "judge": "--cell bad --plan P1 --rate 10 --runs 2 --processes 1",
    "picture": "--file {folder}/picture.svg",
}
"""Measurement -> what makes it short; others have to take `--help`."""
LEFT_OUT: Final = {
    "screenshots": "needs a browser and a minute; test_dashboard.py sees the same pages",
}
"""Measurement -> why it is not run."""


def shown(text: str) -> Iterator[str]:
    """Yield the commands of a README, on one line each, without the path of the environment."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        joined = block.replace("\\\n", " ").replace("||\n", "|| ")
        yield from (line for line in joined.splitlines() if line and not line.startswith((" ", "#", "}")))
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", rest)


def commands() -> set[str]:
    """Return what all READMEs show of our programs and the system's."""
    found = set()
    for name in READMES:
        for line in shown((ROOT / name).read_text("utf-8")):
            plain = line.partition("  #")[0].replace(".venv/bin/", "").strip()
            if plain.startswith(PROGRAMS):
                found.add(plain)
    return found


def mentions(test: str, name: str) -> bool:
    """Whether a test speaks of a command of ours, or of a script in `.ci/`, by its name."""
    if name.startswith(".ci/"):
        return name.removeprefix(".ci/").partition(".")[0] in test
    return name in root.commands and re.search(rf'["( ]{name}[" ]', test) is not None


def test_every_command_shown_is_run_or_has_its_reason() -> None:
    known = (*BY_TESTS, *NOT_RUN, "python -m bench")
    left = [each for each in commands() if each not in HERE and not each.startswith(known)]
    tests = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    assert [each for each in left if not any(mentions(text, each.split()[1]) for text in tests)] == []
    for place in BY_TESTS.values():
        assert (ROOT / place).exists(), place
    assert HERE.keys() <= commands(), "what is shown no more needs no test here"


def test_every_measurement_shown_is_one() -> None:
    named = {each.split()[3] for each in commands() if each.startswith("python -m bench ")}
    assert named <= MEASUREMENTS.keys()
    assert TINY.keys() | LEFT_OUT.keys() <= MEASUREMENTS.keys()


@pytest.mark.parametrize("name", sorted(MEASUREMENTS.keys() - LEFT_OUT.keys()))
def test_every_measurement_runs(name: str, tmp_path: Path) -> None:
    """By `ci`, shortly; by `quick` it has to take its options: they are minutes together."""
    options = shlex.split(TINY.get(name, "--help").format(folder=tmp_path))
    command = [sys.executable, "-m", "bench", name, *(options if PROFILE != "quick" else ["--help"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in ((0,) if PROFILE == "quick" else (0, 1)), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("shown")) as made:
        yield made


async def test_lines_about_a_service_work_as_shown(stage: Stage, tmp_path: Path) -> None:
    release = await stage.release(stage.good.url)
    await release.start()
    await release.reaches(10)
    await release.order("rollback")
    await release.becomes("rolled_back")
    for shown_line, code in HERE.items():
        file = stage.world.config if "check" in shown_line else tmp_path / "copy.db"
        line = (
            shown_line.replace("SERVICE", release.name).replace("VERSION", "v1.1").replace("FILE", str(file))
        )
        words = [
            *shlex.split(line)[1:],
            *([] if "check" in line or "help" in line else ["--config", str(stage.world.config)]),
        ]
        assert await asyncio.to_thread(run, words) == code, line
