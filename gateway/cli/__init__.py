"""The command line: a thin client of the admin API, with `serve`, `check` and `demo` beside it.

This room knows commands, tables for people and exit codes. It must not know rules: what may be done, and
when, is answered by the admin API.
"""

import io
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from gateway.cli.commands import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow that a terminal lacks is no reason to fail
    sys.exit(run(sys.argv[1:]))
