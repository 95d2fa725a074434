"""Record the demo as it is seen: its terminal, and the dashboard when a bad release was taken back.

`python -m bench picture --demo` plays `gateway demo`, signs a browser in by the link it prints, and writes
`bench/pictures/demo.svg` and `dashboard.png`. The pictures of the README.
"""

import asyncio
import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from playwright.async_api import Page, ViewportSize, async_playwright
from rich.console import Console
from rich.text import Text

from bench.dashboard_stage import CHROMIUM, FLAGS
from bench.procs import FROM_HERE

COLUMNS: Final = 108
SIZE: Final = ViewportSize(width=1180, height=760)
NEWEST: Final = (
    "fetch('/api/v1/admin/deployment?limit=1').then(r => r.json()).then(found => found.items[0].id)"
)
"""The id of the newest rollout, asked for by the browser as who it is signed in as."""
SETTLE_MS: Final = 2_500
"""For charts that are read after a page has come up."""
STORY_S: Final = 120.0
ENDED: Final = re.compile(r"rolled_back +0 % on v1\.2")
_FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""A picture in a repository fetches nothing: any monospaced font will do."""
_LINK: Final = re.compile(r"http://\S+/sign-in\?code=\S+")


async def record(folder: Path) -> int:
    """Write both pictures. Returns 1 if the demo did not come so far."""
    async with demo() as running, asyncio.timeout(STORY_S):
        text = ""
        async with browser_page() as page:
            while not ENDED.search(text):
                line = await running.readline()
                if not line:
                    return 1
                text += line.decode()
                if found := _LINK.search(line.decode()):
                    await page.goto(found[0])
            newest = await page.evaluate(NEWEST)
            await page.goto(f"{page.url.rstrip('/')}/rollouts/{newest}")
            await page.wait_for_timeout(SETTLE_MS)
            await page.screenshot(path=folder / "dashboard.png")
        while "lost on the way" not in text:
            text += (await running.readline()).decode()
    (folder / "demo.svg").write_text(svg(text))
    return 0


@contextlib.asynccontextmanager
async def demo() -> AsyncIterator[asyncio.StreamReader]:
    """Play the demo beside the block. Gives what it prints."""
    command = (sys.executable, "-m", "gateway", "demo")
    env = {**os.environ, **FROM_HERE}
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=env)
    assert running.stdout is not None
    try:
        yield running.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signal.SIGTERM)
        await running.communicate()


@contextlib.asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(viewport=SIZE, reduced_motion="reduce", device_scale_factor=1)
        yield page
        await browser.close()


def svg(text: str) -> str:
    """Return what a terminal shows of the demo; the link's code is nobody's business any more."""
    plain = re.sub(r"code=\S+", "code=…", text)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ gateway demo", "bold"))
    for line in plain.splitlines():
        style = "bold" if re.match(r"\d\. ", line) else "red" if "rolled_back" in line else ""
        console.print(Text(line, style))
    return _FONT.sub("", console.export_svg(title="gateway demo", unique_id="demo"))
