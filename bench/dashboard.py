"""How smooth the dashboard is with many services: long tasks of its page in Chromium, and what a look costs.

A task of more than 50 ms is long: for so long the page answers nobody. Services are real, a few have traffic,
and the page is scrolled from end to end meanwhile.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import CDPSession, Page, async_playwright

from bench.dashboard_stage import CHROMIUM, FLAGS, DashboardStage, staged

AT_ONCE: Final = 5
PROBES_MS: Final = 10_000
LOADED: Final = 4
WATCH: Final = """
window.long = [];
new PerformanceObserver((list) => window.long.push(...list.getEntries().map((entry) => entry.duration)))
    .observe({ type: "longtask", buffered: true });
"""


def main(arguments: list[str]) -> int:
    """Measure. Returns 1 if the long tasks took more than what is allowed."""
    parser = argparse.ArgumentParser("bench dashboard", description=__doc__)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--allowed-ms", type=float, default=100.0, help="of long tasks, after the first drawing"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measured(Path(folder), options))


async def _measured(folder: Path, options: argparse.Namespace) -> int:
    async with staged(folder) as stage, async_playwright() as playwright:
        await _crowd(stage, options.services)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        await page.add_init_script(WATCH)
        await page.goto(stage.url)
        await page.fill("#token", stage.world.token)
        await page.click("#login button[type=submit]")
        await page.wait_for_selector("#services .row a")
        await page.wait_for_timeout(2_000)
        first = await _taken(page)
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable", {"timeDomain": "threadTicks"})
        spent = await _thread_ms(session)
        later = await _scrolled(page, options.seconds)
        spent = await _thread_ms(session) - spent
        rows = await page.locator(".rows-body .row").count()
        await browser.close()
    print(f"{options.services} services, {rows} rows in the page")
    print(f"first drawing: {sum(first):.0f} ms in {len(first)} long tasks")
    tasks = f"{sum(later):.0f} ms in {len(later)} long tasks, {spent:.0f} ms of CPU"
    print(f"{options.seconds:.0f} s after: {tasks}")
    return int(sum(later) > options.allowed_ms)


async def _crowd(stage: DashboardStage, services: int) -> None:
    """Make the services; the first few get requests."""
    names = [f"service-{number:03}" for number in range(services)]
    for at in range(0, services, AT_ONCE):
        chunk = names[at : at + AT_ONCE]
        version = ("v1.0", stage.world.first[0])
        await asyncio.gather(*(stage.service(name, version, interval_ms=PROBES_MS) for name in chunk))
    for name in names[:LOADED]:
        stage.load(name, rate=20.0)


async def _scrolled(page: Page, seconds: float) -> list[float]:
    """Scroll down and up again for so long; returns the long tasks meanwhile, ms."""
    await page.evaluate("window.long = []")
    height = await page.evaluate("document.documentElement.scrollHeight - innerHeight")
    steps = round(seconds * 10)
    for step in range(steps):
        part = 1 - abs(2 * step / steps - 1)
        await page.evaluate("top => scrollTo(0, top)", part * height)
        await page.wait_for_timeout(100)
    return await _taken(page)


async def _thread_ms(session: CDPSession) -> float:
    """Return the CPU time of the page's own thread so far: what a busy machine does not stretch."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return 1000 * float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


async def _taken(page: Page) -> list[float]:
    return [float(each) for each in await page.evaluate("window.long")]
