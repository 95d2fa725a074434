"""A real gateway in its own processes, and services behind it."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.cli.client import AdminClient

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60.0


class Gateway(msgspec.Struct):
    """A gateway that serves: where, and with which token."""

    folder: Path
    listen: str
    admin: str
    token: str
    pid: int

    @property
    def api(self) -> AdminClient:
        """Return a client with the bootstrap token."""
        return AdminClient(self.admin, self.token)


@asynccontextmanager
async def running(folder: Path, **tables: str) -> AsyncIterator[Gateway]:
    """Run `gateway serve` with one worker on free ports; end it in order."""
    file = folder / "gateway.toml"
    lines = [
        "workers = 1",
        f'[listen]\naddress = "127.0.0.1:0"\n[admin]\naddress = "127.0.0.1:0"\n[store]\nurl = "sqlite:///{folder}/gateway.db"',
        "[rate_limit]\nstarts_per_minute = 1000\nchanges_per_minute = 100000",
        *tables.values(),
    ]
    file.write_text("\n".join(lines))
    log = await asyncio.to_thread((folder / "log").open, "wb")
    command = (sys.executable, "-m", "gateway", "serve", "--config", str(file))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=DEVNULL, stderr=log)
    try:
        runtime = json.loads(await written(folder / "gateway.json", process, folder / "log"))
        token = (folder / "admin.token").read_text().strip()
        listen, admin = runtime["listen"][0], runtime["admin"]
        yield Gateway(folder=folder, listen=listen, admin=admin, token=token, pid=process.pid)
    finally:
        await ended(process)
        log.close()


async def written(file: Path, process: Process, log: Path) -> str:
    """Return the file's text once it is there."""
    async with asyncio.timeout(DEADLINE_S):
        while not file.exists():
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.02)
    return file.read_text()


async def ended(process: Process) -> None:
    """Ask a process to stop, and wait until it has."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


@asynccontextmanager
async def sample(version: str, *flags: str) -> AsyncIterator[str]:
    """Run the sample service; gives its url."""
    command = (sys.executable, "-m", "gateway.demo.sample", "--port", "0", "--version", version, *flags)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, env=dict(os.environ))
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            line = await process.stdout.readline()
        yield f"http://127.0.0.1:{int(line.split()[-1])}"
    finally:
        await ended(process)
