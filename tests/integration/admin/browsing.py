"""One gateway and one browser for the stories of a module, and what they look at."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from bench.dashboard_stage import CHROMIUM, FLAGS, DashboardStage, staged

T = TypeVar("T")

PATIENCE_MS: Final = 60_000
WIDE: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 390, "height": 844}


class Theatre:
    """A stage, a browser before it, and the loop on which both live."""

    def __init__(self, runner: asyncio.Runner, stage: DashboardStage, browser: Browser) -> None:
        self._runner = runner
        self.stage = stage
        self.browser = browser
        self.complaints: list[str] = []
        """What pages reported: errors, what the policy kept out, requests to other hosts."""
        self._contexts: list[BrowserContext] = []

    def play(self, story: Coroutine[Any, Any, T]) -> T:
        """Run a story to its end; close what it opened."""

        async def played() -> T:
            try:
                return await story
            finally:
                for context in self._contexts:
                    await context.close()
                self._contexts.clear()

        self.complaints.clear()
        return self._runner.run(played())

    @property
    def api(self) -> Any:
        """Call the admin API: `await api(method, path, body)`."""
        return self.stage.world.api

    async def visitor(self, path: str = "", url: str | None = None, **options: Any) -> Page:
        """Open a page of the dashboard as somebody who is not signed in."""
        options.setdefault("viewport", WIDE)
        context = await self.browser.new_context(reduced_motion="reduce", **options)
        self._contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        base = url or self.stage.url
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._asked(request.url, base))
        await page.goto(base + path)
        return page

    async def user(self, path: str = "", token: str | None = None, **options: Any) -> Page:
        """Open a page as somebody who signs in there, as an admin unless `token` is another's."""
        page = await self.visitor(path, **options)
        await sign_in(page, token or self.stage.world.token)
        return page

    async def token(self, role: str, name: str) -> dict[str, Any]:
        """Make a token."""
        made: dict[str, Any] = await self.api("POST", "tokens", {"name": name, "role": role}, expect=201)
        return made

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _asked(self, url: str, base: str) -> None:
        if not url.startswith((base, "data:")):
            self.complaints.append(f"asked another host: {url}")


async def sign_in(page: Page, token: str) -> None:
    """Fill the form and wait for the page behind it."""
    await page.fill("#token", token)
    await page.click("#login button[type=submit]")
    await page.wait_for_selector("gw-header header")


@contextmanager
def theatre(folder: Path) -> Iterator[Theatre]:
    """Start a gateway and a browser for the stories of one module; end them after the block."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> Theatre:
            stage = await stack.enter_async_context(staged(folder))
            playwright = await stack.enter_async_context(async_playwright())
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            stack.push_async_callback(browser.close)
            return Theatre(runner, stage, browser)

        try:
            yield runner.run(opened())
        finally:
            runner.run(stack.aclose())


class Cuttable:
    """A way to the gateway that can be cut, and comes back for new connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_shut = False
        """Whether new connections are refused, too."""

    async def __aenter__(self) -> "Cuttable":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_shut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        self._writers -= {writer, far_writer}


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
