"""What commands print: tables for people, JSON for scripts. Results on stdout, everything else on stderr."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from gateway.cli.text import cell_text, is_terminal, say, table_lines


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
            say(line)

    def table(
        self, items: Sequence[dict[str, Any]], columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Print a list: the items as JSON, or rows under columns; where nobody looks, a line a row."""
        if self.is_json:
            click.echo(json.dumps(items, indent=2, ensure_ascii=False))
        elif is_terminal():
            from gateway.cli import terminal

            terminal.console().print(terminal.make_table(columns, rows))
        else:
            for line in table_lines([[cell_text(cell) for cell in row] for row in rows], columns):
                click.echo(line)

    def note(self, line: str) -> None:
        """Say something beside the result, on stderr."""
        say(line, err=True)
