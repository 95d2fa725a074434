"""Where a demo runs: a folder, a gateway and services of its own, on ports the kernel chose."""

import asyncio
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, Final, Self

from gateway.errors import GatewayError

SERVICE: Final = "shop"
START_S: Final = 30.0
END_S: Final = 20.0
LOOK_S: Final = 0.1
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
ENV: Final = {**os.environ, "PYTHONUNBUFFERED": "1"}


class DemoFailed(GatewayError):
    """The story did not end as it should."""


class Place:
    """A running gateway, with what is needed to play on it. All is gone after the block."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
        self.config = self.folder / "gateway.toml"
        self.admin = ""
        """`http://host:port`."""
        self.port = 0
        """Of the proxy."""
        self._token = ""

    async def __aenter__(self) -> Self:
        # Its input is ours to close: it acts on our end, also on one that we do not live to see.
        self._keeper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.demo.keeper",
            str(self.folder),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            await self._start_gateway()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        await asyncio.wait_for(self._keeper.wait(), END_S)

    async def _start_gateway(self) -> None:
        self.config.write_text(CONFIG.format(folder=self.folder))
        with (self.folder / "gateway.log").open("w") as log:
            process = await self._spawn("gateway", "serve", "--config", str(self.config), log=log)
        ready = self.folder / "gateway.json"
        await self.until(lambda: ready.exists() or process.returncode is not None, "the gateway to start")
        if not ready.exists():
            raise DemoFailed(f"the gateway did not start:\n{(self.folder / 'gateway.log').read_text()}")
        addresses = json.loads(ready.read_text())
        self.admin = f"http://{addresses['admin']}"
        self.port = int(addresses["listen"][0].rpartition(":")[2])
        self._token = (self.folder / "admin.token").read_text().strip()

    async def start_service(self, version: str, error_rate: float = 0.0) -> str:
        """Start a version of the sample service that fails while `fault(version)` exists. Returns its url."""
        log = self.folder / f"{version}.log"
        rate = ("--error-rate", str(error_rate), "--error-while", str(self.fault(version)))
        with log.open("w") as output:
            process = await self._spawn("gateway.demo.sample", "--version", version, *rate, log=output)
        await self.until(
            lambda: log.read_text().endswith("\n") or process.returncode is not None, f"{version} to start"
        )
        words = log.read_text().split()
        if process.returncode is not None or words[:2] != ["listening", "on"]:
            raise DemoFailed(f"{version} did not start: {' '.join(words)}")
        return f"http://127.0.0.1:{words[2]}"

    def fault(self, version: str) -> Path:
        """Return the file that, as long as it exists, makes a version fail."""
        return self.folder / f"break-{version}"

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the admin API, as a script would. Raises DemoFailed with the problem's text."""
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object) -> Any:
        request = urllib.request.Request(  # noqa: S310  # our own http address
            f"{self.admin}/api/v1/admin/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as exc:
            raise DemoFailed(f"{method} {path}: {exc.code} {exc.read().decode()}") from exc
        except OSError as exc:
            raise DemoFailed(f"{method} {path}: {exc}") from exc

    async def until(self, holds: Any, what: str) -> None:
        """Return once `holds()`. Raises DemoFailed after START_S seconds."""
        deadline = asyncio.get_running_loop().time() + START_S
        while not holds():
            if asyncio.get_running_loop().time() > deadline:
                raise DemoFailed(f"waited {START_S:.0f} s for {what}")
            await asyncio.sleep(LOOK_S)

    async def _spawn(self, module: str, *arguments: str, log: IO[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            start_new_session=True,  # Ctrl-C is for us alone
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=ENV,
        )
