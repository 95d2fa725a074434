"""What `gateway demo` plays: a good canary that completes, and a bad one that rolls back, under load.

Everything runs in processes of its own below a temporary folder, on ports the kernel chose, and is gone
afterwards.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from gateway.demo.load import Load
from gateway.errors import GatewayError

RATE: Final = 120.0
STEP_MS: Final = 6_000
CONFIG: Final = """
workers = 2
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
url = "sqlite:///{folder}/gateway.db"
[[service]]
name = "shop"
routes = [{{ path = "/" }}]
health = {{ path = "/api/health", interval = 1000, healthy_threshold = 1 }}
slow_start = 0
"""


class DemoFailed(GatewayError):
    """The story did not end as it should."""


class Admin:
    """The admin API, as a script would call it."""

    def __init__(self, base: str, token: str) -> None:
        self._base = base + "/api/v1/admin/"
        self._token = token

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer. Raises DemoFailed with the problem's text."""
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object) -> Any:
        request = urllib.request.Request(  # noqa: S310  # our own http address
            self._base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as exc:
            raise DemoFailed(f"{method} {path}: {exc.code} {exc.read().decode()}") from exc


async def play(*, hold: bool) -> None:
    """Play the story. hold: leave everything running at the end, until Ctrl-C, to look at the dashboard."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-demo-")))
        admin, port, dashboard = await _start_gateway(stack, folder)
        say(f"dashboard   {dashboard}   (token: {folder / 'admin.token'})")
        say(f"proxy       http://127.0.0.1:{port}/")
        good = {"error_rate": 0.0}
        await _register(stack, admin, "v1.0", **good)
        load = Load("127.0.0.1", port, "/hello", rate=RATE)
        await _wait_usable(admin, "v1.0")
        group = await stack.enter_async_context(_background(load.run()))
        say(f"load        {RATE:.0f} requests a second")

        say("\n1. v1.1 is good: a canary of 10, 50, 100 %")
        await _register(stack, admin, "v1.1", **good)
        await _deploy(admin, load, "v1.1", expect="completed")

        say("\n2. v1.2 fails one request in five: the same canary")
        await _register(stack, admin, "v1.2", error_rate=0.2)
        await _deploy(admin, load, "v1.2", expect="rolled_back")

        total = load.statuses.total()
        say(f"\n{total} requests: {dict(load.statuses)}, {load.broken} without an answer")
        if hold:
            say("Running on; Ctrl-C ends it.")
            await asyncio.get_running_loop().create_future()
        group.cancel()


async def _start_gateway(stack: contextlib.AsyncExitStack, folder: Path) -> tuple[Admin, int, str]:
    config = folder / "gateway.toml"
    config.write_text(CONFIG.format(folder=folder))
    ready = folder / "gateway.json"
    log = stack.enter_context((folder / "gateway.log").open("w"))
    await _spawn(stack, "-m", "gateway", "serve", "--config", str(config), stderr=log)
    for _ in range(200):
        if ready.exists():
            break
        await asyncio.sleep(0.05)
    else:
        raise DemoFailed(f"the gateway did not start:\n{(folder / 'gateway.log').read_text()}")
    addresses = json.loads(ready.read_text())
    base = f"http://{addresses['admin']}"
    token = (folder / "admin.token").read_text().strip()
    return Admin(base, token), int(addresses["listen"][0].rpartition(":")[2]), base + "/"


async def _spawn(stack: contextlib.AsyncExitStack, *args: str, **options: Any) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *args, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **options
    )

    async def end() -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()

    stack.push_async_callback(end)
    return process


async def _register(stack: contextlib.AsyncExitStack, admin: Admin, version: str, error_rate: float) -> None:
    process = await _spawn(
        stack,
        "-m",
        "gateway.demo.sample",
        "--version",
        version,
        "--error-rate",
        str(error_rate),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    port = int((await process.stdout.readline()).split()[-1])
    url = f"http://127.0.0.1:{port}"
    await admin.call(
        "POST",
        "deployment/versions",
        {"serviceName": "shop", "version": version, "url": url, "shutdownUrl": f"{url}/shutdown"},
    )


async def _wait_usable(admin: Admin, version: str) -> None:
    for _ in range(100):
        found = await admin.call("GET", "deployment/versions?serviceName=shop")
        if any(v["version"] == version and v["healthStatus"] == "healthy" for v in found["items"]):
            return
        await asyncio.sleep(0.1)
    raise DemoFailed(f"{version} did not become healthy")


async def _deploy(admin: Admin, load: Load, version: str, *, expect: str) -> None:
    deployment = await admin.call(
        "POST",
        "deployment/start",
        {
            "serviceName": "shop",
            "toVersion": version,
            "strategy": "canary",
            "config": {"steps": [10, 50, 100], "stepInterval": STEP_MS, "drainTimeout": 5000},
        },
    )
    before = load.versions.copy()
    while True:
        await asyncio.sleep(2)
        deployment = await admin.call("GET", f"deployment/{deployment['id']}")
        share = _shares(load.versions - before)
        before = load.versions.copy()
        status = deployment["status"]
        say(f"   {status:<12} {deployment['trafficPercent']:>3} % on {version}   served: {share}")
        if status in ("completed", "rolled_back", "failed", "paused"):
            break
    if deployment.get("errorMessage"):
        say(f"   because: {deployment['errorMessage']}")
    if deployment["status"] != expect:
        raise DemoFailed(f"{version}: {deployment['status']}, expected {expect}")


def _shares(served: Counter[str]) -> str:
    total = served.total() or 1
    return ", ".join(f"{version} {100 * n / total:.0f} %" for version, n in sorted(served.items()))


@contextlib.asynccontextmanager
async def _background(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` beside the block, and end it with it."""
    task = asyncio.get_running_loop().create_task(work, name="demo load")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def say(line: str) -> None:
    """Print a line for the person at the terminal."""
    print(line, flush=True)


def main(*, hold: bool = False) -> int:
    """Play the demo. Returns the exit code: 0 if both canaries ended as they should."""
    try:
        asyncio.run(play(hold=hold))
    except KeyboardInterrupt:
        return 0
    except DemoFailed as exc:
        say(f"demo failed: {exc}")
        return 1
    return 0
