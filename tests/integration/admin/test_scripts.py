"""What people write into scripts and shells: a release that stops the old version at once; completion."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.load import KEPT, NEW, Load, LoadReport, LoadSettings
from tests.integration.admin.gateway_process import DEADLINE_S, ROOT, Gateway, ended, running

GATEWAY = f"{sys.executable} -m gateway"
RELEASE = """
set -eu
gateway() {{ {gateway} "$@" --config {config}; }}
gateway deploy shop v2 --url {new} --immediate --set bakeTime=500 --wait --timeout 60s
kill -TERM {old_pid}
while kill -0 {old_pid} 2>/dev/null; do sleep 0.05; done
"""
"""As a user writes it: the next line stops the old version."""
COMPLETE = """
set -u
eval "$(gateway completion bash)"
COMP_WORDS=({words}); COMP_CWORD={last}
_gateway_completion gateway
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@asynccontextmanager
async def sample(version: str) -> AsyncIterator[tuple[str, int]]:
    """Run the sample service; gives its url and pid."""
    command = (sys.executable, "-m", "gateway.demo.sample", "--port", "0", "--version", version)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            line = await process.stdout.readline()
        yield f"http://127.0.0.1:{int(line.split()[-1])}", process.pid
    finally:
        await ended(process)


async def shell(script: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more}
    return await asyncio.to_thread(
        subprocess.run,
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=environment,
        check=False,
    )


async def test_a_script_that_stops_the_old_version_on_the_next_line_loses_nothing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path))
        old, old_pid = await stack.enter_async_context(sample("v1"))
        new, _ = await stack.enter_async_context(sample("v2"))
        config = gateway.folder / "gateway.toml"
        first = f"deploy shop v1 --url {old} --route / --wait --config {config}"
        assert (await shell(f"{GATEWAY} {first}")).returncode == 0
        report, said = await under_load(
            gateway, RELEASE.format(gateway=GATEWAY, config=config, new=new, old_pid=old_pid)
        )
        assert said.returncode == 0, said
        assert report.lost == {}, report.examples
        assert set(report.versions) == {"v1", "v2"}
        await completes(gateway)


async def under_load(gateway: Gateway, script: str) -> tuple[LoadReport, subprocess.CompletedProcess[str]]:
    """Run a script amid requests, from a second before it until a second after."""
    port = int(gateway.listen.rpartition(":")[2])
    settings = LoadSettings(port=port, rate=200, connections=16, cycle=(KEPT, KEPT, NEW), timeout_s=30.0)
    over = asyncio.Event()
    load = asyncio.ensure_future(Load(settings).run(200, until=over))
    await asyncio.sleep(1.0)
    try:
        said = await shell(script)
        await asyncio.sleep(1.0)
    finally:
        over.set()
    return await load, said


async def completes(gateway: Gateway) -> None:
    """Complete a command, an option and names of services and versions in bash."""
    known = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GATEWAY_ADMIN_URL": f"http://{gateway.admin}",
        "GATEWAY_TOKEN": gateway.token,
    }
    for line, expected in (
        ("gateway dep", "deploy"),
        ("gateway deploy --strat", "--strategy"),
        ("gateway rollback sh", "shop"),
        ("gateway drain shop v", "v2"),
    ):
        words = line.split()
        said = await shell(COMPLETE.format(words=" ".join(words), last=len(words) - 1), **known)
        assert expected in said.stdout.split(), (line, said)
