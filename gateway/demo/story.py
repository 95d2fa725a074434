"""What `gateway demo` plays, under load: a good release, a bad one that is taken back, and one to break."""

import asyncio
import contextlib
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from gateway.demo.load import Load
from gateway.demo.place import SERVICE, DemoFailed, Place

RATE: Final = 120.0
STEP_MS: Final = 4_000
LONG_STEP_MS: Final = 60_000
"""For v1.3: somebody reads what they may do with it, and does it."""
HEADLESS_S: Final = 60.0
LOOK_S: Final = 0.5
OVER: Final = ("completed", "rolled_back", "failed")
FAILED, TIMED_OUT, INTERRUPTED = 1, 3, 130


class Demo:
    """One demo: a place to play in, and the load on it."""

    def __init__(self, place: Place, load: Load) -> None:
        self.place = place
        self.load = load

    async def play(self) -> None:
        """Play the good release and the bad one. Raises DemoFailed if one does not end as it should."""
        say("\n1. v1.1 is good. It gets 10 % of the requests, then 50, then all: a canary.")
        await self.register("v1.1")
        await self.expect("completed", await self.start("v1.1", STEP_MS))
        say("   The old version was drained, then told to stop.")

        say("\n2. v1.2 fails one request in five, and nobody knows yet. The same canary.")
        self.place.fault("v1.2").touch()
        await self.register("v1.2", error_rate=0.2)
        await self.expect("rolled_back", await self.start("v1.2", STEP_MS))
        say("   All traffic is back on v1.1. Nobody had to look.")
        say(f"\n{self.summary()}")

    def summary(self) -> str:
        """Say what the clients got."""
        failed = sum(count for status, count in self.load.statuses.items() if status >= 500)
        total = self.load.statuses.total() + self.load.broken
        by_itself = f"Of {total} requests {failed} failed, each inside v1.2 itself"
        return f"{by_itself}; {self.load.broken} were lost on the way."

    async def stay(self) -> None:
        """Release v1.3 slowly, and let whoever watches break it. Returns never."""
        await self.register("v1.3", error_rate=0.3)
        say("\n3. Now break v1.3 yourself: it is good until you do. It gets 10 % in a moment.")
        say("   In another terminal:\n")
        say(f"   touch {self.place.fault('v1.3')}      # from now on it fails three requests in ten")
        say(f"   {self.command('why', SERVICE)}")
        say("\n   Or use the dashboard. Ctrl-C ends all of it.\n")
        await self.start("v1.3", LONG_STEP_MS)
        told: set[str] = set()
        while True:
            newest = (await self.place.call("GET", f"deployment?serviceName={SERVICE}&limit=1"))["items"][0]
            if newest["id"] in told:
                await asyncio.sleep(LOOK_S)
                continue
            ended = await self.follow(newest["id"])
            told.add(newest["id"])
            if ended["status"] == "rolled_back":
                version = ended["toVersion"]
                again = self.command("deploy", SERVICE, version, "--step-interval", "60s")
                say(f"   {version} is rolled back. To mend it and release it again:\n")
                say(f"   rm -f {self.place.fault(version)}; {again}\n")

    def command(self, *words: str) -> str:
        """Return a command line that works on this gateway, from any folder."""
        return shlex.join([sys.executable, "-m", "gateway", *words, "--config", str(self.place.config)])

    async def register(self, version: str, error_rate: float = 0.0) -> None:
        """Start a version and tell the gateway of it; returns once it is healthy."""
        url = await self.place.start_service(version, error_rate)
        body = {"serviceName": SERVICE, "version": version, "url": url, "shutdownUrl": f"{url}/shutdown"}
        made = await self.place.call("POST", "deployment/versions", body)
        deadline = asyncio.get_running_loop().time() + 30
        while (await self.place.call("GET", f"deployment/versions/{made['id']}"))[
            "healthStatus"
        ] != "healthy":
            if asyncio.get_running_loop().time() > deadline:
                raise DemoFailed(f"{version} did not become healthy")
            await asyncio.sleep(0.1)

    async def start(self, version: str, step_ms: int) -> str:
        """Start a canary. Returns its id."""
        config = {"steps": [10, 50, 100], "stepInterval": step_ms, "drainTimeout": 5_000, "warmUp": 0}
        body = {"serviceName": SERVICE, "toVersion": version, "strategy": "canary", "config": config}
        return str((await self.place.call("POST", "deployment/start", body))["id"])

    async def expect(self, status: str, deployment: str) -> None:
        ended = await self.follow(deployment)
        if ended["status"] != status:
            raise DemoFailed(f"{ended['toVersion']}: {ended['status']}, expected {status}")

    async def follow(self, deployment: str) -> Any:
        """Say each change of a rollout, and why it came; returns the rollout at its end."""
        last = ""
        while True:
            seen = await self.place.call("GET", f"deployment/{deployment}")
            line = f"{seen['status']:<12} {seen['trafficPercent']:>3} % on {seen['toVersion']}"
            if line != last:
                last = line
                reason = await self.reason(seen)
                say(f"   {line}{f'   {reason}' if reason else ''}")
            if seen["status"] in OVER:
                return seen
            await asyncio.sleep(LOOK_S)

    async def reason(self, seen: Any) -> str:
        """Return why a rollout is where it is: its own reason, else the newest decision's."""
        if seen.get("errorMessage"):
            return str(seen["errorMessage"])
        rows = (await self.place.call("GET", f"deployment/{seen['id']}/decisions?limit=1"))["items"]
        return str(rows[0]["reason"]) if rows else ""


async def play(*, headless: bool) -> None:
    """Play the demo. headless: end when the story does, and within HEADLESS_S seconds (TimeoutError)."""
    async with asyncio.timeout(HEADLESS_S if headless else None), Place() as place:
        load = Load("127.0.0.1", place.port, "/hello", rate=RATE)
        demo = Demo(place, load)
        await introduce(place)
        await demo.register("v1.0")
        async with _background(load):
            await demo.play()
            if not headless:
                await demo.stay()


async def introduce(place: Place) -> None:
    """Say what runs where. The link is for one visit: who reads it later gets nothing by it."""
    link = await place.call("POST", "session/link")
    say("Real processes on this machine alone; all of it is gone when this ends.")
    say(f"dashboard   {place.admin}{link['path']}   (opens once, within {link['expiresIn'] // 60} minutes)")
    say(f"proxy       http://127.0.0.1:{place.port}/")
    say(f"load        {RATE:.0f} requests a second")


@contextlib.asynccontextmanager
async def _background(load: Load) -> AsyncIterator[None]:
    """Send the load beside the block."""
    task = asyncio.get_running_loop().create_task(load.run(), name="demo load")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def say(line: str) -> None:
    """Print a line for the person at the terminal."""
    print(line, flush=True)


async def _until_told(*, headless: bool) -> int:
    """Play; SIGINT, SIGTERM and SIGHUP end it in order. Returns the exit code."""
    loop = asyncio.get_running_loop()
    playing = loop.create_task(play(headless=headless), name="demo")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, playing.cancel)
    try:
        await playing
    except asyncio.CancelledError:
        say("\nEnded; nothing is left of it.")
        return INTERRUPTED if headless else 0
    except TimeoutError:
        say(f"demo failed: not over within {HEADLESS_S:.0f} s")
        return TIMED_OUT
    except DemoFailed as exc:
        say(f"demo failed: {exc}")
        return FAILED
    return 0


def main(*, headless: bool = False) -> int:
    """Play the demo. Returns the exit code: 0 if both releases ended as they should."""
    return asyncio.run(_until_told(headless=headless))
