"""A gateway that many short stories share: each has a service of its own, two versions of it, and a load."""

import asyncio
import contextlib
import itertools
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from bench.harness import World
from bench.load import KEPT, Load, LoadSettings

ROOT: Final = Path(__file__).parents[3]
PATIENCE_S: Final = 90.0
OVER: Final = ("completed", "rolled_back", "failed")
PATIENT: Final = {"autoPause": False, "maxStepTime": 60_000}
"""What is good is given time to prove it, however busy the machine."""
HEALTH: Final = {"interval": 1_000, "timeout": 900, "retries": 0}


class Said(NamedTuple):
    """What a command of the gateway printed, and its exit code."""

    code: int
    out: str
    err: str


class Stage:
    """A running gateway and the sample services that versions of all stories point to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.old = world.first[0]
        self.good = world.add_sample("v1.1")
        self.bad = world.add_sample("v1.1", "--error-rate", "0.6", "--seed", "7")
        self._numbers = itertools.count(1)

    async def release(self, new_url: str, *, old_url: str | None = None, **settings: object) -> "Release":
        """Make a service with a version v1.0 that serves and a version v1.1 at `new_url`."""
        name = f"service-{next(self._numbers)}"
        release = Release(self.world, name)
        service = {"name": name, "routes": [{"path": f"/{name}"}], "health": HEALTH, **settings}
        await self.world.api("POST", "services", service, expect=201)
        release.old = await release.register("v1.0", old_url or self.old.url)
        release.new = await release.register("v1.1", new_url)
        await self.world.until(release.is_ready, f"{name} to be ready", PATIENCE_S)
        return release

    async def command(self, *arguments: str) -> Said:
        """Run `gateway …` to its end, as one who has the configuration."""
        async with self.commanded(*arguments) as running:
            out, err = await asyncio.wait_for(running.communicate(), PATIENCE_S)
            return Said(running.returncode or 0, out.decode(), err.decode())

    @asynccontextmanager
    async def commanded(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run `gateway …` beside the block."""
        command = (sys.executable, "-m", "gateway", *arguments, "--config", str(self.world.config))
        running = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            await running.wait()


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Start a gateway for the stories of one test module; end it after the block."""
    world = World(folder)
    asyncio.run(world.__aenter__())
    try:
        yield Stage(world)
    finally:
        world.close()


class Release:
    """One story's service. Ids of its versions, and of its newest deployment."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.old = ""
        self.new = ""
        self.id = ""

    async def register(self, version: str, url: str, **more: object) -> str:
        """Register a version; returns its id."""
        body = {"serviceName": self.name, "version": version, "url": url, **more}
        return str((await self.world.api("POST", "deployment/versions", body, expect=201))["id"])

    async def is_ready(self) -> bool:
        """Whether the old version serves and the new one is healthy."""
        return await self.world.is_active(self.old) and await self.world.is_healthy(self.new)

    async def start(self, strategy: str = "canary", to: str = "v1.1", **config: object) -> str:
        """Start a deployment; returns its id."""
        answer = await self.try_to_start(strategy, to, **config)
        assert answer.status == 201, answer.body
        self.id = str(answer.json()["id"])
        return self.id

    async def try_to_start(self, strategy: str = "canary", to: str = "v1.1", **config: object) -> Any:
        body = {"serviceName": self.name, "toVersion": to, "strategy": strategy, "config": config}
        return await self.world.ask("POST", "deployment/start", body)

    async def order(self, what: str, **body: object) -> Any:
        """Give the newest deployment an order; returns what it is then."""
        return await self.world.api("POST", f"deployment/{self.id}/{what}", body)

    async def seen(self) -> Any:
        """Return the newest deployment as the API shows it."""
        return await self.world.deployment(self.id)

    async def until(self, holds: Callable[[Any], bool]) -> Any:
        """Return the deployment as soon as it is as asked."""
        found = await self.seen()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds(found):
                    await asyncio.sleep(0.05)
                    found = await self.seen()
        except TimeoutError:
            raise AssertionError(f"it stays {found}\n{self.world.control.log_tail()}") from None
        return found

    async def becomes(self, status: str) -> Any:
        """Return the deployment once it has the status. One that has ended otherwise never will."""
        found = await self.until(lambda d: d["status"] == status or d["status"] in OVER)
        assert found["status"] == status, found
        return found

    async def reaches(self, percent: int) -> Any:
        """Return the deployment once so much traffic goes to the new version."""
        found = await self.until(lambda d: d["trafficPercent"] == percent or d["status"] in OVER)
        assert found["trafficPercent"] == percent, found
        return found

    async def decisions(self) -> list[Any]:
        """Return the deployment's decisions, oldest first."""
        rows = (await self.world.api("GET", f"deployment/{self.id}/decisions"))["items"]
        return list(reversed(rows))

    async def decision(self, verdict: str) -> Any:
        """Return the last decision of this kind."""
        rows = await self.decisions()
        found = [row for row in rows if row["verdict"] == verdict]
        assert found, [(row["verdict"], row["reason"]) for row in rows]
        return found[-1]

    async def weights(self) -> dict[str, int]:
        rows = (await self.world.api("GET", f"deployment/versions?serviceName={self.name}"))["items"]
        return {row["version"]: row["weight"] for row in rows}

    @asynccontextmanager
    async def traffic(
        self, *allowed: str, rate: float = 120.0, path: str = "", patience_s: float = 15.0
    ) -> AsyncIterator["Traffic"]:
        """Load the service while the block runs; nothing may be lost but what is `allowed` (`500`).

        path: below the service's own. patience_s: a client that waits longer leaves, and is lost (`timeout`).
        """
        load = Load(
            LoadSettings(
                port=self.world.port,
                path=f"/{self.name}/{path}",
                rate=rate,
                connections=4,
                cycle=(KEPT,),
                timeout_s=patience_s,
            )
        )
        enough = asyncio.Event()
        running = asyncio.ensure_future(load.run(1, until=enough))
        try:
            yield Traffic(load)
        finally:
            enough.set()
            report = await running
        lost = {kind: count for kind, count in report.lost.items() if kind not in allowed}
        assert lost == {}, report.examples


