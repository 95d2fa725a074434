"""How single things are written: cells, times, lines."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import click

_STEERING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, colours, title or direction of writing, or begins a line."""
_GLUE: Final = "\x00"
"""Stands for a space that is no place to break a line."""
_SETTINGS: Final = frozenset({"settings", "smokeTests"})
"""What is written to files and sent again, as it is."""


def is_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def print_line(line: str) -> None:
    """Print a line and have it read at once."""
    click.echo(line)
    sys.stdout.flush()


def say(line: str, *, err: bool = False) -> None:
    """Print a line; on a terminal too narrow for it, on several. err: on stderr."""
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        columns = shutil.get_terminal_size().columns
        line = "\n".join(folded(each, columns) for each in line.splitlines())
    click.echo(line, err=err)


def folded(line: str, columns: int) -> str:
    """Return a line broken between words, what follows indented; what is to be copied stays in one piece.

    That is: whatever stands in backticks, and whatever has no space, such as a url.
    """
    if len(line) <= columns:
        return line
    whole = re.sub("`[^`]*`", lambda quoted: quoted[0].replace(" ", _GLUE), line)
    indent = re.match(" *", line)[0] or "  "  # type: ignore[index]  # nothing is a match, too
    pieces = textwrap.wrap(
        whole,
        max(columns, 20),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
    return "\n".join(pieces).replace(_GLUE, " ")


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


def printable(value: Any) -> Any:
    """Return what the API answered as it may be printed.

    A reason, a note or an upstream's error is anybody's words: they must not steer the terminal of who reads
    them, nor look like a line of ours.
    """
    if isinstance(value, str):
        return _STEERING.sub(_visible, value)
    if isinstance(value, list):
        return [printable(each) for each in value]
    if isinstance(value, dict):
        return {key: each if key in _SETTINGS else printable(each) for key, each in value.items()}
    return value


def _visible(found: re.Match[str]) -> str:
    character = found[0]
    return " " if character in "\t\n\r" else character.encode("unicode_escape").decode()
