"""What commands print: tables for people, JSON for scripts. Results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

GOOD: Final = frozenset({"healthy", "closed", "completed", "production", "advance", "yes"})
BAD: Final = frozenset({"unhealthy", "open", "failed", "rolled_back", "abort", "no"})
WARN: Final = frozenset({"paused", "hold", "half_open", "unknown", "draining"})


class Output:
    """One command's output, in the form the user chose."""

    def __init__(self, form: str) -> None:
        self.is_json = form == "json"

    def value(self, value: object, *lines: str) -> None:
        """Print one thing: all of it as JSON, or the lines people want to read."""
        if self.is_json:
            click.echo(json.dumps(value, indent=2, ensure_ascii=False))
            return
        for line in lines:
            click.echo(line)

    def table(
        self, items: Sequence[dict[str, Any]], columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Print a list: the items as JSON, or rows under columns."""
        if self.is_json:
            click.echo(json.dumps(items, indent=2, ensure_ascii=False))
            return
        console().print(make_table(columns, rows))

    def note(self, line: str) -> None:
        """Say something beside the result, on stderr."""
        click.echo(line, err=True)


def console() -> Console:
    """Return a console on the present stdout; tables of a pipe are as wide as they need to be."""
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
    text = "-" if cell is None or cell == "" else str(cell)
    low = text.lower()
    style = "green" if low in GOOD else "red" if low in BAD else "yellow" if low in WARN else ""
    return Text(text, style=style)


def yes_no(value: object) -> str:
    """Return a truth as a word."""
    return "yes" if value else "no"


def local_time(text: str | None) -> str:
    """Return an RFC 3339 time of the API in this machine's zone, to the second."""
    if not text:
        return "-"
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age_ms(text: str, now: datetime | None = None) -> float:
    """Return how long ago an RFC 3339 time was, in milliseconds."""
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds() * 1000