class Traffic:
    """A constant load, and which versions answered it."""

    def __init__(self, load: Load) -> None:
        self._load = load

    async def served(self, requests: int = 40) -> set[str]:
        """Return which versions answered the next requests well."""
        await self._pass(20)  # chosen under earlier weights
        before = self._load.versions.copy()
        await self._pass(requests)
        return set(self._load.versions - before)

    async def _pass(self, requests: int) -> None:
        """Return once the next requests, and all sent before them, have their ends."""
        enough = self._load.sent + requests
        async with asyncio.timeout(PATIENCE_S):
            while not self._load.has_ended(enough):
                await asyncio.sleep(0.02)

    async def sent(self, requests: int) -> None:
        """Return once so many requests more were sent."""
        enough = self._load.sent + requests
        async with asyncio.timeout(PATIENCE_S):
            while self._load.sent < enough:
                await asyncio.sleep(0.02)


class Call(NamedTuple):
    """A request that somebody sent to a `Listener`. Field names in lower case."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes


class Listener:
    """An HTTP server of the test: keeps what came, and answers as the test says at that moment."""

    def __init__(self, answer: Callable[[Call], int | None]) -> None:
        """answer: the status for a call; None: never any answer."""
        self.answer = answer
        self.calls: list[Call] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._stopped = asyncio.Event()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.close()
        await self._server.wait_closed()

    def about(self, kind: str) -> list[Call]:
        """Return the calls that were about an event or a question."""
        return [call for call in self.calls if call.fields.get("x-gateway-event") == kind]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._exchange(reader, writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path = head.split(" ", 2)[:2]
        fields = {
            name.lower(): value for name, value in re.findall(r"^([^\s:]+): (.*)\r$", head, re.MULTILINE)
        }
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        call = Call(method, path, fields, body)
        self.calls.append(call)
        status = self.answer(call)
        if status is None:
            await self._stopped.wait()
            return
        answer = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nX-Version: v1.1\r\nConnection: close\r\n\r\n"
        writer.write(answer.encode())
        await writer.drain()
