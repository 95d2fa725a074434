"""What is drawn on a terminal: colours, and blocks that are drawn again in place."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.cli import overview
from gateway.cli.text import cell_text

GOOD: Final = frozenset({"healthy", "closed", "completed", "production", "advance", "yes"})
BAD: Final = frozenset(
    {"unhealthy", "open", "breaker-open", "failed", "rolled_back", "rollback", "abort", "no"}
)
WARN: Final = frozenset({"paused", "hold", "half_open", "unknown", "draining"})
Draw = Callable[[Sequence[RenderableType]], None]
UNLIMITED: Final = 10_000
"""Columns of a terminal that is never too narrow."""
VERSION_COLUMNS = ("", "VERSION", "SHARE", "HEALTH", "RATE/s", "ERRORS", "P95", "STATUS", "URL")


def console() -> Console:
    """Return a console on the present stdout."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a plain table; words that say good or bad carry a colour besides."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("ID", "TIME"))
    for row in rows:
        table.add_row(*(word(cell) for cell in row))
    return table


def word(cell: object) -> Text:
    """Return a cell, coloured if it is one of the words that need no second look."""
    text = cell_text(cell)
    low = text.lower()
    style = "green" if low in GOOD else "red" if low in BAD else "yellow" if low in WARN else ""
    return Text(text, style=style)


@contextmanager
def live_block() -> Iterator[Draw]:
    """Give what draws lines in place of those drawn before; the last ones stay."""
    with Live(Text(""), console=console(), auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda lines: live.update(Group(*(paint(each) for each in lines)), refresh=True)


def draw_once(lines: Sequence[RenderableType]) -> None:
    """Print what `live_block` would draw."""
    console().print(Group(*lines))


def paint(line: RenderableType) -> RenderableType:
    """Return a line of text with its telling words in colour."""
    if not isinstance(line, str):
        return line
    text = Text(line, no_wrap=False)
    for style, words in (
        ("green", ("completed", "healthy", "advance")),
        ("red", ("rolled_back", "unhealthy", "failed", "breaker-open", "roll back")),
        ("yellow", ("paused", "hold:", "warning:", "waiting for", "no request to", "frozen")),
    ):
        text.highlight_words(words, style)
    return text


def overview_lines(seen: dict[str, Any], *, everything: bool) -> list[RenderableType]:
    """Return the overview for people: each service with its versions and where its rollout is."""
    if not seen["items"]:
        return [Text("no services yet: gateway deploy SERVICE VERSION --url URL --route /path")]
    frozen = [Text(overview.frozen_line(seen), style="yellow")] if seen.get("frozen") else []
    parts = [_service(each, everything=everything) for each in seen["items"]]
    return [*frozen, *(line for part in parts for line in part)]


def _service(service: dict[str, Any], *, everything: bool) -> list[RenderableType]:
    head = Text(service["name"], style="bold")
    if service.get("paused"):
        head.append("  paused: requests are held", style="yellow")
    versions = overview.shown(service, everything=everything)
    lines: list[RenderableType] = [head]
    lines += _versions([_row(service, each) for each in versions])
    hidden = len(service["versions"]) - len(versions)
    if hidden:
        lines.append(Text(f"  {hidden} earlier: gateway get {service['name']} -a", style="dim"))
    return [*lines, *_rollout(service)]


def _versions(rows: Sequence[Sequence[object]]) -> list[RenderableType]:
    """Return a table of versions; one too wide for the terminal has its urls below, whole, to be copied."""
    if not rows:
        return []
    table = make_table(VERSION_COLUMNS, rows)
    if _fits(table):
        return [table]
    urls = [Text(f"   {row[1]}: {row[-1]}", overflow="fold") for row in rows]
    return [fitting(VERSION_COLUMNS[:-1], [row[:-1] for row in rows], ("STATUS", "P95")), *urls]


def fitting(columns: Sequence[str], rows: Sequence[Sequence[object]], spare: Sequence[str]) -> Table:
    """Return a table that a narrow terminal breaks no word of, if that can be: without as many of the `spare`
    columns as it takes, the first ones first.
    """
    table = make_table(columns, rows)
    if _fits(table) or not spare:
        return table
    kept = [index for index, column in enumerate(columns) if column != spare[0]]
    fewer = [[row[index] for index in kept] for row in rows]
    return fitting([columns[index] for index in kept], fewer, spare[1:])


def _fits(table: Table) -> bool:
    screen = console()
    return screen.measure(table, options=screen.options.update(width=UNLIMITED)).maximum <= screen.width


def _row(service: dict[str, Any], version: dict[str, Any]) -> list[object]:
    mark = " *" if version["id"] == service.get("currentVersionId") else ""
    _, name, percent, state, rate, errors, p95, url, status, _ = overview.cells(service, version)
    return [" ", name + mark, percent, state, rate, errors, p95, status, url]


def _rollout(service: dict[str, Any]) -> list[RenderableType]:
    rollout = service.get("deployment") or service.get("last")
    if rollout is None:
        return []
    first, _, rest = overview.rollout_line(rollout).partition(" ")
    lines: list[RenderableType] = [Text("  ") + word(first) + Text(f" {rest}")]
    if rollout["status"] == "completed":
        return lines
    said = (overview.why_line(rollout), overview.judge_line(rollout))
    return [*lines, *(Text(f"  {text}") for text in said if text)]
