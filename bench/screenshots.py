"""No measurement: pictures of every page of the dashboard, wide and narrow, light and dark.

`python -m bench screenshots FOLDER` runs a gateway with a past and a present and takes them, for whoever
changes the dashboard to look at.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, Page, async_playwright

from bench.dashboard_stage import CHROMIUM, FLAGS, DashboardStage, furnish, staged

WIDTHS: Final = {1440: 900, 390: 844}
SCHEMES: Final = ("light", "dark")
QUIET: Final = ("billing", "gateway-docs", "images", "login", "reports", "users")
SETTLE_MS: Final = 1_200
"""For what is read after a page has come up: charts, last hours."""

Scene = Callable[[Page, str, Mapping[str, str]], Awaitable[None]]


def main(arguments: list[str]) -> int:
    """Take the pictures. Returns 1 if a page complained."""
    parser = argparse.ArgumentParser("bench screenshots", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="scenes whose name holds this")
    parser.add_argument("--seconds", type=float, default=20.0, help="of traffic before the pictures")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        complaints = asyncio.run(_taken(Path(folder), options))
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


async def _taken(folder: Path, options: argparse.Namespace) -> list[str]:
    """Take every picture; returns what pages complained of."""
    complaints: list[str] = []
    async with staged(folder) as stage, async_playwright() as playwright:
        rollouts = await furnish(stage, QUIET)
        await asyncio.sleep(options.seconds)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for width in WIDTHS:
            for scheme in SCHEMES:
                await _round(browser, stage, rollouts, width, scheme, options, complaints)
        await browser.close()
    return complaints


async def _round(
    browser: Browser,
    stage: DashboardStage,
    rollouts: Mapping[str, str],
    width: int,
    scheme: Any,
    options: argparse.Namespace,
    complaints: list[str],
) -> None:
    """Take every scene at one width in one scheme."""
    context = await browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = await context.new_page()
    page.on("console", lambda message: complaints.append(f"{width} {scheme}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"{width} {scheme}: {error}"))
    await page.goto(stage.url)
    await page.screenshot(path=options.folder / f"login-{width}-{scheme}.png")
    await page.fill("#token", stage.world.token)
    await page.click("#login button[type=submit]")
    await page.wait_for_selector("#services")
    for name, scene in SCENES.items():
        if options.only in name:
            await scene(page, stage.url, rollouts)
            await page.wait_for_timeout(SETTLE_MS)
            file = options.folder / f"{name}-{width}-{scheme}.png"
            await page.screenshot(path=file, full_page=not name.startswith("dialog"))
            await page.unroute_all(behavior="ignoreErrors")
    await context.close()


def _page(path: str, ready: str) -> Scene:
    """Return a scene: a page, `{…}` in its path being rollouts, once `ready` is there."""

    async def scene(page: Page, url: str, rollouts: Mapping[str, str]) -> None:
        await page.goto(url + path.format(**rollouts))
        await page.wait_for_selector(ready)

    return scene


def _dialog(path: str, button: str) -> Scene:
    """Return a scene: the dialog a button of a page opens."""

    async def scene(page: Page, url: str, rollouts: Mapping[str, str]) -> None:
        await page.goto(url + path.format(**rollouts))
        await page.get_by_role("button", name=button, exact=True).first.click()
        await page.wait_for_selector("dialog[open]")

    return scene


async def _empty(page: Page, url: str, rollouts: Mapping[str, str]) -> None:
    """Show a gateway without a service."""
    nothing = '{"frozen": false, "freezeReason": "", "items": [], "alerts": []}'
    await page.route(
        "**/overview", lambda route: route.fulfill(body=nothing, content_type="application/json")
    )
    await page.goto(url)
    await page.wait_for_selector("#services .empty")


SCENES: Final[dict[str, Scene]] = {
    "home": _page("", "#services .row"),
    "empty": _empty,
    "rollout-open": _page("rollouts/{open}", "svg.evidence"),
    "rollout-rolled-back": _page("rollouts/{rolled_back}", "svg.evidence"),
    "rollout-completed": _page("rollouts/{completed}", "svg.evidence"),
    "rollout-paused": _page("rollouts/{paused}", "svg.meter"),
    "service": _page("services/search", "svg.chart"),
    "history": _page("history", "table"),
    "audit": _page("audit", "table"),
    "tokens": _page("tokens", "table"),
    "dialog-rollback": _dialog("rollouts/{open}", "Roll back"),
    "dialog-start": _dialog("services/search", "Start a rollout"),
    "dialog-token": _dialog("tokens", "New token"),
}
