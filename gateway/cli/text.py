"""How single things are written: cells, times, lines."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click


def is_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def print_line(line: str) -> None:
    """Print a line and have it read at once."""
    click.echo(line)
    sys.stdout.flush()


def table_lines(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> list[str]:
    """Return rows under columns as plain lines, for a reader that is no terminal."""
    table = [tuple(columns), *map(tuple, rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def cell_text(cell: object) -> str:
    """Return a cell of a table as text, in one line."""
    return "-" if cell is None or cell == "" else str(cell).replace("\n", " ")


def share_text(version: dict[str, Any]) -> str:
    """Return the share a version really gets, and its weight where that says something else."""
    weight = version["weight"]
    share = version.get("share", weight)  # a gateway of an older release does not say
    return f"{share:g} %" if share == weight else f"{share:g} % (weight {weight})"


def yes_no(value: object) -> str:
    """Return a truth as a word."""
    return "yes" if value else "no"


def local_time(text: str | None) -> str:
    """Return an RFC 3339 time of the API in this machine's zone, to the second."""
    if not text:
        return "-"
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
